"""The book in a browser, served on this machine with the net shut off."""

from __future__ import annotations

import time

import build_book
import pytest

PAGES = build_book.pages()


@pytest.fixture(scope="module")
def offline(browser):
    """The browser with every request that leaves this machine refused."""
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["https://*"]})
    yield browser
    browser.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})


def wait_for(condition, seconds: float = 20.0):
    """The first true value of a condition; fails when none comes in time."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return value


def complaints(browser) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@pytest.fixture(scope="class")
def loaded(offline, site, page):
    complaints(offline)  # forget those of the page before
    offline.get(f"{site}/{page}.html")
    wait_for(lambda: offline.execute_script("return document.readyState") == "complete")
    return offline


@pytest.mark.parametrize("page", PAGES, scope="class")
class TestPage:
    """A page, loaded once for both tests."""

    def test_opens_without_an_error_and_asks_nobody_else(self, loaded, site, page):
        if loaded.execute_script("return document.querySelectorAll('.math').length"):
            wait_for(lambda: loaded.execute_script("return document.querySelectorAll('mjx-container').length"))
            assert loaded.execute_script("return document.querySelectorAll('mjx-merror').length") == 0
        assert complaints(loaded) == []
        asked = loaded.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
        assert asked and [address for address in asked if not address.startswith((site, "data:", "blob:"))] == []
        broken = "return [...document.images].filter(i => i.loading != 'lazy' && !i.naturalWidth).map(i => i.src)"
        assert loaded.execute_script(broken) == []

    def test_fits_a_phone(self, loaded, page):
        """No page scrolls sideways at 390 pixels; wide tables and code scroll in their own boxes."""
        metrics = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        loaded.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            wait_for(lambda: loaded.execute_script("return window.innerWidth") == 390)
            assert loaded.execute_script("return document.documentElement.scrollWidth") <= 390
        finally:
            loaded.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("notebooks/")])
def test_code_is_not_cut_off_on_a_desktop(offline, site, page):
    """No line of a chapter's code is wider than its column at 1280 pixels, folded cells included."""
    metrics = {"width": 1280, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    offline.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    offline.get(f"{site}/{page}.html")
    cut = offline.execute_script(
        """
        document.querySelectorAll('details').forEach(cell => { cell.open = true; });
        const blocks = [...document.querySelectorAll('.cell_input pre')];
        return blocks.filter(block => block.scrollWidth > block.clientWidth).map(block => block.innerText.slice(0, 80));
        """
    )
    offline.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert cut == []


def test_search_finds_a_word_without_the_net(offline, site):
    offline.get(f"{site}/search.html?q=calibration")
    links = "return [...document.querySelectorAll('#search-results li a')].map(a => a.href)"
    # The page adds one result after the other, so that the first to be seen need not be the glossary's.
    wait_for(lambda: any("glossary" in address for address in offline.execute_script(links)))


def test_the_front_door_leads_to_the_welcome_page(offline, site):
    offline.get(f"{site}/index.html")
    wait_for(lambda: offline.current_url.endswith(f"{PAGES[0]}.html"))


def test_the_results_page_filters_its_lines(offline, site):
    offline.get(f"{site}/book/results.html")
    shown = "return document.querySelectorAll('table.compared tbody tr:not([hidden])').length"
    whole = wait_for(
        lambda: offline.execute_script(f"return !document.querySelector('.results-filter').hidden && ({shown[7:]})")
    )
    assert whole >= 748
    left = offline.execute_script(
        """
        const form = document.querySelector('.results-filter');
        form.words.value = 'svhn PURVIEW auroc';
        form.dispatchEvent(new Event('input'));
        return [...document.querySelectorAll('table.compared tbody tr:not([hidden])')].map(line => line.textContent);
        """
    )
    assert 0 < len(left) < 100 and all("SVHN" in line and "AUROC" in line for line in left)
    said = offline.execute_script("return document.querySelector('.results-filter output').textContent")
    assert said == f"{len(left)} of {whole} numbers are shown"


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_text_of_the_map_stands_out_in_light_and_dark(offline, site, mode):
    """Contrast of the labels against the page, as WCAG computes it, is at least 4.5 to 1."""
    offline.get(f"{site}/{PAGES[0]}.html")
    colours = offline.execute_script(
        """
        document.documentElement.dataset.theme = arguments[0];
        const page = getComputedStyle(document.body).backgroundColor;
        const labels = [...document.querySelectorAll('.map-wide .map-label, .map-wide .map-line')];
        return [page, [...new Set(labels.map(label => getComputedStyle(label).fill))]];
        """,
        mode,
    )
    background, labels = colours[0], colours[1]
    assert len(labels) >= 4
    for label in labels:
        assert contrast(label, background) >= 4.5, (label, background)


def contrast(one: str, other: str) -> float:
    """Ratio of the luminances of two colours written rgb(r, g, b), WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
