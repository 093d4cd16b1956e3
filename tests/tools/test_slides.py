"""Decks: which cells are on them, what they keep of the page, and that a browser can show them without a network."""

from __future__ import annotations

import chapters
import make_slides
import pytest
from bs4 import BeautifulSoup
from selenium.webdriver.common.by import By
from teaching_extension import prepared

PAGE = """<!doctype html><html lang="en"><head><title>A coin — The course</title>
<script src="../_static/mathjax/tex-chtml.js"></script></head><body><article>
<section id="a-coin"><h1>A coin<a class="headerlink" href="#a-coin">#</a></h1><p>How sure is it?</p>
<section id="looking"><h2>Looking<a class="headerlink" href="#looking">#</a></h2><p>Prose.</p>
<!-- on-slides 6 -->
<div class="cell"><div class="cell_input"><pre>figure</pre></div><div class="cell_output"><figure id="fig-coin">
<a class="image-reference" href="../_images/x.png"><img alt="A rising line." src="../_images/x.png"></a>
<figcaption><p>A line.</p></figcaption></figure></div></div>
<!-- /on-slides 6 -->
<p>More prose, <a href="#looking">here</a>.</p></section></section></article></body></html>"""


@pytest.fixture
def deck(chapter):
    text = make_slides.deck_html(chapter, BeautifulSoup(PAGE, "html.parser"), "notebooks/99_coin", {"rate": "0.5"})
    return BeautifulSoup(text, "html.parser")


def test_slides_are_the_title_and_what_the_metadata_say(deck):
    first, second, third = deck.select(".slides section section")
    assert first.h1.get_text() == "A coin" and "The course" in first.get_text()
    assert second.h2.get_text() == "Half"
    assert "one in 0.5" in second.li.get_text()
    assert second.select_one(".math").get_text() == r"\(p < 1\)"
    assert second.img["alt"] == "A rising line." and second.img["src"] == "../_images/x.png"
    assert "Prose" not in deck.get_text() and "Exercise" not in deck.get_text()
    assert third.h2.get_text() == "Quiz" and len(third.find_all("details")) == 2
    assert third.parent == second.parent  # below it


def test_a_second_picture_gets_a_slide_of_its_own_under_the_same_heading(chapter):
    chapter.cells.insert(7, chapter.cells[6])
    picture = PAGE[PAGE.index("<!-- on-slides 6") : PAGE.index("<p>More prose")]
    page = PAGE.replace(picture, picture + picture.replace("6 -->", "7 -->"))
    made = make_slides.deck_html(chapter, BeautifulSoup(page, "html.parser"), "notebooks/99_coin", {"rate": "0.5"})
    slides = BeautifulSoup(made, "html.parser").select(".slides section section")
    assert [len(slide.find_all("img")) for slide in slides] == [0, 1, 1, 0]
    assert slides[2].h2.get_text() == "Half (2)" and "one in" not in slides[2].get_text()
    assert slides[2].select_one(".slide-caption").get_text() == "A line." and not slides[1].select(".slide-caption")
    assert make_slides.problems(made) == []


def test_a_slide_ends_before_the_next_section(chapter):
    chapter.cells[5].source = "## Half\n\n* one\n\n### Closer\n\nwords\n\n## Further reading\n\nA book."
    page = BeautifulSoup(PAGE, "html.parser")
    made = make_slides.deck_html(chapter, page, "notebooks/99_coin", {"rate": "0.5"})
    text = BeautifulSoup(made, "html.parser").get_text()
    assert "Half" in text and "Closer" in text and "words" in text
    assert "Further reading" not in text and "A book" not in text


def test_every_question_has_a_slide(chapter, quiz):
    chapter.cells[-1].source = f"## Quiz\n\n{quiz}\n{quiz}"
    page = BeautifulSoup(PAGE, "html.parser")
    made = make_slides.deck_html(chapter, page, "notebooks/99_coin", {"rate": "0.5"})
    slides = BeautifulSoup(made, "html.parser").select(".slides section section")
    assert [len(slide.find_all("details")) for slide in slides] == [0, 0, 2, 2]
    assert [slide.h2.get_text() for slide in slides[2:]] == ["Quiz", "Quiz (2)"]
    assert slides[3].strong.get_text() == "1. What does the coin know?"


def test_a_picture_alone_has_the_heading_of_its_section_and_its_caption(chapter):
    chapter.cells[5].metadata["slideshow"]["slide_type"] = "skip"
    chapter.cells[6].metadata["slideshow"]["slide_type"] = "slide"
    made = make_slides.deck_html(chapter, BeautifulSoup(PAGE, "html.parser"), "notebooks/99_coin", {"rate": "0.5"})
    picture = BeautifulSoup(made, "html.parser").select(".slides section section")[1]
    assert picture.img and picture.h2.get_text() == "Looking"
    assert picture.select_one(".slide-caption").get_text() == "A line."
    assert make_slides.problems(made) == []


def test_what_a_deck_lacks_is_said():
    slides = ("<h2>A</h2><p>words</p>", "<img>", "<h2>A</h2><p>again</p>", "<h2>B</h2><aside>for the speaker</aside>")
    deck = f"<div class='slides'><section>{''.join(f'<section>{slide}</section>' for slide in slides)}</section></div>"
    assert make_slides.problems(deck) == [
        "slide 2 has no heading",
        "slide 2 has no words",
        "slide 3 repeats the title 'A'",
        "slide 4 has no words",
    ]


def test_the_title_stands_alone(chapter):
    chapter.cells[5].metadata["slideshow"]["slide_type"] = "-"
    page = BeautifulSoup(PAGE, "html.parser")
    made = make_slides.deck_html(chapter, page, "notebooks/99_coin", {"rate": "0.5"})
    first, second, *_ = BeautifulSoup(made, "html.parser").select(".slides section section")
    assert first.find("ul") is None and second.h2.get_text() == "Half" and second.find("ul") is not None


def test_notes_for_the_teacher_are_for_the_speaker_alone(deck):
    first, second = (notes.get_text() for notes in deck.select(".slides section section aside.notes"))
    assert "Toss one." in first and "Ask who is sure." in second


def test_code_and_captions_are_left_out_unless_asked_for(chapter, deck):
    assert deck.select(".cell_input, figcaption, .headerlink") == []
    chapter.cells[6].metadata["slideshow"]["code"] = "show"
    page = BeautifulSoup(PAGE, "html.parser")
    again = BeautifulSoup(make_slides.deck_html(chapter, page, "notebooks/99_coin", {"rate": "0.5"}), "html.parser")
    assert again.select_one(".cell_input pre").get_text() == "figure"


def test_formulas_are_drawn_by_the_script_of_the_page(deck):
    assert [script["src"] for script in deck.find_all("script", src=True)] == [
        "../_static/mathjax/tex-chtml.js",
        "reveal/reveal.js",
        "reveal/notes.js",
    ]


def test_links_lead_back_to_the_book(chapter):
    chapter.cells[6].metadata["slideshow"]["slide_type"] = "slide"
    addresses = ("#looking", "11_x.html#y", "../book/z.html", "https://x.org")
    added = "".join(f'<a href="{address}">link</a>' for address in addresses)
    page = PAGE.replace("<figcaption>", f"{added}<figcaption>")
    made = make_slides.deck_html(chapter, BeautifulSoup(page, "html.parser"), "notebooks/99_coin", {"rate": "0.5"})
    links = [link["href"] for link in BeautifulSoup(made, "html.parser").select("figure a")]
    assert links == ["../notebooks/99_coin.html#looking", "../notebooks/11_x.html#y", "../book/z.html", "https://x.org"]


TALL = "<h2>Long</h2>" + "<p>A line of words.</p>" * 25


@pytest.mark.parametrize("words", [TALL, "<h2>Wide</h2><table><tr>" + "<td>a column</td>" * 25 + "</tr></table>"])
def test_no_slide_is_larger_than_the_screen(browser, tmp_path, deck, words):
    folder = tmp_path / "slides"
    make_slides.copy_reveal(folder / "reveal")
    for script in deck.find_all("script", src=lambda address: address and "mathjax" in address):
        script.decompose()
    added = BeautifulSoup(f"<section><section>{words}</section></section>", "html.parser")
    deck.select_one(".slides").insert(0, added)
    (folder / "tall.html").write_text(str(deck), encoding="utf-8")
    browser.get((folder / "tall.html").as_uri())
    slide = "Reveal.getCurrentSlide()"
    browser.execute_script("return new Promise(done => Reveal.isReady() ? done() : Reveal.on('ready', done))")
    beyond = browser.execute_script(
        f"return [...{slide}.querySelectorAll('p, td')].filter(e => {{ const r = e.getBoundingClientRect();"
        " return r.bottom > innerHeight || r.right > innerWidth; }).length"
    )
    assert beyond == 0


def test_subslides_fragments_and_wrong_types(chapter):
    from coin import markdown, slide

    chapter.cells.append(markdown("below", "instructor", slideshow=slide("subslide")))
    chapter.cells.append(markdown("later", "instructor", slideshow=slide("fragment")))
    page = BeautifulSoup(PAGE, "html.parser")
    text = make_slides.deck_html(chapter, page, "notebooks/99_coin", {"rate": "0.5"})
    stack = BeautifulSoup(text, "html.parser").select(".slides > section")[-1]
    assert [section.p.get_text() for section in stack.find_all("section")][-1] == "below"
    assert stack.select_one(".fragment").get_text().strip() == "later"
    chapter.cells.append(markdown("what", "instructor", slideshow=slide("slid")))
    with pytest.raises(chapters.ChapterError, match="'slid' is not one of"):
        make_slides.deck_html(chapter, BeautifulSoup(PAGE, "html.parser"), "notebooks/99_coin", {"rate": "0.5"})


def test_a_value_that_no_cell_remembers_is_an_error(chapter):
    with pytest.raises(chapters.ChapterError, match="quote 'rate', but no cell"):
        make_slides.deck_html(chapter, BeautifulSoup(PAGE, "html.parser"), "notebooks/99_coin", {})


def test_the_book_reads_fences_classes_and_untouched_code(chapter, quiz):
    codes = [cell.source for cell in chapter.cells if cell.cell_type == "code"]
    made = prepared(chapter)
    assert [cell.source for cell in made.cells if cell.cell_type == "code"] == codes
    text = [cell.source for cell in made.cells]
    place = next(number for number, source in enumerate(text) if "matplotlib" in source)
    assert text[place - 1] == "<!-- on-slides 6 -->" and text[place + 1] == "<!-- /on-slides 6 -->"
    assert '<details class="quiz-option wrong">\n<summary>A.' in text[-2]
    assert '<details class="quiz-option right">\n<summary>B.' in text[-2]
    assert '<details class="solution-note">' in text[-4]


def test_a_deck_turns_its_pages_in_a_browser(browser, tmp_path, deck):
    folder = tmp_path / "slides"
    make_slides.copy_reveal(folder / "reveal")
    for script in deck.find_all("script", src=lambda address: address and "mathjax" in address):
        script.decompose()
    (folder / "coin.html").write_text(str(deck), encoding="utf-8")
    browser.get((folder / "coin.html").as_uri())
    assert browser.find_element(By.TAG_NAME, "h1").is_displayed()
    browser.find_element(By.TAG_NAME, "body").send_keys(" ")
    assert browser.find_element(By.TAG_NAME, "h2").is_displayed()
    assert not browser.find_element(By.TAG_NAME, "h1").is_displayed()
    assert not browser.find_element(By.CSS_SELECTOR, "aside.notes").is_displayed()
    assert browser.execute_script("return Reveal.hasPlugin('notes')")
