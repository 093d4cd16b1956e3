"""What has changed on the results page since the last release.

At a release every published number with ours and its state is written to one small file, ``at_release.csv`` beside the stored
rows; from then on the page says what has come, gone, moved or changed its state.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutorial_lib.results.beside import Entry
from tutorial_lib.storage import Damaged, write_atomically

__all__ = ["AT_RELEASE", "Change", "changes", "read_release", "write_release"]

AT_RELEASE = Path(__file__).resolve().parents[1] / "experiments" / "at_release.csv"
COLUMNS = ("release", "table", "what", "method", "metric", "published", "ours", "study", "state")

Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Then:
    """A number as it stood at the release; ``ours`` is None where there was none."""

    ours: float | None
    study: str
    state: str


@dataclass(frozen=True)
class Change:
    """One number that is not what it was.

    Attributes:
        table: its name.
        line: what, method and metric.
        before, now: ours, in the printed unit; None where there is none.
        state_before, state_now: see `tutorial_lib.results.verdict`.
        within_noise: both are there, of one study, and lie no further apart than another seed would move them.
    """

    table: str
    line: str
    before: float | None
    now: float | None
    state_before: str
    state_now: str
    within_noise: bool = False


def write_release(release: str, found: Mapping[str, Sequence[Entry]], path: Path = AT_RELEASE) -> None:
    """Every number as it stands, under the name of a release.

    Args:
        release: such as ``"0.2.0"``.
        found: by name of the table, as `tutorial_lib.results.beside.entries` gives them.
        path: of the file, which is replaced.
    """
    if not release.strip():
        raise ValueError("a release has a name, such as 0.2.0")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for table, entries in found.items():
        for entry in entries:
            now = _now(entry)
            ours = "" if now.ours is None else f"{now.ours:.9g}"
            writer.writerow([release, *_key(table, entry), f"{entry.value:.9g}", ours, now.study, now.state])
    write_atomically(path, text.getvalue().encode())


def read_release(path: Path = AT_RELEASE) -> tuple[str, dict[Key, Then]] | None:
    """Name of the release and its numbers; None if there has been none.

    Raises:
        Damaged: the file is not what `write_release` writes.
    """
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        [release] = {row["release"] for row in rows}
        numbers = {
            (row["table"], row["what"], row["method"], row["metric"]): Then(
                float(row["ours"]) if row["ours"] else None, row["study"], row["state"]
            )
            for row in rows
        }
    except (KeyError, ValueError, TypeError) as error:
        raise Damaged(f"{path} does not hold the numbers of one release ({error}); write it again") from error
    return release, numbers


def changes(before: Mapping[Key, Then], found: Mapping[str, Sequence[Entry]]) -> list[Change]:
    """What is not as it was: changes of state first, then numbers that moved; a ninth digit is no change.

    Numbers that are published since, or no longer, are among them, with the state ``""`` on the other side.
    """
    now = {_key(table, entry): entry for table, entries in found.items() for entry in entries}
    made = []
    for key in [*now, *(key for key in before if key not in now)]:
        entry, then = now.get(key), before.get(key, Then(None, "", ""))
        current = _now(entry) if entry else Then(None, "", "")
        same = then.study == current.study and _alike(then.ours, current.ours)
        if then.state == current.state and same:
            continue
        within = False
        if entry and then.ours is not None and current.ours is not None and then.study == current.study:
            noise = 2 * (entry.ours.spread or 0.0)
            within = abs(current.ours - then.ours) <= noise
        line = " · ".join(part for part in key[1:] if part)
        made.append(Change(key[0], line, then.ours, current.ours, then.state, current.state, within))
    return sorted(made, key=lambda change: change.state_before == change.state_now)


def _key(table: str, entry: Entry) -> Key:
    return table, entry.match.what, entry.match.method, entry.match.metric


def _now(entry: Entry) -> Then:
    study = " ".join(entry.ours.of("study"))
    return Then(entry.ours.mean if entry.ours else None, study, entry.verdict.state)


def _alike(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= 1e-8 * max(1.0, abs(one), abs(other))
