"""Every experiment's cells, in the order of what they teach per minute, within a budget.

A table (one experiment on one study) teaches as much as any other; its cells share that equally, and the k-th seed adds 1/k of
what the first one did. How long a cell should take is known from the seconds of stored rows (`Times`); what nobody has
measured comes last. The first cell that needs a trained classifier is preceded by a cell that trains it (`NETWORKS`), so that
it is trained once and shared by all.

Nothing else is planned: cells are those of the experiments, their store is that of ``python -m tutorial_lib run``, and both
may be used in turn, killed, and run beside each other.
"""

from __future__ import annotations

import functools
import json
import shlex
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from tutorial_lib.data import DATASETS
from tutorial_lib.data.errors import DataDamaged, DataUnavailable
from tutorial_lib.data.files import data_folder
from tutorial_lib.image_quality.databases import LIVE_CROPS
from tutorial_lib.models import NETWORKS as MODELS
from tutorial_lib.results.rows import Row
from tutorial_lib.results.stored import stored_rows
from tutorial_lib.results.tables import markdown_table
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.runs.registry import EXPERIMENTS, experiment_named
from tutorial_lib.runs.runner import Outcome, run
from tutorial_lib.runs.store import CellStore
from tutorial_lib.studies import STUDIES, load_study
from tutorial_lib.training.classifier import accuracy
from tutorial_lib.training.trained import SHIPPED, is_at_hand

__all__ = ["NETWORKS", "BudgetSpent", "Planned", "Suite", "Times", "command_of", "data_there", "duration", "plan"]


# --- networks ----------------------------------------------------------------------------------------------------------


def _train(cell: Cell, device: torch.device) -> CellResult:
    """Train a classifier, or find it among those that come with the library or are kept, and measure it."""
    study, network = load_study(cell.study), cell.settings["network"]
    model = study.classifier(network, cell.seed, device=device)
    value = accuracy(model, study.test)
    return CellResult([Measurement("", "known", "accuracy", value, len(study.test), network=network)])


def _network_cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    return [_network_cell(study, load_study(study).network, seed) for seed in seeds]


def _network_cell(study: str, network: str, seed: int) -> Cell:
    return Cell(NETWORKS.name, study, seed, {"network": network})


def _accuracies(rows: Sequence[Row]) -> str:
    body = [[row.study, row.network, str(row.seed), f"{row.value:.4f}"] for row in rows]
    return markdown_table(["study", "network", "seed", "accuracy"], body)


NETWORKS = Experiment(
    "networks", "classifiers that experiments share", tuple(STUDIES), _network_cells, _train, _accuracies
)
"""Trained classifiers as cells."""


def _network_of(cell: Cell) -> Cell | None:
    network = cell.settings.get("network")
    known = cell.study in STUDIES and network in MODELS
    return _network_cell(cell.study, str(network), cell.seed) if known else None


READY = 2.0
"""Seconds for a network that is there: read it, and measure it."""


def _expected_training(network: Cell) -> float | None:
    return network_seconds(network.study, str(network.settings["network"]), network.seed)


@functools.cache
def network_seconds(study: str, network: str, seed: int) -> float | None:
    """How long a network should take: little if it comes with the library or is kept, else as long as one that came with it."""
    its = load_study(study)
    try:
        if is_at_hand(its, network, seed):
            return READY
    except (DataUnavailable, DataDamaged):
        return None
    others = [path.with_suffix(".json") for path in SHIPPED.glob(f"{study}_{network}_seed*.pt")]
    records = [json.loads(path.read_text(encoding="utf-8")) for path in others]
    seconds = [record["history"]["seconds"] for record in records]
    return float(statistics.median(seconds)) if seconds else None


# --- times -------------------------------------------------------------------------------------------------------------


class Times:
    """How long cells took, from the seconds of rows.

    A row names neither the cell that made it nor its settings, but it holds the settings that matter: rows of one seed and
    study with the same seconds are one cell's, and of those groups the nearest ones to a cell are those whose columns show the
    most of its settings.

    Args:
        rows_of: from the name of an experiment to rows of it.
    """

    def __init__(self, rows_of: Callable[[str], Sequence[Row]] | None = None) -> None:
        self.rows_of = rows_of or _shipped
        self.groups: dict[tuple[str, str], list[tuple[float, set[str], set[str]]]] = {}

    def expected(self, cell: Cell) -> float | None:
        """Median seconds of the nearest groups; None if none of this experiment and study was ever measured."""
        groups = self._of(cell.experiment, cell.study)
        settings = {str(value) for value in cell.settings.values()}
        # A group that has a protocol which the cell does not name is another part of the grid.
        nearness = [len(settings & shown) - 0.5 * len(protocols - settings) for _, shown, protocols in groups]
        nearest = [seconds for (seconds, _, _), near in zip(groups, nearness, strict=True) if near == max(nearness)]
        return statistics.median(nearest) if nearest else None

    def _of(self, experiment: str, study: str) -> list[tuple[float, set[str], set[str]]]:
        if (experiment, study) not in self.groups:
            found: dict[tuple[int, float], tuple[set[str], set[str]]] = {}
            for row in self.rows_of(experiment):
                if row.study == study:
                    shown, protocols = found.setdefault((row.seed, row.seconds), (set(), set()))
                    shown |= {row.method, row.network, row.variant, row.protocol, row.condition}
                    protocols |= {row.protocol} - {""}
            self.groups[experiment, study] = [
                (seconds, shown, protocols if len(protocols) == 1 else set())
                for (_, seconds), (shown, protocols) in found.items()
            ]
        return self.groups[experiment, study]


def _shipped(experiment: str) -> list[Row]:
    try:
        return stored_rows(experiment)
    except FileNotFoundError:
        return []


# --- the plan ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Planned:
    """A cell, and how long it should take in seconds; None where nobody knows."""

    cell: Cell
    seconds: float | None

    @property
    def table(self) -> tuple[str, str]:
        return self.cell.experiment, self.cell.study


ASKED_FOR = {
    "cure_tsr": "CURE-TSR",
    "olives": "OLIVES",
    "multi_live": "multi_live",
    "tid2013": "tid2013",
    "live_crops": LIVE_CROPS,
}
"""Studies of images that have to be asked for, and where they lie in the data folder."""


def data_there(study: str) -> bool:
    """Whether the images of a study are on this machine; one that makes its own has them.

    >>> data_there("digits"), data_there("toy")
    (True, True)
    """
    if study in ASKED_FOR:
        return (data_folder() / ASKED_FOR[study]).exists()
    data = DATASETS.get(study.removesuffix("_full"))
    return data is None or data.there()


def plan(
    names: Sequence[str],
    studies: Sequence[str] | None,
    seeds: int,
    times: Times | None = None,
    experiments: Callable[[str], Experiment] = experiment_named,
) -> list[Planned]:
    """All cells, those that teach most per minute first, each after the network that it needs.

    Args:
        names: of experiments.
        studies: only of these; None for all whose images are here.
        seeds: of every table.
        times: what is known of seconds.
        experiments: from a name to the experiment.
    """
    times = times or Times()
    ranked: list[tuple[float, int, Planned]] = []
    for name in names:
        experiment = experiments(name)
        for study in experiment.studies:
            if study not in studies if studies is not None else not data_there(study):
                continue
            cells = experiment.cells(study, range(seeds))
            for cell in cells:
                seconds, network = times.expected(cell), _network_of(cell)
                training = 0.0 if network is None else _expected_training(network)
                rate = 0.0
                if seconds is not None and training is not None:
                    # a network serves many cells, and its training is shared by those of this table
                    worth = seeds / len(cells) / (1 + cell.seed)
                    rate = worth / max(seconds + training * seeds / len(cells), 0.1)
                ranked.append((rate, len(ranked), Planned(cell, seconds)))
    ranked.sort(key=lambda entry: (-entry[0], 0 if entry[0] else entry[2].cell.seed, entry[1]))
    ordered: dict[str, Planned] = {}
    for _, _, planned in ranked:
        network = _network_of(planned.cell)
        if network is not None:
            ordered.setdefault(network.key, Planned(network, _expected_training(network)))
        ordered[planned.cell.key] = planned
    return list(ordered.values())


def command_of(cell: Cell) -> str:
    """The command that makes a cell's rows again, alone."""
    words = ["python", "-m", "tutorial_lib"]
    if cell.experiment == NETWORKS.name:
        words += ["train", cell.study, "--network", str(cell.settings["network"]), "--seed", str(cell.seed)]
    else:
        words += ["run", cell.experiment, "--study", cell.study, "--seeds", str(cell.seed + 1)]
    return shlex.join(words)


def duration(seconds: float | None) -> str:
    """For people.

    >>> duration(42), duration(90), duration(3 * 3600), duration(None)
    ('42 s', '2 min', '3.0 h', 'unknown')
    >>> duration(0.25)
    '0.2 s'
    """
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# --- the run -----------------------------------------------------------------------------------------------------------


class BudgetSpent(BaseException):
    """The time is up. Not an `Exception`, for a cell that fails is told apart from one that is stopped."""


@dataclass
class Suite:
    """A plan, a store, and what has been learned of this machine's speed on the way.

    Args:
        planned: in the order in which cells are to start.
        store: where cells are and go.
        jobs: cells at a time.
        budget: seconds; None for no end.
        clock: tells the seconds; the test has its own.
    """

    planned: Sequence[Planned]
    store: CellStore
    jobs: int = 1
    budget: float | None = None
    clock: Callable[[], float] = time.monotonic
    ratios: list[float] = field(default_factory=list)
    without_data: dict[tuple[str, str], str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    outcomes: list[Outcome] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = self.clock()
        self.expectation = {planned.cell.key: planned for planned in self.planned}

    @property
    def speed(self) -> float:
        """Seconds here for a second of the stored rows: the median of the cells so far, 1 before there are three."""
        return statistics.median(self.ratios[-25:]) if len(self.ratios) >= 3 else 1.0

    def missing(self) -> list[Planned]:
        """What the store lacks, in the order of the plan."""
        return [planned for planned in self.planned if planned.cell not in self.store]

    def within_budget(self) -> list[Planned]:
        """What should be done in the time: cells whose seconds are known, as long as they fit."""
        left = float("inf") if self.budget is None else self.budget * self.jobs
        fitting = []
        for planned in self.missing():
            if planned.seconds is not None and planned.seconds * self.speed <= left:
                left -= planned.seconds * self.speed
                fitting.append(planned)
        return fitting

    def may_start(self, cell: Cell) -> bool:
        """Whether a cell should end within the budget, and its data have not turned out to be missing."""
        planned = self.expectation[cell.key]
        if planned.table in self.without_data:
            return False
        network = _network_of(cell) if cell.experiment != NETWORKS.name else None
        if network is not None and network.key in self.refused:
            return False  # it would have to train the network itself
        if self.budget is None:
            return True
        left = self.budget - (self.clock() - self.started)
        fits = left > 0 and (planned.seconds is None or planned.seconds * self.speed <= left)
        if not fits:
            self.refused.add(cell.key)
        return fits

    def heard(self, outcome: Outcome) -> None:
        """Learn from an outcome."""
        self.outcomes.append(outcome)
        planned = self.expectation[outcome.cell.key]
        if outcome.state == "done" and planned.seconds and outcome.cell.experiment != NETWORKS.name:
            self.ratios.append(outcome.seconds / planned.seconds)
        if outcome.state == "failed" and outcome.message.startswith("DataUnavailable"):
            self.without_data[planned.table] = outcome.message

    def run(self, experiments: Mapping[str, Experiment], **options: Any) -> bool:
        """Compute what is missing as long as the budget lasts; ``options`` go to `tutorial_lib.runs.runner.run`.

        What runs when the budget is spent is stopped as a kill would stop it: cells are whole or not at all, and networks
        that take long go on from their last epoch.

        Returns:
            whether something had to be stopped.
        """
        self.started = self.clock()
        cells = [planned.cell for planned in self.planned]
        try:
            with _alarm(self.budget):
                run(
                    experiments,
                    cells,
                    self.store,
                    command_of,
                    jobs=self.jobs,
                    may_start=self.may_start,
                    heard=self.heard,
                    **options,
                )
        except BudgetSpent:
            return True
        return False

    def summary(self) -> str:
        """One line per table: cells that are there, cells that are missing, and how long they should take here."""
        body = []
        for table in dict.fromkeys(planned.table for planned in self.planned):
            mine = [planned for planned in self.planned if planned.table == table]
            missing = [planned for planned in mine if planned.cell not in self.store]
            known = [planned.seconds * self.speed for planned in missing if planned.seconds is not None]
            unknown = len(missing) - len(known)
            time_left = duration(sum(known)) if known or not missing else ""
            said = [time_left] if time_left else []
            said += [f"{unknown} of unknown time"] if unknown else []
            said += ["no data"] if table in self.without_data else []
            body.append(["/".join(table), str(len(mine) - len(missing)), str(len(missing)), ", ".join(said)])
        return markdown_table(["table", "cells there", "missing", "should take, one at a time"], body)


@contextmanager
def _alarm(seconds: float | None) -> Iterator[None]:
    """Raise `BudgetSpent` in the main thread after some seconds, where the system has alarms."""
    if seconds is None or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise BudgetSpent

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def all_experiments(names: Sequence[str] | None = None) -> dict[str, Experiment]:
    """Experiments by name, with the networks."""
    return {NETWORKS.name: NETWORKS} | {name: experiment_named(name) for name in names or EXPERIMENTS}
