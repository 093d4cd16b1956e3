"""The experiment engine: cells are written once and whole, a killed run goes on, and who computes does not matter."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # workers import the experiment by name

import grid

from tutorial_lib.results.rows import Row
from tutorial_lib.runs.cache import cached_arrays
from tutorial_lib.runs.experiment import Cell
from tutorial_lib.runs.runner import run
from tutorial_lib.runs.saved import save
from tutorial_lib.runs.store import CellStore, DamagedCell

CELLS = grid.cells("digits", range(3))


def everything(store: CellStore) -> list[tuple]:
    """All rows but for when and where they were made."""
    found = [row for cell in CELLS for row in store.read(cell)[0]]
    return [(row.key, row.value, row.n, row.command) for row in found]


@pytest.fixture
def undisturbed(tmp_path):
    store = CellStore(tmp_path / "undisturbed")
    outcomes = run(grid.EXPERIMENT, CELLS, store, "test", progress=False)
    assert [outcome.state for outcome in outcomes] == ["done"] * len(CELLS)
    return everything(store)


SCRIPT = textwrap.dedent("""
    import sys
    sys.path.insert(0, {here!r})
    import grid
    from tutorial_lib.runs.runner import run
    from tutorial_lib.runs.store import CellStore
    if __name__ == "__main__":
        run(grid.EXPERIMENT, grid.cells("digits", range(3)), CellStore({folder!r}), "test", progress=False)
""")


def start(tmp_path: Path, folder: Path, seconds: float) -> subprocess.Popen:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent), folder=str(folder)))
    return subprocess.Popen([sys.executable, str(script)], env={**os.environ, "GRID_SECONDS": str(seconds)})


def test_values_are_those_of_numpy(undisturbed):
    import torch

    sample = torch.randn(1000, generator=torch.Generator().manual_seed(1)).numpy().astype(np.float64)
    values = {(key[2], key[5]): value for key, value, *_ in undisturbed}
    assert values["spread", 1] == pytest.approx(sample.std(ddof=1), rel=1e-6)
    assert values["largest", 1] == sample.max()


def test_a_run_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path, undisturbed):
    folder, random_ = tmp_path / "killed", random.Random(0)
    store = CellStore(folder)
    kills = 0
    for _ in range(4):
        process = start(tmp_path, folder, 0.4)
        before = sum(cell in store for cell in CELLS)
        deadline = time.monotonic() + 120
        while sum(cell in store for cell in CELLS) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)  # at least one more cell, so that the test ends
        time.sleep(random_.uniform(0, 0.8))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        for cell in CELLS:
            if cell in store:
                store.read(cell)  # whole, whatever happened
    assert kills >= 2
    run(grid.EXPERIMENT, CELLS, store, "test", progress=False)
    assert everything(store) == undisturbed
    left = [path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".npz"]
    assert left == []  # no lock and no part of a file, though every kill leaves some


def test_two_processes_share_one_grid(tmp_path, undisturbed):
    folder = tmp_path / "shared"
    both = [start(tmp_path, folder, 0.2) for _ in range(2)]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    assert everything(CellStore(folder)) == undisturbed


def test_workers_give_the_same_rows(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    store = CellStore(tmp_path / "workers")
    run(grid.EXPERIMENT, CELLS, store, "test", jobs=2, progress=False)
    assert everything(store) == undisturbed


def test_a_dask_cluster_gives_the_same_rows(tmp_path, undisturbed, monkeypatch):
    import distributed

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    store = CellStore(tmp_path / "dask")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        run(grid.EXPERIMENT, CELLS, store, "test", backend="dask", scheduler=cluster.scheduler_address, progress=False)
    assert everything(store) == undisturbed


def test_a_failing_cell_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setenv("GRID_FAIL", "spread")
    store = CellStore(tmp_path)
    outcomes = run(grid.EXPERIMENT, CELLS, store, "test", progress=False)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    assert len(failed) == 3 and all(
        "told to fail" in outcome.message and "spread" in outcome.cell.label for outcome in failed
    )
    assert sum(cell in store for cell in CELLS) == len(CELLS) - 3


def test_a_full_disk_is_named_and_leaves_no_half_cell(tmp_path, monkeypatch):
    store = CellStore(tmp_path)
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    outcomes = run(grid.EXPERIMENT, CELLS, store, "test", progress=False)
    assert all(outcome.state == "failed" and "No space left" in outcome.message for outcome in outcomes)
    assert not list(tmp_path.rglob("*.npz")) and not list(tmp_path.rglob("*.part"))


def test_a_damaged_cell_is_named_set_aside_and_computed_again(tmp_path, undisturbed):
    store = CellStore(tmp_path / "damaged")
    run(grid.EXPERIMENT, CELLS, store, "test", progress=False)
    path = store.path(CELLS[4])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DamagedCell, match="sets it aside and makes it again"):
        store.read(CELLS[4])
    problems = [found for found in store.rows("grid") if not isinstance(found, Row)]
    assert len(problems) == 1 and path.name in str(problems[0])
    outcomes = run(grid.EXPERIMENT, CELLS, store, "test", progress=False)
    assert [outcome.state for outcome in outcomes] == ["repaired", "done"]
    assert everything(store) == undisturbed


def test_a_cell_under_anothers_name_is_refused(tmp_path):
    store = CellStore(tmp_path)
    run(grid.EXPERIMENT, CELLS[:2], store, "test", progress=False)
    store.path(CELLS[0]).write_bytes(store.path(CELLS[1]).read_bytes())
    with pytest.raises(DamagedCell, match="another cell"):
        store.read(CELLS[0])


def test_any_change_of_a_cell_changes_its_key():
    cell = CELLS[0]
    others = [
        replace(cell, seed=9),
        replace(cell, study="mnist"),
        replace(cell, settings={"method": "other"}),
        replace(cell, version=2),
    ]
    assert len({cell.key, *(other.key for other in others)}) == 5
    assert Cell("e", "s", 0, {"a": 1, "b": 2}).key == Cell("e", "s", 0, {"b": 2, "a": 1}).key


def test_saved_rows_are_the_stored_ones(tmp_path):
    from tutorial_lib.results.rows import read_arrays, read_rows

    store = CellStore(tmp_path / "cells")
    run(grid.EXPERIMENT, CELLS, store, "test", progress=False)
    csv, npz = save(grid.EXPERIMENT, CELLS, store, tmp_path / "results")
    assert {row.key: row.value for row in read_rows(csv)} == pytest.approx(
        {key: value for key, value, *_ in everything(store)}, rel=1e-8
    )
    np.testing.assert_allclose(read_arrays(npz)["mean/sample"], store.read(CELLS[0])[1]["sample"], rtol=1e-3)


@pytest.mark.parametrize("spread", [1.0, 1e-4, 1e6])
def test_saving_keeps_the_order_of_scores(spread):
    """Confidences crowd near 1, where half precision has steps of 0.0005; distances grow beyond its range."""
    from tutorial_lib.metrics import auroc
    from tutorial_lib.runs.saved import _small

    known, strange = 1 - spread * np.random.default_rng(0).random((2, 500)) * [[1.0], [0.8]]
    assert auroc(_small(known), _small(strange)) == pytest.approx(auroc(known, strange), abs=2e-3)
    assert _small(known).dtype == (np.float16 if spread == 1 else np.float32)


def test_the_cache_computes_once_and_survives_damage(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    calls = []

    def compute():
        calls.append(1)
        return {"a": np.arange(5)}

    for _ in range(2):
        np.testing.assert_array_equal(cached_arrays("test", {"seed": 0}, compute)["a"], np.arange(5))
    assert len(calls) == 1
    cached_arrays("test", {"seed": 1}, compute)
    assert len(calls) == 2
    for file in tmp_path.rglob("*.npz"):
        file.write_bytes(b"broken")
    np.testing.assert_array_equal(cached_arrays("test", {"seed": 0}, compute)["a"], np.arange(5))
    assert len(calls) == 3


def test_stored_rows_come_in_the_order_of_the_grid(tmp_path):
    store = CellStore(tmp_path)
    run(grid.EXPERIMENT, list(reversed(CELLS)), store, "test", progress=False)
    in_order = [row.key for cell in CELLS for row in store.read(cell)[0]]
    assert [row.key for row in store.rows("grid", grid=grid.cells)] == in_order
    assert sorted(row.key for row in store.rows("grid")) == sorted(in_order)
