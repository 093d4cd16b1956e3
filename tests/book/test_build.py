"""What decides whether a notebook is executed again, and that a failed build stays failed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import build_book
import dependencies
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """A small repository: a small library and two notebooks that use different ones."""
    library = tmp_path / "tutorial_lib"
    (library / "inner").mkdir(parents=True)
    (library / "__init__.py").write_text("")
    (library / "one.py").write_text("from tutorial_lib.inner import helper\n")
    (library / "two.py").write_text("import numpy\n")
    (library / "inner" / "__init__.py").write_text("")
    (library / "inner" / "helper.py").write_text("from .. import one\n")
    (library / "inner" / "words.json").write_text("{}")
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
        ("inner/words.json", (True, False)),
        ("__init__.py", (True, True)),
        ("weights.json", (True, True)),
    ],
)
def test_a_change_of_the_library_executes_the_notebooks_that_use_it(small, changed, executed_again):
    before = keys()
    path = small / "tutorial_lib" / changed
    path.write_text(path.read_text() + "\nx = 1\n")
    assert again(before) == executed_again


def again(before: tuple[str, str]) -> tuple[bool, bool]:
    """Which of the two notebooks would be executed again."""
    a, b = (one != other for one, other in zip(before, keys(), strict=True))
    return a, b


def test_comments_and_layout_do_not_count_but_docstrings_do(small):
    module = small / "tutorial_lib" / "one.py"
    before = keys()
    module.write_text("# a word\nfrom tutorial_lib.inner import (\n    helper,\n)\n")
    assert again(before) == (False, False)
    module.write_text('"""A page may show this."""\nfrom tutorial_lib.inner import helper\n')
    assert again(before) == (True, False)


@pytest.mark.parametrize(
    ("source", "executed_again"),
    [
        ("import importlib\nimportlib.import_module('tutorial_lib.one')", True),
        ("import importlib\nimportlib.import_module(f'tutorial_lib.inner.{name}')", True),
        ("import importlib\nTABLE = {'one': 'tutorial_lib.one'}\nimportlib.import_module(TABLE[name])", True),
        ("from importlib import import_module\nimport_module(name)", True),
        ("import pkgutil\nimport tutorial_lib\nlist(pkgutil.iter_modules(tutorial_lib.__path__))", True),
        ("import importlib\nimportlib.import_module('tutorial_lib')", False),
        ("import importlib\nimportlib.import_module('json')", False),
        ("from importlib import metadata", False),
        ("from importlib.resources import files", False),
    ],
)
def test_a_module_that_imports_by_name_is_followed_as_far_as_it_says_which(small, source, executed_again):
    (small / "tutorial_lib" / "two.py").write_text(source)
    before = keys()
    (small / "tutorial_lib" / "one.py").write_text("from tutorial_lib.inner import helper\nx = 1\n")
    (small / "tutorial_lib" / "inner" / "helper.py").write_text("x = 1\n")
    assert again(before) == (True, executed_again)


@pytest.mark.parametrize(
    ("source", "executed_again"),
    [
        ("read_rows('sums')", True),
        ("read_rows(f'{folder}/sums.csv')", True),
        ("from tutorial_lib.experiments import sums", True),
        ("read_arrays(f'su_{study}')", False),
        ("read_rows('sums_of_squares')", True),  # more than is needed, never less
        ("read_rows('products')", False),
    ],
)
def test_results_count_for_those_who_speak_of_the_experiment(small, source, executed_again):
    experiments = small / "tutorial_lib" / "experiments"
    (experiments / "results").mkdir(parents=True)
    for name in ("__init__", "sums", "products"):
        (experiments / f"{name}.py").write_text("")
        (experiments / "results" / f"{name}_digits.csv").write_text("")
    (small / "tutorial_lib" / "two.py").write_text(f"import tutorial_lib.experiments\n{source}\n")
    before = keys()
    (experiments / "results" / "sums_digits.csv").write_text("1\n")
    assert again(before) == (False, executed_again)


@pytest.mark.parametrize("variable", build_book.VARIABLES)
def test_the_environment_counts(small, monkeypatch, variable):
    monkeypatch.delenv(variable, raising=False)
    before = keys()
    monkeypatch.setenv(variable, "somewhere")
    assert all(a != b for a, b in zip(before, keys(), strict=True))


def test_the_real_chapters_depend_on_what_they_use_and_on_nothing_else():
    library = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tutorial_lib").rglob("*.py")}
    pictures = {f"tutorial_lib/figures/{path.stem[3:]}.py" for path in (ROOT / "notebooks").glob("*.ipynb")} & library
    for page in build_book.notebooks():
        path = ROOT / f"{page}.ipynb"
        needed = {found.relative_to(ROOT).as_posix() for found in dependencies.of_notebook(path, ROOT)}
        assert {"tutorial_lib/__init__.py", "tutorial_lib/studies.py", "tutorial_lib/plots.py"} <= needed
        assert "tutorial_lib/__main__.py" not in needed, f"{page} would be executed after any change"
        own = {picture for picture in pictures if Path(picture).stem in path.read_text(encoding="utf-8")}
        assert pictures & needed <= own, f"{page} would be executed after a change of another chapter's figures"


@pytest.fixture(scope="module")
def divides(tmp_path_factory):
    """Builds a copy of the book with a chapter that divides 84 by a number of the library, and one that counts."""
    root = tmp_path_factory.mktemp("divides")
    for name in ("_config.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    for name in ("book", "tools"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("tutorial_lib", "notebooks"):
        (root / folder).mkdir()
    (root / "tutorial_lib" / "__init__.py").write_text("")
    codes = {
        "98_counts": "print('counted', len('abc'))",
        "99_divides": "from tutorial_lib.value import number\n\nprint('quotient', 84 // number)",
    }
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for name, code in codes.items():
        cells = [nbformat.v4.new_markdown_cell(f"# Chapter {name}"), nbformat.v4.new_code_cell(code)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), root / "notebooks" / f"{name}.ipynb")
    toc = "format: jb-book\nroot: book/notation\nchapters:\n" + "".join(
        f"  - file: notebooks/{name}\n" for name in codes
    )
    (root / "_toc.yml").write_text(toc)

    def build(number: int, *options: str, page: str = "99_divides") -> tuple[int, str, str]:
        """Exit status, what was printed, and the page of a chapter, with a number in the library."""
        (root / "tutorial_lib" / "value.py").write_text(f"number = {number}\n")
        command = [sys.executable, root / "tools" / "build_book.py", *options]
        environment = {**os.environ, "PYTHONPATH": str(root)}
        result = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        html = root / "_build" / "html" / "notebooks" / f"{page}.html"
        return result.returncode, result.stdout, html.read_text(encoding="utf-8") if html.exists() else ""

    return build


@pytest.mark.slow
def test_one_chapter_is_executed_and_the_others_are_not(divides):
    status, printed, page = divides(2, "--chapter", "99")
    assert (
        status == 0 and "quotient 42" in page and "Not executed, so without outputs: notebooks/98_counts" in printed
    ), printed
    status, printed, page = divides(0, "--chapter", "99")
    assert status == 1 and "ZeroDivisionError" in printed, printed
    status, printed, page = divides(2, page="98_counts")
    assert status == 0 and "counted 3" in page, printed
    status, printed, page = divides(2, "--chapter", "7")
    assert status == 2 and "98_counts, 99_divides" in printed


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


def test_a_study_that_cannot_be_read_is_known_before_any_notebook_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(build_book, "build", lambda: pytest.fail("it was built all the same"))
    monkeypatch.setenv("TUTORIAL_STUDY", "cifar_10")
    assert build_book.main([]) == 2
    assert "cifar10" in capsys.readouterr().err
    monkeypatch.setenv("TUTORIAL_STUDY", "cifar10")
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    assert build_book.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) <= 6
    monkeypatch.setenv("TUTORIAL_STUDY", "digits")
    assert build_book.study_problem() == ""
