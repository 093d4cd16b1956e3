"""A worker that is killed costs its own cell one try, and the others nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from joblib.externals.loky import get_reusable_executor

sys.path.insert(0, str(Path(__file__).parent))  # workers import the experiment by name

import grid

from tutorial_lib.runs.runner import run
from tutorial_lib.runs.store import CellStore
from tutorial_lib.storage import locked

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


def test_workers_do_not_outlive_who_asked_them(tmp_path):
    """A run that is killed in the middle of two cells gives their locks back at once, not when the cells are done."""
    store = CellStore(tmp_path / "cells")
    program = (
        "import grid; from pathlib import Path; from tutorial_lib.runs.runner import run; "
        "from tutorial_lib.runs.store import CellStore; "
        f"run(grid.EXPERIMENT, grid.cells('digits', [0]), CellStore(Path({str(store.folder)!r})), 'test', jobs=2)"
    )
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, str(Path(__file__).parents[2])])
    environment = {**os.environ, "PYTHONPATH": path, "GRID_SECONDS": "300"}
    master = subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=here, stderr=subprocess.DEVNULL)
    try:
        _wait(lambda: sum(store.lock_path(cell).exists() for cell in CELLS) == 2, "two cells are being computed")
        assert sum(_is_free(store.lock_path(cell)) for cell in CELLS if store.lock_path(cell).exists()) == 0
    finally:
        master.kill()
        master.wait()
    _wait(lambda: all(_is_free(store.lock_path(cell)) for cell in CELLS), "the locks are free", 30)
    assert not any(cell in store for cell in CELLS)


def _is_free(path: Path) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path, wait=False) as mine:
        return mine


def _wait(condition, what: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)
