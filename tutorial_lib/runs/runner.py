"""Run the cells of a grid that are not there yet, on one machine or many.

joblib does the distribution. Every cell runs with the same number of threads wherever it runs, so that its numbers do
not depend on how many others ran beside it.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import torch
from tqdm.auto import tqdm

from tutorial_lib.progress import how_often
from tutorial_lib.results.rows import Row, provenance
from tutorial_lib.runs.experiment import Cell, Experiment
from tutorial_lib.runs.store import CellStore, DamagedCell
from tutorial_lib.storage import locked

BACKENDS = ("processes", "dask")


@dataclass(frozen=True)
class Outcome:
    """What became of one cell.

    ``state`` is ``"done"``, ``"there"`` (another process had computed it), ``"busy"`` (another one is at it),
    ``"failed"``, or ``"repaired"`` (its file was damaged, so that it is computed again). ``seconds`` is how long a cell took
    that is done.
    """

    cell: Cell
    state: str
    message: str = ""
    seconds: float = 0.0


def run(
    experiment: Experiment | Mapping[str, Experiment],
    cells: Sequence[Cell],
    store: CellStore,
    command: str | Callable[[Cell], str],
    jobs: int = 1,
    device: str = "cpu",
    backend: str = "processes",
    scheduler: str | None = None,
    threads: int = 1,
    progress: bool = True,
    may_start: Callable[[Cell], bool] | None = None,
    heard: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Compute and store every cell that the store lacks; one that fails does not stop the others.

    Neither does one whose worker is killed (for its memory, say): the others go on, and it is tried once more, alone.

    Args:
        experiment: whose cells they are; or all of theirs, by name.
        cells: the grid, in the order in which they are to start.
        store: where results are and go; with ``backend="dask"`` a folder that every worker sees.
        command: what the rows will say made them; or what to ask for each cell.
        jobs: cells at a time.
        device: ``"cpu"`` or ``"cuda"``; with several CUDA devices, cells take them in turn.
        backend: ``"processes"`` on this machine, or ``"dask"``.
        scheduler: address of the Dask scheduler, ``"tcp://host:8786"``.
        threads: threads a cell uses on a CPU.
        progress: show a bar with the time left; where there is no terminal, a line every half minute.
        may_start: asked before a cell starts; what it refuses is left out.
        heard: told of every outcome as it comes.

    Returns:
        one `Outcome` for every cell that was not there when the run began and was not left out, in the order in which they
        ended.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    missing_packages = check_backend(backend)
    if missing_packages:
        raise ModuleNotFoundError(missing_packages)
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
                outcomes.append(Outcome(cell, "repaired", f"{error} (now {store.set_aside(cell).name})"))
        missing.append(cell)
    title = experiment.name if isinstance(experiment, Experiment) else "suite"
    there = len(cells) - len(missing)
    bar = tqdm(total=len(cells), initial=there, desc=title, unit="cell", disable=not progress, **how_often())
    master = os.getpid() if backend == "processes" and jobs > 1 else None

    def tasks(chosen: Sequence[Cell], wait: bool) -> Iterator[Any]:
        for i, cell in enumerate(chosen):
            if may_start is not None and not may_start(cell):
                continue
            its = experiment if isinstance(experiment, Experiment) else experiment[cell.experiment]
            said = command if isinstance(command, str) else command(cell)
            yield joblib.delayed(compute_cell)(its, cell, store.folder, said, _device(device, i), threads, wait, master)

    def ended(outcome: Outcome) -> None:
        outcomes.append(outcome)
        if heard is not None:
            heard(outcome)
        bar.set_postfix_str(outcome.cell.label)
        bar.update()

    with _parallel(backend, scheduler, jobs) as parallel, bar:
        for wait in (False, True):  # cells that another process holds come last, when there is nothing else to do
            busy: list[Cell] = []
            while missing:
                answered: set[str] = set()
                try:
                    for outcome in parallel(tasks(missing, wait), lazily=may_start is not None):
                        answered.add(outcome.cell.key)
                        if outcome.state == "busy":
                            busy.append(outcome.cell)
                        else:
                            ended(outcome)
                    break
                except _worker_killed():
                    unheard = [cell for cell in missing if cell.key not in answered]
                    # Every worker goes with one that was killed. Who was at work has left its lock behind.
                    suspects = [cell for cell in unheard if cell not in store and store.lock_path(cell).exists()]
                    for cell in suspects:
                        for task in tasks([cell], True):
                            ended(parallel.alone(task, cell))
                    missing = [cell for cell in unheard if cell not in suspects]
            missing = busy
    return outcomes


def compute_cell(
    experiment: Experiment,
    cell: Cell,
    folder: Path,
    command: str,
    device: str,
    threads: int,
    wait: bool = True,
    master: int | None = None,
) -> Outcome:
    """Compute one cell and store it; what goes wrong comes back as an outcome. Runs in a worker.

    ``master`` is the process that asked for it; a worker does not outlive it.
    """
    if master is not None and master != os.getpid():
        _end_with(master)
    store = CellStore(folder)
    threads_before = torch.get_num_threads()
    try:
        with locked(store.lock_path(cell), wait) as mine:
            if not mine:
                return Outcome(cell, "busy")
            store.sweep(cell)
            if cell in store:
                return Outcome(cell, "there")
            torch.set_num_threads(threads)
            start = time.perf_counter()
            result = experiment.compute(cell, torch.device(device))
            seconds = time.perf_counter() - start
            source = provenance(command, device)
            made: dict[str, Any] = {
                "experiment": cell.experiment,
                "study": cell.study,
                "seed": cell.seed,
                "seconds": seconds,
            }
            rows = [Row.of(measured, source, **made) for measured in result.measurements]
            store.write(cell, rows, dict(result.arrays))
    except Exception as error:  # whatever it is, the other cells go on and the caller is told
        return Outcome(cell, "failed", " ".join(f"{type(error).__name__}: {error}".split()))
    finally:
        torch.set_num_threads(threads_before)
    return Outcome(cell, "done", seconds=seconds)


@functools.cache
def _end_with(master: int) -> None:
    """End this worker soon after its master, also if that was killed: nobody waits for its cell, and it holds a lock."""

    def watch() -> None:
        while os.getppid() == master:
            time.sleep(1)
        os._exit(1)

    if os.getppid() == master:
        threading.Thread(target=watch, daemon=True, name="end with the master").start()


def _device(device: str, index: int) -> str:
    count = torch.cuda.device_count() if device == "cuda" else 0
    return f"cuda:{index % count}" if count > 1 else device


def check_backend(backend: str) -> str:
    """What is missing for a backend, and how to get it; empty if nothing is."""
    if backend == "dask" and not all(importlib.util.find_spec(name) for name in ("dask", "distributed")):
        return "the dask backend needs two packages that are not here: pip install dask distributed"
    return ""


class _parallel:
    """Context manager: a function from joblib tasks to their results as they come."""

    def __init__(self, backend: str, scheduler: str | None, jobs: int) -> None:
        self.backend, self.scheduler, self.jobs = backend, scheduler, jobs

    def __enter__(self) -> _parallel:
        if self.backend == "dask":
            from distributed import Client

            self.client = (
                Client(self.scheduler, timeout="30s")
                if self.scheduler
                else Client(
                    n_workers=self.jobs, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
                )
            )
            self.context = joblib.parallel_config("dask", client=self.client)
        else:
            self.context = joblib.parallel_config(
                "loky", n_jobs=self.jobs, inner_max_num_threads=1 if self.jobs > 1 else None
            )
        self.context.__enter__()
        return self

    def __call__(self, tasks: Iterable[Any], lazily: bool = False) -> Iterator[Outcome]:
        """Results as they come; ``lazily``, a task is asked for only when a worker is free for it."""
        if self.backend == "processes" and self.jobs == 1:  # here, without the start of another process
            return (function(*args, **kwargs) for function, args, kwargs in tasks)
        ahead = "n_jobs" if lazily else "all"
        return joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch=ahead)(tasks)

    def alone(self, task: Any, cell: Cell) -> Outcome:
        """Once more, with no other cell beside it that could be the one to blame."""
        try:
            [outcome] = joblib.Parallel()([task])
            return outcome
        except _worker_killed():
            why = "its worker was killed twice, the second time with no other cell beside it; is there memory enough?"
            return Outcome(cell, "failed", why)

    def __exit__(self, *exception: object) -> None:
        self.context.__exit__(*exception)
        if self.backend == "dask":
            self.client.close()


def _worker_killed() -> tuple[type[BaseException], ...]:
    """What joblib raises when a worker has gone without an answer."""
    from joblib.externals.loky.process_executor import BrokenProcessPool, TerminatedWorkerError

    kinds: list[type[BaseException]] = [TerminatedWorkerError, BrokenProcessPool]
    if not check_backend("dask"):
        from distributed import KilledWorker

        kinds.append(KilledWorker)
    return tuple(kinds)
