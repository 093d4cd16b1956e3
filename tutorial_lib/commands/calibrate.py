"""``python -m tutorial_lib calibrate``: is a network of one's own right as often as it says, and what can be promised?"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from tutorial_lib.commands.options import natural, positive, share
from tutorial_lib.commands.own_model import (
    add_network_options,
    network_of,
    progress_bar,
    provenance_of,
    refusing,
    write_record,
)

__all__ = ["register"]


def register(subparsers: Any) -> None:
    """Add the command ``calibrate``."""
    command = subparsers.add_parser(
        "calibrate",
        help="calibrate your network on a folder with labels",
        description="Find a temperature on half of the images and measure on the other half: calibration error before and "
        "after, and the confidence from which on a share of right answers can be promised.",
    )
    command.add_argument("--images", required=True, metavar="I", help="a folder with a folder of images for each class")
    command.add_argument("--out", default="calibration.json", metavar="FILE", help="default calibration.json")
    command.add_argument(
        "--classes", metavar="FILE", help="names of the network's classes, one in a line, in its order"
    )
    command.add_argument("--risk", type=share, default=0.05, metavar="R", help="wrong answers allowed (default 0.05)")
    command.add_argument(
        "--delta", type=share, default=0.05, metavar="D", help="chance of a broken promise (default 0.05)"
    )
    command.add_argument("--bins", type=positive, default=15, metavar="N", help="of the calibration error (default 15)")
    command.add_argument("--seed", type=natural, default=0, metavar="N", help="of the two halves (default 0)")
    add_network_options(command)
    command.set_defaults(run=refusing(run), error=command.error)


def run(arguments: argparse.Namespace) -> int:
    """Do what ``python -m tutorial_lib calibrate`` was asked to."""
    from tutorial_lib import scoring

    source = scoring.open_source(arguments.images)
    classes = Path(arguments.classes).read_text().splitlines() if arguments.classes else None
    network = network_of(arguments)
    labels = scoring.folder_labels(source, network, classes)
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
    print(found)
    record = {
        **provenance_of("calibrate", arguments),
        "model": network.record(),
        "preprocessing": network.preprocessing.record(),
        "images": {"where": arguments.images, "n": len(source), "sha256": source.digest()},
        "calibration": found.record(),
    }
    write_record(Path(arguments.out), record)
    print(f"wrote {arguments.out}")
    if found.unread:
        print(f"{len(found.unread):,} images could not be read; {arguments.out} says why", file=sys.stderr)
    return 0
