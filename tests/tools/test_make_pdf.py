"""The book in one file: links stay within it, nothing is folded, two pages may use one name."""

from __future__ import annotations

import make_pdf
import pytest

PAGES = ["book/welcome", "notebooks/01_one", "notebooks/02_two"]


@pytest.mark.parametrize(
    ("address", "leads_to"),
    [
        ("02_two.html", "#notebooks-02_two"),
        ("02_two.html#why", "#notebooks-02_two--why"),
        ("#here", "#notebooks-01_one--here"),
        ("../book/welcome.html", "#book-welcome"),
        ("../_images/a.png", "_images/a.png"),
        ("../slides/01_one.html", "slides/01_one.html"),
        ("https://example.org/a.html#b", "https://example.org/a.html#b"),
    ],
)
def test_a_link_stays_in_the_file(address, leads_to):
    assert make_pdf.link(address, "notebooks/01_one", PAGES) == leads_to


def test_pages_with_the_same_names_and_folded_boxes(tmp_path):
    for page in PAGES:
        path = tmp_path / f"{page}.html"
        path.parent.mkdir(exist_ok=True)
        body = '<h1 id="top">T<a class="headerlink" href="#top">#</a></h1><a href="#top">up</a>'
        body += '<details><summary>more</summary>x</details><img loading="lazy" src="../_images/a.png">'
        head = f"<title>{page} — A course</title><link rel=stylesheet href='../_static/a.css'>"
        path.write_text(f"<html><head>{head}</head><body><article>{body}</article></body></html>", encoding="utf-8")
    found = make_pdf.BeautifulSoup(make_pdf.one_file(tmp_path, PAGES), "html.parser")
    names = [element["id"] for element in found.select("[id]")]
    assert len(names) == len(set(names)) == 6
    assert all(found.find(id=link["href"][1:]) for link in found.select("article a"))
    assert all(box.has_attr("open") for box in found.select("details")) and not found.select("[loading], .headerlink")
    assert {image["src"] for image in found.select("img")} == {"_images/a.png"}
    assert [style["href"] for style in found.select("link")] == ["_static/a.css"]
    assert found.title.get_text() == "A course"


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="make book"):
        make_pdf.one_file(tmp_path, PAGES)
