"""The notebooks that Colab and Jupyter open: ``colab/NN_chapter.ipynb`` with gaps, ``..._solved.ipynb`` with the answers.

Command line::

    python tools/make_learner.py             # after `make book`; `make learner` does both
    python tools/make_learner.py --check     # say what is not in step, change nothing; needs no built book

A chapter's own notebook is written for the book: its text quotes numbers, works and figures by roles that only the book
fills in, and it holds notes for the teacher. Here the text is plain Markdown, with the numbers of the last build; captions
stand below their figures, code that the page folds is folded. They hold no outputs.

In step means: what would be written now, but for the numbers, which differ a little from machine to machine. So a chapter that
was changed needs ``make learner``, and one whose numbers moved does not.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import chapters
import nbformat
import notebook_cells
from nbformat import NotebookNode
from plain_markdown import Known, citations, plain

ROOT = chapters.ROOT
TARGET = ROOT / notebook_cells.LEARNERS
GLUED = ROOT / "_build" / "jupyter_execute" / "notebooks"
_FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
_GAP = "\N{OBJECT REPLACEMENT CHARACTER}"  # stands for a number in what is compared


@dataclass(frozen=True)
class AnyNumber(Known):
    """Knows every quoted value, as a mark that stands for whatever the machine computed."""

    def value(self, name: str, form: str) -> str:
        return _GAP


def learner_notebook(notebook: NotebookNode, known: Known, solved: bool = False) -> NotebookNode:
    """A chapter for somebody who sits in front of a kernel.

    Args:
        notebook: the chapter, in stored form.
        known: what its roles refer to.
        solved: with the answers, and with the notes on why the tempting ones fail; otherwise with gaps.
    """
    exercises = {exercise.solution: exercise.number for exercise in chapters.exercises(notebook)}
    left_out = {"instructor"} if solved else {"instructor", "solution-note"}
    cells = []
    for position, cell in enumerate(notebook.cells):
        if chapters.tags(cell) & left_out:
            continue
        if position in exercises:
            source = chapters.answer(cell.source) if solved else chapters.scaffold(cell.source, exercises[position])
            cells.append(nbformat.v4.new_code_cell(source))
        elif cell.cell_type == "code":
            folded = {"cellView": "form", "jupyter": {"source_hidden": True}} if chapters.tags(cell) & _FOLDED else {}
            cells.append(nbformat.v4.new_code_cell(cell.source, metadata=folded))
            cells.extend(caption(cell, known))
        else:
            cells.append(nbformat.v4.new_markdown_cell(plain(cell.source, known).strip()))
    return of_cells(cells)


def caption(cell: NotebookNode, known: Known) -> list[NotebookNode]:
    """The cell with the number and the caption of a figure, to stand below the cell that draws it; none if it has none."""
    figure = cell.metadata.get("mystnb", {}).get("figure", {})
    if "caption" not in figure:
        return []
    number = known.figures[figure["name"]]
    return [nbformat.v4.new_markdown_cell(f"**Figure {number}.** {plain(figure['caption'], known)}")]


def of_cells(cells: list[NotebookNode]) -> NotebookNode:
    """A notebook of some cells, which get ids that are the same from run to run."""
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=metadata, nbformat_minor=5)


def figure_numbers(path: Path, notebook: NotebookNode) -> dict[str, str]:
    """Number of each figure as the book has it, chapter.place, by its name."""
    names = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in notebook.cells]
    return {name: f"{int(path.name[:2])}.{place}" for place, name in enumerate(filter(None, names), start=1)}


def known_of(path: Path, values: Mapping[str, str] | None) -> Known:
    """What the roles of a chapter refer to; without values, every number is a gap."""
    notebook = chapters.read(path)
    works = citations(ROOT / "book" / "references.bib")
    titles = {other.stem: chapters.title(chapters.read(other)) for other in chapters.chapter_paths(path.parent)}
    figures: dict[str, str] = {}
    for other in chapters.chapter_paths(path.parent):
        figures |= figure_numbers(other, chapters.read(other))
    figures |= figure_numbers(path, notebook)
    if values is None:
        return AnyNumber(works, {}, figures, titles)
    return Known(works, values, figures, titles)


def glued(path: Path, folder: Path = GLUED) -> dict[str, str]:
    """Values that the last build of the book has computed for a chapter, by name.

    Raises:
        FileNotFoundError: the book was not built.
    """
    file = folder / f"{path.stem}.glue.json"
    if not file.is_file():
        raise FileNotFoundError(f"{path.name} was not built: run `make book` first")
    return chapters.glued(file)


def write(path: Path, target: Path = TARGET) -> list[Path]:
    """Write both notebooks of a chapter."""
    known, notebook = known_of(path, glued(path)), chapters.read(path)
    written = []
    for solved in (False, True):
        file = target / notebook_cells.learner_path(path, solved).name
        file.parent.mkdir(exist_ok=True)
        made = learner_notebook(notebook, known, solved)
        nbformat.validate(made)
        file.write_text(nbformat.writes(made) + "\n", encoding="utf-8")
        written.append(file)
    return written


def problems_of(path: Path, target: Path = TARGET) -> list[str]:
    """What is not in step with a chapter; empty if nothing is."""
    known, notebook = known_of(path, None), chapters.read(path)
    found = []
    for solved in (False, True):
        file = target / notebook_cells.learner_path(path, solved).name
        wanted = nbformat.writes(learner_notebook(notebook, known, solved)) + "\n"
        if not file.is_file():
            found.append(f"{target.name}/{file.name} is missing; run `make learner`")
        elif not _fits(wanted, file.read_text(encoding="utf-8")):
            found.append(f"{target.name}/{file.name} is not in step with {path.name}; run `make learner`")
    return found


def left_over(target: Path = TARGET, sources: Path = chapters.NOTEBOOKS) -> list[Path]:
    """Notebooks for learners whose chapter is gone."""
    wanted = {
        notebook_cells.learner_path(path, solved).name
        for path in chapters.chapter_paths(sources)
        for solved in (False, True)
    }
    return sorted(file for file in target.glob("*.ipynb") if file.name not in wanted)


def _fits(wanted: str, stored: str) -> bool:
    """Whether a text is the wanted one with a number, or a word, in place of each gap."""
    lines, others = wanted.split("\n"), stored.split("\n")
    if len(lines) != len(others):
        return False
    gap = json.dumps(_GAP).strip('"')  # as it is written, should nbformat not keep it as it is
    for line, other in zip(lines, others, strict=True):
        line = line.replace(gap, _GAP)
        if _GAP not in line:
            if line != other:
                return False
        elif not re.fullmatch("[^\n]{1,60}?".join(map(re.escape, line.split(_GAP))), other):
            return False
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the notebooks that learners open in Colab.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 if something is to change")
    parser.add_argument("chapters", nargs="*", type=Path, help="notebooks; default: all")
    options = parser.parse_args(arguments)
    paths = [path.resolve() for path in options.chapters] or chapters.chapter_paths()
    if options.check:
        problems = [problem for path in paths for problem in problems_of(path)]
        problems += [f"{file.relative_to(ROOT)} belongs to no chapter; delete it" for file in left_over()]
        print("\n".join(problems) or "in step")
        return 1 if problems else 0
    try:
        for path in paths:
            print(*(file.relative_to(ROOT) for file in write(path)))
    except (FileNotFoundError, KeyError, chapters.ChapterError) as error:
        print(error, file=sys.stderr)
        return 1
    for file in left_over():
        file.unlink()
        print(f"{file.relative_to(ROOT)} is gone with its chapter")
    return 0


if __name__ == "__main__":
    sys.exit(main())
