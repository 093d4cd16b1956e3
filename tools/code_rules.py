"""How the code of a chapter reads, as rules that can be checked: each returns a list of what is wrong.

Code on a page is read, not run first. A line ends before the page does, a cell fits on a screen, one step stands on a line;
imports stand folded at the top, and at least one figure is drawn where the reader can see how. There is no rule on how
many cells a chapter has or how long they are on average: such counts are met by packing.

The set-up cell, the same in every chapter, is measured like any other; the other rules do not speak of it.
``notebooks/ruff.toml`` has the same width of lines for the formatter.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import takewhile

import chapters
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

Rule = Callable[[NotebookNode], list[str]]

LINE_WIDTH = 84
"""Characters of code that the page shows without scrolling, at 1280 pixels and on paper."""
CELL_LINES = 25
"""Lines of code that can be seen at once, with the text around them."""

_FOLDED = {"hide-input", "hide-cell"}
_NOT_SEEN = {*_FOLDED, "remove-input", "remove-cell"}
_EXERCISE = {"solution", "check"}
_OPENS = {"subplots", "figure", "subplot_mosaic"}
_DRAWS = {
    *("plot", "scatter", "step", "stairs", "stem", "errorbar", "fill_between", "loglog", "semilogx", "semilogy"),
    *("hist", "bar", "barh", "boxplot", "violinplot", "ecdf", "hlines", "vlines", "quiver"),
    *("imshow", "matshow", "contour", "contourf", "tricontourf", "pcolormesh", "hexbin"),
}
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def lines_fit_the_page(notebook: NotebookNode) -> list[str]:
    """No line of code is longer than :data:`LINE_WIDTH`."""
    return [
        f"cell {position}, line {number}: {len(line)} characters, {LINE_WIDTH} fit: {line.strip()[:60]} ..."
        for position, cell in _code(notebook, with_setup=True)
        for number, line in enumerate(cell.source.splitlines(), start=1)
        if len(line) > LINE_WIDTH
    ]


def cells_fit_a_screen(notebook: NotebookNode) -> list[str]:
    """No cell of code has more lines than :data:`CELL_LINES`: not the imports, not those that only some editions show."""
    return [
        f"cell {position}: {len(lines)} lines, {CELL_LINES} are the limit; it starts with {lines[0].strip()[:60]}"
        for position, cell in _code(notebook, with_setup=True)
        if len(lines := cell.source.splitlines()) > CELL_LINES
    ]


def one_comprehension_per_line(notebook: NotebookNode) -> list[str]:
    """No line holds the ``for`` of two comprehensions, beside each other or one inside the other."""
    wrong = []
    for position, cell in _code(notebook):
        on_line: Counter[int] = Counter()
        for node in ast.walk(_tree(cell)):
            if isinstance(node, _COMPREHENSIONS):
                on_line.update({loop.target.lineno for loop in node.generators})
        wrong += [
            f"cell {position}, line {line}: {count} comprehensions" for line, count in on_line.items() if count > 1
        ]
    return wrong


def imports_stand_folded_at_the_top(notebook: NotebookNode) -> list[str]:
    """The first cells of code import all that the chapter needs and are folded; no later cell imports anything."""
    cells = list(_code(notebook))
    opening = opening_cells(notebook)
    if cells and not opening:
        return [f"cell {cells[0][0]} is the first one of code; it should hold the imports"]
    unfolded = [position for position, cell in opening if not chapters.tags(cell) & _FOLDED]
    return [f"cell {position} holds imports; fold it with the tag hide-input" for position in unfolded] + [
        f"cell {position} imports; move it to the top, into cell {opening[-1][0]} or one after it"
        for position, cell in cells[len(opening) :]
        if _imports(cell)
    ]


def opening_cells(notebook: NotebookNode) -> list[tuple[int, NotebookNode]]:
    """Position and cell of the imports: the first cells of code, as long as they import; several where one is too long."""
    return list(takewhile(lambda numbered: _imports(numbered[1]), _code(notebook)))


def one_figure_is_drawn_in_the_open(notebook: NotebookNode) -> list[str]:
    """A cell whose code the page shows opens a figure by Matplotlib and draws on its axes."""
    for _, cell in _code(notebook):
        called = {
            node.func.attr
            for node in ast.walk(_tree(cell))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        if called & _OPENS and called & _DRAWS and not chapters.tags(cell) & (_NOT_SEEN | _EXERCISE):
            return []
    return [
        "no figure is drawn in the open: show one cell that calls plt.subplots and draws on the axes (plot, imshow, ...)"
    ]


RULES: tuple[Rule, ...] = (
    lines_fit_the_page,
    cells_fit_a_screen,
    one_comprehension_per_line,
    imports_stand_folded_at_the_top,
    one_figure_is_drawn_in_the_open,
)


def _code(notebook: NotebookNode, with_setup: bool = False) -> Iterator[tuple[int, NotebookNode]]:
    """Position and cell of all code; of the set-up cell, too, if asked."""
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and (with_setup or "colab-setup" not in chapters.tags(cell)):
            yield position, cell


def _tree(cell: NotebookNode) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(cell.source))


def _imports(cell: NotebookNode) -> bool:
    return any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(_tree(cell)))
