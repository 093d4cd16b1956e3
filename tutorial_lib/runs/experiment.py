"""What an experiment is: a grid of independent cells, a function that computes one, and a table that shows them all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from tutorial_lib.results.rows import Measurement, Row

if TYPE_CHECKING:
    import torch

__all__ = ["Cell", "CellResult", "Experiment", "Measurement", "Settings"]

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """One point of the grid: all that decides what will be computed.

    Args:
        experiment: name of the experiment.
        study: name of the study.
        seed: of everything random in the cell.
        settings: the other coordinates, JSON values by name (``{"method": "energy"}``).
        version: of the experiment's code; a changed meaning is a different cell.
    """

    experiment: str
    study: str
    seed: int
    settings: Settings = field(default_factory=dict)
    version: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "settings", MappingProxyType(json.loads(json.dumps(dict(self.settings), sort_keys=True)))
        )

    def as_json(self) -> dict[str, Any]:
        """The cell as plain JSON; equal cells give equal text."""
        return {
            "experiment": self.experiment,
            "study": self.study,
            "seed": self.seed,
            "settings": dict(self.settings),
            "version": self.version,
        }

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that any change of the cell changes."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def label(self) -> str:
        """For people: ``digits/energy/seed 0``."""
        return "/".join([self.study, *(str(value) for value in self.settings.values()), f"seed {self.seed}"])

    def __reduce__(self) -> tuple[Any, ...]:  # a mapping proxy cannot be pickled, and workers need the cell
        return Cell, (self.experiment, self.study, self.seed, dict(self.settings), self.version)


@dataclass(frozen=True)
class CellResult:
    """What a cell computes.

    Args:
        measurements: the numbers.
        arrays: whatever a figure needs whole (per-sample scores, say), by name.
    """

    measurements: Sequence[Measurement]
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A named experiment.

    Args:
        name: as in ``python -m tutorial_lib run NAME``, in its chapter, its module and its tests.
        title: one line for ``python -m tutorial_lib list``.
        studies: names of the studies that it runs on; the first is the default.
        cells: ``cells(study, seeds)`` gives the grid.
        compute: ``compute(cell, device)`` gives the result of one cell; it must depend on nothing else.
        table: ``table(rows)`` gives the text that ``python -m tutorial_lib table NAME`` prints, in Markdown.
    """

    name: str
    title: str
    studies: tuple[str, ...]
    cells: Callable[[str, Sequence[int]], list[Cell]]
    compute: Callable[[Cell, torch.device], CellResult]
    table: Callable[[Sequence[Row]], str]
