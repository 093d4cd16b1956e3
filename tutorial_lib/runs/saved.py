"""Results that come with the library: rows in one CSV file an experiment, per-sample arrays in one ``.npz`` a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tutorial_lib.results.rows import RESULTS, read_arrays, write_arrays, write_rows
from tutorial_lib.runs.experiment import Cell, Experiment
from tutorial_lib.runs.store import CellStore


def save(experiment: Experiment, cells: Sequence[Cell], store: CellStore, folder: Path = RESULTS) -> list[Path]:
    """Write the rows of computed cells, and the arrays of seed 0, into result files; returns the files.

    Cells may be a part of a grid: rows and arrays of other cells stay as they are in the files, but for arrays that no cell
    of the grid makes any more. If they are all cells of a study and some seeds, rows of these seeds that none of them
    makes (of a method that was given up, say) go.

    Arrays are named ``LABEL/NAME``, where LABEL is the cell's settings joined by ``/``. Scores are kept in half
    precision where that leaves their order as it is, so that a figure can be drawn and a clone stays small.
    """
    rows = [row for cell in cells for row in store.read(cell)[0]]
    files = [folder / f"{experiment.name}.csv"]
    study, seeds = cells[0].study, {cell.seed for cell in cells}
    grid = experiment.cells(study, range(max(seeds) + 1))
    whole = {cell.key for cell in grid if cell.seed in seeds} <= {cell.key for cell in cells}
    write_rows(files[0], rows, without=lambda row: whole and row.study == study and row.seed in seeds)
    arrays = {
        _prefix(cell) + name: _small(array)
        for cell in cells
        if cell.seed == FIRST_SEED
        for name, array in store.read(cell)[1].items()
    }
    if arrays:
        files.append(folder / f"{experiment.name}_{study}.npz")
        made = tuple(map(_prefix, cells))
        others = tuple(
            prefix for cell in experiment.cells(study, [FIRST_SEED]) if (prefix := _prefix(cell)) not in made
        )
        before = read_arrays(files[1]) if files[1].exists() else {}
        kept = {name: array for name, array in before.items() if name.startswith(others) and not name.startswith(made)}
        write_arrays(files[1], {**kept, **arrays})
    return files


FIRST_SEED = 0
"""Whose arrays come with the library."""


def _prefix(cell: Cell) -> str:
    return "".join(f"{value}/" for value in cell.settings.values())


MORE_TIES = 1e-3
"""Largest share of pairs of values that half precision may make equal: an AUROC then changes by no more than that."""


def _small(array: np.ndarray) -> np.ndarray:
    """Half precision where that leaves the order as it is; confidences near 1, say, need more."""
    if array.dtype.kind != "f":
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    fine = np.isfinite(half).all() and _ties(half) - _ties(array) < MORE_TIES
    return half if fine else array.astype(np.float32)


def _ties(array: np.ndarray) -> float:
    """Share of pairs of values, each with itself among them, that are equal."""
    counts = np.unique(array, return_counts=True)[1]
    return float(np.square(counts / max(1, array.size)).sum())
