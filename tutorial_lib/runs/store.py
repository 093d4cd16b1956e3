"""Where results wait: one file a cell, written once and whole.

``FOLDER/EXPERIMENT/STUDY/KEY.npz`` holds a cell's rows (as JSON) and its arrays in one file, so that there is no moment
at which one is there without the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_lib.results.rows import DamagedResults, Row, read_arrays
from tutorial_lib.runs.experiment import Cell
from tutorial_lib.storage import Damaged, cache_folder, expanded, replacing, set_aside, sweep

_RECORD = "record.json"  # beside the arrays; no array can have this name


class DamagedCell(Damaged):
    """A cell file cannot be read, or is not what its name says."""


def results_folder() -> Path:
    """``TUTORIAL_RESULTS``, default ``results`` in the cache folder: absolute, not necessarily there."""
    chosen = os.environ.get("TUTORIAL_RESULTS")
    return expanded(chosen) if chosen else cache_folder() / "results"


class CellStore:
    """The cells that have been computed.

    Args:
        folder: where the files lie; `results_folder` when left out.
    """

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = results_folder() if folder is None else expanded(folder)

    def path(self, cell: Cell) -> Path:
        return self.folder / cell.experiment / cell.study / f"{cell.key}.npz"

    def lock_path(self, cell: Cell) -> Path:
        return self.path(cell).with_suffix(".lock")

    def __contains__(self, cell: Cell) -> bool:
        return self.path(cell).exists()

    def count(self, experiment: str, study: str) -> int:
        """How many cells of an experiment on a study are there, whatever their seeds and settings."""
        return sum(1 for _ in (self.folder / experiment / study).glob("*.npz"))

    def write(self, cell: Cell, rows: Sequence[Row], arrays: dict[str, np.ndarray]) -> None:
        """Store a cell. An existing one is replaced in one step."""
        if _RECORD in arrays:
            raise ValueError(f"an array cannot be named {_RECORD!r}")
        record = {"cell": cell.as_json(), "rows": [asdict(row) for row in rows]}
        with replacing(self.path(cell)) as temporary, temporary.open("wb") as file:
            text = np.frombuffer(json.dumps(record).encode(), dtype=np.uint8)
            named: dict[str, Any] = {_RECORD: text, **arrays}
            np.savez_compressed(file, **named)

    def read(self, cell: Cell) -> tuple[list[Row], dict[str, np.ndarray]]:
        """A cell's rows and arrays.

        Raises:
            FileNotFoundError: the cell has not been computed.
            DamagedCell: its file is broken or belongs to another cell.
        """
        found, rows, arrays = self._open(self.path(cell))
        if found != cell.as_json():
            raise DamagedCell(
                f"{self.path(cell)} holds another cell than its name says; `run` sets it aside and makes it again"
            )
        return rows, arrays

    def rows(
        self,
        experiment: str,
        study: str | None = None,
        grid: Callable[[str, Sequence[int]], list[Cell]] | None = None,
    ) -> Iterator[Row | DamagedCell]:
        """Rows of every stored cell of an experiment; for a damaged one, what is wrong with it.

        Args:
            experiment: its name.
            study: only of this one.
            grid: the experiment's `Experiment.cells`. Rows then come in the order of the grid, those of other cells last;
                without it, in the order of file names, which says nothing.
        """
        opened = []
        for path in sorted((self.folder / experiment).glob(f"{study or '*'}/*.npz")):
            try:
                cell, rows, _ = self._open(path)
                opened.append((path, cell, rows))
            except DamagedCell as error:
                yield error
        places: dict[tuple[str, str], int] = {}
        if grid is not None:
            seeds = sorted({int(str(cell["seed"])) for _, cell, _ in opened})
            for name in dict.fromkeys(path.parent.name for path, _, _ in opened):
                for cell_of_grid in grid(name, seeds):
                    places[name, cell_of_grid.key] = len(places)
        opened.sort(key=lambda found: places.get((found[0].parent.name, found[0].stem), len(places)))
        for _, _, rows in opened:
            yield from rows

    def set_aside(self, cell: Cell) -> Path:
        """Move a damaged file out of the way, so that the cell can be computed again; returns its new place."""
        return set_aside(self.path(cell))

    def sweep(self, cell: Cell) -> None:
        """Remove what killed processes have left of a cell. Only for who holds its lock."""
        sweep(self.path(cell))

    def _open(self, path: Path) -> tuple[dict[str, object], list[Row], dict[str, np.ndarray]]:
        try:
            arrays = read_arrays(path)
            record = json.loads(arrays.pop(_RECORD).tobytes())
            return record["cell"], [Row(**columns) for columns in record["rows"]], arrays
        except FileNotFoundError:
            raise
        except Exception as error:  # the arrays say themselves what is wrong; a record can be wrong in many ways
            said = " ".join(str(error).split())
            if not isinstance(error, DamagedResults):
                said = f"{path} holds no record of a cell ({type(error).__name__}: {said})"
            raise DamagedCell(f"{said}; `run` sets it aside and makes it again") from error
