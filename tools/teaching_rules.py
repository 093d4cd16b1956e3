"""What a chapter must have to teach, as rules that can be checked: each returns a list of what is wrong.

The tests apply them to every chapter, and to the skeleton that ``make new-chapter`` writes.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
from collections.abc import Callable
from typing import Any

import chapters
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

Rule = Callable[[NotebookNode], list[str]]
PLACEHOLDER = "TODO"


def exercises_are_complete(notebook: NotebookNode) -> list[str]:
    """At least one exercise; each has an expected answer and a hint, a solution with a gap, a check and a note."""
    try:
        found = chapters.exercises(notebook)
    except chapters.ChapterError as error:
        return [str(error)]
    wrong = [] if found else ["there is no exercise"]
    for exercise in found:
        task = notebook.cells[exercise.task].source
        if not re.search(r"\bexpected\b", task, re.IGNORECASE):
            wrong.append(f"exercise {exercise.number} does not say what is expected")
        if "<details>" not in task:
            wrong.append(f"exercise {exercise.number} has no folded hint")
        if exercise.note is None or "<details>" not in notebook.cells[exercise.note].source:
            wrong.append(f"exercise {exercise.number} has no folded note on why the tempting answer fails")
        try:
            chapters.scaffold(notebook.cells[exercise.solution].source, exercise.number)
        except chapters.ChapterError as error:
            wrong.append(str(error))
    return wrong


def checks_speak_to_the_learner(notebook: NotebookNode) -> list[str]:
    """Every check asserts something, says what is wrong when it fails, and ends by printing ``Right: ...``."""
    wrong = []
    for position, cell in enumerate(notebook.cells):
        if "check" not in chapters.tags(cell):
            continue
        tree = ast.parse(cell.source)
        claims = [node for node in ast.walk(tree) if isinstance(node, ast.Assert)]
        if not claims:
            wrong.append(f"the check in cell {position} asserts nothing")
        wrong += [
            f"the check in cell {position}, line {node.lineno}: no message" for node in claims if node.msg is None
        ]
        if not tree.body or not _says_right(tree.body[-1]):
            wrong.append(f'the check in cell {position} does not end with print("Right: ...")')
    return wrong


def _says_right(statement: ast.stmt) -> bool:
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "print" and call.args):
        return False
    words = call.args[0].values[0] if isinstance(call.args[0], ast.JoinedStr) else call.args[0]
    return isinstance(words, ast.Constant) and str(words.value).startswith("Right: ")


def quiz_gives_reasons(notebook: NotebookNode) -> list[str]:
    """Three to five questions of two to five options; each option has a reason, at least one is right, one is wrong."""
    try:
        questions = chapters.questions(notebook)
    except chapters.ChapterError as error:
        return [str(error)]
    wrong = (
        [] if 3 <= len(questions) <= 5 else [f"the quiz has {len(questions)} questions; three to five are asked for"]
    )
    for number, question in enumerate(questions, start=1):
        verdicts = {option.right for option in question.options}
        if not 2 <= len(question.options) <= 5:
            wrong.append(f"question {number} has {len(question.options)} options")
        if verdicts != {True, False}:
            wrong.append(f"question {number} needs an option that is right and one that is wrong")
        if len({option.reason for option in question.options}) < len(question.options):
            wrong.append(f"question {number} gives two options the same reason")
        wrong += [
            f"question {number}, option {option.text!r}: the reason is too short to explain anything"
            for option in question.options
            if len(option.reason.split()) < 2
        ]
    return wrong


def one_picture_answers_back(notebook: NotebookNode) -> list[str]:
    """At least one cell calls ``explore`` or ``draw_digit``."""
    calls = {
        getattr(node.func, "id", "")
        for cell in notebook.cells
        if cell.cell_type == "code" and "colab-setup" not in chapters.tags(cell)
        for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source)))
        if isinstance(node, ast.Call)
    }
    return (
        [] if calls & {"explore", "draw_digit"} else ["no picture answers back: call explore(...) or draw_digit(...)"]
    )


def slides_have_pictures_and_notes(notebook: NotebookNode) -> list[str]:
    """A deck of at least three slides with a picture and a note for the speaker, and minutes to teach in the notes."""
    kinds = [chapters.slide_type(cell) for cell in notebook.cells]
    wrong = []
    if sum(kind in ("slide", "subslide") for kind in kinds) < 3:
        wrong.append("fewer than three cells start a slide (slideshow.slide_type)")
    on_slides = [cell for cell, kind in zip(notebook.cells, kinds, strict=True) if kind not in ("skip", "notes")]
    if not any(cell.cell_type == "code" for cell in on_slides):
        wrong.append("no slide shows the output of a cell")
    notes = [cell.source for cell, kind in zip(notebook.cells, kinds, strict=True) if kind == "notes"]
    if not any(re.search(r"\(\s*\d+\s*min", note) for note in notes):
        wrong.append("no note for the teacher gives its minutes, as in **Teacher's note (5 min).**")
    return wrong


def no_words_are_missing(notebook: NotebookNode) -> list[str]:
    """No placeholder of the skeleton is left."""
    return [
        f"cell {position} still says {PLACEHOLDER}"
        for position, cell in enumerate(notebook.cells)
        if re.search(rf"\b{PLACEHOLDER}\b", cell.source)
    ]


RULES: tuple[Rule, ...] = (
    exercises_are_complete,
    checks_speak_to_the_learner,
    quiz_gives_reasons,
    one_picture_answers_back,
    slides_have_pictures_and_notes,
    no_words_are_missing,
)


def in_the_guide(name: str, guide: str) -> list[str]:
    """The instructor's guide has a section on the chapter, with its four parts."""
    number = int(name[:2])
    section = re.search(rf"^## Chapter {number}\b.*?(?=^## |\Z)", guide, re.MULTILINE | re.DOTALL)
    if section is None:
        return [f"the instructor's guide has no section '## Chapter {number}, ...'"]
    parts = ("question to open with", "What people think", "demonstration that always works", "What to skip")
    return [f"chapter {number} in the instructor's guide: no '{part}'" for part in parts if part not in section[0]]


def solutions_and_gaps(notebook: NotebookNode) -> list[str]:
    """Every solution passes its own check, every gap fails it with ``NotImplementedError``; runs the chapter.

    For one chapter that nbval does not run; it tries the others (``notebooks/conftest.py``).
    """
    found = {exercise.solution: exercise for exercise in chapters.exercises(notebook)}
    space: dict[str, Any] = {"__name__": "__main__", "display": lambda *_: None}
    wrong = []
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or "colab-setup" in chapters.tags(cell):
            continue
        if position in found:
            exercise = found[position]
            check = notebook.cells[exercise.check].source
            gap = chapters.scaffold(cell.source, exercise.number)
            wrong += failure_of_gap(gap, check, dict(space), exercise.number)
        said = _run(cell.source, space)
        if "check" in chapters.tags(cell) and "Right: " not in said:
            wrong.append(f"the check in cell {position} passed without saying so")
    return wrong


def failure_of_gap(gap: str, check: str, space: dict[str, Any], number: int) -> list[str]:
    """What is wrong when a learner who has written nothing runs the check; empty when the gap says so clearly.

    Args:
        gap: the solution cell with its gap, from :func:`chapters.scaffold`.
        check: the cell that checks it.
        space: names that the chapter has made before; both cells run in it and may change it.
        number: of the exercise.
    """
    try:
        _run(gap, space)
        _run(check, space)
    except NotImplementedError as error:
        if f"Exercise {number} is not written yet" in str(error):
            return []
        return [f"exercise {number}: the gap fails with {error!s:.80}"]
    except Exception as error:  # whatever it is, it is the wrong thing to show a learner
        return [f"exercise {number}: the gap fails with {type(error).__name__}: {error!s:.80}"]
    return [f"exercise {number}: the check passes although nothing is written"]


def _run(source: str, space: dict[str, Any]) -> str:
    """Run a cell as a notebook would, without showing its last value; what it printed."""
    import matplotlib.pyplot as plt

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(TransformerManager().transform_cell(source), "<cell>", "exec"), space)
    plt.close("all")
    return said.getvalue()
