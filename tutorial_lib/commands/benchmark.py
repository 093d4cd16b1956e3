"""``python -m tutorial_lib benchmark gradients | gradcon | scoring``."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from tutorial_lib.commands.options import add_command, checked_device, device, not_negative, positive

__all__ = ["register"]


def register(subparsers: Any) -> None:
    """Add the command ``benchmark``."""
    command = add_command(
        subparsers,
        "benchmark",
        _run,
        help="measure what gradient features, gradient constraints and scoring a folder cost on this machine",
        description="Time the library beside the plain training step, other libraries and published schemes, interleaved in one process.",
        epilog="Ratios are to one batched forward and backward pass. On a machine with other work, use --threads 1.",
    )
    command.add_argument(
        "name",
        choices=["gradients", "gradcon", "scoring"],
        help="gradients: per-sample gradient features; gradcon: training step and scores of GradCON beside its published scheme; "
        "scoring: 50,000 files scored from end to end beside a plain inference pass, and peak memory",
    )
    command.add_argument(
        "--quick",
        action="store_true",
        help="two networks and small batches, two minutes; scoring: a few hundred files",
    )
    command.add_argument(
        "--threads", type=positive, default=None, metavar="N", help="CPU threads (default: torch's choice)"
    )
    command.add_argument("--device", type=device, default="cpu", metavar="D", help="cpu or cuda (default cpu)")
    command.add_argument(
        "--seconds",
        type=not_negative,
        default=None,
        metavar="S",
        help="time for each comparison (default 20; quick: 2)",
    )
    command.add_argument(
        "--networks",
        nargs="+",
        metavar="NAME",
        help="resnet18 resnet20 small_cnn densenet_bc_100_12 vit (default: all)",
    )
    command.add_argument("--batches", nargs="+", type=positive, metavar="N", help="batch sizes (default 1 8 32 128)")
    command.add_argument("--only-memory", action="store_true", help="measure peak memory and no times")
    command.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    keep = command.add_mutually_exclusive_group()
    keep.add_argument("--out", type=Path, metavar="FOLDER", help="write the rows and the picture into this folder")
    keep.add_argument("--save", action="store_true", help="write them into the library's own results")


def _run(arguments: argparse.Namespace) -> int:
    import dataclasses

    import torch

    from tutorial_lib.benchmarks import gradients
    from tutorial_lib.benchmarks.networks import CLASSIFIERS
    from tutorial_lib.figures.gradients_as_features import cost
    from tutorial_lib.plots import use_style
    from tutorial_lib.results.rows import write_rows

    device = torch.device(checked_device(arguments.device, arguments.error))
    if arguments.name == "scoring":
        for option in ("networks", "batches", "seconds", "only_memory", "no_memory"):
            if getattr(arguments, option) not in (None, False):
                arguments.error(
                    f"--{option.replace('_', '-')} is not for scoring, which has one network and one folder"
                )
    for name in arguments.networks or ():
        if arguments.name == "gradcon":
            arguments.error("--networks is for gradients; gradcon measures the published autoencoder")
        if name not in CLASSIFIERS:
            arguments.error(f"unknown network {name!r}; there are {', '.join(CLASSIFIERS)}")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.name == "gradcon":
        return _gradcon(arguments, device)
    if arguments.name == "scoring":
        return _scoring(arguments, device)
    plan = gradients.Plan.quick() if arguments.quick else gradients.Plan()
    changes = {"networks": arguments.networks, "batches": arguments.batches, "seconds": arguments.seconds}
    plan = dataclasses.replace(plan, **{name: value for name, value in changes.items() if value is not None})
    if arguments.only_memory:
        plan = dataclasses.replace(plan, times=False)
    if arguments.no_memory:
        plan = dataclasses.replace(plan, memory=False)

    out = gradients.RESULTS if arguments.save else arguments.out
    path = None if out is None else _readable(out / f"gradients_{device.type}.csv")
    source = _source(device)
    print(f"{source.device}; {source.versions}; ratios to one plain forward and backward pass", flush=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what other libraries have to say about their hooks
        rows = list(gradients.run(plan, source, device, say=_say))
    if path is not None:
        use_style()
        kept = write_rows(path, rows)
        cost(gradients.ratios(kept, "norms")).savefig(path.with_suffix(".svg"))
        print(f"wrote {path} and .svg", file=sys.stderr)
    print(gradients.table(rows))
    return 0


def _readable(path: Path) -> Path:
    """The file to write to, if it can be written and what it holds already be read: not found out after an hour of measuring."""
    from tutorial_lib.commands.own_model import check_writable
    from tutorial_lib.results.rows import read_rows, runs_file

    check_writable(path, runs_file(path))
    if path.exists():
        read_rows(path)
    return path


def _say(text: str) -> None:
    """Progress: not on standard output, where a reader who has seen enough (`| head`) would end the run."""
    print(text, file=sys.stderr, flush=True)


def _gradcon(arguments: argparse.Namespace, device: Any) -> int:
    import dataclasses

    from tutorial_lib.benchmarks import gradcon

    plan = gradcon.Plan.quick() if arguments.quick else gradcon.Plan()
    changes = {"batches": arguments.batches, "seconds": arguments.seconds}
    plan = dataclasses.replace(plan, **{name: value for name, value in changes.items() if value is not None})
    return _measured(arguments, device, gradcon, plan)


def _scoring(arguments: argparse.Namespace, device: Any) -> int:
    from tutorial_lib.benchmarks import scoring

    return _measured(arguments, device, scoring, scoring.Plan.quick() if arguments.quick else scoring.Plan())


def _measured(arguments: argparse.Namespace, device: Any, benchmark: Any, plan: Any) -> int:
    """Run a benchmark module's plan, print its table, and write its rows where that was asked for."""
    from tutorial_lib.results.rows import write_rows

    out = benchmark.RESULTS if arguments.save else arguments.out
    path = None if out is None else _readable(out / f"{arguments.name}_{device.type}.csv")
    source = _source(device)
    print(f"{source.device}; {source.versions}", flush=True)
    rows = list(benchmark.run(plan, source, device, say=_say))
    if path is not None:
        write_rows(path, rows)
        print(f"wrote {path}", file=sys.stderr)
    print(benchmark.table(rows))
    return 0


def _source(device: Any) -> Any:
    """What the rows say made them, with the number of threads."""
    import dataclasses

    import torch

    from tutorial_lib.results.rows import provenance

    words = [word for word in sys.argv[1:] if word != "--save"]
    if "--out" in words:  # where the rows were written is no part of what made them
        at = words.index("--out")
        del words[at : at + 2]
    source = provenance(" ".join(["python -m tutorial_lib", *words]), device)
    if device.type == "cpu":
        source = dataclasses.replace(source, device=f"{source.device}, {torch.get_num_threads()} threads")
    return source
