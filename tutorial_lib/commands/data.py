"""``python -m tutorial_lib data``: which data sets are on this machine, and how to get the others."""

from __future__ import annotations

import argparse
import os
import textwrap
from typing import Any, NamedTuple

from tutorial_lib.commands.options import add_command
from tutorial_lib.data.catalogue import DATASETS
from tutorial_lib.data.errors import DataDamaged, DataUnavailable
from tutorial_lib.data.files import data_folder, data_folder_said
from tutorial_lib.data.registry import DataSet, Part, suggestion

__all__ = ["State", "register", "state"]

WIDTH = 100


class State(NamedTuple):
    """A data set on this machine.

    Attributes:
        word: ``"embedded"``, ``"ready"`` (every split as published), ``"part"`` (something is missing or
            smaller), ``"missing"`` (nothing is there) or ``"damaged"``.
        lines: one for each split that is there, then what is wrong or how to get the rest.
    """

    word: str
    lines: tuple[str, ...]


def state(data_set: DataSet) -> State:
    """Look for every split of a data set and check the files of the form that `load_images` would take."""
    lines, words = [], set()
    splits = [split for split in data_set.splits if split != "all"] or ["all"]
    if "all" in data_set.splits and all(data_set.found(split) is None for split in splits):
        splits = ["all"]
    for split in splits:
        part = data_set.found(split)
        if part is None:
            words.add("missing")
            continue
        try:
            note = part.verified()[1]
            words.add("ready" if part.complete else "part")
            lines.append(f"{split} {part.count:,} in {_where(part)}{f': {note}' if note else ''}")
        except DataDamaged as error:
            words.add("damaged")
            lines.append(str(error))
    if "damaged" in words:
        word = "damaged"
    elif data_set.embedded:
        word = "embedded"
    elif words == {"missing"}:
        word = "missing"
    else:
        word = "ready" if words == {"ready"} else "part"
    if word in ("missing", "part"):
        missing = [split for split in splits if data_set.found(split, complete=True) is None]
        what = "it" if word == "missing" else f"{' and '.join(missing)} as published"
        lines.append(f"to get {what}: {data_set.how_to_get}")
    return State(word, tuple(lines))


def _where(part: Part) -> str:
    """The one file of a part, or the folder of several."""
    if not part.files:
        return "scikit-learn"
    return part.files[0].path if len(part.files) == 1 else os.path.commonpath([file.path for file in part.files])


def listing(names: list[str], terms: bool = False) -> tuple[str, dict[str, str]]:
    """What the command prints (100 columns, unless a path is longer) and the state of each data set by name."""
    rows, words = [], {}
    for name in names:
        found = state(DATASETS[name])
        words[name] = found.word
        rows.append(f"{name:<17}{found.word:<10}{DATASETS[name].title}")
        for line in [*found.lines, *([f"terms: {DATASETS[name].terms}"] if terms else [])]:
            rows += textwrap.wrap(
                line,
                WIDTH,
                initial_indent=" " * 27,
                subsequent_indent=" " * 29,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(rows), words


def register(subparsers: Any) -> None:
    """Add the command ``data``."""
    command = add_command(
        subparsers,
        "data",
        run,
        help="which data sets are here, and how to get the others",
        description="List the data sets of the course and their state here. Files are checked against published sums.",
        epilog="Exit status: 1 if a file is damaged, a data set you named is missing or a download failed; else 0.",
    )
    command.add_argument("names", nargs="*", metavar="NAME", help="only these data sets")
    command.add_argument(
        "--download",
        action="append",
        default=[],
        metavar="NAME",
        help="fetch a data set through torchvision (needs the internet)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what ``python -m tutorial_lib data`` was asked to."""
    for name in [*arguments.names, *arguments.download]:
        if name not in DATASETS:
            arguments.error(f"there is no data set {name!r}{suggestion(name, DATASETS)}")
    for name in arguments.download:
        download(DATASETS[name])
    names = list(dict.fromkeys([*arguments.names, *arguments.download])) or list(DATASETS)
    text, words = listing(names, terms=len(names) < len(DATASETS))
    print(f"Data folder: {data_folder_said()}\n\n{text}")
    asked = {*arguments.names, *arguments.download}
    return int(any(word == "damaged" or (word == "missing" and name in asked) for name, word in words.items()))


def download(data_set: DataSet) -> None:
    """Fetch the published files into the data folder.

    Raises:
        DataUnavailable: it must be done by hand, or the download failed; says why.
    """
    if data_set.embedded:
        print(f"{data_set.name} comes with scikit-learn; there is nothing to download")
        return
    folder = data_folder()
    if data_set.download is None:
        raise DataUnavailable(f"{data_set.name} cannot be fetched by a command. In {folder}: {data_set.how_to_get}")
    folder.mkdir(parents=True, exist_ok=True)
    print(f"downloading {data_set.name} to {folder} ({data_set.terms})", flush=True)
    try:
        data_set.download(folder)
    except (OSError, RuntimeError) as error:  # no answer, or a wrong checksum
        raise DataUnavailable(f"could not download {data_set.name} to {folder}: {error}") from error
