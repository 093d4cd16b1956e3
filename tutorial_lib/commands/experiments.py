"""``python -m tutorial_lib list | run | table | show``: the experiments and their results."""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tutorial_lib.commands.options import (
    add_command,
    add_running_options,
    cells_at_a_time,
    checked_device,
    natural,
    positive,
)
from tutorial_lib.data.registry import suggestion
from tutorial_lib.runs.registry import EXPERIMENTS, STUDIES, experiment_named

if TYPE_CHECKING:
    from tutorial_lib.results.rows import Row
    from tutorial_lib.runs.experiment import Cell, Experiment

__all__ = ["register"]


_STUDIES = ", ".join(STUDIES)
_WIDTH = max(map(len, STUDIES))


def register(subparsers: Any) -> None:
    """Add the commands ``list``, ``run``, ``table`` and ``show``."""
    command = add_command(
        subparsers,
        "list",
        _list,
        help="the experiments, and how far each has come on this machine",
        description="The experiments, their studies, and how many cells of each are on this machine. With NAME, also of how many.",
    )
    command.add_argument("name", nargs="?", metavar="NAME", help="only this experiment, with the size of its grid")

    command = add_command(
        subparsers,
        "run",
        _run,
        help="run an experiment, or go on with it",
        description="Compute every cell of an experiment's grid that is not there yet. "
        "Stop it when you like; the same command goes on.",
        epilog="Exit status: 0 if every cell is there at the end, 1 if some failed.",
    )
    command.add_argument("name", metavar="NAME", help=", ".join(EXPERIMENTS))
    command.add_argument("--study", help=f"{_STUDIES} (default: TUTORIAL_STUDY, else the experiment's first)")
    command.add_argument("--seeds", type=positive, default=1, metavar="N", help="so many seeds (default 1)")
    command.add_argument("--from-seed", type=natural, default=0, metavar="N", help="the first of them (default 0)")
    command.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="SETTING=VALUE",
        help="only cells with this setting (network=lenet, method=energy, protocol=, ...; no value: those without it); "
        "may be repeated",
    )
    add_running_options(command)
    command.add_argument(
        "--save",
        action="store_true",
        help="when all these cells are there, write their rows into the library's own result files",
    )

    for name, run, what in (
        ("table", _table, "print an experiment's table beside the published numbers"),
        ("show", _show, "print an experiment's rows, each with what made it, as CSV"),
    ):
        command = add_command(subparsers, name, run, help=what)
        command.add_argument("name", metavar="NAME", help=", ".join(EXPERIMENTS))
        command.add_argument("--study", help=f"only this study: {_STUDIES}")
        command.add_argument(
            "--shipped", action="store_true", help="the rows that come with the library, not this machine's"
        )


def _list(arguments: argparse.Namespace) -> int:
    from tutorial_lib.runs.store import CellStore

    store = CellStore()
    if arguments.name is not None:
        experiment = _experiment(arguments)
        print(f"{arguments.name}: {experiment.title}\n")
        for study in experiment.studies:
            cells = experiment.cells(study, [0])
            done = sum(cell in store for cell in cells)
            print(f"  {study:<{_WIDTH}}  {done:>4} of {len(cells):>4} cells of seed 0")
    else:
        for name, summary in EXPERIMENTS.items():
            print(f"{name}: {summary.title}")
            for study in summary.studies:
                print(f"  {study:<{_WIDTH}}  {store.count(name, study):>4} cells")
    print(f"\ncells are in {store.folder}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    experiment = _experiment(arguments)
    study = arguments.study or os.environ.get("TUTORIAL_STUDY") or experiment.studies[0]
    if study not in experiment.studies:
        arguments.error(f"{arguments.name} does not run on a study {study!r}{suggestion(study, experiment.studies)}")
    if arguments.scheduler and arguments.backend != "dask":
        arguments.error("--scheduler is for --backend dask")
    from tutorial_lib.runs.runner import check_backend, run
    from tutorial_lib.runs.store import CellStore

    where = checked_device(arguments.device, arguments.error)
    jobs = arguments.jobs or cells_at_a_time(where, arguments.threads)
    store = CellStore()
    store.folder.mkdir(parents=True, exist_ok=True)  # a file in its place, say, is better known before the first cell
    missing = check_backend(arguments.backend)
    if missing:
        print(missing, file=sys.stderr)
        return 1
    cells = _chosen(experiment.cells(study, range(arguments.from_seed + arguments.seeds)), arguments)
    outcomes = run(
        experiment,
        cells,
        store,
        command=_reproducing(arguments, study),
        jobs=jobs,
        device=where,
        backend=arguments.backend,
        scheduler=arguments.scheduler,
        threads=arguments.threads,
    )
    for outcome in outcomes:
        if outcome.message:
            print(f"{outcome.state}: {outcome.cell.label}: {outcome.message}", file=sys.stderr)
    absent = [cell for cell in cells if cell not in store]
    print(f"{len(cells) - len(absent)} of {len(cells)} cells are in {store.folder}", file=sys.stderr)
    rows = [row for cell in cells if cell not in absent for row in store.read(cell)[0]]
    if arguments.save and not absent:  # before the table: with `| head` printing may end here
        from tutorial_lib.runs.saved import save

        for path in save(experiment, cells, store):
            print(f"wrote {path}", file=sys.stderr)
    if rows:
        print(experiment.table(rows))
    return 1 if absent else 0


def _table(arguments: argparse.Namespace) -> int:
    experiment = _experiment(arguments)
    rows, problems = _rows(arguments)
    if rows:
        print(experiment.table(rows))
    return problems


def _show(arguments: argparse.Namespace) -> int:
    from tutorial_lib.results.rows import COLUMNS, OPTIONAL, RUN_COLUMNS

    _check_name(arguments)
    rows, problems = _rows(arguments)
    if rows:
        measured = [name for name in COLUMNS if name not in ("challenging_data", "run")]
        named = (*measured, *RUN_COLUMNS, "challenging_data", *OPTIONAL)  # each row tells its run itself
        writer = csv.DictWriter(sys.stdout, named, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    return problems


def _rows(arguments: argparse.Namespace) -> tuple[list[Row], int]:
    """Rows asked for, and 1 if there are none or a damaged file kept some away."""
    from tutorial_lib.results.rows import Row
    from tutorial_lib.results.stored import stored_rows
    from tutorial_lib.runs.store import CellStore

    if arguments.study not in (None, *EXPERIMENTS[arguments.name].studies):
        hint = suggestion(arguments.study, EXPERIMENTS[arguments.name].studies)
        arguments.error(f"{arguments.name} does not run on a study {arguments.study!r}{hint}")
    found: list[Any] = (
        list(stored_rows(arguments.name, arguments.study))
        if arguments.shipped
        else list(CellStore().rows(arguments.name, arguments.study, experiment_named(arguments.name).cells))
    )
    rows = [row for row in found if isinstance(row, Row)]
    damaged = [problem for problem in found if not isinstance(problem, Row)]
    for problem in damaged:
        print(problem, file=sys.stderr)
    if not rows and not damaged:
        what = f"no rows of {arguments.name}{f' on {arguments.study}' if arguments.study else ''}"
        where = (
            "come with the library"
            if arguments.shipped
            else f"are in {CellStore().folder}; make them with: {_how(arguments)}"
        )
        print(f"{what} {where}", file=sys.stderr)
    return rows, 0 if rows and not damaged else 1


def _check_name(arguments: argparse.Namespace) -> None:
    if arguments.name not in EXPERIMENTS:
        arguments.error(f"there is no experiment {arguments.name!r}{suggestion(arguments.name, EXPERIMENTS)}")


def _experiment(arguments: argparse.Namespace) -> Experiment:
    _check_name(arguments)
    return experiment_named(arguments.name)


def _chosen(cells: list[Cell], arguments: argparse.Namespace) -> list[Cell]:
    """The cells from a seed on whose settings are those of ``--only``; a setting that no cell has is refused."""
    cells = [cell for cell in cells if cell.seed >= arguments.from_seed]
    for wanted in arguments.only:
        name, equals, value = wanted.partition("=")
        values = {_setting(cell, name) for cell in cells}
        names = sorted({name for cell in cells for name in cell.settings})
        if not equals or name not in names:
            arguments.error(f"--only takes SETTING=VALUE with one of {', '.join(names)} as the setting, got {wanted!r}")
        if value not in values:
            arguments.error(f"no cell has {wanted!r}; {name} is {', '.join(sorted(values - {''}))}")
        cells = [cell for cell in cells if _setting(cell, name) == value]
    return cells


def _setting(cell: Cell, name: str) -> str:
    return str(cell.settings.get(name, ""))


def _how(arguments: argparse.Namespace) -> str:
    return f"python -m tutorial_lib run {arguments.name}{f' --study {arguments.study}' if arguments.study else ''}"


def _reproducing(arguments: argparse.Namespace, study: str) -> str:
    """The command that makes these rows again, without what does not change them."""
    words = ["python", "-m", "tutorial_lib", "run", arguments.name, "--study", study, "--seeds", str(arguments.seeds)]
    if arguments.from_seed:
        words += ["--from-seed", str(arguments.from_seed)]
    for wanted in arguments.only:
        words += ["--only", wanted]
    if arguments.threads != 1:
        words += ["--threads", str(arguments.threads)]
    return shlex.join(words)
