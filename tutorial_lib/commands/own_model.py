"""What ``score`` and ``calibrate`` have in common: naming a network, its preprocessing, and where the images lie."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import sys
import tempfile
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutorial_lib.commands.options import checked_device, device, named, positive
from tutorial_lib.progress import how_often, say

if TYPE_CHECKING:
    from tutorial_lib.scoring.networks import Network

__all__ = [
    "add_network_options",
    "check_writable",
    "network_of",
    "progress_bar",
    "provenance_of",
    "refusing",
    "write_record",
]

MODEL_HELP = (
    "a .pt2 or TorchScript file; a folder in timm's layout; a name of torchvision's or timm's, with --weights; or "
    "module.py:factory, a function of yours that returns the network (its code is run)"
)


def add_network_options(command: argparse.ArgumentParser) -> None:
    """``--model`` and everything that says how its images are made."""
    command.add_argument("--model", type=named, required=True, metavar="M", help=MODEL_HELP)
    command.add_argument(
        "--weights", type=named, metavar="FILE", help=".safetensors, or a state dict in .pt (no pickle is run)"
    )
    command.add_argument("--head", type=named, metavar="LAYER", help="name of the last linear layer (default: found)")
    command.add_argument(
        "--num-classes", type=positive, metavar="K", help="of a network by name (default: its weights')"
    )
    shape = command.add_argument_group("preprocessing", "What the network's own config says, unless it is said here.")
    shape.add_argument("--size", type=_size, metavar="N", help="of what the network gets: N or HxW")
    shape.add_argument("--resize", type=positive, metavar="N", help="shorter side before the crop (default: the size)")
    shape.add_argument("--channels", type=int, choices=(1, 3), help="1 is grey, 3 is RGB")
    shape.add_argument("--mean", type=_numbers, metavar="R,G,B", help="of the channels, in the units of [0, 1] images")
    shape.add_argument("--std", type=_numbers, metavar="R,G,B", help="their deviations")
    shape.add_argument("--interpolation", choices=("nearest", "bilinear", "bicubic", "lanczos"))
    shape.add_argument("--normalized", action="store_true", help="the network normalises by itself")
    run = command.add_argument_group("running")
    run.add_argument("--batch", type=positive, default=64, metavar="N", help="images at a time (default 64)")
    run.add_argument("--workers", type=positive, metavar="N", help="threads that read images (default: up to 4)")
    run.add_argument("--device", type=device, metavar="D", help="cpu or cuda (default: cuda if there is one)")


def network_of(arguments: argparse.Namespace) -> Network:
    """The network that the options name; what it is and what happens to its images is said.

    On standard error, like all that is said before the work is done: nobody may be reading the output (`| head`)."""
    from tutorial_lib.scoring.networks import Overrides, open_network

    arguments.device = checked_device(arguments.device, arguments.error)
    arguments.workers = arguments.workers or min(4, os.cpu_count() or 1)
    overrides = Overrides(
        size=arguments.size,
        channels=arguments.channels,
        mean=arguments.mean,
        std=arguments.std,
        interpolation=arguments.interpolation,
        resize=arguments.resize,
        normalized=arguments.normalized,
    )
    network = open_network(
        arguments.model, arguments.weights, arguments.head, arguments.num_classes, overrides, arguments.device
    )
    what = f"network: {network.name} ({network.kind}), {network.classes} classes, sha256 {network.sha256[:12]}"
    print(what, file=sys.stderr)
    print(textwrap.fill(f"images:  {network.preprocessing}", 84, subsequent_indent=" " * 9), file=sys.stderr)
    return network


def provenance_of(command: str, arguments: argparse.Namespace) -> dict[str, str]:
    """Command, commit, versions and device, for a JSON file."""
    from dataclasses import asdict

    from tutorial_lib.results.rows import provenance

    words = ["python", "-m", "tutorial_lib", command]
    for name, value in vars(arguments).items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif isinstance(value, tuple):
            words += [option, ("x" if name == "size" else ",").join(map(str, value))]
        elif isinstance(value, str | int | float) and value is not False:
            words += [option, str(value)]
    return asdict(provenance(shlex.join(words), arguments.device))


def write_record(path: Path, record: dict[str, Any]) -> None:
    """A JSON file, whole or not at all."""
    from tutorial_lib.storage import write_atomically

    text = json.dumps(record, indent=1, ensure_ascii=False, default=str) + "\n"
    write_atomically(path, text.encode(errors="backslashreplace"))  # file names that are no UTF-8, as JSON escapes


def check_writable(*paths: Path | str) -> None:
    """Find out before the work what would stop it after: no folder to write to, a folder of that name, a network's config.

    Args:
        paths: of the files that will be written; a text among them is the network, whose config must not be hidden.

    Raises:
        OSError: of the first that cannot be written.
    """
    from tutorial_lib.scoring.files import beside

    files = [path for path in paths if isinstance(path, Path)]
    models = [Path(_file_of(path)).expanduser() for path in paths if isinstance(path, str)]
    for path in files:
        if path.is_dir():
            raise IsADirectoryError(21, "this is a folder, not a file", str(path))
        for model in models:
            if model.is_file() and any(os.path.abspath(path) == os.path.abspath(one) for one in beside(model)):
                raise FileExistsError(f"{path} is where {model.name} keeps its config; name another --out")
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise type(error)(error.errno, f"cannot write {path}: {error.strerror}") from error


def _file_of(model: str) -> str:
    """The module of ``module.py:factory``, else the whole."""
    file, _, _ = model.rpartition(":")
    return file if file.endswith(".py") else model


@contextmanager
def progress_bar(total: int, what: str) -> Iterator[Callable[[int], Any]]:
    """A bar on a terminal; elsewhere a line every half minute, if it takes as long. Yields a function that is told how many
    more are done; the bar is there from the first time on."""
    from tqdm import tqdm

    bars: list[tqdm[Any]] = []

    def update(done: int) -> None:
        if not bars:
            bars.append(tqdm(total=total, desc=what, unit=" images", file=sys.stderr, **how_often()))
        bars[0].update(done)

    try:
        yield update
    finally:
        for bar in bars:
            bar.close()


def _size(text: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"must be N or HxW, got {text}")
    return int(parts[0]), int(parts[-1])


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be numbers with commas between them, got {text}") from error


FEW = 3
"""Images of which the same warning is said; of a folder that is all alike, one has seen enough."""


@contextmanager
def _decoders_named() -> Iterator[None]:
    """What a decoder warns of is said in one line with the image's name, and not with a line of Pillow's source."""
    counts: Counter[str] = Counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", module=r"PIL\b")  # not at the first image alone
        others = warnings.showwarning

        def show(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
            from tutorial_lib.scoring.sources import being_read

            image = being_read()
            if image is None:
                others(message, category, filename, lineno, file, line)
                return
            text = " ".join(str(message).split())
            kind = re.sub(r"\d+", "", text)
            counts[kind] += 1
            if counts[kind] <= FEW:
                say(f"{image}: {text}")

        warnings.showwarning = show
        try:
            yield
        finally:
            for kind, count in counts.items():
                if count > FEW:
                    print(f"and {count - FEW:,} more images: {' '.join(kind.split())}", file=sys.stderr)


def refusing(run: Callable[[argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """A wrong value, or a network that cannot be used, ends like a wrong option: one line, exit status 2."""

    def wrapped(arguments: argparse.Namespace) -> int:
        try:
            with _decoders_named():
                return run(arguments)
        except ValueError as error:
            arguments.error(" ".join(str(error).split()))
            raise

    return wrapped
