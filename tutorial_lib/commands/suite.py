"""``python -m tutorial_lib suite``: as much of all experiments as a budget allows."""

from __future__ import annotations

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from tutorial_lib.commands.options import add_command, add_running_options, cells_at_a_time, checked_device, positive
from tutorial_lib.data.registry import suggestion
from tutorial_lib.runs.registry import EXPERIMENTS, STUDIES

if TYPE_CHECKING:
    from tutorial_lib.runs.suite import Suite

__all__ = ["register", "seconds"]

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600}


def seconds(text: str) -> float:
    """A time with its unit.

    >>> seconds("90s"), seconds("30m"), seconds("1.5h")
    (90.0, 1800.0, 5400.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)", text.strip())
    if not found or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"must be a time with its unit, as 90s, 30m or 2h, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def register(subparsers: Any) -> None:
    """Add the command ``suite``."""
    command = add_command(
        subparsers,
        "suite",
        _run,
        help="all experiments, what teaches most per minute first, within a budget",
        description="Compute the cells of all experiments that are not there yet, those first that teach most per minute. "
        "It says before what should take how long (from the seconds of stored rows), and afterwards what is left. Stop it "
        "when you like; the same command goes on, and several may share one store.",
    )
    command.add_argument(
        "--budget", type=seconds, metavar="TIME", help="such as 90s, 30m or 2h (default: until all is there)"
    )
    command.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    command.add_argument(
        "--experiment",
        action="append",
        metavar="NAME",
        help=f"only this one; may be repeated: {', '.join(EXPERIMENTS)}",
    )
    command.add_argument(
        "--study",
        action="append",
        metavar="NAME",
        help=f"only this one; may be repeated: {', '.join(STUDIES)} (default: all whose images are here)",
    )
    command.add_argument("--seeds", type=positive, default=3, metavar="N", help="of every table (default 3)")
    add_running_options(command)
    command.add_argument(
        "--save",
        action="store_true",
        help="write the tables that are whole at the end, and that the library has no rows of, into its own result files",
    )


def _run(arguments: argparse.Namespace) -> int:
    for option, asked, known in (
        ("--experiment", arguments.experiment, tuple(EXPERIMENTS)),
        ("--study", arguments.study, STUDIES),
    ):
        unknown = [name for name in asked or () if name not in known]
        if unknown:
            arguments.error(f"argument {option}: there is no {unknown[0]!r}{suggestion(unknown[0], known)}")
    if arguments.scheduler and arguments.backend != "dask":
        arguments.error("--scheduler is for --backend dask")
    from tutorial_lib.runs import suite
    from tutorial_lib.runs.runner import check_backend
    from tutorial_lib.runs.store import CellStore

    where = checked_device(arguments.device, arguments.error)
    missing = check_backend(arguments.backend)
    if missing:
        print(missing, file=sys.stderr)
        return 1
    jobs = arguments.jobs or cells_at_a_time(where, arguments.threads)
    names = tuple(arguments.experiment or EXPERIMENTS)
    store = CellStore()
    planned = suite.plan(names, arguments.study, arguments.seeds)
    if not planned:
        print("there is nothing to run: no experiment among these runs on such a study", file=sys.stderr)
        return 1
    whole = suite.Suite(planned, store, jobs, arguments.budget)
    print(_plan_text(whole, where))
    if arguments.dry_run:
        return 0
    store.folder.mkdir(parents=True, exist_ok=True)
    cut_off = whole.run(
        suite.all_experiments(names),
        device=where,
        backend=arguments.backend,
        scheduler=arguments.scheduler,
        threads=arguments.threads,
    )
    if arguments.save:
        _save(whole)
    print(_report(whole, cut_off))
    return 1 if any(outcome.state == "failed" for outcome in whole.outcomes) else 0


def _plan_text(whole: Suite, where: str) -> str:
    from tutorial_lib.runs.suite import duration

    fitting = whole.within_budget()
    known = sum(planned.seconds or 0.0 for planned in fitting)
    unknown = sum(planned.seconds is None for planned in whole.missing())
    lines = [
        f"{len(whole.planned)} cells, {len(whole.planned) - len(whole.missing())} of them in {whole.store.folder}",
        "",
        whole.summary(),
        "",
        "Times are those of stored rows, measured on a processor with one thread. The first cells of a table take longer where "
        "nothing is cached yet, for they make what the others share.",
        "First comes what teaches most per minute:",
        *(
            f"  {planned.cell.experiment}: {planned.cell.label}, {duration(planned.seconds)}"
            for planned in whole.missing()[:8]
        ),
    ]
    lines += [f"  … and {len(whole.missing()) - 8} more"] if len(whole.missing()) > 8 else []
    budget = "" if whole.budget is None else f" of a budget of {duration(whole.budget)}"
    lines += [
        "",
        f"{where}, {whole.jobs} at a time: {_cells(len(fitting))} should take {duration(known / whole.jobs)}{budget}"
        + (f"; last come {_cells(unknown)} of unknown time" if unknown else ""),
    ]
    return "\n".join(lines)


def _report(whole: Suite, cut_off: bool) -> str:
    done = [outcome for outcome in whole.outcomes if outcome.state == "done"]
    failed = [outcome for outcome in whole.outcomes if outcome.state == "failed"]
    minutes = (whole.clock() - whole.started) / 60
    lines = ["", f"{_cells(len(done))} done in {minutes:.1f} minutes, at {whole.speed:.2g} times the stored seconds"]
    lines += [f"failed: {outcome.cell.experiment}/{outcome.cell.label}: {outcome.message}" for outcome in failed]
    lines += (
        ["The budget was spent: what was running then has been stopped, and starts again or goes on next time."]
        if cut_off
        else []
    )
    lines += ["", f"What is left: {len(whole.missing())} of {len(whole.planned)} cells", "", whole.summary()]
    return "\n".join(lines)


def _cells(count: int) -> str:
    return f"{count} cell{'' if count == 1 else 's'}"


def _save(whole: Suite) -> None:
    """Rows of every table of which all planned cells are there, and of which no rows come with the library."""
    from tutorial_lib.results.rows import RESULTS
    from tutorial_lib.results.stored import stored_rows
    from tutorial_lib.runs.saved import save
    from tutorial_lib.runs.suite import NETWORKS, all_experiments

    absent = {planned.table for planned in whole.missing()}
    for table in dict.fromkeys(planned.table for planned in whole.planned):
        shipped = (RESULTS / f"{table[0]}.csv").is_file() and stored_rows(*table)
        if table not in absent and table[0] != NETWORKS.name and not shipped:
            cells = [planned.cell for planned in whole.planned if planned.table == table]
            for path in save(all_experiments()[table[0]], cells, whole.store):
                print(f"wrote {path}", file=sys.stderr)
