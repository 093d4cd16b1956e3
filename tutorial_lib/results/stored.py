"""Results that come with the library: rows in one CSV file an experiment, arrays in one ``.npz`` a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tutorial_lib.results.rows import RESULTS, Row, read_arrays, read_rows

__all__ = ["stored_arrays", "stored_rows"]


def stored_rows(experiment: str, study: str | None = None, folder: Path = RESULTS) -> list[Row]:
    """The rows of an experiment that come with the library, of one study or of all; empty if the study has none.

    Raises:
        FileNotFoundError: nothing of this experiment is stored; says which command makes it.

    >>> len(stored_rows("calibration", "cifar10")) > 100, stored_rows("calibration", "svhn")
    (True, [])
    """
    path = folder / f"{experiment}.csv"
    if not path.is_file():
        raise FileNotFoundError(_how(experiment, study, path))
    return [row for row in read_rows(path) if study in (None, row.study)]


def stored_arrays(experiment: str, study: str, folder: Path = RESULTS) -> dict[str, np.ndarray]:
    """The arrays of an experiment on a study that come with the library, of the first seed: ``SETTINGS/NAME``.

    Raises:
        FileNotFoundError: none are stored; says which command makes them.
    """
    path = folder / f"{experiment}_{study}.npz"
    if not path.is_file():
        raise FileNotFoundError(_how(experiment, study, path))
    return read_arrays(path)


def _how(experiment: str, study: str | None, path: Path) -> str:
    command = f"python -m tutorial_lib run {experiment}{f' --study {study}' if study else ''} --save"
    return f"no results of {experiment}{f' on {study}' if study else ''} at {path}; make them with: {command}"
