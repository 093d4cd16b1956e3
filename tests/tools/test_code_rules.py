"""The rules of code find what they are there for, and nothing in a chapter that keeps them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import code_rules
import nbformat
import pytest
from coin import code

ROOT = Path(__file__).resolve().parents[2]

FIGURE = "figure, axes = plt.subplots()\naxes.plot([0, 1])\nplt.show()"


@pytest.fixture
def good() -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(
        cells=[
            code("%pip install --quiet something", "colab-setup"),
            code("import matplotlib.pyplot as plt\nimport torch", "hide-input"),
            code(FIGURE),
            code("pairs = [\n    [x + y for x in range(3)]\n    for y in range(3)\n]"),
        ]
    )


def broken(notebook: nbformat.NotebookNode) -> set[str]:
    return {rule.__name__ for rule in code_rules.RULES if rule(notebook)}


def test_a_chapter_that_keeps_them_is_left_alone(good):
    assert broken(good) == set()


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("x = " + 81 * "1", code_rules.lines_fit_the_page),
        ("x = 1\n" * 26, code_rules.cells_fit_a_screen),
        ("x = [[y for y in z] for z in q]", code_rules.one_comprehension_per_line),
        ("x, y = sum(a for a in b), {a: 1 for a in b}", code_rules.one_comprehension_per_line),
        ("import copy", code_rules.imports_stand_folded_at_the_top),
        ("def f():\n    from copy import copy", code_rules.imports_stand_folded_at_the_top),
    ],
)
def test_one_more_cell_breaks_one_rule(good, source, rule):
    good.cells.append(code(source))
    assert broken(good) == {rule.__name__}
    (said,) = rule(good)
    assert said.startswith("cell 4"), said


@pytest.mark.parametrize(
    ("source", "rule"),
    [("x = " + 81 * "1", code_rules.lines_fit_the_page), ("x = 1\n" * 26, code_rules.cells_fit_a_screen)],
)
def test_the_set_up_cell_is_measured_like_any_other(good, source, rule):
    good.cells[0].source = source
    assert broken(good) == {rule.__name__}


@pytest.mark.parametrize("source", ["x = " + 80 * "1", "x = 1\n" * 25, "x = [y for z in q for y in z]"])
def test_what_is_just_allowed(good, source):
    good.cells.append(code(source))
    assert broken(good) == set()


@pytest.mark.parametrize("tag", ["remove-cell", "hide-input", "solution", "check"])
def test_no_cell_may_be_long_because_the_page_hides_it(good, tag):
    good.cells.append(code("x = 1\n" * 26, tag))
    assert broken(good) == {"cells_fit_a_screen"}


def test_imports_too_long_for_a_cell_stand_in_several(good):
    good.cells[1].source = "\n".join(f"import m{n}" for n in range(26))
    assert broken(good) == {"cells_fit_a_screen"}
    halves = ["\n".join(f"import m{n}" for n in half) for half in (range(13), range(13, 26))]
    good.cells[1:2] = [code(half, "hide-input") for half in halves]
    assert broken(good) == set()
    assert [position for position, _ in code_rules.opening_cells(good)] == [1, 2]


@pytest.mark.parametrize("tag", ["hide-input", "remove-input", "remove-cell", "solution", "check"])
def test_a_figure_that_is_hidden_is_not_in_the_open(good, tag):
    good.cells[2] = code(FIGURE, tag)
    assert broken(good) == {"one_figure_is_drawn_in_the_open"}


def test_a_figure_from_the_library_is_not_in_the_open(good):
    good.cells[2] = code("figure, axes = plt.subplots()\ndraw_promises(axes, values)\nplt.show()")
    assert broken(good) == {"one_figure_is_drawn_in_the_open"}


def test_imports_that_are_not_folded_or_not_first_are_found(good):
    good.cells[1].metadata["tags"] = []
    assert "fold it" in code_rules.imports_stand_folded_at_the_top(good)[0]
    good.cells[1] = code("import m", "hide-input")
    good.cells.append(code("import n", "hide-input"))
    assert "to the top, into cell 1" in code_rules.imports_stand_folded_at_the_top(good)[0]
    good.cells[1:2] = []
    assert "should hold the imports" in code_rules.imports_stand_folded_at_the_top(good)[0]


def test_the_formatter_has_the_same_width():
    settings = tomllib.loads((ROOT / "notebooks" / "ruff.toml").read_text(encoding="utf-8"))
    assert settings["line-length"] == code_rules.LINE_WIDTH
