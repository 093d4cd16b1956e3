"""As in Colab: an empty folder, Colab's kind of packages, the library installed by the first cell.

The environment is a new virtual environment into which Colab's kind of packages are linked from this one, so that
nothing else can be imported: no Jupyter Book, no ``tutorial_lib``. A stand-in ``google.colab`` makes the set-up cell
act, and git is told to take the repository's address for a copy of this checkout as it stands.

Each chapter is run by nbval, in the environment of the book. What Colab could add to that is tried here without running
every chapter again: the library comes whole, all of it can be imported, and so can what each chapter imports; one chapter is
run from its first cell to its last.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from notebook_cells import SETUP_TAG, repository_address, setup_source
from packaging.requirements import Requirement

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: Run as a whole: it needs one trained network and a picture that answers back, and is quick.
WHOLE = CHAPTERS[0]

#: What Colab has of all that the course could want. Their own requirements come with them.
COLAB = (
    *("torch", "torchvision", "numpy", "scipy", "scikit-learn", "matplotlib", "pillow", "tqdm", "joblib"),
    *("ipywidgets", "ipykernel", "pip", "setuptools"),
)
#: Modules of the library that need more than Colab has, and say so when they are asked for.
MORE = {"tutorial_lib.benchmarks.peers"}


def closure(names: Sequence[str]) -> dict[str, object]:
    """Distributions by name: those asked for, and everything that they require on this machine."""
    found: dict[str, object] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # required on other platforms
        for text in distribution(name).requires or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def git(*arguments: object, folder: Path) -> None:
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost", "-c", "commit.gpgsign=false")
    subprocess.run(["git", "-C", folder, *identity, *map(str, arguments)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    """A git repository that holds the library as it stands here, with what is not committed yet."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed, and Colab installs the library from git")
    folder = tmp_path_factory.mktemp("repository")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    without = shutil.ignore_patterns("__pycache__", "*.part", "*.egg-info")
    shutil.copytree(ROOT / "tutorial_lib", folder / "tutorial_lib", ignore=without)
    git("init", "--quiet", "--initial-branch=main", folder=folder)
    git("add", "--all", folder=folder)
    git("commit", "--quiet", "--message", "as it stands", folder=folder)
    return folder


@pytest.fixture(scope="module")
def colab(tmp_path_factory, repository):
    """Folder of the environment, and the variables under which its kernels run."""
    folder = tmp_path_factory.mktemp("colab")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "environment"], check=True)
    packages = next((folder / "environment").glob("lib/python*/site-packages"))
    for found in closure(COLAB).values():
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            source = Path(str(found.locate_file(top)))
            if source.exists() and not (packages / top).exists():
                (packages / top).symlink_to(source)
    (packages / "google" / "colab").mkdir(parents=True)
    (packages / "google" / "colab" / "__init__.py").write_text('"""A stand-in: only its being there counts."""\n')
    python = folder / "environment" / "bin" / "python"
    kernel = folder / "jupyter" / "kernels" / "colab"
    kernel.mkdir(parents=True)
    launch = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": launch, "display_name": "Colab", "language": "python"}))
    (folder / "home").mkdir()
    unwanted = ("TUTORIAL_", "PYTHON", "VIRTUAL_ENV", "JUPYTER")
    variables = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    variables |= {
        "HOME": str(folder / "home"),
        "JUPYTER_PATH": str(folder / "jupyter"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        **address_means(repository),
    }
    return folder, variables


def address_means(repository: Path) -> dict[str, str]:
    """Variables under which git takes the address of the course for another place."""
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{repository.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": repository_address(),
    }


def installed(folder: Path) -> set[str]:
    """Names of the distributions in the environment, with their versions."""
    return {path.name for path in folder.glob("environment/lib/python*/site-packages/*.dist-info")}


def run(notebook: nbformat.NotebookNode, variables: dict[str, str], folder: Path, monkeypatch) -> None:
    """Run a notebook in Colab's environment, in an empty folder."""
    for name in [name for name in os.environ if name not in variables]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    NotebookClient(notebook, timeout=300, kernel_name="colab", resources={"metadata": {"path": str(folder)}}).execute()


def printed(cell: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for output in cell.get("outputs", []))


def test_where_the_library_cannot_be_had_one_sentence_says_so_and_nothing_else_runs(colab, tmp_path, monkeypatch):
    _, variables = colab
    nowhere = variables | address_means(tmp_path / "nowhere")
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(setup_source()), nbformat.v4.new_code_cell("print('went on')")]
    )
    with pytest.raises(CellExecutionError):
        run(notebook, nowhere, tmp_path, monkeypatch)
    setup, after = notebook.cells
    (error,) = setup.outputs
    (sentence,) = error.traceback
    assert repository_address() in sentence and "pip install" in sentence and sentence.count("\n") == 0
    assert after.get("outputs", []) == []


@pytest.fixture(scope="module")
def after_setup(colab, tmp_path_factory):
    """The environment after the set-up cell of one chapter has run in it, with its run."""
    folder, variables = colab
    before = installed(folder)
    notebook = nbformat.read(WHOLE, as_version=4)
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(notebook, variables, tmp_path_factory.mktemp("empty"), monkeypatch)
    return folder, variables, notebook, installed(folder) - before


def test_a_chapter_runs_from_its_first_cell_and_installs_the_library_alone(after_setup):
    _, _, notebook, added = after_setup
    (setup,) = [cell for cell in notebook.cells if SETUP_TAG in cell.metadata.get("tags", [])]
    assert printed(setup) == "", "the reader of the first cell has nothing to do"
    assert {name.split("-")[0] for name in added} == {"tutorial_lib"}, f"the first cell installed {sorted(added)}"


def test_the_library_comes_whole(after_setup, repository):
    folder, *_ = after_setup
    (packages,) = folder.glob("environment/lib/python*/site-packages")
    listed = subprocess.run(
        ["git", "ls-files", "tutorial_lib"], cwd=repository, capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in listed if not (packages / name).is_file()] == [], "see package-data in pyproject.toml"


def test_what_the_library_and_the_chapters_import_is_there(after_setup, tmp_path):
    """Every module of the library, and every import of every chapter, in one process of Colab's environment."""
    folder, variables, *_ = after_setup
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "tutorial_lib").rglob("*.py")
        if path.name != "__main__.py"
    }
    lines = [f"import {name}" for name in sorted(modules - MORE)]
    for chapter in CHAPTERS:
        for cell in nbformat.read(chapter, as_version=4).cells:
            if cell.cell_type == "code" and SETUP_TAG not in cell.metadata.get("tags", []):
                lines += [f"# {chapter.name}", *imports(cell.source)]
    program = tmp_path / "imports.py"
    program.write_text("\n".join(lines), encoding="utf-8")
    done = subprocess.run(
        [folder / "environment" / "bin" / "python", program],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def imports(source: str) -> list[str]:
    """The import statements of a cell, wherever they stand."""
    import ast

    found = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    return [ast.unparse(node) for node in found]
