"""A worker that is killed costs its own cell one try, and the others nothing."""

from __future__ import annotations

import sys
from pathlib import Path

from joblib.externals.loky import get_reusable_executor

sys.path.insert(0, str(Path(__file__).parent))  # workers import the experiment by name

import grid

from tutorial_lib.runs.runner import run
from tutorial_lib.runs.store import CellStore

CELLS = grid.cells("digits", [0])


def test_a_killed_worker_costs_a_try_and_two_cost_the_cell(tmp_path, monkeypatch):
    """One cell's worker is killed once, another's always, the third's never: all but the second are there at the end."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("GRID_KILL_ONCE", f"mean {tmp_path / 'killed'}")
    monkeypatch.setenv("GRID_KILL", "spread")
    get_reusable_executor().shutdown(wait=True)  # workers of an earlier test do not know this one's environment
    store = CellStore(tmp_path / "cells")
    outcomes = run(grid.EXPERIMENT, CELLS, store, "test", jobs=2, progress=False)
    assert (tmp_path / "killed").exists()
    states = {outcome.cell.settings["method"]: outcome.state for outcome in outcomes}
    assert len(outcomes) == 3 and states.pop("spread") == "failed" and set(states.values()) <= {"done", "there"}
    [failed] = [outcome for outcome in outcomes if outcome.state == "failed"]
    assert "killed twice" in failed.message
    assert [cell in store for cell in CELLS] == [cell.settings["method"] != "spread" for cell in CELLS]
    left = [path for path in store.folder.rglob("*") if path.is_file() and path.suffix != ".npz"]
    assert [path.name for path in left] == [store.lock_path(failed.cell).name]  # until it is tried again
    monkeypatch.delenv("GRID_KILL")
    assert [outcome.state for outcome in run(grid.EXPERIMENT, CELLS, store, "test", progress=False)] == ["done"]
    assert all(path.suffix == ".npz" for path in store.folder.rglob("*") if path.is_file())
