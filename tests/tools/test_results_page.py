"""The results page as it is written: every number, every link, words beside every colour."""

from __future__ import annotations

import csv
import io

import pytest
import results_page
from bs4 import BeautifulSoup

from tutorial_lib.results.since_release import write_release
from tutorial_lib.results.verdict import STATES

TABLES = results_page.compared()


@pytest.fixture(params=TABLES, ids=lambda one: one.table.name)
def one(request):
    return request.param


def test_every_number_has_a_line_with_its_state_in_words(one):
    page = BeautifulSoup(results_page.table_html(one), "html.parser")
    lines = page.select("table.compared tbody tr")
    assert len(lines) == len(one.entries)
    for line, entry in zip(lines, one.entries, strict=True):
        cells = line.select("td")
        assert len(cells) + 1 == len(results_page.HEAD) and float(cells[0].text) == pytest.approx(entry.value)
        assert f"{results_page.SYMBOLS[entry.verdict.state]} {entry.verdict.state}" in cells[3].text
        if entry.verdict.within_noise:
            assert "≈" in cells[2].text and cells[2].select(".within-noise")
        assert line.has_attr("data-ours") == bool(entry.ours)
    states = [STATES.index(entry.verdict.state) for entry in one.entries]
    assert states == sorted(states), "failures first"
    assert page.select_one("details").has_attr("open") == any(entry.ours for entry in one.entries)


def test_every_number_of_ours_leads_to_its_rows(one):
    page = BeautifulSoup(results_page.table_html(one), "html.parser")
    rows = BeautifulSoup(results_page.rows_html(one), "html.parser")
    links = [link["href"] for link in page.select("td a")]
    parts = [part for entry in one.entries for part in (entry.ours, entry.held_out, entry.control)]
    assert len(links) == len(set(links)) == sum(map(bool, parts))
    blocks = {block["id"]: block for block in rows.select("div[id]")}
    assert {link.partition("#")[2] for link in links} == blocks.keys()
    assert all(link.startswith(f"../results/{one.table.name}.html#") for link in links)
    for place, entry in enumerate(one.entries):
        if entry.ours:
            lines = blocks[f"ours-{place}"].select("tbody tr")
            assert [line.select("td")[9].text for line in lines] == [str(row.seed) for row in entry.ours.rows]
            assert lines[0].select("td")[-1].text == entry.ours.rows[0].command


def test_the_csv_has_every_line_in_full(one):
    lines = list(csv.DictReader(io.StringIO(results_page.as_csv(one))))
    assert [float(line["published"]) for line in lines] == pytest.approx([entry.value for entry in one.entries])
    for line, entry in zip(lines, one.entries, strict=True):
        assert line["state"] == entry.verdict.state and line["source"]
        assert (line["ours"] != "") == bool(entry.ours)
        if entry.ours:
            assert float(line["ours"]) == pytest.approx(entry.ours.mean)
            assert line["command"].startswith("python -m tutorial_lib run") and line["commit"] and line["device"]
        assert (line["judged"] == "yes") == (entry.verdict.difference is not None)


def test_the_summary_counts_the_slides():
    page = BeautifulSoup(results_page.summary(TABLES), "html.parser")
    on_the_slides, besides = [[cell.text for cell in line.select("td")] for line in page.select("tfoot tr")]
    assert on_the_slides[0] == "748"
    assert sum(int(count) for count in on_the_slides[1:] if count.isdigit()) == 748
    assert int(besides[0]) == sum(len(one.entries) for one in TABLES) - 748
    assert len(page.select("tbody tr")) == len(TABLES)


def test_the_filter_is_hidden_until_a_script_shows_it():
    form = BeautifulSoup(results_page.filter_form(), "html.parser").form
    assert form.has_attr("hidden") and len(form.select("input[name=state]")) == len(STATES)
    assert all(box.parent.text.strip() for box in form.select("input"))


def test_what_would_change_our_mind_is_said_of_every_table(one):
    assert one.open_questions
    for text in one.open_questions:
        parts = results_page._with_commands(text)
        assert "".join(part.astext() for part in parts) == text
        assert not [
            part for part in parts if "--" in part.astext() and getattr(part, "tagname", "#text") != "literal"
        ], "could be typed"


def test_changes_since_a_release_are_written_down(tmp_path, monkeypatch, capsys):
    path = tmp_path / "at_release.csv"
    assert "no release have been kept" in results_page.since_release(TABLES, path)
    monkeypatch.setattr(results_page, "AT_RELEASE", results_page.ROOT / "nowhere.csv")
    monkeypatch.setattr(results_page, "write_release", lambda name, found: write_release(name, found, path))
    assert results_page.main(["--release", "0.2.0"]) == 0
    assert "Nothing has changed since release 0.2.0" in results_page.since_release(TABLES, path)
    lines = path.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.endswith(",cifar10,not reproduced"))
    lines[first] = lines[first].removesuffix("not reproduced") + "reproduced"
    path.write_text("\n".join(lines) + "\n")
    page = BeautifulSoup(results_page.since_release(TABLES, path), "html.parser")
    assert f"1 of {len(lines) - 1} numbers have changed their state, and 0 more" in page.text
    [line] = page.select("tbody tr")
    assert [cell.text for cell in line.select("td")][2:] == ["✓ reproduced", "✗ not reproduced"]
    monkeypatch.setattr(results_page, "AT_RELEASE", path)
    before = path.read_bytes()
    with pytest.raises(SystemExit):
        results_page.main(["--release", "0.2.0"])
    assert "kept already" in capsys.readouterr().err and path.read_bytes() == before
