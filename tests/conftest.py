"""What tests of several folders share: the tools on the path, the built book, and a browser."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import pytest

from tutorial_lib.storage import locked

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
matplotlib.use("Agg")


# In a process of their own: see tests/test_off_the_processor.py.
collect_ignore = [] if os.environ.get("TUTORIAL_TEST_DEVICE") else ["test_stand_in.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the built book or a browser, so that `make quick` can do without."""
    for item in items:
        for name in {"book", "browser"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(name)
        if "browser_without_scripts" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def book(request: pytest.FixtureRequest) -> Path:
    """Folder of the built book. What has changed since the last build is built first, which takes minutes and is said; if
    nothing has changed, it is quick.

    Tests in several processes wait for each other here. With ``TUTORIAL_BOOK_AS_BUILT`` set, as ``make chapter`` sets it,
    nothing is built.
    """
    built = ROOT / "_build" / "html"
    if os.environ.get("TUTORIAL_BOOK_AS_BUILT"):
        return built
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print("\nbringing the book up to date (minutes where notebooks have changed) ...", flush=True)
    with locked(ROOT / "_build" / ".lock"):
        build = subprocess.run(
            [sys.executable, ROOT / "tools" / "build_book.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if build.returncode != 0:
        pytest.fail("the book does not build:\n" + build.stdout[-4000:], pytrace=False)
    return built


@pytest.fixture(scope="session")
def site(book: Path) -> Iterator[str]:
    """Address under which the built book is served on this machine, without a slash at its end."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=book)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def open_browser(scripts: bool = True):
    """Headless Chromium of the system, 1200 x 900; with or without JavaScript."""
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = str(shutil.which("chromium") or shutil.which("chromium-browser"))
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--window-size=1200,900",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if not scripts:
        options.add_experimental_option("prefs", {"profile.managed_default_content_settings.javascript": 2})
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def _skip_without_browser() -> None:
    pytest.importorskip("selenium", reason="selenium is not installed")
    if not (shutil.which("chromium") or shutil.which("chromium-browser")) or not shutil.which("chromedriver"):
        pytest.skip("no Chromium with its driver on this machine (Debian: apt-get install chromium chromium-driver)")


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """A browser that all tests share; skipped where there is none."""
    _skip_without_browser()
    driver = open_browser()
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def browser_without_scripts() -> Iterator[object]:
    """A browser whose reader has switched JavaScript off."""
    _skip_without_browser()
    driver = open_browser(scripts=False)
    yield driver
    driver.quit()
