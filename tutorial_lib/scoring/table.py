"""The table of scores: blocks of rows that a kill cannot tear, and from them one CSV or Parquet file.

A run writes block after block into ``NAME.parts`` beside the table, each whole or not at all. Whoever starts the same run
again goes on after the last block; when all are there they become the table, and the folder goes. `Plan` says what "the same
run" is.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutorial_lib.storage import Damaged, replacing, sweep, write_atomically

__all__ = ["Block", "Parts", "check_table_path", "differing", "read_table", "write_table"]

BLOCK = 1024
"""Images in a block: what a kill can cost, and what is held in memory at once."""


@dataclass(frozen=True)
class Block:
    """Rows of consecutive images.

    Attributes:
        prediction: (n,) class, -1 where the image could not be read.
        confidence: (n,) probability of that class, NaN where it could not.
        scores, tails: (n, D), NaN where it could not; tails have no columns without normal images.
        errors: (n,) why it could not, else empty.
    """

    prediction: NDArray[np.int64]
    confidence: NDArray[np.float64]
    scores: NDArray[np.float64]
    tails: NDArray[np.float64]
    errors: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.prediction)

    @property
    def broken(self) -> int:
        return int((self.prediction < 0).sum())


class Parts:
    """The folder of blocks of one run.

    Args:
        table: where the table will be.
        plan: what makes two runs the same, as JSON can hold it.
    """

    def __init__(self, table: Path, plan: Mapping[str, Any]) -> None:
        self.folder = table.with_name(table.name + ".parts")
        self.plan = json.loads(json.dumps(plan))

    def check(self) -> bool:
        """Is there a folder of this run? Changes nothing.

        Raises:
            FileExistsError: it belongs to another run, and what differs.
            Damaged: nobody can say to which.
        """
        path = self.folder / "plan.json"
        if not path.is_file():
            if self.folder.exists() and any(self.folder.glob("*.npz")):
                raise Damaged(f"{self.folder} holds blocks of a run that nobody knows; delete it, or say --restart")
            return False
        try:
            other = json.loads(path.read_bytes())
            differ = differing(other, self.plan)
        except (ValueError, AttributeError) as error:  # no text, no JSON, or no dictionary
            raise Damaged(f"{path} is damaged: {error}; start anew with --restart") from error
        if differ:
            raise FileExistsError(
                f"{self.folder} holds a run that was begun with another {differ}; finish it as it was begun, or start anew "
                "with --restart"
            )
        return True

    def begin(self) -> None:
        """Make the folder, or go on in the one that is there; raises what `check` does."""
        if not self.check():
            write_atomically(self.folder / "plan.json", json.dumps(self.plan, indent=1).encode())

    def path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.npz"

    def has(self, number: int, rows: int) -> bool:
        """Is this block there, whole? One that a full disk or a fault has damaged is as good as none."""
        try:
            return self.path(number).is_file() and len(self.read(number)) == rows
        except Damaged:
            return False

    def write(self, number: int, block: Block) -> None:
        sweep(self.path(number))
        with replacing(self.path(number)) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **vars(block))  # type: ignore[arg-type]

    def read(self, number: int) -> Block:
        try:
            with np.load(self.path(number), allow_pickle=False) as arrays:
                return Block(**{name: arrays[name] for name in arrays})
        except Exception as error:  # whatever zipfile and numpy raise; a block has no other use than to be whole
            raise Damaged(
                f"{self.path(number)} is damaged: {error}; delete it and run the same command again"
            ) from error

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What two plans differ in, with commas between; empty if in nothing.

    >>> differing({"detectors": ["energy"], "fit": None}, {"detectors": ["msp"], "fit": None})
    'detectors'
    """
    return ", ".join(sorted(key for key in {*one, *other} if one.get(key) != other.get(key)))


def check_table_path(path: Path) -> None:
    """Refuse a suffix that cannot be written, before the work.

    Raises:
        ValueError: neither ``.csv`` nor ``.parquet``; or ``.parquet`` without pyarrow.
    """
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"the table is a .csv or a .parquet file, got {path.name}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ValueError(f"{path.name} needs pyarrow (pip install pyarrow); or write a .csv")


def write_table(
    path: Path, columns: Sequence[str], names: Sequence[str], blocks: Iterator[Block], classes: Sequence[str]
) -> None:
    """One row for each image, in the order of the source, block by block; the file is there whole or not at all.

    Args:
        path: ``.csv`` or ``.parquet``.
        columns: of the scores and tails, in their order.
        names: of the images.
        blocks: all of them.
        classes: names of the classes, or nothing.
    """
    with replacing(path) as temporary:
        writer = _write_parquet if path.suffix == ".parquet" else _write_csv
        writer(temporary, ["path", "prediction", "confidence", *columns, "error"], names, blocks, classes)


def _write_csv(
    path: Path, header: Sequence[str], names: Sequence[str], blocks: Iterator[Block], classes: Sequence[str]
) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        place = 0
        for block in blocks:
            numbers = np.column_stack([block.confidence, block.scores, block.tails])
            for row in range(len(block)):
                values = ["" if np.isnan(value) else repr(float(value)) for value in numbers[row]]
                answer = _answer(int(block.prediction[row]), classes)
                writer.writerow([names[place], answer, *values, block.errors[row]])
                place += 1


def _write_parquet(
    path: Path, header: Sequence[str], names: Sequence[str], blocks: Iterator[Block], classes: Sequence[str]
) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    types = [arrow.string(), arrow.string(), *[arrow.float64()] * (len(header) - 3), arrow.string()]
    schema = arrow.schema(list(zip(header, types, strict=True)))
    with parquet.ParquetWriter(path, schema) as writer:
        place = 0
        for block in blocks:
            numbers = np.column_stack([block.confidence, block.scores, block.tails])
            answers = [_answer(int(value), classes) for value in block.prediction]
            found = [names[place : place + len(block)], answers, *numbers.T, [str(text) for text in block.errors]]
            place += len(block)
            arrays = [
                arrow.array(column, kind, from_pandas=True)  # NaN becomes null
                for column, kind in zip(found, types, strict=True)
            ]
            writer.write_batch(arrow.record_batch(arrays, schema=schema))


def _answer(prediction: int, classes: Sequence[str]) -> str:
    if prediction < 0:
        return ""
    return classes[prediction] if classes else str(prediction)


def read_table(path: Path | str) -> dict[str, list[str] | NDArray[np.float64]]:
    """A table of scores by column: text for path, prediction and error, float64 (N,) for the rest, NaN where empty.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    check_table_path(path)
    if path.suffix == ".parquet":
        from pyarrow import parquet

        table = parquet.read_table(path)
        columns = {name: table.column(name).to_pylist() for name in table.column_names}
    else:
        with path.open(newline="", encoding="utf-8") as stream:
            header, *rows = csv.reader(stream)
        columns = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    text = ("path", "prediction", "error")
    return {
        name: values
        if name in text
        else np.array([np.nan if v in ("", None) else float(v) for v in values], dtype=float)
        for name, values in columns.items()
    }
