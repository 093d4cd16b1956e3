"""``python -m tutorial_lib calibrate``: is a network of one's own right as often as it says, and what can be promised?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tutorial_lib.commands.options import add_command, named, natural, positive, share
from tutorial_lib.commands.own_model import (
    add_network_options,
    check_writable,
    network_of,
    progress_bar,
    provenance_of,
    refusing,
    write_record,
)

__all__ = ["register"]


def register(subparsers: Any) -> None:
    """Add the command ``calibrate``."""
    command = add_command(
        subparsers,
        "calibrate",
        refusing(run),
        help="calibrate your network on a folder with labels",
        description="Find a temperature on half of the images and measure on the other half: calibration error before and "
        "after, and the confidence from which on a share of right answers can be promised.",
    )
    command.add_argument(
        "--images", type=named, required=True, metavar="I", help="a folder with a folder of images for each class"
    )
    command.add_argument(
        "--out", type=named, default="calibration.json", metavar="FILE", help="default calibration.json"
    )
    command.add_argument(
        "--classes", type=named, metavar="FILE", help="names of the network's classes, one in a line, in its order"
    )
    command.add_argument("--risk", type=share, default=0.05, metavar="R", help="wrong answers allowed (default 0.05)")
    command.add_argument(
        "--delta", type=share, default=0.05, metavar="D", help="chance of a broken promise (default 0.05)"
    )
    command.add_argument("--bins", type=positive, default=15, metavar="N", help="of the calibration error (default 15)")
    command.add_argument("--seed", type=natural, default=0, metavar="N", help="of the two halves (default 0)")
    add_network_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Do what ``python -m tutorial_lib calibrate`` was asked to."""
    from tutorial_lib import scoring

    out = Path(arguments.out)
    if out.suffix != ".json":
        raise ValueError(f"the result is a .json file, got --out {out}")
    check_writable(out, arguments.model)
    if out.exists() and not _is_ours(out):
        raise FileExistsError(f"{out} is there already, from something else; name another --out")
    source = scoring.open_source(arguments.images)
    classes = _names(Path(arguments.classes)) if arguments.classes else None
    network = network_of(arguments)
    labels = scoring.folder_labels(source, network, classes)
    there = len(set(labels.tolist()))
    if there < network.classes:
        what = f"labels:  {there} of the network's {network.classes} classes; nothing below is about the others"
        print(what, file=sys.stderr)
    with progress_bar(len(source), "calibrate") as progress:
        found = scoring.calibrate(
            network,
            source,
            labels,
            arguments.risk,
            arguments.delta,
            arguments.bins,
            arguments.seed,
            arguments.batch,
            arguments.workers,
            progress,
        )
    record = {
        **provenance_of("calibrate", arguments),
        "model": network.record(),
        "preprocessing": network.preprocessing.record(),
        "images": {"where": arguments.images, "n": len(source), "sha256": source.digest()},
        "calibration": found.record(),
    }
    write_record(Path(arguments.out), record)
    if found.unread:
        (reason, _), *_ = scoring.commonest(found.unread.values())
        print(
            f"{len(found.unread):,} images could not be used: {reason}; {arguments.out} says why of each",
            file=sys.stderr,
        )
    print(found)  # last, since with `| head` it may be the end
    print(f"wrote {arguments.out}")
    return 0


def _names(path: Path) -> list[str]:
    """One name in a line, as any editor writes them: a mark at the start, spaces, empty lines at the end."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"--classes {path} is no text in UTF-8, one name in a line") from error
    return [line.strip() for line in lines if line.strip()]


def _is_ours(path: Path) -> bool:
    try:
        return "calibration" in json.loads(path.read_text())
    except (OSError, ValueError, TypeError):
        return False
