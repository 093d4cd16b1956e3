"""Published numbers with ours beside them: what a results page shows, before it is drawn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row
from tutorial_lib.results.slides import FLIPPED, Columns, Match, PublishedTable
from tutorial_lib.results.stored import stored_rows
from tutorial_lib.results.verdict import CANNOT, NOT_RUN, STATES, Verdict, advantage, judge

__all__ = ["Entry", "Ours", "counts", "entries", "lesson"]


@dataclass(frozen=True)
class Ours:
    """One number of ours: a value per seed, in the printed unit, and the rows behind it."""

    by_seed: Mapping[int, float] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    title: str = ""

    def __bool__(self) -> bool:
        return bool(self.by_seed)

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.by_seed.values())))

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds; None with one."""
        return float(np.std(list(self.by_seed.values()), ddof=1)) if len(self.by_seed) > 1 else None

    @property
    def minutes(self) -> float:
        """Of the cells that the rows came from, one seed: a cell may have made other rows in the same time.

        Rows of one cell carry its seconds, all of them, to the digit; it is counted once.
        """
        cells = {(row.seed, row.command, row.commit, row.seconds) for row in self.rows}
        return sum(seconds for *_, seconds in cells) / 60 / len(self.by_seed)

    def of(self, column: str) -> list[str]:
        """What the rows say in a column, each once."""
        return [str(value) for value in dict.fromkeys(getattr(row, column) for row in self.rows)]


@dataclass(frozen=True)
class Entry:
    """One published number and everything that stands beside it.

    Args:
        published: the printed row.
        match: what corresponds to it.
        verdict: by the rule of `tutorial_lib.results.verdict`.
        ours: on the published data, or, with ``stand_in``, on another study.
        held_out: the same with the challenging data held out.
        control: the best of the controls, on the mean over seeds.
        stand_in: name of the study whose rows are shown and were not judged; empty if they are of the published data.
        controls_missing: titles of the controls that have no rows for this number.
    """

    published: Mapping[str, object]
    match: Match
    verdict: Verdict
    ours: Ours
    held_out: Ours
    control: Ours
    stand_in: str = ""
    controls_missing: tuple[str, ...] = ()

    @property
    def value(self) -> float:
        return float(str(self.published["value"]))

    @property
    def over_control(self) -> tuple[float, float | None] | None:
        """Ours minus the control, seed by seed, and its noise; positive is better, also for errors."""
        found = advantage(self.ours.by_seed, self.control.by_seed)
        return found if found is None or larger_is_better(self.match.metric) else (-found[0], found[1])

    @property
    def beats_controls(self) -> bool | None:
        """Whether ours is ahead of the best control by more than seed noise; None where that is open.

        Open is it with one seed, with no control, and when ours is ahead of those that have been run and others have not:
        the best of some is not the best of all. What does not beat some does not beat all.
        """
        difference, noise = self.over_control or (0.0, None)
        if noise is None:
            return None
        return (None if self.controls_missing else True) if difference > noise else False


def larger_is_better(metric: str) -> bool:
    """Of a printed metric.

    >>> larger_is_better("AUROC %"), larger_is_better("detection error %")
    (True, False)
    """
    return metric != "OR" and not any(
        word in metric.lower() for word in ("error", "ece", "nll", "brier", "fpr", "rmse")
    )


def entries(table: PublishedTable, rows_of: Callable[[str], Sequence[Row]] | None = None) -> list[Entry]:
    """Every number of a table with ours beside it, in the printed order.

    Args:
        table: a published table.
        rows_of: from the name of an experiment to its rows; by default those that come with the library.
    """
    find = functools.partial(_ours, _Index(rows_of or _shipped), table.experiment or table.name)
    found = []
    for published in read_published(table.name):
        match = table.match(published)
        study = next((study for study in match.studies if find(match, match.columns, study)), "")
        ours = find(match, match.columns, study) if study else Ours()
        verdict = judge(published["value"], list(ours.by_seed.values()), match.point, match.missing)
        shown, stand_in = study, ""
        if not ours and match.stand_in and (elsewhere := _on_stand_in(find, match)):
            ours, shown, stand_in = elsewhere, match.stand_in, match.stand_in
        held_out = find(match, _there(match, match.held_out, stand_in), shown) if match.held_out and shown else Ours()
        controls = [
            find(match, _there(match, columns, stand_in), shown, title)
            for title, columns in match.controls.items()
            if shown
        ]
        missing = tuple(title for title, one in zip(match.controls, controls, strict=False) if not one)
        best = max if larger_is_better(match.metric) else min
        control = best((control for control in controls if control), key=lambda one: one.mean, default=Ours())
        found.append(Entry(published, match, verdict, ours, held_out, control, stand_in, missing))
    return found


def counts(found: Iterable[Entry]) -> dict[str, int]:
    """How many numbers are in each state."""
    states = [entry.verdict.state for entry in found]
    return {state: states.count(state) for state in STATES}


def lesson(found: Sequence[Entry]) -> str:
    """One sentence: what a table teaches, from its numbers alone."""
    judged = [entry for entry in found if entry.verdict.difference is not None]
    shown = [entry for entry in found if entry.ours]
    if not shown:
        # of several things that are missing, the first is the one without which the others would not help
        missing = list(dict.fromkeys(entry.match.missing.split(", and ")[0] for entry in found if entry.match.missing))
        waiting = sum(entry.verdict.state == NOT_RUN for entry in found)
        parts = [f"{waiting} of its {len(found)} numbers have not been run yet"] if waiting else []
        if missing:
            listed = "; ".join(missing[:3]) + ("; …" if len(missing) > 3 else "")
            parts.append(f"{len(found) - waiting} of {len(found)} cannot be checked here, for want of {listed}")
        return " and ".join(parts) + "."
    if judged:
        points = [abs(float(entry.verdict.difference or 0)) / entry.match.point for entry in judged]
        same = counts(judged)["reproduced"]
        sentence = (
            f"Of {len(judged)} numbers with ours beside them, {same} {'is' if same == 1 else 'are'} reproduced, and the "
            f"median difference is {np.median(points):.1f} points"
        )
    else:
        sentence = f"Nothing of the published data has been run, and {shown[0].stand_in} stands in for them"
    meant = judged or shown
    sentence += _with_held_out(meant) + _beside_control(meant)
    return sentence + "."


def _with_held_out(shown: Sequence[Entry]) -> str:
    both = [entry for entry in shown if entry.held_out]
    if not both:
        return ""
    same, other = (
        np.mean([getattr(entry, part).mean / entry.match.point for entry in both]) for part in ("ours", "held_out")
    )
    return f"; with the challenging data held out, the methods that learn from it go from {same:.1f} to {other:.1f} points on average"


def _beside_control(shown: Sequence[Entry]) -> str:
    compared = [entry for entry in shown if entry.over_control]
    if not compared:
        return ""
    told = [entry.beats_controls for entry in compared if entry.over_control and entry.over_control[1] is not None]
    if not told:
        return "; with one seed, nobody can tell an advantage over a control from luck"
    by_more = "by more than seed noise"
    if len(told) == 1 and told[0] is not None:
        return f"; the one number with a control {'beats' if told[0] else 'does not beat'} it {by_more}"
    waiting = told.count(None)
    rest = f", and of {waiting} that would not all controls have been run" if waiting else ""
    return f"; {told.count(True)} of {len(told)} numbers beat the best of their controls {by_more}{rest}"


class _Index:
    """Rows of experiments by what most questions name, so that 748 of them do not each walk through all rows."""

    def __init__(self, rows_of: Callable[[str], Sequence[Row]]) -> None:
        self.rows_of = rows_of
        self.known: dict[str, dict[tuple[str, str, str], list[Row]]] = {}

    def rows(self, experiment: str, study: str, columns: Columns) -> list[Row]:
        if experiment not in self.known:
            index: dict[tuple[str, str, str], list[Row]] = {}
            for row in self.rows_of(experiment):
                index.setdefault((row.study, row.method, row.metric), []).append(row)
            self.known[experiment] = index
        candidates = self.known[experiment].get((study, columns["method"], columns["metric"]), [])
        wanted = {name: value for name, value in columns.items() if name not in ("experiment", FLIPPED)}
        return [row for row in candidates if all(_fits(getattr(row, name), value) for name, value in wanted.items())]


def _fits(found: str, wanted: str) -> bool:
    return found.startswith(wanted[:-1]) if wanted.endswith("*") else found == wanted


def _shipped(experiment: str) -> list[Row]:
    try:
        return stored_rows(experiment)
    except FileNotFoundError:
        return []


def _ours(index: _Index, experiment: str, match: Match, columns: Columns, study: str, title: str = "") -> Ours:
    if not columns:
        return Ours()
    rows = index.rows(columns.get("experiment", experiment), study, columns)
    by_seed: dict[int, dict[str, list[float]]] = {}
    for row in rows:
        value = 1 - row.value if columns.get(FLIPPED) else row.value
        by_seed.setdefault(row.seed, {}).setdefault(row.condition, []).append(match.offset + match.scale * value)
    conditions = match.mean_over or max(map(len, by_seed.values()), default=0)
    whole = {seed: values for seed, values in by_seed.items() if len(values) == conditions}
    means = {seed: float(np.mean([np.mean(one) for one in values.values()])) for seed, values in sorted(whole.items())}
    return Ours(means, tuple(row for row in rows if row.seed in means), title)


def _on_stand_in(find: Callable[..., Ours], match: Match) -> Ours:
    return find(match, _there(match, match.columns, match.stand_in), match.stand_in)


def _there(match: Match, columns: Columns | None, stand_in: str) -> Columns:
    """The columns in the study that is shown: a stand-in has another network, and may have other names for the rest."""
    if not stand_in:
        return columns or {}
    return {name: value for name, value in (columns or {}).items() if name != "network"} | dict(match.on_stand_in)


def missing_things(found: Iterable[Entry]) -> dict[str, int]:
    """What is missing for the numbers that cannot be checked here, and for how many of them each."""
    reasons = [entry.verdict.reason for entry in found if entry.verdict.state == CANNOT]
    return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}
