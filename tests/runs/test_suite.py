"""The suite: what comes first, what a budget lets start, and that a stopped one goes on."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # workers import the experiment by name

import grid

from tutorial_lib.__main__ import main
from tutorial_lib.data.errors import DataUnavailable
from tutorial_lib.results.rows import Row
from tutorial_lib.runs import suite
from tutorial_lib.runs.experiment import Cell
from tutorial_lib.runs.registry import EXPERIMENTS, experiment_named
from tutorial_lib.runs.runner import Outcome
from tutorial_lib.runs.store import CellStore
from tutorial_lib.runs.suite import NETWORKS, Planned, Suite, Times, plan


def row(seconds: float, method: str = "mean", seed: int = 0, **columns) -> Row:
    made = {"condition": "normal", "metric": "value", "n": 1, "experiment": "grid", "study": "digits", "command": "run"}
    made |= {"commit": "abc", "versions": "1", "device": "cpu"}
    return Row(value=1.0, seconds=seconds, method=method, seed=seed, **{**made, **columns})


def test_times_are_those_of_the_nearest_cells():
    rows = [row(1, "mean"), row(3, "mean", 1), row(50, "spread"), row(90, "mean", 2, protocol="ladder")]
    times = Times(lambda name: rows if name == "grid" else [])
    assert times.expected(Cell("grid", "digits", 7, {"method": "mean"})) == 2
    assert times.expected(Cell("grid", "digits", 0, {"method": "spread"})) == 50
    assert times.expected(Cell("grid", "digits", 0, {"method": "mean", "protocol": "ladder"})) == 90
    assert times.expected(Cell("grid", "mnist", 0, {"method": "mean"})) is None
    assert times.expected(Cell("other", "digits", 0)) is None


def test_what_teaches_most_per_minute_comes_first_and_the_unknown_last():
    rows = [row(1, "mean"), row(10, "spread")]
    small = replace(
        grid.EXPERIMENT, cells=lambda study, seeds: [c for c in grid.cells(study, seeds) if "l" not in c.label[7:9]]
    )
    unknown = replace(grid.EXPERIMENT, name="new", cells=lambda study, seeds: [Cell("new", study, s) for s in seeds])
    experiments = {"grid": small, "new": unknown}
    planned = plan(["new", "grid"], ["digits"], 2, Times(lambda name: rows if name == "grid" else []), experiments.get)
    assert [(p.cell.experiment, p.cell.settings.get("method"), p.cell.seed, p.seconds) for p in planned] == [
        ("grid", "mean", 0, 1),
        ("grid", "mean", 1, 1),  # half as much as the first seed, in a tenth of the time of the other
        ("grid", "spread", 0, 10),
        ("grid", "spread", 1, 10),
        ("new", None, 0, None),
        ("new", None, 1, None),
    ]


def test_a_network_is_trained_before_the_first_cell_that_needs_it(monkeypatch):
    def cells(study, seeds):
        return [Cell("grid", study, seed, {"network": "lenet", "method": m}) for seed in seeds for m in ("a", "b")]

    monkeypatch.setattr(suite, "network_seconds", lambda study, network, seed: 2.0)
    planned = plan(
        ["grid"], ["digits"], 2, Times(lambda name: [row(1)]), lambda name: replace(grid.EXPERIMENT, cells=cells)
    )
    assert [(p.cell.experiment, p.cell.seed) for p in planned] == [
        *(("networks", 0), ("grid", 0), ("grid", 0)),
        *(("networks", 1), ("grid", 1), ("grid", 1)),
    ]
    whole = Suite(planned, CellStore("nowhere"), budget=1.5)
    assert not whole.may_start(planned[0].cell) and not whole.may_start(planned[1].cell), "it would train it itself"


def planned_grid(seconds: float | None = 1.0, seeds: int = 3) -> list[Planned]:
    return [Planned(cell, seconds) for cell in grid.cells("digits", range(seeds))]


def test_a_cell_starts_if_it_should_end_in_time_at_the_speed_of_this_machine(tmp_path):
    now = [0.0]
    whole = Suite(planned_grid(10.0), CellStore(tmp_path), budget=60.0, clock=lambda: now[0])
    cells = [planned.cell for planned in whole.planned]
    assert len(whole.within_budget()) == 6 and whole.may_start(cells[0])
    for cell in cells[:3]:
        whole.heard(Outcome(cell, "done", seconds=30.0))
    assert whole.speed == 3 and len(whole.within_budget()) == 2
    now[0] = 25.0
    assert whole.may_start(cells[3])
    now[0] = 31.0
    assert not whole.may_start(cells[3])


def test_a_budget_stops_and_the_next_one_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("GRID_SECONDS", "0.3")
    store, experiments = CellStore(tmp_path / "store"), {"grid": grid.EXPERIMENT}
    start = time.monotonic()
    assert Suite(planned_grid(None), store, budget=0.75).run(experiments, progress=False), "something was stopped"
    assert time.monotonic() - start < 10
    done = sum(planned.cell in store for planned in planned_grid())
    assert 1 <= done < 9 and not [path for path in tmp_path.rglob("*.part")]
    monkeypatch.setenv("GRID_SECONDS", "0")
    whole = Suite(planned_grid(), store)
    assert not whole.run(experiments, progress=False) and whole.missing() == []
    assert len(whole.outcomes) == 9 - done
    [rows] = [store.read(planned.cell)[0] for planned in planned_grid() if planned.cell.seed == 2][:1]
    assert rows[0].command == "python -m tutorial_lib run grid --study digits --seeds 3"


@pytest.mark.parametrize("options", [{"jobs": 2}, {"jobs": 2, "backend": "dask"}], ids=["processes", "dask"])
def test_workers_start_only_what_they_may(tmp_path, monkeypatch, options):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    jobs = options.pop("jobs")
    planned = [replace(one, seconds=1000.0 if one.cell.seed else 1.0) for one in planned_grid()]
    whole = Suite(planned, CellStore(tmp_path), jobs, budget=200.0)
    whole.run({"grid": grid.EXPERIMENT}, progress=False, **options)
    assert {one.cell.seed for one in whole.missing()} == {1, 2} and len(whole.missing()) == 6


def test_a_table_without_data_is_given_up_after_its_first_cell(tmp_path):
    def compute(cell, device):
        raise DataUnavailable("nothing here")

    whole = Suite(planned_grid(), CellStore(tmp_path))
    whole.run({"grid": replace(grid.EXPERIMENT, compute=compute)}, progress=False)
    assert len(whole.outcomes) == 1 and "no data" in whole.summary()


def test_a_network_is_a_cell(tmp_path):
    cell = Cell(NETWORKS.name, "digits", 0, {"network": "lenet"})
    whole = Suite([Planned(cell, suite.network_seconds("digits", "lenet", 0))], CellStore(tmp_path))
    whole.run({NETWORKS.name: NETWORKS}, progress=False)
    [found] = whole.store.read(cell)[0]
    assert found.metric == "accuracy" and found.value > 0.9
    assert found.command == "python -m tutorial_lib train digits --network lenet --seed 0"


def test_the_command_prints_its_plan_and_what_is_left(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TUTORIAL_RESULTS", str(tmp_path))
    words = "suite --experiment anomaly_detection --study digits --seeds 1 --jobs 1".split()
    assert main([*words, "--budget", "30m", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "anomaly_detection/digits" in said and "of a budget of 30 min" in said and not list(tmp_path.rglob("*.npz"))
    assert main([*words, "--budget", "2s"]) == 0
    assert "What is left" in capsys.readouterr().out  # on a slow machine that is everything
    for wrong in (["--budget", "30"], ["--study", "digitz"], ["--experiment", "nothing"], ["--scheduler", "tcp://x:1"]):
        with pytest.raises(SystemExit):
            main(["suite", *wrong])
    assert "did you mean 'digits'" in capsys.readouterr().err


def test_images_that_must_be_asked_for_are_not_taken_for_granted(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    asked = {"cure_tsr", "olives", "multi_live", "tid2013", "live_crops"}
    studies = {study for name in EXPERIMENTS for study in experiment_named(name).studies}
    assert asked <= studies
    assert {study for study in studies if suite.data_there(study)} == {"digits", "toy", "moons", "ladder"}
    (tmp_path / "OLIVES").mkdir()
    assert suite.data_there("olives")
