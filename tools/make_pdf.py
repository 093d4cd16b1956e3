"""The whole book as one file: ``python tools/make_pdf.py``, or ``make pdf``.

The pages of the built book are put behind one another in one HTML file, ``_build/html/book.html``, with links that stay
within it, and Chromium prints that file. What a reader unfolds on a page (code, hints, solutions) is open, for paper
cannot be unfolded.
"""

from __future__ import annotations

import argparse
import posixpath
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import build_book
import make_slides
from bs4 import BeautifulSoup, Tag

TARGET = build_book.BUILD / "book.pdf"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_LEFT_OUT = "script, .headerlink, .teaching-links, p:has(> a.colab-badge), nav.you-are-here, .copybtn, #results-filter"
_NAMES_IDS = ("for", "aria-labelledby", "aria-describedby", "aria-controls")
_FRAME = """<!DOCTYPE html>
<html lang="en" data-theme="light">
<head><meta charset="utf-8"><title>{title}</title>{head}
<style>
  section.book-page {{ break-before: page; }}
  section.book-page:first-child {{ break-before: auto; }}
  .bd-article pre {{ white-space: pre-wrap; }}
  .bd-article .results-table, .bd-article .results-fold .results-table {{ max-height: none; overflow: visible; }}
  @page {{ margin: 18mm 16mm; }}
</style></head>
<body><main class="bd-content"><article class="bd-article">{pages}</article></main></body>
</html>
"""


def anchor(page: str, name: str = "") -> str:
    """The id in the one file of a page, or of a place on it."""
    start = page.replace("/", "-")
    return f"{start}--{name}" if name else start


def link(address: str, page: str, pages: list[str]) -> str:
    """Where a link of a page leads in the one file, which lies in the root of the built book."""
    if urlsplit(address).scheme or address.startswith("//"):
        return address
    file, name = urldefrag(address)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(file))) if file else f"{page}.html"
    target = path.removesuffix(".html")
    if path.endswith(".html") and target in pages:
        return f"#{anchor(target, name)}"
    return path + (f"#{name}" if name else "")


def section(html: str, page: str, pages: list[str]) -> str:
    """What stands on a page, as a section of the one file."""
    article = BeautifulSoup(html, "html.parser").select_one("article")
    if article is None:
        raise ValueError(f"{page}.html has no article; build the book again with: make book")
    for element in article.select(_LEFT_OUT):
        element.decompose()
    for element in article.find_all(True):
        _settle(element, page, pages)
    return f'<section class="book-page" id="{anchor(page)}">{article.decode_contents()}</section>'


def _settle(element: Tag, page: str, pages: list[str]) -> None:
    if element.name == "details":
        element["open"] = ""
    if element.name == "img":
        element.attrs.pop("loading", None)  # what is not in sight is printed all the same
    if element.find_parent("svg") is None and element.name != "svg":  # drawings refer to their own parts in many ways
        for attribute in ("id", *_NAMES_IDS):
            if element.get(attribute):
                element[attribute] = " ".join(anchor(page, name) for name in str(element[attribute]).split())
    for attribute in ("href", "src"):
        address = element.get(attribute)
        if address and not str(address).startswith("data:"):
            element[attribute] = link(str(address), page, pages)


def one_file(built: Path, pages: list[str]) -> str:
    """All pages of a built book in one HTML file that belongs into its root.

    Raises:
        FileNotFoundError: a page has not been built.
    """
    sections = []
    for page in pages:
        path = built / f"{page}.html"
        if not path.is_file():
            raise FileNotFoundError(f"{path} is not there; build the book with: make book")
        sections.append(section(path.read_text(encoding="utf-8"), page, pages))
    chapter = next(page for page in pages if page.startswith("notebooks/"))
    first = BeautifulSoup((built / f"{chapter}.html").read_text(encoding="utf-8"), "html.parser")
    styles = [str(style) for style in first.select("head link[rel=stylesheet], head style")]
    head = "".join([*styles, *make_slides.math_scripts(first)]).replace('="../', '="')
    title = make_slides.course_name(first)
    return _FRAME.format(title=title, head=head, pages="".join(sections))


def print_file(source: Path, target: Path) -> None:
    """Print an HTML file to PDF.

    Raises:
        FileNotFoundError: no Chromium or Chrome is installed.
        RuntimeError: it wrote nothing.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise FileNotFoundError(f"Chromium or Chrome is needed to print; none of {', '.join(BROWSERS)} is installed")
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--no-pdf-header-footer"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += [f"--user-data-dir={profile}", "--virtual-time-budget=120000", f"--print-to-pdf={target}"]
        done = subprocess.run([*command, source.resolve().as_uri()], capture_output=True, text=True, check=False)
    if not target.is_file():
        raise RuntimeError(f"the browser wrote nothing: {done.stderr.strip()[-500:]}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the built book into one PDF.")
    parser.add_argument("--out", type=Path, default=TARGET, help="the file to write (_build/book.pdf)")
    out = parser.parse_args(arguments).out
    source = build_book.HTML / "book.html"
    try:
        source.write_text(one_file(build_book.HTML, build_book.pages()), encoding="utf-8")
        out.unlink(missing_ok=True)
        print_file(source, out.resolve())
    except (OSError, RuntimeError, ValueError) as problem:
        print(problem, file=sys.stderr)
        return 1
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
