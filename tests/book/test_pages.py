"""The written pages, read as HTML: nothing failed or is missing, links lead somewhere, nothing comes from the net."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

import build_book
import make_slides
import notebook_cells
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
PAGES = build_book.pages()
NOTEBOOKS = build_book.notebooks()


@cache
def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture(params=PAGES)
def page(request, book: Path) -> Path:
    return book / f"{request.param}.html"


@pytest.fixture(params=NOTEBOOKS)
def chapter(request, book: Path) -> Path:
    return book / f"{request.param}.html"


def test_nothing_failed_while_it_was_made(page):
    text = page.read_text(encoding="utf-8")
    assert "output traceback" not in text and "Traceback (most recent call last)" not in text
    assert not soup(page).select(".system-message, .problematic"), (
        "a mark that Sphinx leaves where it did not understand"
    )
    assert not re.search(r"\{(glue|cite|numref|ref|term)[^}]*\}`", soup(page).get_text()), (
        "a role that was not understood"
    )


def test_one_title(page):
    titles = [heading.get_text(strip=True) for heading in soup(page).select("h1")]
    assert len(titles) == 1 and titles[0]
    assert soup(page).html.get("lang") == "en"
    assert soup(page).title.get_text(strip=True)


def test_headings_do_not_skip_a_level(page):
    levels = [int(heading.name[1]) for heading in soup(page).select("main :is(h1, h2, h3, h4, h5, h6)")]
    assert all(later - earlier <= 1 for earlier, later in zip(levels, levels[1:], strict=False)), levels


def test_every_picture_is_there_and_has_words(page):
    for picture in soup(page).select("img"):
        source = picture.get("src", "")
        assert source.startswith("data:") or (page.parent / unquote(source)).resolve().is_file(), source
        words = picture.get("alt")
        assert words is not None and (words.strip() or picture.get("role") == "presentation"), source
        assert not re.search(r"\.(png|svg|jpg)$|<Figure|_images/", words), (
            f"alt text that is only a file name: {words!r}"
        )
    for drawing in soup(page).select("main svg[viewbox]"):
        named = drawing.get("aria-label") or drawing.select_one("title") or drawing.get("aria-hidden") == "true"
        assert named, str(drawing)[:200]


def test_every_figure_of_a_chapter_is_numbered_by_its_chapter(chapter):
    number = int(re.match(r"(\d+)_", chapter.stem)[1])
    captions = [caption.get_text(strip=True) for caption in soup(chapter).select("figure .caption-number")]
    assert captions == [f"Figure {number}.{place}" for place in range(1, len(captions) + 1)]
    assert captions, "a chapter without a figure"


def test_every_link_inside_the_book_leads_to_a_place(page, book):
    for element in soup(page).select("a[href], link[href]"):
        address, anchor = urldefrag(element["href"])
        if urlparse(address).scheme or address.startswith("//"):
            continue
        address = address.partition("?")[0]
        target = (page.parent / unquote(address)).resolve() if address else page
        assert target.is_file(), f"{element['href']} leads nowhere"
        assert target.is_relative_to(book)
        if anchor and target.suffix == ".html":
            names = soup(target).select(f'[id="{unquote(anchor)}"], a[name="{unquote(anchor)}"]')
            assert names, f"{element['href']}: no such place on that page"


def test_nothing_is_loaded_from_the_net(page):
    """Links to other sites are for a reader to follow; scripts, styles, pictures and frames must lie in the book."""
    outside = re.compile(r"^(https?:)?//")
    loaded = [
        element.get(attribute)
        for selector, attribute in (
            ("script[src]", "src"),
            ("link[rel~=stylesheet], link[rel~=preload], link[rel~=icon], link[rel~=preconnect]", "href"),
            ("img[src], iframe[src], video[src], audio[src], source[src], embed[src]", "src"),
        )
        for element in soup(page).select(selector)
    ]
    assert [source for source in loaded if outside.match(source)] == []
    scripts = " ".join(element.get_text() for element in soup(page).select("script:not([src]), style"))
    assert not re.search(r"""(src|href)\s*=\s*['"]https?://|import\s*\(?['"]https?://|url\(['"]?https?://""", scripts)
    assert not re.search(r"unpkg\.com|jsdelivr|cdnjs|googleapis", page.read_text(encoding="utf-8"))


def test_styles_load_nothing_from_the_net(book):
    for style in (book / "_static").rglob("*.css"):
        found = re.findall(r"(?:url\(|@import\s+)['\"]?(?:https?:)?//[^)'\"]+", style.read_text(encoding="utf-8"))
        assert found == [], style


def test_colab_links_open_the_notebooks_for_learners(chapter):
    learner, solved = (
        notebook_cells.colab_link(notebook_cells.learner_path(chapter.name, solved)) for solved in (False, True)
    )
    links = {link["href"] for link in soup(chapter).select('a[href*="colab.research.google.com"]')}
    assert links == {learner, solved}
    badge = soup(chapter).select_one("a.colab-badge")
    assert badge["href"] == learner and badge.get_text(strip=True) and not badge.select("img")
    assert soup(chapter).select(f'.article-header-buttons a[href="{learner}"]'), "the theme's launch button"


def test_the_notebook_can_be_downloaded_and_the_repository_found(chapter, book):
    downloads = soup(chapter).select("a.btn-download-source-button")
    assert any((chapter.parent / link["href"]).resolve().is_file() for link in downloads)
    assert soup(chapter).select(f'a[href="{notebook_cells.repository_address()}"]')


def test_notes_for_the_teacher_and_set_up_are_not_in_the_book(chapter):
    text = soup(chapter).select_one("main").get_text()
    assert "pip install" not in text and "google.colab" not in text
    assert not soup(chapter).select(".tag_instructor")


def test_a_page_stays_small(page):
    assert page.stat().st_size < 2_000_000, f"{page.stat().st_size} bytes"


def test_welcome_page_maps_the_course(book):
    """Every planned chapter is on both drawings of the map; those that exist, and only those, are links."""
    from course_map import read_chapters

    chapters, _ = read_chapters()
    page = book / f"{PAGES[0]}.html"
    for drawing in soup(page).select(".course-map svg"):
        numbers = [int(station.get_text()) for station in drawing.select(".map-number")]
        assert sorted(numbers) == [chapter.number for chapter in chapters]
        linked = {Path(link["href"]).stem for link in drawing.select("a")}
        assert linked == {chapter.name for chapter in chapters if chapter.exists}
        labels = " ".join(label.get_text(" ") for label in drawing.select(".map-label"))
        assert all(word in labels for chapter in chapters for word in chapter.title.split())
    assert len(soup(page).select(".course-map svg")) == 2


def test_every_chapter_shows_where_its_reader_is(chapter):
    drawings = soup(chapter).select("nav.you-are-here svg")
    assert len(drawings) == 2
    for drawing in drawings:
        here = [link["href"] for link in drawing.select('a[aria-current="page"]')]
        assert [Path(link).name for link in here] == [chapter.name]


def test_the_front_door_opens_the_welcome_page(book):
    door = soup(book / "index.html")
    assert f"{PAGES[0]}.html" in str(door)


def test_every_work_that_is_cited_is_in_the_list(book):
    entries = soup(book / "book" / "references.html").select(".citation")
    keys = re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(entries) == len(keys) == len(set(keys)) > 0


def test_words_of_the_glossary_are_links_once(chapter):
    links = soup(chapter).select("a.glossary-word")
    places = [link["href"] for link in links]
    assert links and len(set(places)) == len(places)
    assert all(link.get("title") for link in links)


def test_figures_open_by_themselves(chapter):
    for picture in soup(chapter).select("main figure img"):
        if not picture["src"].startswith("data:"):
            link = picture.find_parent("a")
            assert link is not None and link["href"] == picture["src"]


@pytest.mark.parametrize("name", [Path(name).name for name in NOTEBOOKS])
def test_slides_have_headings_and_words(book, name):
    deck = book / make_slides.FOLDER / f"{name}.html"
    assert make_slides.problems(deck.read_text(encoding="utf-8")) == []
