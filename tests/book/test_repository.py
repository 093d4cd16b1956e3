"""One address of the repository, one version, one exact environment; files that belong to a repository others use."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import notebook_cells
import pytest
import set_address
import yaml
from packaging.requirements import Requirement

import tutorial_lib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PINS = [
    Requirement(line)
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]

needs_git = pytest.mark.skipif(
    not (ROOT / ".git").exists() or shutil.which("git") is None, reason="not a git repository, or git is not installed"
)


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


@needs_git
def test_one_command_changes_the_address_everywhere(tmp_path):
    for path in set_address.files():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    command = [sys.executable, tmp_path / "tools" / "set_address.py"]
    without = subprocess.run(command, capture_output=True, text=True)
    assert without.returncode != 0 and "say REPO=" in without.stderr
    origin = "git@github.com:Some-One/else.git"
    subprocess.run(["git", "remote", "add", "origin", origin], cwd=tmp_path, check=True)
    subprocess.run(command, check=True, capture_output=True)

    owner = notebook_cells.repository_address().split("/")[-2]
    left = [
        path for path in tmp_path.rglob("*") if path.is_file() and ".git" not in path.parts and owner in text_of(path)
    ]
    assert left == []
    places = ("pyproject.toml", "_config.yml", "README.md", "CITATION.cff", "book/how_to_use.md")
    assert all("https://github.com/Some-One/else" in text_of(tmp_path / place) for place in places)
    assert "https://some-one.github.io/else" in text_of(tmp_path / "_config.yml")
    check = [sys.executable, tmp_path / "tools" / "notebook_cells.py", "--check", *tmp_path.glob("notebooks/*.ipynb")]
    subprocess.run(check, check=True, cwd=tmp_path)


@needs_git
def test_every_link_to_colab_and_every_install_names_the_one_address():
    address = notebook_cells.repository_address()
    pattern = re.compile(
        r"colab\.research\.google\.com/github/([\w.-]+/[\w.-]+)|git\+https://github\.com/([\w.-]+/[\w.-]+)"
    )
    for path in set_address.files():
        if path.is_relative_to(ROOT / "tests") or path.is_relative_to(ROOT / "tools"):
            continue  # they speak of made-up repositories
        for match in pattern.finditer(text_of(path)):
            assert f"https://github.com/{match[1] or match[2]}" == address, f"{path}: {match[0]}"


def test_config_names_the_address_and_the_branch():
    config = yaml.safe_load(text_of(ROOT / "_config.yml"))
    assert config["repository"] == {"url": notebook_cells.repository_address(), "branch": "main"}
    assert config["launch_buttons"]["colab_url"] == "https://colab.research.google.com"
    assert config["sphinx"]["recursive_update"] is True
    citation = yaml.safe_load(text_of(ROOT / "CITATION.cff"))
    assert citation["repository-code"] == notebook_cells.repository_address()
    assert citation["version"] == tutorial_lib.__version__


@pytest.mark.parametrize(
    "wrong",
    ["", "github.com/a/b", "https://github.com/a", "https://example.org/a/b", "https://github.com/a/b/tree/main"],
)
def test_what_is_no_address_is_refused(wrong):
    with pytest.raises(ValueError, match="wanted: https://github.com/owner/name"):
        set_address.spellings(wrong)


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/owner/name", "https://github.com/owner/name"),
        ("https://github.com/owner/name.git\n", "https://github.com/owner/name"),
        ("https://x-access-token:abc@github.com/owner/na.me.git", "https://github.com/owner/na.me"),
        ("git@github.com:own-er/name.git", "https://github.com/own-er/name"),
        ("ssh://git@github.com/owner/name", "https://github.com/owner/name"),
    ],
)
def test_the_address_of_a_clone_is_that_of_its_origin(remote, address):
    assert set_address.of_remote(remote) == address
    set_address.spellings(address)


@pytest.mark.parametrize("remote", ["/srv/course.git", "https://example.org/owner/name.git", "git@github.com:name.git"])
def test_an_origin_elsewhere_is_refused_and_says_what_to_do(remote):
    with pytest.raises(ValueError, match="say REPO=https://github.com/owner/name"):
        set_address.of_remote(remote)


def test_requirements_are_exact_and_fit_the_ranges():
    pins = {pin.name.lower().replace("_", "-"): pin for pin in PINS}
    for pin in PINS:
        assert [part.operator for part in pin.specifier] == ["=="], pin
    extras = PROJECT["optional-dependencies"]
    for need in map(Requirement, [*PROJECT["dependencies"], *extras["book"], *extras["dev"]]):
        if need.name != PROJECT["name"]:
            version = next(iter(pins[need.name.lower().replace("_", "-")].specifier)).version
            assert need.specifier.contains(version, prereleases=True), f"{need} does not allow the pinned {version}"


def test_requirements_name_no_place_to_fetch_from():
    for name in ("requirements.txt", "pyproject.toml", "Makefile", ".ci/run"):
        assert not re.search(r"index-url|find-links|trusted-host|pypi\.", text_of(ROOT / name)), name


@needs_git
def test_nothing_large_and_no_output_is_tracked():
    for path in set_address.files():
        assert path.stat().st_size < 3_000_000, path
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert [name for name in tracked if name.startswith(("_build/", ".venv/", ".data/")) or "__pycache__" in name] == []


def test_the_page_of_each_planned_chapter_has_one_number():
    plan = yaml.safe_load(text_of(ROOT / "book" / "chapters.yml"))
    numbers = [chapter["number"] for chapter in plan["chapters"]]
    assert numbers == list(range(1, len(numbers) + 1))
    for chapter in plan["chapters"]:
        assert chapter["name"].startswith(f"{chapter['number']:02d}_")
        assert chapter["line"] in plan["lines"]
        assert all(earlier in numbers for earlier in chapter["after"])
