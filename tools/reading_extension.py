"""Sphinx extension: what a reader wants to know without leaving the line.

* A word of the glossary links to it where a chapter uses it first, and shows what it means under the pointer.
* A figure opens by itself when it is clicked or tapped: on a phone its letters are too small on the page.

Both are links of plain HTML, so they work by keyboard, without scripts and without the net. (What a citation shows under
the pointer comes from sphinxcontrib-bibtex.)
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote, unquote

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

GLOSSARY = "book/glossary"

_WITHIN_A_SENTENCE = (nodes.paragraph,)
_NOT_WITHIN = (nodes.reference, nodes.literal, nodes.title, nodes.table, nodes.math, nodes.image, nodes.caption)


def first_sentences(text: str, enough: int = 60) -> str:
    """The first sentence of a text, and the next ones while they are short: "Negative log-likelihood." says too little."""
    sentences = re.split(r"(?<=[a-z0-9)%][.])\s+(?=[A-Z])", " ".join(text.split()))
    said = sentences[0]
    for sentence in sentences[1:]:
        if len(said) >= enough:
            break
        said += f" {sentence}"
    return said


def definitions(glossary: nodes.document) -> dict[str, tuple[str, str]]:
    """Every word of the glossary: the anchor of its entry, and what it says first."""
    found = {}
    for item in glossary.findall(nodes.definition_list_item):
        meaning = first_sentences(next(item.findall(nodes.definition)).astext())
        for term in item.findall(nodes.term):
            if term["ids"]:
                found[term.astext().strip()] = (term["ids"][0], meaning)
    return found


def pattern(words: list[str]) -> re.Pattern[str]:
    """Finds any of the words, the longer before the shorter, in the singular or with an s.

    A word that starts with one capital may be written small, for in a sentence it is; names and abbreviations are
    written as they are.
    """
    alternatives = []
    for word in sorted(words, key=len, reverse=True):
        escaped = re.escape(word)
        if word[0].isupper() and word[1:] == word[1:].lower():
            escaped = f"[{word[0]}{word[0].lower()}]{re.escape(word[1:])}"
        alternatives.append(escaped)
    return re.compile(rf"(?<![\w-])({'|'.join(alternatives)})s?(?![\w-])")


def link_first_uses(app: Sphinx, document: nodes.document, page: str) -> None:
    """Link the first use of each word of the glossary in the running text of a chapter."""
    if not page.startswith("notebooks/") or GLOSSARY not in app.env.found_docs:
        return
    words = definitions(app.env.get_doctree(GLOSSARY))
    address = app.builder.get_relative_uri(page, GLOSSARY)
    entry_of = {word.lower(): (word, *found) for word, found in words.items()}
    remaining = set(words)
    for text in list(document.findall(nodes.Text)):
        if not remaining or not _is_running_text(text):
            continue
        pieces: list[nodes.Node] = []
        end = 0
        for match in pattern(sorted(words)).finditer(text):
            word, anchor, meaning = entry_of[match[1].lower()]
            if word not in remaining:
                continue
            remaining.remove(word)
            link = nodes.reference(
                "", match[0], internal=True, refuri=f"{address}#{anchor}", reftitle=meaning, classes=["glossary-word"]
            )
            pieces += [nodes.Text(text[end : match.start()]), link]
            end = match.end()
        if pieces:
            pieces.append(nodes.Text(text[end:]))
            text.parent.replace(text, [piece for piece in pieces if piece.astext()])


def _is_running_text(text: nodes.Text) -> bool:
    within = []
    ancestor = text.parent
    while ancestor is not None:
        within.append(ancestor)
        ancestor = ancestor.parent
    return any(isinstance(node, _WITHIN_A_SENTENCE) for node in within) and not any(
        isinstance(node, _NOT_WITHIN) or "cell_output" in node.get("classes", ()) for node in within
    )


def open_figures_alone(app: Sphinx, document: nodes.document, page: str) -> None:
    """Make every picture of a chapter a link to itself."""
    if app.builder.format != "html" or not page.startswith("notebooks/"):
        return
    for image in list(document.findall(nodes.image)):
        _, name = app.env.images.get(image["uri"], (None, None))
        if name is None or isinstance(image.parent, nodes.reference):
            continue
        link = nodes.reference(
            "",
            "",
            internal=True,
            refuri="../" * page.count("/") + f"{app.builder.imagedir}/{quote(unquote(name))}",
            classes=["figure-alone"],
            reftitle="Open this figure by itself",
        )
        image.replace_self(link)
        link += image


def pages_that_show_the_glossary(
    app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]
):
    """All chapters are written again when the glossary has changed."""
    if GLOSSARY in added | changed:
        return [page for page in env.found_docs if page.startswith("notebooks/")]
    return []


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("env-get-outdated", pages_that_show_the_glossary)
    app.connect("doctree-resolved", link_first_uses, priority=600)
    app.connect("doctree-resolved", open_figures_alone, priority=700)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
