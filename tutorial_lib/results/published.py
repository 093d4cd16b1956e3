"""Published numbers, one CSV file an experiment, each number with the place where it is printed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

__all__ = ["published_names", "read_published"]

_FOLDER = Path(__file__).resolve().parents[1] / "experiments" / "published"


def published_names() -> list[str]:
    """Names of all files of published numbers, in alphabetical order."""
    return sorted(file.stem for file in _FOLDER.glob("*.csv"))


def read_published(experiment: str, **columns: str) -> list[dict[str, Any]]:
    """The published rows of an experiment, as they are printed: units and names are the authors'.

    Args:
        experiment: name of the experiment.
        **columns: only rows whose columns have these values.

    Returns:
        one dictionary a row; ``value`` is a float, the other columns are text, and ``source`` says where it is printed.

    Raises:
        FileNotFoundError: nothing is published for this experiment.
        ValueError: no such column, or no row is left.

    >>> [row["value"] for row in read_published("calibration", dataset="CIFAR-10", network="LeNet-5", metric="test_error_percent")]
    [15.57]
    """
    path = _FOLDER / f"{experiment}.csv"
    if not path.is_file():
        known = ", ".join(published_names())
        raise FileNotFoundError(f"no published numbers for {experiment!r}; there are some for {known}")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        names = reader.fieldnames or []
        rows: list[dict[str, Any]] = [{**row, "value": float(row["value"])} for row in reader]
    for name, value in columns.items():
        if name not in names:
            raise ValueError(f"the published rows of {experiment} have no column {name!r}; columns are {list(names)}")
        rows = [row for row in rows if row[name] == value]
    if not rows:
        raise ValueError(f"no published row of {experiment} with {columns}")
    return rows
