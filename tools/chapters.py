"""What the cells of a chapter are for, read from their tags.

A chapter notebook holds everything: text, exercises, solutions, checks, quiz, notes for the teacher, slides. The tools
that make the book, the workshop and the slides from it ask this module what a cell is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
BEGIN, END = "# BEGIN SOLUTION", "# END SOLUTION"

_MARKERS = re.compile(rf"^(?P<indent>[ \t]*){BEGIN}[ \t]*\n(?P<body>.*?)^[ \t]*{END}[ \t]*$", re.MULTILINE | re.DOTALL)


class ChapterError(ValueError):
    """A chapter does not follow the rules of its cells; the message says where and what to do."""


def chapter_paths(folder: Path = NOTEBOOKS) -> list[Path]:
    """The chapters, in order of their numbers."""
    return sorted(folder.glob("[0-9][0-9]_*.ipynb"))


def read(path: Path) -> NotebookNode:
    """A notebook file as nbformat 4."""
    return nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)


def tags(cell: NotebookNode) -> set[str]:
    """Tags of a cell."""
    return set(cell.metadata.get("tags", ()))


def slide_type(cell: NotebookNode) -> str:
    """What a cell is on the slides: slide, subslide, fragment, notes, ``-`` (goes on with the slide) or skip.

    Without a type of its own, a note for the teacher is a speaker note and a question of the quiz has a slide below the
    last one; any other cell is not on the slides.
    """
    given = cell.metadata.get("slideshow", {}).get("slide_type", "")
    if given:
        return given
    kinds = tags(cell)
    return "notes" if "instructor" in kinds else "subslide" if "quiz" in kinds else "skip"


def title(notebook: NotebookNode) -> str:
    """The words after ``#`` in the first cell."""
    return notebook.cells[0].source.partition("\n")[0].removeprefix("# ").strip()


def glued(executed: Path) -> dict[str, str]:
    """Values that the run of a chapter remembered, by name.

    Args:
        executed: the file in which myst-nb keeps them, ``_build/jupyter_execute/<page>.glue.json``.
    """
    stored = json.loads(executed.read_text(encoding="utf-8"))
    return {name: output["data"]["text/plain"] for name, output in stored.items() if "text/plain" in output["data"]}


@dataclass(frozen=True)
class Exercise:
    """A task with what belongs to it; numbers are positions of cells in the notebook."""

    number: int
    task: int
    solution: int
    check: int
    note: int | None


def exercises(notebook: NotebookNode) -> list[Exercise]:
    """The exercises of a chapter: a task, its solution, its check, and the note on the tempting answer.

    Raises:
        ChapterError: a task without solution, a solution without task or check, a check without solution.
    """
    found: list[Exercise] = []
    task = solution = None
    for position, cell in enumerate(notebook.cells):
        kinds = tags(cell)
        if "exercise" in kinds:
            if task is not None:
                raise ChapterError(f"cell {task} is an exercise, but no cell tagged 'solution' follows it")
            task = position
        elif "solution" in kinds:
            if task is None:
                raise ChapterError(f"cell {position} is a solution, but no cell tagged 'exercise' stands before it")
            if solution is not None:
                raise ChapterError(
                    f"cells {solution} and {position} are both solutions of one exercise; make it one cell"
                )
            solution = position
        elif "check" in kinds:
            if task is None or solution is None:
                raise ChapterError(f"cell {position} is a check, but no solution stands before it")
            found.append(Exercise(len(found) + 1, task, solution, position, None))
            task = solution = None
        elif "solution-note" in kinds:
            if not found or found[-1].note is not None or task is not None:
                raise ChapterError(f"cell {position} is a solution-note, but does not follow the check of an exercise")
            last = found.pop()
            found.append(Exercise(last.number, last.task, last.solution, last.check, position))
    if task is not None:
        raise ChapterError(f"cell {task} is an exercise, but has no solution and check after it")
    return found


def scaffold(source: str, number: int) -> str:
    """What a learner gets in place of a solution: everything around it, and a clear error where it stood.

    Args:
        source: the solution cell, with the lines ``# BEGIN SOLUTION`` and ``# END SOLUTION`` around the answer.
        number: of the exercise, for the error.

    Raises:
        ChapterError: the two lines are missing or out of order, or there is nothing between them.
    """
    if source.count(BEGIN) != source.count(END) or BEGIN not in source:
        raise ChapterError(f"the solution of exercise {number} needs pairs of lines '{BEGIN}' and '{END}'")
    pieces = list(_MARKERS.finditer(source))
    if len(pieces) != source.count(BEGIN):
        raise ChapterError(f"the lines '{BEGIN}' and '{END}' of exercise {number} are out of order or share a line")
    if any(not piece["body"].strip() for piece in pieces):
        raise ChapterError(f"there is nothing between '{BEGIN}' and '{END}' in exercise {number}")

    def gap(piece: re.Match[str]) -> str:
        indent = piece["indent"]
        return (
            f"{indent}# Write your answer here, in place of the next line.\n"
            f'{indent}raise NotImplementedError("Exercise {number} is not written yet.")'
        )

    return _MARKERS.sub(gap, source)


def answer(source: str) -> str:
    """A solution as a reader sees it: without the two marker lines."""
    lines = [line for line in source.split("\n") if line.strip() not in (BEGIN, END)]
    return "\n".join(lines)


@dataclass(frozen=True)
class Option:
    """One option of a question: what one can choose, whether it is right, and why."""

    text: str
    right: bool
    reason: str


@dataclass(frozen=True)
class Question:
    """One question of a quiz."""

    text: str
    options: tuple[Option, ...]


RIGHT, WRONG = "Right", "Not quite"
_VERDICT = re.compile(rf"(?P<verdict>{RIGHT}|{WRONG})[.,:;]\s*")
DETAILS = re.compile(r"<details>\s*<summary>(?P<option>.*?)</summary>(?P<reason>.*?)</details>", re.DOTALL)


def questions(notebook: NotebookNode) -> list[Question]:
    """The quiz of a chapter: each run of options, with the text before it as the question.

    An option is ``<details><summary>A. ...</summary>``, an empty line, "Right." or "Not quite." and the reason, an
    empty line, ``</details>``: readable in Colab, on GitHub and in the book, by keyboard, without a script.

    Raises:
        ChapterError: an option without a verdict or a reason, or without the empty lines that Markdown needs.
    """
    found: list[Question] = []
    for position, cell in enumerate(notebook.cells):
        if "quiz" in tags(cell):
            found.extend(_questions(cell.source, position))
    return found


def _questions(source: str, position: int) -> Iterator[Question]:
    if source.count("<details>") != source.count("</details>"):
        raise ChapterError(f"quiz in cell {position}: a <details> is not closed")
    text, end = "", 0
    options: list[Option] = []
    for piece in DETAILS.finditer(source):
        between = source[end : piece.start()].strip()
        if between:
            if options:
                yield Question(text, tuple(options))
            # a heading over the whole quiz is no part of the question
            text, options = re.sub(r"^#+ .*$", "", between, flags=re.MULTILINE).strip() or between.lstrip("# "), []
        options.append(_option(piece, position))
        end = piece.end()
    if options:
        yield Question(text, tuple(options))


def _option(piece: re.Match[str], position: int) -> Option:
    name, reason = piece["option"].strip(), piece["reason"]
    where = f"quiz in cell {position}, option {name!r}"
    if not reason.startswith("\n\n") or not reason.endswith("\n\n"):
        raise ChapterError(f"{where}: leave an empty line after </summary> and before </details>")
    verdict = _VERDICT.match(reason.strip())
    if verdict is None:
        raise ChapterError(f"{where}: the reason must start with '{RIGHT}.' or '{WRONG}.'")
    why = reason.strip()[verdict.end() :]
    if not why:
        raise ChapterError(f"{where}: give the reason after {verdict[0]!r}")
    return Option(name, verdict["verdict"] == RIGHT, why)
