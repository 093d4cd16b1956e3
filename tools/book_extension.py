"""What the book needs from Sphinx beyond Jupyter Book: a small extension, named in ``_config.yml``.

* ``{course-map}``: the map of the course, drawn when the page is built; every chapter ends with it, too, and there it
  shows where the reader is;
* the Colab badge of a notebook, a picture from the net, becomes a link made of text, so that pages read offline;
* figures are numbered by chapter (Figure 11.3), after the number in the name of the notebook;
* citations read "Guo et al. (2017)", with round brackets;
* the build of a single chapter says by an environment variable which notebooks are not to be executed.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

from course_map import draw
from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinxcontrib.bibtex.plugin import register_plugin
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle

_CHAPTER = re.compile(r"notebooks/(\d+)_")


def _round() -> BracketStyle:
    return BracketStyle(left="(", right=")")


@dataclass
class RoundAuthorYear(AuthorYearReferenceStyle):
    """sphinxcontrib-bibtex's author-year style, which has square brackets, with round ones."""

    bracket_textual: BracketStyle = field(default_factory=_round)
    bracket_parenthetical: BracketStyle = field(default_factory=_round)
    bracket_author: BracketStyle = field(default_factory=_round)
    bracket_label: BracketStyle = field(default_factory=_round)
    bracket_year: BracketStyle = field(default_factory=_round)


class CourseMap(Directive):
    """The map of the course. ``{course-map}`` takes no argument and no content."""

    def run(self) -> list[nodes.Node]:
        environment = self.state.document.settings.env
        environment.note_reread()  # which chapters exist is not to be seen from the page itself
        depth = environment.docname.count("/")
        return [nodes.raw("", draw(link_prefix="../" * depth), format="html")]


class TextBadge(SphinxTransform):
    """Replace the picture in the link to Colab by its words."""

    default_priority = 400

    def apply(self, **options: Any) -> None:
        for image in list(self.document.findall(nodes.image)):
            if "colab-badge" in image.get("uri", "") and isinstance(image.parent, nodes.reference):
                link = image.parent
                link["classes"].append("colab-badge")
                link.replace(image, nodes.Text(image.get("alt") or "Open In Colab"))


def show_where_the_reader_is(app: Sphinx, document: nodes.document, page: str) -> None:
    """End a chapter with the map of the course, this chapter marked."""
    if _CHAPTER.match(page):
        drawing = draw(link_prefix="../" * page.count("/"), here=page.rpartition("/")[2])
        document.append(nodes.raw("", f'<nav class="you-are-here" aria-label="Course">{drawing}</nav>', format="html"))


def number_figures_by_chapter(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Give figures the numbers chapter.1, chapter.2, …; Sphinx has numbered them through the whole book.

    Returns the pages to be written again, as the event asks.
    """
    pages = set()
    for page, kinds in env.toc_fignumbers.items():
        chapter = _CHAPTER.match(page)
        if not chapter:
            continue
        for numbers in kinds.values():
            for place, key in enumerate(sorted(numbers, key=lambda key: numbers[key]), start=1):
                numbers[key] = (int(chapter[1]), place)
                pages.add(page)
    return sorted(pages)


def leave_out_notebooks(app: Sphinx, config: Config) -> None:
    """Do not execute the notebooks that the build of a single chapter leaves out."""
    left_out = filter(None, os.environ.get("TUTORIAL_NOT_EXECUTED", "").split(os.pathsep))
    config.nb_execution_excludepatterns = [
        *config.nb_execution_excludepatterns,
        *(f"{page}.ipynb" for page in left_out),
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    register_plugin("sphinxcontrib.bibtex.style.referencing", "author_year_round", RoundAuthorYear)
    app.add_directive("course-map", CourseMap)
    app.add_transform(TextBadge)
    app.connect("config-inited", leave_out_notebooks)
    app.connect("doctree-resolved", show_where_the_reader_is)
    # After Sphinx's own numbering, which listens to the same event with the default priority of 500.
    app.connect("env-get-updated", number_figures_by_chapter, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
