"""The built book as a reader and a teacher use it: accessible, by keyboard, in the dark, on paper, as slides."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

import build_book
import chapters
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

PAGES = build_book.pages()
CHAPTERS = [page for page in PAGES if page.startswith("notebooks/")]


def axe_source() -> str:
    """axe-core, out of a package that carries it (the package itself, which drives another browser, is not used)."""
    package = find_spec("axe_playwright_python")
    if package is None or not package.submodule_search_locations:
        pytest.skip("axe-core is not installed: pip install axe-playwright-python")
    return (Path(package.submodule_search_locations[0]) / "axe.min.js").read_text(encoding="utf-8")


#: Rules on colours. They alone can find something else in the dark than in the light, and they take the longest.
COLOURS = ("color-contrast", "link-in-text-block")

# Words of code are thousands and of few kinds, and what counts is their colour: beside the first block of code of each kind
# of place, a block with one word of each kind stands for all of them while colours are looked at.
SAMPLES = """
    const samples = new Map();
    for (const block of document.querySelectorAll("div[class*=highlight-]")) {
        const place = block.className + "|" + block.parentElement.className;
        if (!samples.has(place)) {
            const copy = block.cloneNode(true);
            copy.dataset.sample = "";
            const lines = copy.querySelector("pre");
            lines.replaceChildren();
            block.after(copy);
            samples.set(place, {lines, kinds: new Set()});
        }
        const {lines, kinds} = samples.get(place);
        for (const word of block.querySelectorAll("pre span")) {
            if (!kinds.has(word.className)) lines.append(word.cloneNode(true), " ");
            kinds.add(word.className);
        }
    }
"""
AXE = """
    const [colours, rules, done] = arguments;
    const options = {resultTypes: ["violations"]};
    if (colours) options.runOnly = rules;
    else options.rules = Object.fromEntries(rules.map(rule => [rule, {enabled: false}]));
    axe.run(colours ? {exclude: [["div[class*=highlight-]:not([data-sample])"]]} : document, options)
        .then(result => done(result.violations), error => done(String(error)));
"""


def violations(browser, source: str, colours: bool) -> list[str]:
    """What axe finds serious or critical, by the rules on colours or by all others: rule, number of elements, the first."""
    browser.set_script_timeout(240)
    if colours:
        browser.execute_script(SAMPLES)
    try:
        found = browser.execute_async_script(f"{source};{AXE}", colours, list(COLOURS))
    finally:
        browser.execute_script("document.querySelectorAll('[data-sample]').forEach(sample => sample.remove())")
    assert isinstance(found, list), found
    return [
        f"{violation['id']}: {len(violation['nodes'])}, {violation['nodes'][0]['html'][:120]}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
    ]


def wait_for(condition, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def opened(browser, address: str):
    browser.get(address)
    wait_for(lambda: browser.execute_script("return document.readyState") == "complete")
    browser.execute_script("document.querySelectorAll('details').forEach(box => { box.open = false; })")
    return browser


def set_theme(browser, mode: str) -> None:
    """Switch without the theme's fading: axe must not look while colours are on their way."""
    browser.execute_script(
        "document.documentElement.insertAdjacentHTML('beforeend', '<style>* { transition: none !important; }</style>');"
        "localStorage.setItem('mode', arguments[0]); localStorage.setItem('theme', arguments[0]);"
        "document.documentElement.dataset.mode = document.documentElement.dataset.theme = arguments[0];",
        mode,
    )
    time.sleep(0.5)


def accessible(browser) -> None:
    """Axe finds nothing serious on the page that is open, in the light and in the dark."""
    source = axe_source()
    set_theme(browser, "light")
    browser.execute_script("document.querySelectorAll('details').forEach(box => { box.open = true; })")
    assert violations(browser, source, colours=False) == []
    assert violations(browser, source, colours=True) == [], "in the light"
    set_theme(browser, "dark")
    assert violations(browser, source, colours=True) == [], "in the dark"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in CHAPTERS])
def test_axe_finds_nothing_serious_in_light_and_in_dark(browser, site, page):
    opened(browser, f"{site}/{page}.html")
    accessible(browser)


def test_axe_would_have_found_something(browser, tmp_path):
    """The test above can fail: a picture without words, a slider without a label, grey on grey."""
    file = tmp_path / "page.html"
    file.write_text(
        "<!doctype html><html lang=en><title>t</title><main><h1>t</h1><img src='data:,'><input type=range>"
        "<p style='color:#999;background:#bbb'>words</p>"
        "<div class=highlight-python><pre style='background:#fff'>"
        "<span class=n>x</span><span class=o style='color:#eee'>word</span></pre></div>"
        "</main></html>",
        encoding="utf-8",
    )
    opened(browser, file.as_uri())
    assert {found.partition(":")[0] for found in violations(browser, axe_source(), colours=False)} >= {
        "image-alt",
        "label",
    }
    (contrast,) = violations(browser, axe_source(), colours=True)
    assert contrast.startswith("color-contrast: 2,"), "the paragraph, and the word of code"


@pytest.fixture(scope="class")
def loaded(browser, site, page):
    return opened(browser, f"{site}/{page}.html")


@pytest.mark.parametrize("page", CHAPTERS, scope="class")
class TestChapter:
    """A chapter in the browser: loaded once for all of these, for that takes longer than to look at it."""

    @pytest.fixture(autouse=True)
    def as_found(self, loaded):
        """In the light, with every box closed."""
        set_theme(loaded, "light")
        loaded.execute_script("document.querySelectorAll('details').forEach(box => { box.open = false; })")

    def test_axe_finds_nothing_serious_in_light_and_in_dark(self, browser, page):
        accessible(browser)

    def test_pictures_are_not_changed_in_the_dark(self, browser, page):
        set_theme(browser, "dark")
        looks = browser.execute_script(
            """
            return [...document.querySelectorAll(".cell_output img")]
                .map(picture => getComputedStyle(picture)).map(look => [look.filter, look.backgroundColor]);
            """
        )
        assert looks and {tuple(look) for look in looks} == {("none", "rgb(255, 255, 255)")}

    def test_solutions_are_folded_and_open_by_keyboard(self, browser, page):
        boxes = browser.find_elements(By.CSS_SELECTOR, ".tag_solution details")
        assert len(boxes) == len(chapters.exercises(chapters.read(chapters.ROOT / f"{page}.ipynb")))
        for box in boxes:
            code = box.find_element(By.TAG_NAME, "pre")
            summary = box.find_element(By.TAG_NAME, "summary")
            assert "Show the solution" in summary.text
            assert not code.is_displayed()
            summary.send_keys(Keys.RETURN)
            wait_for(lambda code=code: code.is_displayed() and code.text.strip())  # it fades in
            assert "Hide the solution" in summary.text
            assert "SOLUTION" not in code.text

    def test_quiz_answers_by_keyboard_and_says_right_or_not(self, browser, page):
        asked = [
            option
            for question in chapters.questions(chapters.read(chapters.ROOT / f"{page}.ipynb"))
            for option in question.options
        ]
        boxes = browser.find_elements(By.CSS_SELECTOR, "details.quiz-option")
        assert len(boxes) == len(asked)
        edges = set()
        for box, option in zip(boxes, asked, strict=True):
            reason = box.find_element(By.CSS_SELECTOR, "p")
            assert not reason.is_displayed()
            box.find_element(By.TAG_NAME, "summary").send_keys(Keys.SPACE)
            wait_for(reason.is_displayed)
            assert reason.text.startswith(chapters.RIGHT if option.right else chapters.WRONG)
            edges.add(
                (
                    option.right,
                    box.value_of_css_property("border-left-color"),
                    box.value_of_css_property("border-left-style"),
                )
            )
        assert len(edges) == 2 and len({edge[1:] for edge in edges}) == 2  # two looks, one for each verdict

    def test_the_picture_answers_back_on_the_page(self, browser, page):
        for figure in browser.find_elements(By.CSS_SELECTOR, ".explore"):
            picture = figure.find_element(By.TAG_NAME, "img")
            for slider in figure.find_elements(By.TAG_NAME, "input"):
                before = picture.get_attribute("src"), picture.get_attribute("alt")
                slider.send_keys(Keys.HOME)
                at_home = picture.get_attribute("src"), picture.get_attribute("alt")
                slider.send_keys(Keys.END)
                at_end = picture.get_attribute("src"), picture.get_attribute("alt")
                assert at_home != at_end and all(one != other for one, other in zip(at_home, at_end, strict=True))
                assert len({before, at_home, at_end}) >= 2
                assert at_end[1] in slider.get_attribute("aria-valuetext")

    def test_on_paper_everything_is_open(self, browser, page):
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        try:
            heights = browser.execute_script(
                """
                return [...document.querySelectorAll(".bd-article details > :not(summary)")]
                    .map(part => part.getBoundingClientRect().height);
                """
            )
            assert heights and min(heights) > 0
            for slider in browser.find_elements(By.CSS_SELECTOR, ".explore input"):
                assert not slider.is_displayed()
            assert all(picture.is_displayed() for picture in browser.find_elements(By.CSS_SELECTOR, ".cell_output img"))
        finally:
            browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.parametrize("page", CHAPTERS)
def test_every_chapter_leads_to_slides_that_fit_the_screen(browser, site, page):
    opened(browser, f"{site}/{page}.html")
    browser.get_log("browser")
    link = browser.find_element(By.CSS_SELECTOR, ".teaching-links a")
    opened(browser, link.get_attribute("href"))
    wait_for(lambda: browser.execute_script("return window.Reveal && Reveal.isReady()"))
    if browser.execute_script("return document.querySelectorAll('.math').length"):
        wait_for(lambda: browser.execute_script("return document.querySelectorAll('mjx-container').length"))
    assert browser.execute_script("return Reveal.getTotalSlides()") >= 4
    too_large = browser.execute_script(
        """
        return Reveal.getSlides().map((slide, number) => {
            const place = Reveal.getIndices(slide);
            Reveal.slide(place.h, place.v, 99);
            const box = [slide.scrollHeight - slide.clientHeight, slide.scrollWidth - slide.clientWidth];
            return [number + 1, (slide.querySelector("h1, h2, h3") || {}).textContent, ...box];
        }).filter(row => row[2] > 2 || row[3] > 2);
        """
    )
    assert too_large == []
    assert browser.execute_script("return [...document.images].filter(i => !i.naturalWidth).map(i => i.src)") == []
    assert browser.execute_script("return document.querySelectorAll('aside.notes').length") >= 1
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []
    asked = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [address for address in asked if not address.startswith((site, "data:", "blob:"))] == []
    browser.execute_script("Reveal.slide(1)")
    assert violations(browser, axe_source(), colours=False) == []
    assert violations(browser, axe_source(), colours=True) == []
