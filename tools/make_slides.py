"""Slide decks from the chapters: reveal.js, without a network, from the pages of the built book.

A deck is made from the finished page of its chapter, so formulas, citations, numbers and pictures are those of the run
that made the book. Which cells are on it, and as what, says their metadata:

``slideshow.slide_type``
    ``slide`` and ``subslide`` start a slide, ``fragment`` appears on the next key press, ``-`` goes on with the slide,
    ``notes`` goes into the speaker's notes. Cells without it are not on the slides; questions of the quiz are, each on
    a slide of its own. A second picture on a slide goes to the next one, under the same heading. Of a Markdown cell
    only what stands before its next ``##`` is on the slide.
``slideshow.code``
    ``show`` keeps the code of a cell; otherwise only its output is shown.

Cells tagged ``instructor`` are not in the book. With a slide type they are words for the slides alone; without one they
are speaker notes of the slide before them. The title of the chapter is the first slide.

Every slide has a heading of its own, that of its section where its cells bring none, numbered where it comes again; and words: what
shows a picture alone shows its caption, too. What is taller than the screen is made smaller (`templates/deck.html`).
`problems` says what a finished deck lacks.

reveal.js comes from the package ``sphinx-revealjs``, MathJax from the book. Command line::

    python tools/make_slides.py _build/html        # say which decks are there; fail if a chapter has none, or a slide lacks something
"""

from __future__ import annotations

import argparse
import copy
import html
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import chapters
from bs4 import BeautifulSoup, Comment, Tag
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

FOLDER = "slides"
_FENCE = re.compile(r"^\s*(?P<end>/?)on-slides (?P<position>\d+)\s*$")
_HEADING = re.compile(r"^#{2,3} +(.+?) *$", re.MULTILINE)
_CAPTION = "slide-caption"
_GLUE = re.compile(r"\{glue:text\}`(?P<name>[^`:]+)(?::(?P<format>[^`]+))?`")


def fence(position: int, end: bool = False) -> str:
    """The comment before (or after) the cell at ``position`` of the notebook, to find it in the finished page."""
    return f"<!-- {'/' if end else ''}on-slides {position} -->"


def has_slides(notebook: NotebookNode) -> bool:
    """Whether any cell of a chapter starts a slide."""
    types = (cell.metadata.get("slideshow", {}).get("slide_type") for cell in notebook.cells)
    return any(kind in ("slide", "subslide") for kind in types)


def make_deck(path: Path, built: Path, docname: str) -> Path:
    """Write the deck of one chapter beside the book and copy what it needs.

    Args:
        path: the chapter's notebook.
        built: folder of the built book; the deck becomes ``built/slides/NAME.html``.
        docname: the page of the chapter, relative to ``built`` and without ``.html``.

    Returns:
        The file of the deck.
    """
    page = BeautifulSoup((built / f"{docname}.html").read_text(encoding="utf-8"), "html.parser")
    folder = built / FOLDER
    copy_reveal(folder / "reveal")
    remembered = built.parent / "jupyter_execute" / f"{docname}.glue.json"
    glued = chapters.glued(remembered) if remembered.exists() else {}
    deck = deck_html(chapters.read(path), page, docname, glued)
    target = folder / f"{path.stem}.html"
    target.write_text(deck, encoding="utf-8")
    return target


def copy_reveal(target: Path) -> None:
    """Copy reveal.js and our style sheet into ``target``, unless they are there."""
    package = find_spec("sphinx_revealjs")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("slides need reveal.js from the package sphinx-revealjs: pip install sphinx-revealjs")
    source = Path(package.submodule_search_locations[0]) / "_static" / "revealjs"
    files = {
        "reveal.js": source / "dist" / "reveal.js",
        "reveal.css": source / "dist" / "reveal.css",
        "reset.css": source / "dist" / "reset.css",
        "notes.js": source / "plugin" / "notes" / "notes.js",
        "LICENSE": source / "LICENSE",
        "deck.css": Path(__file__).parent / "templates" / "deck.css",
    }
    target.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        content = file.read_bytes()
        if not (target / name).exists() or (target / name).read_bytes() != content:
            (target / name).write_bytes(content)


def deck_html(notebook: NotebookNode, page: BeautifulSoup, docname: str, glued: dict[str, str]) -> str:
    """The deck as HTML.

    Args:
        notebook: the chapter as stored.
        page: its finished page, with the comments of :func:`fence`.
        docname: where the page lies in the book; links of the slides lead back to it.
        glued: values that the run remembered, for words that are only on slides.
    """
    on_page = _cells_on_page(page, docname)
    heading = page.find("h1")
    name = _without_anchor(heading).get_text().strip() if heading else chapters.title(notebook)
    course = page.find("meta", property="og:site_name")
    footer = str(course["content"]) if course else course_name(page)
    stacks: list[list[list[str]]] = [[[f'<h1>{html.escape(name)}</h1>\n<p class="course">{html.escape(footer)}</p>']]]
    section = ""
    for position, cell in enumerate(notebook.cells):
        kind = chapters.slide_type(cell)
        if cell.cell_type == "markdown" and "instructor" not in chapters.tags(cell):
            section = (_HEADING.findall(cell.source) or [section])[-1] if position else ""
        if kind == "skip" or position == 0:
            continue
        content = on_page[position] if position in on_page else _rendered(cell, glued)
        if "slideshow" in cell.metadata and cell.cell_type == "code":
            content = _code_as_wished(content, cell.metadata["slideshow"].get("code") == "show")
        elif "quiz" not in chapters.tags(cell) and kind != "notes":
            content = _first_section(content)
        if "quiz" in chapters.tags(cell) and kind in ("slide", "subslide"):
            asked = [[_headed(question, section)] for question in _questions(content)]
            stacks.extend([asked] if kind == "slide" else [])
            stacks[-1].extend(asked if kind == "subslide" else [])
        elif kind == "slide":
            stacks.append([[_headed(content, section)]])
        elif kind == "subslide":
            stacks[-1].append([_headed(content, section)])
        elif kind in ("fragment", "-") and (len(stacks) == 1 or _second_picture(stacks[-1][-1], content)):
            again = re.search(r"<h2.*?</h2>", "".join(stacks[-1][-1]), re.DOTALL)
            shown = again[0] if again else ""
            if len(stacks) == 1:
                shown = "" if re.search(r"<h2\b", content) else _headed("", section or html.escape(name))
                stacks.append([])  # the title stands alone
            stacks[-1].append([shown, content])
        elif kind == "fragment":
            stacks[-1][-1].append(f'<div class="fragment">{content}</div>')
        elif kind == "notes":
            stacks[-1][-1].append(f'<aside class="notes">{content}</aside>')
        elif kind == "-":
            stacks[-1][-1].append(content)
        else:
            raise chapters.ChapterError(
                f"cell {position}: slide_type {kind!r} is not one of slide, subslide, fragment, -, notes, skip"
            )
    titles: dict[str, int] = {}
    slides = "\n".join(
        "<section>\n"
        + "\n".join(f"<section>\n{_finished(_joined(slide), titles)}\n</section>" for slide in stack)
        + "\n</section>"
        for stack in stacks
    )
    template = (Path(__file__).parent / "templates" / "deck.html").read_text(encoding="utf-8")
    values = {
        "language": html.escape(str(page.html.get("lang", "en")) if page.html else "en"),
        "title": html.escape(f"{name} · slides"),
        "footer": html.escape(footer),
        "page": f"../{docname}.html",
        "head": "\n".join([str(icon) for icon in page.find_all("link", rel="icon")] + math_scripts(page)),
        "slides": slides,
    }
    return re.sub(r"\{\{ (\w+) \}\}", lambda match: values[match[1]], template)


def _headed(content: str, section: str) -> str:
    """The beginning of a slide with the heading of its section, if it has none."""
    if not section or re.search(r"<h[123]\b", content):
        return content
    return f"<h2>{_markdown().renderInline(section)}</h2>\n{content}"


def _finished(slide: str, titles: dict[str, int]) -> str:
    """A slide with one heading that no other slide has (``titles`` counts them), and a caption where nothing else is said."""
    page = BeautifulSoup(slide, "html.parser")
    said: set[str] = set()
    for heading in page.find_all(["h1", "h2", "h3"]):
        text = _words(heading)
        if text in said:
            heading.decompose()  # a picture's cell begins its section, too
            continue
        if not said:
            titles[text] = titles.get(text, 0) + 1
            if titles[text] > 1:
                heading.append(f" ({titles[text]})")
        said.add(text)
    captions = page.select(f".{_CAPTION}")
    if _words(page, without=f"h1, h2, h3, aside, .{_CAPTION}"):
        for caption in captions:
            caption.decompose()
    return str(page)


def _words(node: Tag, without: str = "") -> str:
    """What there is to be read, in one line."""
    node = copy.copy(node)
    for part in node.select(without) if without else []:
        part.decompose()
    return node.get_text(" ", strip=True)


def problems(deck: str) -> list[str]:
    """What is wrong with a finished deck: slides without a heading or without words, titles that are said twice."""
    found: list[str] = []
    titles: list[str] = []
    for number, slide in enumerate(BeautifulSoup(deck, "html.parser").select(".slides > section > section"), 1):
        headings = [_words(heading) for heading in slide.find_all(["h1", "h2", "h3"])]
        if not headings:
            found.append(f"slide {number} has no heading")
        elif headings[0] in titles or len(set(headings)) < len(headings):
            found.append(f"slide {number} repeats the title {headings[0]!r}")
        if not _words(slide, without="h1, h2, h3, aside"):
            found.append(f"slide {number} has no words")
        titles += headings[:1]
    return found


def _first_section(content: str) -> str:
    """The part of a text before a heading that opens another section."""
    kept: list[str] = []
    words_seen = False
    for node in BeautifulSoup(content, "html.parser").children:
        is_heading = isinstance(node, Tag) and node.name == "h2"
        if is_heading and words_seen:
            break
        words_seen |= bool(str(node).strip()) and not isinstance(node, Comment)
        kept.append(str(node))
    return "".join(kept)


def _questions(content: str) -> list[str]:
    """A quiz cut before every question: before whatever follows the options of the one before."""
    cut: list[list[str]] = [[]]
    options_seen = False
    for node in BeautifulSoup(content, "html.parser").children:
        is_option = isinstance(node, Tag) and node.name == "details"
        if options_seen and not is_option and str(node).strip():
            cut.append([])
            options_seen = False
        options_seen |= is_option
        cut[-1].append(str(node))
    return ["".join(pieces) for pieces in cut]


def _second_picture(slide: list[str], content: str) -> bool:
    return "<img" in content and any("<img" in piece for piece in slide)


def _joined(pieces: list[str]) -> str:
    """One slide: its words and pictures, then the notes of its cells as one."""
    notes = [piece for piece in pieces if piece.startswith("<aside")]
    words = [piece for piece in pieces if not piece.startswith("<aside")]
    inner = "\n".join(piece.removeprefix('<aside class="notes">').removesuffix("</aside>") for piece in notes)
    return "\n".join([*words, f'<aside class="notes">{inner}</aside>' if notes else ""])


def _cells_on_page(page: BeautifulSoup, docname: str) -> dict[int, str]:
    """HTML of each fenced cell, by its position in the notebook."""
    article = page.find("article") or page
    article = copy.copy(article)
    for section in article.find_all("section"):
        section.unwrap()  # a heading opens a section that outlives its cell
    _lead_back(article, docname)
    found: dict[int, list[str]] = {}
    position = None
    for node in list(article.children):
        mark = _FENCE.match(node) if isinstance(node, Comment) else None
        if mark:
            position = None if mark["end"] else int(mark["position"])
            if position is not None:
                found[position] = []
        elif position is not None:
            found[position].append(str(_for_slide(node)) if isinstance(node, Tag) else html.escape(str(node)))
    return {position: "".join(pieces).strip() for position, pieces in found.items()}


def _for_slide(node: Tag) -> Tag:
    """A piece of the page without what a slide has no room for: anchors of headings, captions, copy buttons."""
    for anchor in node.select("a.headerlink, button.copybtn"):
        anchor.decompose()
    for caption in node.find_all("figcaption"):
        for number in caption.select(".caption-number"):
            number.decompose()
        caption.name, caption["class"] = "div", _CAPTION
    itself = [node] if node.name == "details" and "hide" in node.get_attribute_list("class") else []
    for details in [*node.select("details.hide"), *itself]:
        if details.summary:
            details.summary.decompose()
        details.name = "div"
    for picture in node.select("a.image-reference"):
        picture.unwrap()
    return node


def _code_as_wished(content: str, show: bool) -> str:
    if show:
        return content
    cell = BeautifulSoup(content, "html.parser")
    for source in cell.select(".cell_input, .above-input"):
        source.decompose()
    return str(cell)


def _lead_back(article: Tag, docname: str) -> None:
    """Addresses that were relative to the page become relative to the deck."""
    up = "../"
    folder = docname.rpartition("/")[0]
    for attribute, element in [("href", "a"), ("src", "img"), ("src", "iframe")]:
        for node in article.find_all(element):
            address = str(node.get(attribute, ""))
            if not address or urlsplit(address).scheme or address.startswith("//"):
                continue
            if address.startswith("#"):
                node[attribute] = f"{up}{docname}.html{address}"
            else:
                parts: list[str] = folder.split("/") if folder else []
                while address.startswith("../"):
                    address, parts = address.removeprefix("../"), parts[:-1]
                node[attribute] = up + "/".join([*parts, address])


def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin, renderer=_math)


def _rendered(cell: NotebookNode, glued: dict[str, str]) -> str:
    """Markdown of a cell that is not in the book."""
    if cell.cell_type != "markdown":
        return ""  # its output went with it
    return _markdown().render(_GLUE.sub(lambda match: _value(match, glued), cell.source)).strip()


def _math(formula: str, options: dict[str, bool]) -> str:
    opening, closing = (r"\[", r"\]") if options["display_mode"] else (r"\(", r"\)")
    return f'<span class="math notranslate nohighlight">{opening}{html.escape(formula)}{closing}</span>'


def _value(match: re.Match[str], glued: dict[str, str]) -> str:
    name = match["name"]
    if name not in glued:
        raise chapters.ChapterError(f"the slides quote {name!r}, but no cell of the chapter glues it")
    return format(float(glued[name]), match["format"]) if match["format"] else glued[name].strip("'")


def math_scripts(page: BeautifulSoup) -> list[str]:
    """The scripts that draw formulas, as the page has them; the deck lies as deep in the book as the page."""
    scripts = []
    for script in page.find_all("script"):
        if "mathjax" in f"{script.get('src')} {script.string}".lower():
            scripts.append(str(script))
    return scripts


def _without_anchor(heading: Tag) -> Tag:
    heading = copy.copy(heading)
    for anchor in heading.select("a.headerlink"):
        anchor.decompose()
    return heading


def course_name(page: BeautifulSoup) -> str:
    title = page.title.get_text() if page.title else ""
    return title.rpartition("—")[2].strip()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Say which slide decks the built book has.")
    parser.add_argument("built", type=Path, help="folder of the built book, _build/html")
    built = parser.parse_args(arguments).built
    missing, wrong = [], []
    for path in chapters.chapter_paths():
        deck = built / FOLDER / f"{path.stem}.html"
        if deck.exists():
            text = deck.read_text(encoding="utf-8")
            wrong += [f"{deck.name}: {problem}" for problem in problems(text)]
            slides = BeautifulSoup(text, "html.parser").select("section section")
            print(
                f"{deck}: {len(slides)} slides, {sum(bool(slide.select('aside.notes')) for slide in slides)} with notes"
            )
        else:
            missing.append(path.name)
    if missing:
        print(f"no deck for {', '.join(missing)}: give cells a slide_type, then build the book", file=sys.stderr)
    for problem in wrong:
        print(problem, file=sys.stderr)
    return 1 if missing or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
