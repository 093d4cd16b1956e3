"""Options that several commands take, and values of them, refused in the same words by all of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

__all__ = [
    "add_command",
    "add_running_options",
    "cells_at_a_time",
    "checked_device",
    "device",
    "named",
    "natural",
    "not_negative",
    "positive",
    "share",
]


def add_command(
    subparsers: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    help: str,
    description: str | None = None,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """A command that ``run`` does; options are added to what is returned. ``run`` finds the parser's ``error`` beside them."""
    command: argparse.ArgumentParser = subparsers.add_parser(name, help=help, description=description, epilog=epilog)
    command.set_defaults(run=run, error=command.error)
    return command


def named(text: str) -> str:
    """A text that names something: an empty one, as from a variable that is not set, would be this folder, or be passed over."""
    if not text.strip():
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def positive(text: str) -> int:
    """A whole number from 1 on."""
    return _whole(text, 1)


def natural(text: str) -> int:
    """A whole number from 0 on."""
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least} on, got {text}")
    return value


def not_negative(text: str) -> float:
    """A number from 0 on, below infinity."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number from 0 on, got {text}")
    return value


def share(text: str) -> float:
    """A number between 0 and 1, neither of the two."""
    value = not_negative(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return value


def device(text: str) -> str:
    """``cpu``, ``cuda`` or ``cuda:N``."""
    kind, _, index = text.partition(":")
    if text != "cpu" and (kind != "cuda" or (":" in text and not index.isdecimal())):
        raise argparse.ArgumentTypeError(f"must be cpu, cuda or cuda:N, got {text}")
    return text


def checked_device(asked: str | None, error: Callable[[str], None]) -> str:
    """The device asked for, or the best there is; ``error`` is told when PyTorch does not see it."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked is None:
        return "cuda" if count else "cpu"
    if asked.startswith("cuda") and int(asked.partition(":")[2] or 0) >= count:
        seen = (
            f"torch sees {count} CUDA device{'' if count == 1 else 's'} here"
            if count
            else "torch sees no CUDA device here"
        )
        error(f"argument --device: {asked} was asked for, but {seen}")
    return asked


def scheduler(text: str) -> str:
    """The address of a Dask scheduler.

    >>> scheduler("tcp://host:8786")
    'tcp://host:8786'
    """
    scheme, _, rest = text.partition("://")
    host, _, port = rest.rpartition(":")
    if not scheme or not host or not port.isdecimal():
        raise argparse.ArgumentTypeError(f"must be an address such as tcp://host:8786, got {text}")
    return text


def add_running_options(command: argparse.ArgumentParser) -> None:
    """How the cells of an experiment are computed: how many at a time, with what, and where."""
    command.add_argument(
        "--jobs", type=positive, metavar="N", help="cells at a time (default: processors / threads; 1 per CUDA device)"
    )
    command.add_argument(
        "--threads", type=positive, default=1, metavar="N", help="threads a cell uses on a CPU (default 1)"
    )
    command.add_argument("--device", type=device, metavar="D", help="cpu or cuda (default: cuda if there is one)")
    command.add_argument(
        "--backend",
        choices=("processes", "dask"),
        default="processes",
        help="where cells run: processes of this machine (default), or a Dask cluster (pip install dask distributed)",
    )
    command.add_argument(
        "--scheduler",
        type=scheduler,
        metavar="ADDRESS",
        help="of a Dask scheduler, tcp://host:port (default: a local cluster)",
    )


def cells_at_a_time(where: str, threads: int) -> int:
    """How many cells run side by side if nobody says: what the processors hold, or one for each CUDA device."""
    if where.startswith("cuda"):
        import torch

        return max(1, torch.cuda.device_count()) if where == "cuda" else 1
    return max(1, (os.cpu_count() or 1) // threads)
