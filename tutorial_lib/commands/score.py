"""``python -m tutorial_lib score``: how strange is each image of a folder to a network of one's own?"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutorial_lib.commands.options import add_command, named, natural, positive
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
        epilog="Images that cannot be read are rows with the reason; they do not change the exit status, unless no image has a "
        "score. Transparency is dropped: the colours beneath it are taken.",
    )
    command.add_argument(
        "--images", type=named, required=True, metavar="I", help="a folder, a pattern in quotes, or a .npy file"
    )
    command.add_argument(
        "--out", type=named, default="scores.csv", metavar="FILE", help=".csv or .parquet (default scores.csv)"
    )
    command.add_argument(
        "--fit", type=named, metavar="F", help="normal images that the network was not trained on, as --images"
    )
    command.add_argument(
        "--detectors",
        type=named,
        metavar="A,B",
        help="such as energy,knn:k=50, settings after a colon (a wrong name lists them)",
    )
    command.add_argument(
        "--calibration", type=named, metavar="FILE", help="what `calibrate` wrote; its temperature is used"
    )
    command.add_argument(
        "--sheet", type=named, metavar="PAGE", help="an .html page: strangest, most ordinary, most disagreed images"
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
    detectors = _detectors(arguments, network)
    temperature = _temperature(arguments.calibration, network)
    fit = None
    if fit_source is not None:
        fit = {"images": fit_source.digest(), "limit": arguments.fit_limit, "seed": arguments.seed}
    plan = scoring.plan_of(network, source, list(detectors), fit, temperature)
    found = None if arguments.restart else _record_of(table, plan)
    if found is None:
        images = _score(arguments, network, detectors, source, fit_source, table, plan, temperature)
        told = f"wrote {table} ({len(source):,} rows) and {table.with_suffix('.json').name}"
    else:
        images, told = found["images"], f"{table} is there already, from this very run; there is nothing to do"
    if arguments.sheet:
        scoring.write_contact_sheet(Path(arguments.sheet), table, source)
        told += f"\nwrote {arguments.sheet}"
    status = _complain(images)
    print(told)  # last, since with `| head` it may be the end
    return status


def _score(
    arguments: argparse.Namespace,
    network: Network,
    detectors: dict[str, Detector],
    source: ImageSource,
    fit_source: ImageSource | None,
    table: Path,
    plan: dict[str, Any],
    temperature: float,
) -> dict[str, Any]:
    """Fit, score, and write the table with its JSON file; returns what that says of the images."""
    from tutorial_lib import scoring

    normal: scoring.Normal | None = None
    images: dict[str, Any] = {}
    if fit_source is not None:
        _warn_of_overlap(source, fit_source)

    def fit() -> scoring.Normal:
        nonlocal normal
        assert fit_source is not None
        with progress_bar(min(arguments.fit_limit, len(fit_source)), "fit") as progress:
            normal = scoring.fit_to_normal(
                network,
                detectors,
                fit_source,
                arguments.fit_limit,
                arguments.seed,
                arguments.batch,
                arguments.workers,
                progress,
            )
        said = normal.record
        fitted = f"{said['fitted']:,} images fitted, {said['held_out']:,} held out; labels: {said['labels']}"
        print(f"normal:  {fitted}", file=sys.stderr)
        if said["unread"]:
            (reason, _), *_ = scoring.commonest(said["unread"].values())
            print(
                f"{len(said['unread']):,} normal images of {arguments.fit} could not be used: {reason}; "
                f"{table.stem}.json says why of each",
                file=sys.stderr,
            )
        return normal

    def keep(outcome: scoring.Outcome) -> None:
        images.update(where=arguments.images, n=outcome.images, broken=outcome.broken)
        if outcome.reasons:
            images["commonest"] = outcome.reasons[0]
        record = {
            **provenance_of("score", arguments),
            "model": network.record(),
            "preprocessing": network.preprocessing.record(),
            "detectors": {name: repr(detector) for name, detector in detectors.items()},
            "columns": "score_NAME: larger = stranger. tail_NAME: share of held-out normal images that score at least as high.",
            "images": images,
            "fit": None if normal is None else dict(normal.record),
            "temperature": temperature,
            "seconds": round(outcome.seconds, 3),
            "images_per_second": round(outcome.per_second, 3),
            "resumed": outcome.resumed,
            "plan": plan,
        }
        write_record(table.with_suffix(".json"), record)

    with progress_bar(len(source), "score") as progress:
        scoring.score_images(
            network,
            detectors,
            source,
            table,
            fit if fit_source is not None else None,
            plan,
            temperature,
            arguments.batch,
            arguments.workers,
            progress,
            keep,
            arguments.restart,
        )
    return images


def _warn_of_overlap(source: ImageSource, fit_source: ImageSource) -> None:
    normal = fit_source.identities()
    both = len(source.identities() & normal)
    if both:
        print(
            f"warning: {both:,} of the {len(normal):,} files of --fit are among --images, too; their tails are no held-out "
            "probabilities, and come out too ordinary",
            file=sys.stderr,
        )


def _detectors(arguments: argparse.Namespace, network: Network) -> dict[str, Detector]:
    """Those that were named, or else those of the usual ones that can look at this network."""
    from tutorial_lib import scoring
    from tutorial_lib.scoring.normal import cannot_look

    asked = arguments.detectors is not None
    usual = scoring.default_names(bool(arguments.fit), not network.without_features)
    detectors = scoring.named_detectors(_names(arguments.detectors) if asked else usual, network.model)
    unfitted = [name for name, detector in detectors.items() if detector.requires_fit and not arguments.fit]
    if unfitted:
        raise ValueError(f"{', '.join(unfitted)} must know what is normal: give --fit, a folder of normal images")
    blind = cannot_look(network, detectors)
    if not blind:
        return detectors
    seeing = {name: detector for name, detector in detectors.items() if name not in blind}
    reasons = "; ".join(dict.fromkeys(blind.values()))
    if asked or not seeing:
        others = f" ({', '.join(seeing)} can)" if seeing else ""
        raise ValueError(f"{', '.join(blind)} cannot look at {network.name}{others}: {reasons}")
    print(f"without {', '.join(blind)}: {reasons}", file=sys.stderr)
    return seeing


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


def _record_of(table: Path, plan: dict[str, Any]) -> dict[str, Any] | None:
    """The JSON file of a finished table of this very run; None if there is no table yet. One of another run, or somebody
    else's file, is not overwritten."""
    from tutorial_lib.scoring.table import Parts, differing

    beside = table.with_suffix(".json")
    if Parts(table, plan).folder.exists():
        return None  # stopped, perhaps between the table and the file beside it
    if not table.exists() and not beside.exists():
        return None
    try:
        record = json.loads(beside.read_text(encoding="utf-8"))
        differ = differing(record["plan"], json.loads(json.dumps(plan)))
        begun = f": a run that was begun with another {differ}" if differ else ""
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        record, differ, begun = None, "", ""
    if not table.exists() or record is None or differ:
        there = table if table.exists() else beside
        raise FileExistsError(
            f"{there} is there already, from something else{begun}; name another --out, or say --restart"
        )
    return dict(record)


def _complain(images: dict[str, Any]) -> int:
    """Images without a score, and why most of them have none; the exit status."""
    broken, (reason, count) = images["broken"], images.get("commonest", ("", 0))
    if not broken:
        return 0
    because = f", {count:,} of them: {reason}" if reason and count < broken else f": {reason}" if reason else ""
    if broken == images["n"]:
        print(f"none of {broken:,} images has a score{because}", file=sys.stderr)
        return 1
    print(f"{broken:,} of {images['n']:,} images have no score; the column `error` says why of each", file=sys.stderr)
    if reason:  # on a line of its own: it can be long
        print(f"{count:,} of them: {reason}" if count < broken else reason, file=sys.stderr)
    return 0
