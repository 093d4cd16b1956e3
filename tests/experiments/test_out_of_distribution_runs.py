"""The experiment itself, killed, shared between processes and on a cluster: the rows are those of an undisturbed run.

A run starts with an empty cache, so that kills also meet the training of the network and the writing of features.
"""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest

from tutorial_lib.experiments.out_of_distribution import EXPERIMENT, METRICS, VERSION
from tutorial_lib.runs.experiment import Cell
from tutorial_lib.runs.runner import run
from tutorial_lib.runs.store import CellStore

METHODS = ("msp", "knn", "gradient_density", "mahalanobis_fe")
CELLS = [
    cell
    for cell in EXPERIMENT.cells("digits", [0])
    if cell.settings["network"] == "lenet" and "protocol" not in cell.settings and cell.settings["method"] in METHODS
]


def start(folder):
    """A process that runs the grid, with its results and its cache in ``folder``."""
    program = textwrap.dedent("""
        import sys
        from tests_cells import CELLS
        from tutorial_lib.experiments.out_of_distribution import EXPERIMENT
        from tutorial_lib.runs.runner import run
        from tutorial_lib.runs.store import CellStore
        outcomes = run(EXPERIMENT, CELLS, CellStore(), "test", progress=False)
        sys.exit(any(outcome.state == "failed" for outcome in outcomes))
    """)
    (folder / "tests_cells.py").write_text(
        "from tutorial_lib.runs.experiment import Cell\n"
        f"CELLS = [Cell(*given) for given in {[cell.__reduce__()[1] for cell in CELLS]!r}]\n"
    )
    environment = {**os.environ, "TUTORIAL_CACHE": str(folder), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return subprocess.Popen([sys.executable, "-c", program], env=environment)


def everything(folder):
    """All rows but for when and from which commit they were made, and all scores."""
    store = CellStore(folder / "results")
    rows, scores = [], {}
    for cell in CELLS:
        found, arrays = store.read(cell)
        rows += [replace(row, seconds=0, commit="any") for row in found]
        scores |= {(cell.key, name): array for name, array in arrays.items()}
    return rows, scores


def assert_same(one, other):
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for key, scores in one[1].items():
        np.testing.assert_array_equal(scores, other[1][key])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What a run gives that nobody disturbs, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    assert start(folder).wait() == 0
    seconds = time.monotonic() - began
    rows, scores = everything(folder)
    assert {row.method for row in rows} == set(METHODS) and len(rows) == (3 + 2) * 5 * len(METRICS) and scores
    return rows, scores, seconds


def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path, undisturbed):
    """``TUTORIAL_KILLS=20`` makes it twenty kills, some five minutes on a free machine."""
    *expected, seconds = undisturbed
    kills = int(os.environ.get("TUTORIAL_KILLS", "2"))
    moments, store = random.Random(kills), CellStore(tmp_path / "results")
    done, hit = 0, 0
    for _ in range(20 * kills):
        if hit == kills:
            break
        process = start(tmp_path)
        try:
            process.wait(timeout=moments.uniform(0.4, 1.0) * seconds)
            seconds *= 0.9  # done before the kill: the machine is freer now than it was
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            hit += 1
        there = [cell for cell in CELLS if cell in store]
        for cell in there:
            store.read(cell)  # whole, whatever happened
        assert len(there) >= done, "a kill has cost a finished cell"
        done = len(there)
        if done == len(CELLS):  # begin anew, so that every kill meets work
            assert_same(everything(tmp_path), expected)
            for file in [*(tmp_path / "results").rglob("*.npz"), *(tmp_path / "features").rglob("*.npz")]:
                file.unlink()
            done = 0
    assert hit == kills
    assert start(tmp_path).wait() == 0
    assert_same(everything(tmp_path), expected)


def test_two_processes_share_the_grid(tmp_path, undisturbed):
    both = [start(tmp_path) for _ in range(2)]
    assert [process.wait(timeout=600) for process in both] == [0, 0]
    assert_same(everything(tmp_path), undisturbed[:2])


@pytest.mark.slow
def test_a_cluster_of_two_gives_the_same_rows(tmp_path, undisturbed, monkeypatch):
    import distributed

    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        outcomes = run(
            EXPERIMENT,
            CELLS,
            CellStore(),
            "test",
            backend="dask",
            scheduler=cluster.scheduler_address,
            progress=False,
        )
    assert [outcome.state for outcome in outcomes] == ["done"] * len(CELLS)
    assert_same(everything(tmp_path), undisturbed[:2])


def test_what_cannot_be_computed_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    quick = [cell for cell in CELLS if cell.settings["method"] in ("msp", "knn")]
    wrong = [
        replace(quick[0], settings={"network": "lenet", "method": "mahalonobis"}),
        replace(quick[0], study="digts"),
        replace(quick[0], settings={"network": "lenett", "method": "msp"}),
    ]
    store = CellStore(tmp_path)
    run(EXPERIMENT, quick[:1], store, "test", progress=False)
    store.path(quick[0]).write_bytes(store.path(quick[0]).read_bytes()[:300])
    outcomes = run(EXPERIMENT, [*wrong, *quick], store, "test", progress=False)
    failed = [outcome for outcome in outcomes if outcome.state == "failed"]
    assert [outcome.cell for outcome in failed] == wrong
    for outcome, said in zip(failed, ("'mahalanobis'", "'digits'", "'lenet'"), strict=True):
        assert f"did you mean {said}" in outcome.message.lower() and "\n" not in outcome.message
    [repaired] = [outcome for outcome in outcomes if outcome.state == "repaired"]
    assert repaired.cell == quick[0] and "damaged" in repaired.message
    assert all(store.read(cell)[0] for cell in quick)


def test_a_changed_grid_is_computed_again():
    cells = EXPERIMENT.cells("digits", [0])
    ahead = {cell.settings["method"] for cell in cells if cell.version == VERSION + 1}  # they came to have all metrics
    assert ahead == {"control_logits", "control_penultimate", "control_activations"}
    assert {cell.version for cell in cells if cell.settings["method"] not in ahead} == {VERSION}
    assert {cell.version for cell in cells if cell.settings.get("protocol") == "open_set"} == {VERSION}
    assert CELLS[0].key != Cell(CELLS[0].experiment, "digits", 0, CELLS[0].settings, VERSION - 1).key
