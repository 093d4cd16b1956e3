"""Result rows: every number of the book with what made it.

A result is one row of a small CSV file: which experiment, on which study, by which method, under which condition, the
metric and its value, the seed, the number of samples, and the run that produced it. A run makes hundreds of rows, so that
its command, commit, versions, device and seconds stand once, in a table of runs: ``runs/NAME.csv`` beside ``NAME.csv``.
`read_rows` puts the two together. Arrays that a figure needs whole (one score an image, say) go into an ``.npz`` file.

Files are written to a temporary name and then renamed, so a killed run leaves the old file or the new one, never half of
either. A run is named by a hash of what it says and its table is written first, so that every row finds its run whenever
the writer is killed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import platform
import struct
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tutorial_lib.storage import Damaged, cache_folder, locked, replacing

if TYPE_CHECKING:
    import torch

RESULTS = Path(__file__).resolve().parents[1] / "experiments" / "results"


class DamagedResults(Damaged, ValueError):
    """A file of results is there but cannot be read; the message names it."""


@dataclass(frozen=True)
class Provenance:
    """What made a number: the last columns of a row. Build it with :func:`provenance`."""

    command: str
    commit: str
    versions: str
    device: str


@dataclass(frozen=True)
class Measurement:
    """One number, before it is known who made it: what `Experiment.compute` returns.

    Args:
        method: what was measured, e.g. ``"energy"``; empty where it is the network itself.
        condition: what it met, e.g. ``"known"``, ``"svhn"`` or ``"haze/3"``.
        metric: e.g. ``"accuracy"``; fractions are in [0, 1], not percent.
        value: the number; NaN is refused, since an undefined value is no result.
        n: number of samples behind the value.
        challenging_data: unusual data that the method saw while it was fitted: ``"none"``, ``"other"`` or ``"same"``.
        network: whose answers or gradients the method reads, e.g. ``"resnet20"``.
        variant: what tells rows of one method and network apart, e.g. the number of bins or the loss.
        protocol: how training and test data were divided where an experiment has several ways, e.g. ``"open_set"``.
    """

    method: str
    condition: str
    metric: str
    value: float
    n: int
    challenging_data: str = "none"
    network: str = ""
    variant: str = ""
    protocol: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))
        object.__setattr__(self, "n", int(self.n))
        if not (self.method or self.network).strip():
            raise ValueError("a result needs a non-empty method or network")
        for name in ("condition", "metric"):
            if not getattr(self, name).strip():
                raise ValueError(f"a result needs a non-empty {name}")
        if math.isnan(self.value):
            raise ValueError(f"{self.label} is NaN: an undefined value is not a result, leave the row out")
        if self.n < 1:
            raise ValueError(f"{self.label} stands on n = {self.n} samples, a result needs at least one")
        if self.challenging_data not in CHALLENGING_DATA:
            raise ValueError(f"challenging_data must be one of {CHALLENGING_DATA}, got {self.challenging_data!r}")

    @property
    def series(self) -> str:
        """Network, method and variant, as far as there are any: what a line of a table is about.

        >>> Measurement("recon", "7", "auroc", 0.9, 106, network="plane", variant="16").series
        'plane/recon/16'
        """
        return "/".join(part for part in (self.network, self.method, self.variant) if part)

    @property
    def label(self) -> str:
        """For people: all that the number is about."""
        return "/".join(part for part in (self.protocol, self.series, self.condition, self.metric) if part)


@dataclass(frozen=True, kw_only=True)
class Row(Measurement):
    """One measured number with what made it: a line of a result file.

    Args:
        experiment: name of the experiment, the same as its module and its chapter, e.g. ``"calibration"``.
        study: name of the study, e.g. ``"cifar10"``.
        seed: seed of the run; -1 for an aggregate over seeds.
        seconds: wall-clock time that the run took (compare only within one device).
        command, commit, versions, device: see `Provenance`.

    The other columns are those of `Measurement`. Make one with ``Row.of``.
    """

    experiment: str
    study: str
    command: str
    commit: str
    versions: str
    device: str
    seed: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("experiment", "study"):
            if not getattr(self, name).strip():
                raise ValueError(f"a result row needs a non-empty {name}")

    @classmethod
    def of(
        cls,
        measured: Measurement,
        source: Provenance,
        *,
        experiment: str,
        study: str,
        seed: int = 0,
        seconds: float = 0.0,
    ) -> Row:
        """A measurement with what made it."""
        made: dict[str, Any] = {"experiment": experiment, "study": study, "seed": int(seed), "seconds": float(seconds)}
        return cls(
            **{field.name: getattr(measured, field.name) for field in fields(Measurement)}, **asdict(source), **made
        )

    @property
    def key(self) -> tuple[str | int, ...]:
        """What a row is about. A file holds one row a key."""
        return tuple(getattr(self, name) for name in _KEY)

    @property
    def run(self) -> str:
        """Twelve hexadecimal digits, a hash of `RUN_COLUMNS`: rows of one run share them."""
        return hashlib.sha256(json.dumps(_run_of(self)).encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        return f"{self.experiment}/{self.study}/{super().label}"


CHALLENGING_DATA = ("none", "other", "same")
_KEY = (
    *("experiment", "study", "method", "condition", "metric", "seed", "challenging_data"),
    *("network", "variant", "protocol"),
)
COLUMNS = ("experiment", "study", "method", "condition", "metric", "value", "seed", "n", "challenging_data", "run")
"""Columns that every result file has."""
OPTIONAL = ("network", "variant", "protocol")
"""Columns of a file in which some row needs them."""
RUN_COLUMNS = ("command", "commit", "versions", "device", "seconds")
"""What a table of runs says of each."""
_KINDS = {"value": float, "seconds": float, "seed": int, "n": int}  # the others are text


def provenance(command: str, device: torch.device | str = "cpu") -> Provenance:
    """Describe this run: the command as a reader would type it, the commit, the versions and the device."""
    import torch  # only here: rows can be read without it

    from tutorial_lib import __version__  # of the code that runs, wherever it was installed from

    versions = {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    versions["tutorial_lib"] = __version__
    return Provenance(command, _commit(), " ".join(f"{k}={v}" for k, v in versions.items()), _describe(device))


def runs_file(path: str | Path) -> Path:
    """Where the runs of a result file are described: ``runs/NAME.csv`` for ``NAME.csv``."""
    path = Path(path)
    return path.parent / "runs" / path.name


def read_rows(path: str | Path) -> list[Row]:
    """Read a result file, each row with what its run was.

    Raises:
        FileNotFoundError: the experiment has not been run.
        DamagedResults: the columns are not those of a result file, a value does not parse, or a row's run is described
            nowhere.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}; run the experiment '{path.stem}' to make them")
    lines, runs = _read_both(path)
    if any(line["run"] not in runs for line in lines):  # somebody has saved between the two
        lines, runs = _read_both(path)
    rows: list[Row] = []
    for number, line in enumerate(lines, start=2):
        try:
            columns = line | runs[line["run"]]
            del columns["run"]
            rows.append(Row(**columns | {name: kind(columns[name]) for name, kind in _KINDS.items()}))
        except KeyError as error:
            raise DamagedResults(f"{path}, line {number}: {runs_file(path)} knows no run {error}") from error
        except (TypeError, ValueError) as error:
            raise DamagedResults(f"{path}, line {number}: {error}") from error
    return rows


def write_rows(path: str | Path, rows: Iterable[Row], without: Callable[[Row], bool] | None = None) -> list[Row]:
    """Merge rows into a result file and return all that the file now holds.

    A row whose :attr:`Row.key` the file already has takes the old one's place; other rows stay, but those for which
    ``without`` is true. The order of the file is that in which keys first came, so that a re-run changes only the lines that
    changed. The table of runs beside it is written, too.
    """
    path = Path(path)
    new = {row.key: row for row in rows}
    with locked(_lock_of(path)):  # two who save at once would each write without the other's rows
        old = read_rows(path) if path.exists() else []
        merged = {row.key: row for row in old if row.key in new or without is None or not without(row)} | new
        needed = [name for name in OPTIONAL if any(getattr(row, name) for row in merged.values())]
        # Nine digits keep a float32 exactly and spare the diff the noise of float64.
        lines = [{**asdict(row), "value": f"{row.value:.9g}", "run": row.run} for row in merged.values()]
        _write_runs(path, [*old, *merged.values()])  # until the rows are there, the old ones must find their runs, too
        _write_lines(path, (*COLUMNS, *needed), lines)
        _write_runs(path, merged.values())
    return list(merged.values())


def _lock_of(path: Path) -> Path:
    """In the cache, since the folder of results is part of a checkout."""
    return cache_folder() / "locks" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}.lock"


def _read_both(path: Path) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]]]:
    lines = list(_lines(path, COLUMNS, OPTIONAL))
    if not runs_file(path).is_file():
        raise DamagedResults(f"{runs_file(path)} is missing, which says what made the rows of {path}")
    return lines, {line["run"]: line for line in _lines(runs_file(path), ("run", *RUN_COLUMNS))}


def _write_runs(path: Path, rows: Iterable[Row]) -> None:
    runs = {row.run: _run_of(row) for row in rows}
    described = [{"run": run} | dict(zip(RUN_COLUMNS, said, strict=True)) for run, said in runs.items()]
    _write_lines(runs_file(path), ("run", *RUN_COLUMNS), described)


def _run_of(row: Row) -> list[str]:
    """What the table of runs says of a row's run, in the order of `RUN_COLUMNS`."""
    return [row.command, row.commit, row.versions, row.device, f"{row.seconds:.4g}"]


def _lines(path: Path, columns: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[dict[str, Any]]:
    """The lines of a CSV file with these columns, by column."""
    number = 1
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            named = tuple(reader.fieldnames or ())
            if named != (*columns, *(name for name in optional if name in named)):
                raise DamagedResults(f"{path} is not a result file: columns {list(named)}, expected {list(columns)}")
            for number, line in enumerate(reader, start=2):
                if None in line or None in line.values():
                    raise DamagedResults(f"{path}, line {number}: {len(named)} values are expected")
                yield line
    except DamagedResults:
        raise
    except (csv.Error, OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise DamagedResults(f"{path}, line {number + 1}: {error}") from error


def _write_lines(path: Path, columns: tuple[str, ...], lines: Iterable[Mapping[str, Any]]) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def select(rows: Sequence[Row], **columns: object) -> list[Row]:
    """Rows whose columns have the given values, e.g. ``select(rows, study="cifar10", metric="accuracy")``.

    ``series`` counts as a column, too.

    Raises:
        ValueError: a column has no such name, or no row is left.
    """
    known = (*COLUMNS, *OPTIONAL, *RUN_COLUMNS, "series")
    unknown = sorted(set(columns) - set(known))
    if unknown:
        raise ValueError(f"result rows have no column {unknown}; columns are {list(known)}")
    found = [row for row in rows if all(getattr(row, name) == value for name, value in columns.items())]
    if not found:
        raise ValueError(f"no result row with {columns}")
    return found


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as a compressed ``.npz``, whole or not at all."""
    if not arrays:
        raise ValueError(f"nothing to write to {path}")
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **dict[str, Any](arrays))


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read what :func:`write_arrays` wrote. Pickled objects are refused.

    Every array is checked against its checksum, and their number against the one at the end of the file, which NumPy
    does not look at: a damaged directory would lose an array without a word.

    Raises:
        FileNotFoundError: the experiment has not been run.
        DamagedResults: a byte of it is not what was written.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no results at {path}; run the experiment '{path.stem}' to make them")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
            file.seek(-22, os.SEEK_END)  # the end record of a ZIP archive without a comment
            signature, _, _, _, count = struct.unpack("<4s4H", file.read(12))
    except Exception as error:  # one wrong byte shows as an error of zlib, zipfile, struct, NumPy or Python's parser
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise DamagedResults(f"{path} cannot be read ({said})") from error
    if signature != b"PK\5\6" or count != len(arrays):
        raise DamagedResults(f"{path} cannot be read ({len(arrays)} arrays were found, {count} were written)")
    return arrays


def _commit() -> str:
    """Commit of the checkout this file belongs to, ``+changes`` if the library differs from it, else ``"none"``."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package), *arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    package = Path(__file__).resolve().parents[1]
    try:
        # An installed copy may lie inside somebody else's repository; only a tracked file proves that this one is ours.
        git("ls-files", "--error-unmatch", str(Path(__file__).resolve()))
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "*.py")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return "none"


def _describe(device: torch.device | str) -> str:
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device.type}: {platform.machine()}, {torch.get_num_threads()} thread(s)"
