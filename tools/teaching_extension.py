"""Sphinx extension: what exercises, quizzes and slides need in the built book.

* The code and output of a solution are folded together under "Show the solution", without the marker lines that the
  student notebook is cut along.
* The folding boxes of quizzes, hints and notes get classes, for ``teaching.css``; a quiz option says by its class
  whether it is right.
* Cells that are on the slides are fenced by comments, from which :mod:`make_slides` finds them again in the finished
  page. When the book is written, it makes a deck for every chapter, and every chapter links to its deck.
* The button of the theme that opens a page in Colab opens the chapter's notebook for learners.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import chapters
import make_slides
import nbformat
import notebook_cells
from docutils import nodes
from sphinx.application import Sphinx

DETAILS_CLASSES = {"exercise": "exercise-hint", "solution-note": "solution-note"}


def prepared(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook as the book should read it. Code cells stay as they are: the cache of the book knows them by it."""
    cells = []
    for position, cell in enumerate(notebook.cells):
        kinds = chapters.tags(cell)
        if cell.cell_type == "markdown":
            cell.source = _with_classes(cell.source, kinds)
        on_slide = chapters.slide_type(cell) not in ("skip", "notes") and "instructor" not in kinds and position > 0
        if on_slide:
            cells.append(nbformat.v4.new_markdown_cell(make_slides.fence(position)))
        cells.append(cell)
        if on_slide:
            cells.append(nbformat.v4.new_markdown_cell(make_slides.fence(position, end=True)))
    notebook.cells = cells
    return notebook


def _with_classes(source: str, kinds: set[str]) -> str:
    if "quiz" in kinds:

        def option(piece: re.Match[str]) -> str:
            right = piece["reason"].lstrip().startswith(chapters.RIGHT)
            return piece[0].replace("<details>", f'<details class="quiz-option {"right" if right else "wrong"}">', 1)

        return chapters.DETAILS.sub(option, source)
    for tag, name in DETAILS_CLASSES.items():
        if tag in kinds:
            return source.replace("<details>", f'<details class="{name}">')
    return source


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    if not str(app.env.doc2path(docname)).endswith(".ipynb"):
        return
    notebook = nbformat.reads(source[0], as_version=4)
    source[0] = json.dumps(prepared(notebook))


def _fold_solutions(app: Sphinx, doctree: nodes.document) -> None:
    """Fold code and output of every solution, and leave out the lines that mark where the learner writes."""
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") != "cell_code" or "solution" not in cell.get("cell_metadata", {}).get("tags", ()):
            continue
        cell["hide_mode"] = "all"
        cell["prompt_show"], cell["prompt_hide"] = "Show the solution", "Hide the solution"
        for block in list(cell.findall(nodes.literal_block)):
            if chapters.BEGIN in block.astext():
                source = chapters.answer(block.astext())
                block.rawsource, block.children = source, []
                block += nodes.Text(source)


def _mended(body: str) -> str:
    """The page without a role and a name that mislead a screen reader.

    The folding boxes of cells say "Show the solution", but their label overrides it with "Toggle hidden content"; the
    bibliography calls itself a list and has no list items.
    """
    body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    return body.replace('<div role="list" class="citation-list">', '<div class="citation-list">')


def _link(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    body = context["body"] = _mended(context.get("body", ""))
    path = Path(app.srcdir) / f"{pagename}.ipynb"
    if "</h1>" in body and path.exists() and make_slides.has_slides(chapters.read(path)):
        deck = "../" * pagename.count("/") + f"{make_slides.FOLDER}/{Path(pagename).name}.html"
        link = f'<p class="teaching-links"><a href="{deck}">Slides of this chapter</a></p>'
        context["body"] = body.replace("</h1>", f"</h1>\n{link}", 1)


def _launch_the_learners(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """The theme's launch button opens the notebook for learners, as the badge does; the theme would open the source."""
    waiting = list(context.get("header_buttons", ()))
    while waiting:
        button = waiting.pop()
        waiting += button.get("buttons", ())
        if "colab.research.google.com" in str(button.get("url")):
            button["url"] = notebook_cells.colab_link(notebook_cells.learner_path(pagename))


def _make_decks(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        left_out = os.environ.get("TUTORIAL_NOT_EXECUTED", "").split(os.pathsep)  # they have nothing to quote
        for docname in sorted(app.env.found_docs.difference(left_out)):
            path = Path(app.srcdir) / f"{docname}.ipynb"
            if path.exists() and make_slides.has_slides(chapters.read(path)):
                make_slides.make_deck(path, Path(app.outdir), docname)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    app.connect("doctree-read", _fold_solutions)
    app.connect("html-page-context", _link)
    app.connect("html-page-context", _launch_the_learners, priority=900)  # after the theme has made its buttons
    app.connect("build-finished", _make_decks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
