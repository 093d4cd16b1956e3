"""What the tests do in a notebook besides running its cells, which is nbval's part: try each exercise unwritten.

nbval runs every cell in one kernel, solutions and checks among them. Before each solution the same kernel tries what a
learner has who has written nothing: the gap, then the check, in a copy of the names. That must end in the clear error of the
gap. So one run of a chapter shows that it executes, that its solutions pass their checks, and that its gaps do not.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import nbformat
import pytest

TOOLS = Path(__file__).resolve().parent.parent / "tools"

TRY = """\
def try_unwritten():
    import sys

    sys.path.insert(0, {tools!r})
    try:
        from teaching_rules import failure_of_gap
    finally:
        sys.path.remove({tools!r})
    space = dict(globals())
    del space["try_unwritten"]
    wrong = failure_of_gap({gap!r}, {check!r}, space, {number})
    assert not wrong, wrong


try_unwritten()
del try_unwritten
"""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put one more cell before every solution of a chapter."""
    tries: dict[Path, dict[int, str]] = {}
    wanted = []
    for item in items:
        if hasattr(item, "cell_num") and "solution" in item.cell.metadata.get(
            "tags", ()
        ):  # a cell, as nbval collects it
            if item.path not in tries:
                tries[item.path] = _tries(item.parent.nb)
            if source := tries[item.path].get(item.cell_num):
                wanted.append(
                    type(item).from_parent(
                        item.parent,
                        name=f"Cell {item.cell_num}, nothing written",
                        cell_num=item.cell_num,
                        cell=nbformat.v4.new_code_cell(source),
                        options=defaultdict(bool),
                    )
                )
        wanted.append(item)
    items[:] = wanted


def _tries(notebook: nbformat.NotebookNode) -> dict[int, str]:
    """Code that tries an exercise unwritten, by the number that nbval gives its solution among the cells of code."""
    sys.path.insert(0, str(TOOLS))
    try:
        import chapters
    finally:
        sys.path.remove(str(TOOLS))
    positions = [
        position
        for position, cell in enumerate(notebook.cells)
        if cell.cell_type == "code"
    ]
    try:
        return {
            positions.index(exercise.solution): TRY.format(
                tools=str(TOOLS),
                gap=chapters.scaffold(
                    notebook.cells[exercise.solution].source, exercise.number
                ),
                check=notebook.cells[exercise.check].source,
                number=exercise.number,
            )
            for exercise in chapters.exercises(notebook)
        }
    except chapters.ChapterError:
        return {}  # tests/tools/test_chapters_teach.py says what is wrong
