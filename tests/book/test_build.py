"""What decides whether a notebook is executed again, and that a failed build stays failed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import build_book
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A small repository: a library of three modules and two notebooks that use different ones."""
    library = tmp_path / "tutorial_lib"
    (library / "inner").mkdir(parents=True)
    (library / "__init__.py").write_text("")
    (library / "one.py").write_text("from tutorial_lib.inner import helper\n")
    (library / "two.py").write_text("import numpy\n")
    (library / "inner" / "__init__.py").write_text("")
    (library / "inner" / "helper.py").write_text("from .. import one\n")
    (library / "weights.json").write_text("{}")
    (tmp_path / "notebooks").mkdir()
    for name, source in {"a": "from tutorial_lib.one import *", "b": "import tutorial_lib.two"}.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    return tmp_path


def keys() -> tuple[str, str]:
    return build_book.execution_key("notebooks/a"), build_book.execution_key("notebooks/b")


@pytest.mark.parametrize(
    ("changed", "executed_again"),
    [
        ("one.py", (True, False)),
        ("two.py", (False, True)),
        ("inner/helper.py", (True, False)),
        ("__init__.py", (True, True)),
        ("weights.json", (True, True)),
    ],
)
def test_a_change_of_the_library_executes_the_notebooks_that_use_it(small, changed, executed_again):
    before = keys()
    path = small / "tutorial_lib" / changed
    path.write_text(path.read_text() + "\n")
    assert tuple(a != b for a, b in zip(before, keys(), strict=True)) == executed_again


def test_a_module_that_imports_by_name_depends_on_the_whole_library(small):
    (small / "tutorial_lib" / "two.py").write_text("import importlib\n")
    before = keys()
    (small / "tutorial_lib" / "one.py").write_text("x = 1\n")
    assert all(a != b for a, b in zip(before, keys(), strict=True))


@pytest.mark.parametrize("variable", build_book.VARIABLES)
def test_the_environment_counts(small, monkeypatch, variable):
    monkeypatch.delenv(variable, raising=False)
    before = keys()
    monkeypatch.setenv(variable, "somewhere")
    assert all(a != b for a, b in zip(before, keys(), strict=True))


def test_the_real_chapters_depend_on_what_they_import():
    for page in build_book.notebooks():
        names = {path.relative_to(ROOT).as_posix() for path in build_book._library_files(page)}
        assert {"tutorial_lib/__init__.py", "tutorial_lib/studies.py", "tutorial_lib/plots.py"} <= names


@pytest.fixture(scope="module")
def divides(tmp_path_factory):
    """Builds a copy of the book whose only chapter divides 84 by a number that it imports from the library."""
    root = tmp_path_factory.mktemp("divides")
    for name in ("_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    for name in ("book", "tools"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("tutorial_lib", "notebooks"):
        (root / folder).mkdir()
    (root / "tutorial_lib" / "__init__.py").write_text("")
    cells = [
        nbformat.v4.new_markdown_cell("# A chapter that divides"),
        nbformat.v4.new_code_cell("from tutorial_lib.value import number\n\nprint('quotient', 84 // number)"),
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), root / "notebooks" / "99_divides.ipynb")
    toc = "format: jb-book\nroot: book/notation\nchapters:\n  - file: notebooks/99_divides\n"
    (root / "_toc.yml").write_text(toc)

    def build(number: int) -> tuple[int, str, str]:
        """Exit status, what was printed, and the page of the chapter, with a number in the library."""
        (root / "tutorial_lib" / "value.py").write_text(f"number = {number}\n")
        command = [sys.executable, root / "tools" / "build_book.py"]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        page = root / "_build" / "html" / "notebooks" / "99_divides.html"
        return result.returncode, result.stdout, page.read_text(encoding="utf-8") if page.exists() else ""

    return build


@pytest.mark.slow
def test_failure_repetition_mending_and_change_of_the_library(divides):
    """A failing notebook fails every build until the library is mended; then each change of the library shows."""
    for attempt in ("first", "second, with a warm cache"):
        status, printed, _ = divides(0)
        assert status == 1 and "ZeroDivisionError" in printed, f"{attempt}:\n{printed}"
    status, printed, page = divides(2)
    assert status == 0 and "quotient 42" in page, printed
    status, printed, page = divides(2)
    assert status == 0 and "Nothing has changed" in printed
    status, printed, page = divides(4)
    assert status == 0 and "quotient 21" in page and "quotient 42" not in page, printed
