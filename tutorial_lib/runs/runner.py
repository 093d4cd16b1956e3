"""Run the cells of a grid that are not there yet, on one machine or many.

joblib does the distribution. Every cell runs with the same number of threads wherever it runs, so that its numbers do
not depend on how many others ran beside it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import joblib
import torch
from tqdm.auto import tqdm

from tutorial_lib.results.rows import Row, provenance
from tutorial_lib.runs.experiment import Cell, Experiment
from tutorial_lib.runs.store import CellStore, DamagedCell
from tutorial_lib.storage import locked

BACKENDS = ("processes", "dask")


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    ``state`` is ``"done"``, ``"there"`` (another process had computed it), ``"busy"`` (another one is at it),
    ``"failed"``, or ``"repaired"`` (its file was damaged, so that it is computed again).
    """

    cell: Cell
    state: str
    message: str = ""


def run(
    experiment: Experiment,
    cells: Sequence[Cell],
    store: CellStore,
    command: str,
    jobs: int = 1,
    device: str = "cpu",
    backend: str = "processes",
    scheduler: str | None = None,
    threads: int = 1,
    progress: bool = True,
) -> list[Outcome]:
    """Compute and store every cell that the store lacks; one that fails does not stop the others.

    Args:
        experiment: whose cells they are.
        cells: the grid.
        store: where results are and go; with ``backend="dask"`` a folder that every worker sees.
        command: what the rows will say made them.
        jobs: cells at a time.
        device: ``"cpu"`` or ``"cuda"``; with several CUDA devices, cells take them in turn.
        backend: ``"processes"`` on this machine, or ``"dask"``.
        scheduler: address of the Dask scheduler, ``"tcp://host:8786"``.
        threads: threads a cell uses on a CPU.
        progress: show a bar with the time left.

    Returns:
        one `Outcome` for every cell that was not there when the run began, in the order in which they ended.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if jobs < 1 or threads < 1:
        raise ValueError(f"jobs and threads must be at least 1, got {jobs} and {threads}")
    outcomes: list[Outcome] = []
    missing = []
    for cell in cells:
        if cell in store:
            try:
                store.read(cell)
                continue
            except DamagedCell as error:
                outcomes.append(Outcome(cell, "repaired", f"{error} (moved to {store.set_aside(cell).name})"))
        missing.append(cell)
    bar = tqdm(
        total=len(cells), initial=len(cells) - len(missing), desc=experiment.name, unit="cell", disable=not progress
    )
    with _parallel(backend, scheduler, jobs) as parallel:
        for wait in (False, True):  # cells that another process holds come last, when there is nothing else to do
            tasks = (
                joblib.delayed(compute_cell)(experiment, cell, store.folder, command, _device(device, i), threads, wait)
                for i, cell in enumerate(missing)
            )
            held = []
            for outcome in parallel(tasks):
                if outcome.state == "busy":
                    held.append(outcome.cell)
                    continue
                outcomes.append(outcome)
                bar.set_postfix_str(outcome.cell.label)
                bar.update()
            missing = held
            if not missing:
                break
    bar.close()
    return outcomes


def compute_cell(
    experiment: Experiment, cell: Cell, folder: Path, command: str, device: str, threads: int, wait: bool = True
) -> Outcome:
    """Compute one cell and store it; what goes wrong comes back as an outcome. Runs in a worker."""
    store = CellStore(folder)
    threads_before = torch.get_num_threads()
    try:
        with locked(store.lock_path(cell), wait) as mine:
            if not mine:
                return Outcome(cell, "busy")
            if cell in store:
                return Outcome(cell, "there")
            torch.set_num_threads(threads)
            start = time.perf_counter()
            result = experiment.compute(cell, torch.device(device))
            seconds = time.perf_counter() - start
            source = provenance(command, device)
            made = {"experiment": cell.experiment, "study": cell.study, "seed": cell.seed, "seconds": seconds}
            rows = [Row.of(measured, source, **made) for measured in result.measurements]
            store.write(cell, rows, dict(result.arrays))
            store.lock_path(cell).unlink(missing_ok=True)
    except Exception as error:  # whatever it is, the other cells go on and the caller is told
        return Outcome(cell, "failed", f"{type(error).__name__}: {error}")
    finally:
        torch.set_num_threads(threads_before)
    return Outcome(cell, "done")


def _device(device: str, index: int) -> str:
    count = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{index % count}" if count > 1 else device


class _parallel:
    """Context manager: a function from joblib tasks to their results as they come."""

    def __init__(self, backend: str, scheduler: str | None, jobs: int) -> None:
        self.backend, self.scheduler, self.jobs = backend, scheduler, jobs

    def __enter__(self) -> _parallel:
        if self.backend == "dask":
            try:
                from distributed import Client
            except ImportError:
                raise ModuleNotFoundError(
                    "the dask backend needs dask: pip install 'tutorial-lib[distributed]'"
                ) from None
            self.client = (
                Client(self.scheduler, timeout="30s")
                if self.scheduler
                else Client(n_workers=self.jobs, threads_per_worker=1)
            )
            self.context = joblib.parallel_config("dask", client=self.client)
        else:
            self.context = joblib.parallel_config(
                "loky", n_jobs=self.jobs, inner_max_num_threads=1 if self.jobs > 1 else None
            )
        self.context.__enter__()
        return self

    def __call__(self, tasks: Iterator[object]) -> Iterator[Outcome]:
        if self.backend == "processes" and self.jobs == 1:  # here, without the start of another process
            return (function(*args, **kwargs) for function, args, kwargs in tasks)  # type: ignore[misc]
        return joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="all")(tasks)

    def __exit__(self, *exception: object) -> None:
        self.context.__exit__(*exception)
        if self.backend == "dask":
            self.client.close()
