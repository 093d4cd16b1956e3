"""The results page: every published number with ours beside it, written when the book is built.

A Sphinx extension, named in ``_config.yml``. ``{published-results}`` in a page becomes a count of the three states, a filter, and
a section per published table: one sentence that says what it teaches, the table, and a link to it as CSV. Beside the
page, in the folder ``results`` of the book, lie for each table

* ``NAME.csv``: the table;
* ``NAME.html``: behind each cell, the result rows that it was computed from, with what made them.

The rule for "reproduced" is `tutorial_lib.results.verdict`'s, the comparison `tutorial_lib.results.beside`'s; here it is only
written down. The page is whole without a script: the filter hides lines, and appears only where scripts run.

At a release, ``python tools/results_page.py --release 0.2.0`` keeps all numbers as they stand; from then on the page begins with
what has changed since.
"""

from __future__ import annotations

import argparse
import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.application import Sphinx

from tutorial_lib.results.beside import Entry, Ours, counts, entries, lesson
from tutorial_lib.results.doubt import what_would_change_our_mind
from tutorial_lib.results.rows import Row
from tutorial_lib.results.since_release import AT_RELEASE, Change, changes, read_release, write_release
from tutorial_lib.results.slides import PublishedTable, published_tables
from tutorial_lib.results.verdict import CANNOT, NOT_REPRODUCED, NOT_RUN, REPRODUCED, STATES

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "results"
"""Of the built book, for CSV files and rows."""

SYMBOLS = {REPRODUCED: "✓", NOT_REPRODUCED: "✗", NOT_RUN: "○", CANNOT: "–"}
"""Beside the words, so that nobody needs colours."""
_CLASSES = {REPRODUCED: "same", NOT_REPRODUCED: "other", NOT_RUN: "waiting", CANNOT: "cannot"}

SEEN = {"none": "none", "same": "the tested kind", "other": "other kinds"}
NOTHING = "–"

CSV_COLUMNS = (
    *(
        "what",
        "method",
        "metric",
        "published",
        "ours",
        "spread",
        "seeds",
        "n",
        "study",
        "judged",
        "difference",
        "seed_noise",
    ),
    *("state", "reason", "challenging_data", "held_out", "held_out_spread", "control", "control_spread", "control_is"),
    *("controls_not_run", "over_control", "over_control_noise"),
    *("device", "minutes_a_seed", "commit", "command", "source"),
)


@dataclass(frozen=True)
class Compared:
    """A table with its comparison."""

    table: PublishedTable

    @cached_property
    def entries(self) -> list[Entry]:
        """Failures first, otherwise in the printed order."""
        found = entries(self.table)
        return sorted(found, key=lambda entry: STATES.index(entry.verdict.state))

    @property
    def lesson(self) -> str:
        return lesson(self.entries)

    @property
    def open_questions(self) -> list[str]:
        return what_would_change_our_mind(self.table, self.entries)


def compared() -> list[Compared]:
    """Every published table."""
    return [Compared(table) for table in published_tables()]


# --- numbers -----------------------------------------------------------------------------------------------------------


def number(value: float | None, entry: Entry, sign: bool = False) -> str:
    """With one digit more than a point has."""
    digits = 1 if entry.match.point == 1 else 3
    return NOTHING if value is None else f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def mean_and_spread(ours: Ours, entry: Entry) -> str:
    if not ours:
        return NOTHING
    spread = "" if ours.spread is None else f" ± {number(ours.spread, entry)}"
    return number(ours.mean, entry) + spread


def printed(value: float) -> str:
    return f"{value:.6g}"


# --- CSV ---------------------------------------------------------------------------------------------------------------


def as_csv(one: Compared) -> str:
    """The table as CSV, full precision, one line per published number."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for entry in one.entries:
        writer.writerow({name: _plain(value) for name, value in _record(entry).items()})
    return text.getvalue()


def _plain(value: object) -> object:
    return "" if value is None else f"{value:.9g}" if isinstance(value, float) else value


def _record(entry: Entry) -> dict[str, object]:
    match, verdict, ours = entry.match, entry.verdict, entry.ours
    over, noise = entry.over_control or (None, None)
    return {
        "what": match.what,
        "method": match.method,
        "metric": match.metric,
        "published": entry.value,
        "ours": ours.mean if ours else None,
        "spread": ours.spread if ours else None,
        "seeds": " ".join(map(str, ours.by_seed)),
        "n": " ".join(ours.of("n")),
        "study": " ".join(ours.of("study")),
        "judged": "yes" if verdict.difference is not None else "no",
        "difference": verdict.difference,
        "seed_noise": verdict.noise,
        "state": verdict.state,
        "reason": verdict.reason,
        "challenging_data": match.seen,
        "held_out": entry.held_out.mean if entry.held_out else None,
        "held_out_spread": entry.held_out.spread if entry.held_out else None,
        "control": entry.control.mean if entry.control else None,
        "control_spread": entry.control.spread if entry.control else None,
        "control_is": entry.control.title,
        "controls_not_run": "; ".join(entry.controls_missing) if entry.ours else "",
        "over_control": over,
        "over_control_noise": noise,
        "device": "; ".join(ours.of("device")),
        "minutes_a_seed": ours.minutes if ours else None,
        "commit": " ".join(ours.of("commit")),
        "command": "; ".join(ours.of("command")),
        "source": entry.published["source"],
    }


# --- the page ----------------------------------------------------------------------------------------------------------

HEAD = (
    *("number", "published", "ours", "difference", "state", "ours, held out", "best control", "ours over control"),
    *("challenging data used", "n", "seeds", "device", "minutes per seed", "commit", "command"),
)


def summary(tables: Sequence[Compared]) -> str:
    """How many numbers are in each state, table by table, in HTML."""
    head = "".join(f'<th scope="col">{SYMBOLS[state]} {state}</th>' for state in STATES)
    body = "".join(
        _line(f'<a href="#{anchor(one.table)}">{escape(one.table.title)}</a>', one.entries) for one in tables
    )
    found = [entry for one in tables for entry in one.entries]
    foot = _line("on the slides, or from a paper they cite", [entry for entry in found if entry.match.on_the_slides])
    foot += _line("besides", [entry for entry in found if not entry.match.on_the_slides])
    return (
        '<div class="results-table" tabindex="0" role="region" aria-label="numbers by state">'
        '<table class="results results-summary">'
        f'<thead><tr><th scope="col">table</th><th scope="col">numbers</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody><tfoot>{foot}</tfoot></table></div>"
    )


def _line(name: str, found: Sequence[Entry]) -> str:
    cells = "".join(f"<td>{count or NOTHING}</td>" for count in counts(found).values())
    return f'<tr><th scope="row">{name}</th><td>{len(found)}</td>{cells}</tr>'


def since_release(tables: Sequence[Compared], path: Path = AT_RELEASE) -> str:
    """What has changed since the last release, in HTML: a sentence, and a table of the lines, folded."""
    released = read_release(path)
    if released is None:
        return (
            "<p>The numbers of no release have been kept yet. Once they are, it stands here which have come, gone, moved or changed "
            "their state since.</p>"
        )
    release, before = released
    titles = {one.table.name: one.table.title for one in tables}
    made = changes(before, {one.table.name: one.entries for one in tables})
    if not made:
        return f"<p>Nothing has changed since release {escape(release)}.</p>"
    other = sum(change.state_before != change.state_now for change in made)
    head = "".join(f'<th scope="col">{name}</th>' for name in ("number", "then", "now", "state then", "state now"))
    body = "".join(_change_html(change, titles.get(change.table, change.table)) for change in made)
    return (
        f"<p>Since release {escape(release)}, {other} of {len(before)} numbers have changed their state, and {len(made) - other} "
        "more have moved. A move that another seed would make stands in grey behind a ≈.</p>"
        f'<details class="results-fold"><summary>{len(made)} changes</summary>'
        '<div class="results-table" tabindex="0" role="region" aria-label="changes since the last release">'
        f'<table class="results"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>'
    )


def _change_html(change: Change, title: str) -> str:
    then, now = (NOTHING if value is None else printed(value) for value in (change.before, change.now))
    if change.within_noise:
        now = f'<span class="within-noise">≈ {now}</span>'
    states = (f"{SYMBOLS[state]} {state}" if state else NOTHING for state in (change.state_before, change.state_now))
    cells = "".join(f"<td>{cell}</td>" for cell in (then, now, *states))
    return f'<tr><th scope="row">{escape(title)} {escape(change.line)}</th>{cells}</tr>'


def filter_form() -> str:
    """Hidden until the script of the page shows it."""
    boxes = "".join(
        f'<label><input type="checkbox" name="state" value="{_CLASSES[state]}" checked> {SYMBOLS[state]} {state}</label>'
        for state in STATES
    )
    return (
        '<form class="results-filter" hidden aria-label="Filter the tables">'
        '<label>Words, all of them <input type="search" name="words" placeholder="svhn purview auroc"></label>'
        f'<fieldset><legend>State</legend>{boxes}</fieldset><label><input type="checkbox" name="ours"> only with a number '
        'of ours</label> <output aria-live="polite"></output></form>'
        '<script src="../_static/results.js" defer></script>'
    )


def anchor(table: PublishedTable) -> str:
    return f"results-{table.name.replace('_', '-')}"


def table_html(one: Compared) -> str:
    """One table; folded where no number is ours."""
    name = one.table.name
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in HEAD)
    body = "".join(_entry_html(entry, name, place) for place, entry in enumerate(one.entries))
    is_open = " open" if any(entry.ours for entry in one.entries) else ""
    return (
        f'<details class="results-fold"{is_open}><summary>{len(one.entries)} numbers</summary>'
        f'<div class="results-table" tabindex="0" role="region" aria-label="{escape(one.table.title)}">'
        f'<table class="results compared"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>'
        f'<p class="results-files"><a href="../{FOLDER}/{name}.csv" download>This table as CSV</a> · '
        f'<a href="../{FOLDER}/{name}.html">the rows behind it</a></p>'
    )


def _entry_html(entry: Entry, name: str, place: int) -> str:
    match, ours = entry.match, entry.ours
    what = " · ".join(part for part in (match.what, match.method, match.metric) if part)
    cells = [printed(entry.value), _linked(ours, entry, name, place, "ours"), _difference(entry), _state(entry)]
    held_out = _linked(entry.held_out, entry, name, place, "held-out") if match.held_out else "nothing to hold out"
    control = _linked(entry.control, entry, name, place, "control")
    not_run = f" (not run: {escape(', '.join(entry.controls_missing))})" if ours and entry.controls_missing else ""
    of_what = f"{control} {escape(entry.control.title)}" if entry.control else NOTHING
    cells += [held_out, of_what + not_run, _over_control(entry)]
    cells += [SEEN[match.seen]]
    if ours:
        commits = " ".join(f"<code>{escape(commit)}</code>" for commit in ours.of("commit"))
        commands = " ".join(f"<code>{escape(command)}</code>" for command in ours.of("command"))
        cells += [", ".join(ours.of("n")), ", ".join(map(str, ours.by_seed)), escape("; ".join(ours.of("device")))]
        cells += [f"{ours.minutes:.2g}", commits, commands]
    else:
        cells += [NOTHING] * 6
    kind = _CLASSES[entry.verdict.state]
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr class="{kind}"{" data-ours" if ours else ""}><th scope="row">{escape(what)}</th>{columns}</tr>'


def _linked(ours: Ours, entry: Entry, name: str, place: int, part: str) -> str:
    """A number that leads to its rows."""
    if not ours:
        return NOTHING
    elsewhere = f" ({escape(entry.stand_in)})" if entry.stand_in else ""
    return f'<a href="../{FOLDER}/{name}.html#{part}-{place}">{mean_and_spread(ours, entry)}</a>{elsewhere}'


def _difference(entry: Entry) -> str:
    difference = number(entry.verdict.difference, entry, sign=True)
    return f'<span class="within-noise">≈ {difference}</span>' if entry.verdict.within_noise else difference


def _over_control(entry: Entry) -> str:
    if entry.over_control is None:
        return NOTHING
    difference, noise = entry.over_control
    text = number(difference, entry, sign=True)
    if noise is None:
        return f"{text}, one seed"
    return f'<span class="within-noise">≈ {text}</span>' if abs(difference) <= noise else text


def _state(entry: Entry) -> str:
    state, reason = entry.verdict.state, entry.verdict.reason
    return f"{SYMBOLS[state]} {state}" + (f": {escape(reason)}" if reason and state in (CANNOT, NOT_REPRODUCED) else "")


# --- the rows behind it ------------------------------------------------------------------------------------------------

ROW_COLUMNS = (
    *("experiment", "study", "network", "method", "variant", "condition", "metric", "protocol", "challenging_data"),
    *("seed", "value", "n", "seconds", "device", "commit", "versions", "command"),
)


def rows_html(one: Compared) -> str:
    """A page of its own: for every cell with a number of ours, its result rows."""
    blocks = list(_row_blocks(one)) or ["<p>No number of ours stands beside this table yet.</p>"]
    title = f"Rows behind: {escape(one.table.title)}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f'<title>{title}</title><link rel="stylesheet" href="../_static/results.css"></head>'
        f'<body class="results-rows"><main><h1>{title}</h1>'
        f'<p><a href="../book/results.html#{anchor(one.table)}">Back to the table</a>. Values are as the experiment stored them; '
        f"the table shows them in the published unit.</p>{''.join(blocks)}</main></body></html>\n"
    )


def _row_blocks(one: Compared) -> Iterator[str]:
    head = "".join(f'<th scope="col">{column.replace("_", " ")}</th>' for column in ROW_COLUMNS)
    for place, entry in enumerate(one.entries):
        parts = {"ours": entry.ours, "held-out": entry.held_out, "control": entry.control}
        if not any(parts.values()):
            continue
        what = " · ".join(part for part in (entry.match.what, entry.match.method, entry.match.metric) if part)
        yield f"<h2>{escape(what)}: published {printed(entry.value)}</h2>"
        for part, ours in parts.items():
            if ours:
                called = {"ours": "ours", "held-out": "challenging data held out", "control": f"control: {ours.title}"}[
                    part
                ]
                lines = "".join(_row_html(row) for row in ours.rows)
                yield (
                    f'<div class="results-table" id="{part}-{place}" tabindex="0" role="region" aria-label="{escape(called)}">'
                    f"<table><caption>{escape(called)}</caption><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>"
                )


def _row_html(row: Row) -> str:
    values = [f"{value:.6g}" if isinstance(value := getattr(row, name), float) else str(value) for name in ROW_COLUMNS]
    return f"<tr>{''.join(f'<td>{escape(value)}</td>' for value in values)}</tr>"


# --- Sphinx ------------------------------------------------------------------------------------------------------------


class PublishedResults(Directive):
    """Every published table. ``{published-results}`` takes no argument and no content."""

    def run(self) -> list[nodes.Node]:
        environment = self.state.document.settings.env
        environment.note_reread()  # rows may be new
        tables = compared()
        found: list[nodes.Node] = [_raw(summary(tables) + since_release(tables) + filter_form())]
        for one in tables:
            section = nodes.section(ids=[anchor(one.table)], names=[one.table.name])
            section += nodes.title(one.table.title, one.table.title)
            section += nodes.paragraph("", one.lesson)
            for label, text in (("What differs", one.table.differs), ("Doubts about the print", one.table.doubts)):
                if text:
                    section += nodes.paragraph("", "", nodes.emphasis("", f"{label}: "), nodes.Text(text))
            section += nodes.paragraph("", "", nodes.emphasis("", "What would change our mind"))
            asked = [nodes.paragraph("", "", *_with_commands(f"{text}.")) for text in one.open_questions]
            section += nodes.bullet_list("", *(nodes.list_item("", paragraph) for paragraph in asked))
            section += nodes.paragraph("", "", *self._where_from(one.table, environment.docname))
            section += _raw(table_html(one))
            found.append(section)
        return found

    def _where_from(self, table: PublishedTable, page: str) -> list[nodes.Node]:
        sources = list(dict.fromkeys(str(entry.published["source"]) for entry in Compared(table).entries))
        words: list[nodes.Node] = [nodes.Text(f"Published: {'; '.join(sources)}.")]
        if table.chapter and (ROOT / "notebooks" / f"{table.chapter}.ipynb").is_file():
            address = f"{'../' * page.count('/')}notebooks/{table.chapter}.html"
            link = nodes.reference("", f"Chapter {int(table.chapter[:2])}", refuri=address, internal=True)
            words += [nodes.Text(" "), link, nodes.Text(" is about it.")]
        return words


_COMMAND = re.compile(r"(python -m tutorial_lib run [a-z_]+ --study \w+ --seeds \d+)")


def _with_commands(sentence: str) -> list[nodes.Node]:
    """Commands as code, or Sphinx would make one dash of two."""
    return [
        nodes.literal("", part) if _COMMAND.fullmatch(part) else nodes.Text(part) for part in _COMMAND.split(sentence)
    ]


def _raw(html: str) -> nodes.raw:
    return nodes.raw("", html, format="html")


def write_files(app: Sphinx, exception: Exception | None) -> None:
    """The CSV files, and the rows behind the tables."""
    if exception is not None or app.builder.format != "html":
        return
    folder = Path(app.outdir) / FOLDER
    folder.mkdir(exist_ok=True)
    for one in compared():
        (folder / f"{one.table.name}.csv").write_text(as_csv(one), encoding="utf-8")
        (folder / f"{one.table.name}.html").write_text(rows_html(one), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("published-results", PublishedResults)
    app.connect("build-finished", write_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def main(arguments: Sequence[str] | None = None) -> int:
    """``--release NAME``: keep all numbers as they stand."""
    parser = argparse.ArgumentParser(description="Keep the numbers of the results page as they stand at a release.")
    parser.add_argument("--release", required=True, metavar="NAME", help="such as 0.2.0")
    release = parser.parse_args(arguments).release
    kept = read_release(AT_RELEASE)
    if kept is not None and kept[0] == release:
        parser.error(
            f"the numbers of release {release} are kept already, in {AT_RELEASE.name}; delete it to keep others"
        )
    write_release(release, {one.table.name: one.entries for one in compared()})
    print(f"wrote {AT_RELEASE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
