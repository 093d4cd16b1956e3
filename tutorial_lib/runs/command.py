"""``python -m tutorial_lib list | run | table | show``: the experiments and their results."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from typing import Any

from tutorial_lib.data.registry import suggestion
from tutorial_lib.runs.experiment import Experiment
from tutorial_lib.runs.registry import EXPERIMENTS, experiment_named

__all__ = ["register"]


def register(subparsers: Any) -> None:
    """Add the commands ``list``, ``run``, ``table`` and ``show``."""
    command = subparsers.add_parser("list", help="the experiments, and how far each has come on this machine")
    command.set_defaults(run=_list)

    command = subparsers.add_parser(
        "run",
        help="run an experiment, or go on with it",
        description="Compute every cell of an experiment's grid that is not there yet. "
        "Stop it when you like; the same command goes on.",
        epilog="Exit status: 0 if every cell is there at the end, 1 if some failed.",
    )
    command.add_argument("name", metavar="NAME", help=", ".join(EXPERIMENTS))
    command.add_argument(
        "--study", help="digits, mnist, cifar10, svhn (default: TUTORIAL_STUDY, else the experiment's first)"
    )
    command.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N-1 (default 1)")
    command.add_argument(
        "--jobs", type=int, default=None, metavar="N", help="cells at a time (default: processors / threads; 1 on CUDA)"
    )
    command.add_argument("--threads", type=int, default=1, metavar="N", help="threads a cell uses on a CPU (default 1)")
    command.add_argument("--device", default=None, help="cpu or cuda (default: cuda if there is one)")
    command.add_argument(
        "--backend", choices=("processes", "dask"), default="processes", help="where cells run (default processes)"
    )
    command.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask scheduler, tcp://host:port (default: a local cluster)"
    )
    command.add_argument(
        "--save",
        action="store_true",
        help="when every cell is there, write the rows into the library's own result files",
    )
    command.set_defaults(run=_run, error=command.error)

    command = subparsers.add_parser("table", help="print an experiment's table beside the published numbers")
    command.add_argument("name", metavar="NAME", help=", ".join(EXPERIMENTS))
    command.add_argument("--study", help="only this study")
    command.add_argument(
        "--shipped", action="store_true", help="from the rows that come with the library, not from this machine's"
    )
    command.set_defaults(run=_table, error=command.error)

    command = subparsers.add_parser("show", help="print an experiment's rows, each with what made it, as CSV")
    command.add_argument("name", metavar="NAME", help=", ".join(EXPERIMENTS))
    command.add_argument("--study", help="only this study")
    command.add_argument(
        "--shipped", action="store_true", help="the rows that come with the library, not this machine's"
    )
    command.set_defaults(run=_show, error=command.error)


def _list(arguments: argparse.Namespace) -> int:
    from tutorial_lib.runs.store import CellStore

    store = CellStore()
    for name in EXPERIMENTS:
        experiment = experiment_named(name)
        print(f"{name}: {experiment.title}")
        for study in experiment.studies:
            cells = experiment.cells(study, [0])
            done = sum(cell in store for cell in cells)
            print(f"    {study:<10}{done} of {len(cells)} cells of seed 0 in {store.folder}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    import torch

    from tutorial_lib.runs.runner import run
    from tutorial_lib.runs.store import CellStore

    experiment = _experiment(arguments)
    study = arguments.study or os.environ.get("TUTORIAL_STUDY") or experiment.studies[0]
    if study not in experiment.studies:
        arguments.error(f"{arguments.name} does not run on a study {study!r}{suggestion(study, experiment.studies)}")
    for option in ("seeds", "threads", "jobs"):
        if getattr(arguments, option) is not None and getattr(arguments, option) < 1:
            arguments.error(f"--{option} must be at least 1, got {getattr(arguments, option)}")
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        arguments.error("--device cuda was asked for, but torch sees no CUDA device here")
    jobs = arguments.jobs or (1 if device.startswith("cuda") else max(1, (os.cpu_count() or 1) // arguments.threads))
    cells = experiment.cells(study, range(arguments.seeds))
    store = CellStore()
    outcomes = run(
        experiment,
        cells,
        store,
        command=_reproducing(arguments, study),
        jobs=jobs,
        device=device,
        backend=arguments.backend,
        scheduler=arguments.scheduler,
        threads=arguments.threads,
        progress=sys.stderr.isatty() or "CI" not in os.environ,
    )
    for outcome in outcomes:
        if outcome.state in ("failed", "repaired"):
            print(f"{outcome.state}: {outcome.cell.label}: {outcome.message}", file=sys.stderr)
    absent = [cell for cell in cells if cell not in store]
    print(f"{len(cells) - len(absent)} of {len(cells)} cells are in {store.folder}", file=sys.stderr)
    rows = [row for cell in cells if cell not in absent for row in store.read(cell)[0]]
    if rows:
        print(experiment.table(rows))
    if arguments.save and not absent:
        from tutorial_lib.runs.saved import save

        for path in save(experiment, cells, store):
            print(f"wrote {path}", file=sys.stderr)
    return 1 if absent else 0


def _table(arguments: argparse.Namespace) -> int:
    experiment = _experiment(arguments)
    rows, problems = _rows(arguments)
    print(experiment.table(rows))
    return problems


def _show(arguments: argparse.Namespace) -> int:
    import csv
    from dataclasses import asdict

    from tutorial_lib.results.rows import COLUMNS

    _experiment(arguments)
    rows, problems = _rows(arguments)
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return problems


def _rows(arguments: argparse.Namespace) -> tuple[list[Any], int]:
    """Rows asked for, and 1 if a damaged file kept some away."""
    from tutorial_lib.results.rows import RESULTS, Row, read_rows
    from tutorial_lib.runs.store import CellStore

    problems = 0
    if arguments.shipped:
        rows = read_rows(RESULTS / f"{arguments.name}.csv")
        rows = [row for row in rows if arguments.study in (None, row.study)]
    else:
        rows = []
        for found in CellStore().rows(arguments.name, arguments.study):
            if isinstance(found, Row):
                rows.append(found)
            else:
                print(found, file=sys.stderr)
                problems = 1
    if not rows:
        where = (
            "come with the library"
            if arguments.shipped
            else f"are in {CellStore().folder}; make them with: {_how(arguments)}"
        )
        arguments.error(f"no rows of {arguments.name}{f' on {arguments.study}' if arguments.study else ''} {where}")
    return rows, problems


def _experiment(arguments: argparse.Namespace) -> Experiment:
    try:
        return experiment_named(arguments.name)
    except ValueError as error:
        arguments.error(str(error))
        raise


def _how(arguments: argparse.Namespace) -> str:
    return f"python -m tutorial_lib run {arguments.name}{f' --study {arguments.study}' if arguments.study else ''}"


def _reproducing(arguments: argparse.Namespace, study: str) -> str:
    """The command that makes these rows again, without what does not change them."""
    words = ["python", "-m", "tutorial_lib", "run", arguments.name, "--study", study, "--seeds", str(arguments.seeds)]
    if arguments.threads != 1:
        words += ["--threads", str(arguments.threads)]
    return shlex.join(words)
