"""``python -m tutorial_lib score``: how strange is each image of a folder to a network of one's own?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutorial_lib.commands.options import add_command, natural, positive
from tutorial_lib.commands.own_model import (
    add_network_options,
    check_writable,
    network_of,
    progress_bar,
    provenance_of,
    refusing,
    write_record,
)

if TYPE_CHECKING:
    from tutorial_lib.detectors import Detector
    from tutorial_lib.scoring.networks import Network
    from tutorial_lib.scoring.sources import ImageSource

__all__ = ["register"]


def register(subparsers: Any) -> None:
    """Add the command ``score``."""
    command = add_command(
        subparsers,
        "score",
        refusing(run),
        help="score your images with your network: how strange is each?",
        description="Write one row for each image: the network's answer, a score by every detector (larger = stranger), and, "
        "with --fit, its tail probability: the share of normal images that score at least as high. "
        "Stop it when you like; the same command goes on.",
        epilog="Images that cannot be read are rows with the reason; they do not change the exit status.",
    )
    command.add_argument("--images", required=True, metavar="I", help="a folder, a pattern in quotes, or a .npy file")
    command.add_argument("--out", default="scores.csv", metavar="FILE", help=".csv or .parquet (default scores.csv)")
    command.add_argument("--fit", metavar="F", help="normal images that the network was not trained on, as --images")
    command.add_argument(
        "--detectors", metavar="A,B", help="such as energy,knn:k=50, settings after a colon (a wrong name lists them)"
    )
    command.add_argument("--calibration", metavar="FILE", help="what `calibrate` wrote; its temperature is used")
    command.add_argument(
        "--sheet", metavar="PAGE", help="an .html page: strangest, most ordinary, most disagreed images"
    )
    command.add_argument(
        "--fit-limit", type=positive, default=5000, metavar="N", help="of --fit at most (default 5000)"
    )
    command.add_argument("--seed", type=natural, default=0, metavar="N", help="of the choice among --fit (default 0)")
    command.add_argument("--restart", action="store_true", help="drop a stopped run or a table that is there")
    add_network_options(command)


def run(arguments: argparse.Namespace) -> int:
    """Do what ``python -m tutorial_lib score`` was asked to."""
    from tutorial_lib import scoring
    from tutorial_lib.scoring.table import check_table_path

    table = Path(arguments.out)
    check_table_path(table)
    check_writable(table, table.with_suffix(".json"), arguments.model)
    if arguments.sheet:
        if Path(arguments.sheet).suffix not in (".html", ".htm"):
            raise ValueError(f"the page of pictures is an .html file, got --sheet {arguments.sheet}")
        check_writable(Path(arguments.sheet))
    source = scoring.open_source(arguments.images)
    fit_source = scoring.open_source(arguments.fit) if arguments.fit else None
    network = network_of(arguments)
    names = _names(arguments.detectors) or scoring.default_names(bool(arguments.fit), not network.without_features)
    detectors = scoring.named_detectors(names, network.model)
    unfitted = [name for name, detector in detectors.items() if detector.requires_fit and fit_source is None]
    if unfitted:
        raise ValueError(f"{', '.join(unfitted)} must know what is normal: give --fit, a folder of normal images")
    temperature = _temperature(arguments.calibration, network)
    fit = None
    if fit_source is not None:
        fit = {"images": fit_source.digest(), "limit": arguments.fit_limit, "seed": arguments.seed}
    plan = scoring.plan_of(network, source, list(detectors), fit, temperature)
    if not arguments.restart and _is_there(table, plan):
        print(f"{table} is there already, from this very run; there is nothing to do")
    else:
        _score(arguments, network, detectors, source, fit_source, table, plan, temperature)
    if arguments.sheet:
        scoring.write_contact_sheet(Path(arguments.sheet), table, source)
        print(f"wrote {arguments.sheet}")
    return 0


def _score(
    arguments: argparse.Namespace,
    network: Network,
    detectors: dict[str, Detector],
    source: ImageSource,
    fit_source: ImageSource | None,
    table: Path,
    plan: dict[str, Any],
    temperature: float,
) -> None:
    """Fit, score, and write the table with its JSON file."""
    from tutorial_lib import scoring

    normal = None
    if fit_source is not None:
        normal = scoring.fit_to_normal(
            network, detectors, fit_source, arguments.fit_limit, arguments.seed, arguments.batch, arguments.workers
        )
        said = normal.record
        print(f"normal:  {said['fitted']:,} images fitted, {said['held_out']:,} held out; labels: {said['labels']}")
        _complain(
            len(said["unread"]), f"normal images of {arguments.fit} could not be used; {table.stem}.json says why"
        )

    def keep(outcome: scoring.Outcome) -> None:
        record = {
            **provenance_of("score", arguments),
            "model": network.record(),
            "preprocessing": network.preprocessing.record(),
            "detectors": {name: repr(detector) for name, detector in detectors.items()},
            "columns": "score_NAME: larger = stranger. tail_NAME: share of held-out normal images that score at least as high.",
            "images": {"where": arguments.images, "n": outcome.images, "broken": outcome.broken},
            "fit": None if normal is None else dict(normal.record),
            "temperature": temperature,
            "seconds": round(outcome.seconds, 3),
            "images_per_second": round(outcome.per_second, 3),
            "resumed": outcome.resumed,
            "plan": plan,
        }
        write_record(table.with_suffix(".json"), record)

    with progress_bar(len(source), "score") as progress:
        outcome = scoring.score_images(
            network,
            detectors,
            source,
            table,
            normal,
            plan,
            temperature,
            arguments.batch,
            arguments.workers,
            progress,
            keep,
            arguments.restart,
        )
    print(f"wrote {table} ({outcome.images:,} rows) and {table.with_suffix('.json').name}")
    _complain(outcome.broken, f"of {outcome.images:,} images have no score; the column `error` says why")


def _names(text: str | None) -> list[str]:
    """Detectors that are separated by commas; a comma between settings (``a=1,b=2``) separates none."""
    found: list[str] = []
    for part in (text or "").split(","):
        if "=" in part and ":" not in part and found:
            found[-1] += f",{part}"
        elif part.strip():
            found.append(part.strip())
    return found


def _temperature(path: str | None, network: Network) -> float:
    if path is None:
        return 1.0
    try:
        found = json.loads(Path(path).read_text())
        made_with, temperature = found["model"]["sha256"], float(found["calibration"]["temperature"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not what `calibrate` writes; run it with this network") from error
    if made_with != network.sha256:
        raise ValueError(f"{path} was made with another network; run `calibrate` with this one")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"{path} holds the temperature {temperature}, which must be positive; run `calibrate` again")
    return temperature


def _is_there(table: Path, plan: dict[str, Any]) -> bool:
    """Is there a finished table of this very run? One of another run, or somebody else's file, is not overwritten."""
    from tutorial_lib.scoring.table import Parts

    beside = table.with_suffix(".json")
    if Parts(table, plan).folder.exists():
        return False  # stopped, perhaps between the table and the file beside it
    if not table.exists() and not beside.exists():
        return False
    try:
        made = json.loads(beside.read_text()).get("plan")
    except (OSError, ValueError, AttributeError):
        made = None
    if not table.exists() or made != json.loads(json.dumps(plan)):
        there = table if table.exists() else beside
        raise FileExistsError(f"{there} is there already, from something else; name another --out, or say --restart")
    return True


def _complain(count: int, what: str) -> None:
    if count:
        print(f"{count:,} {what}", file=sys.stderr)
