"""One slider: its values, where it starts, how it writes a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Control:
    """One slider.

    Args:
        values: at least two values, in the order of the slider: numbers or words.
        start: the value shown first; it must be one of ``values`` (numbers: the nearest is taken). None: the middle.
        label: words beside the slider; None: the name of the argument.
        format: how a number is written, as in :meth:`str.format`; None: three significant digits.
    """

    values: Sequence[Any]
    start: Any = None
    label: str | None = None
    format: str | None = None
    texts: tuple[str, ...] = field(init=False)
    first: int = field(init=False)

    def __post_init__(self) -> None:
        # .item(): a drawing function should meet Python's numbers, not NumPy's
        values = [value.item() if isinstance(value, np.generic) else value for value in self.values]
        if len(values) < 2:
            raise ValueError(f"a slider needs at least two values, got {len(values)}")
        object.__setattr__(self, "values", tuple(values))
        object.__setattr__(self, "texts", tuple(self.write(value) for value in values))
        object.__setattr__(self, "first", self._first())

    def write(self, value: Any) -> str:
        """The words for one value."""
        if isinstance(value, str):
            return value
        return (self.format or ("{}" if isinstance(value, (int, bool)) else "{:.3g}")).format(value)

    def _first(self) -> int:
        if self.start is None:
            return len(self.values) // 2
        if self.start in self.values:
            return self.values.index(self.start)
        if isinstance(self.start, str) or isinstance(self.values[0], str):
            raise ValueError(f"start {self.start!r} is not among the values {list(self.values)}")
        low, high = min(self.values), max(self.values)
        if not low <= self.start <= high:
            raise ValueError(f"start {self.start!r} lies outside the values, {low} to {high}")
        return int(np.abs(np.asarray(self.values, dtype=float) - self.start).argmin())


def start_index(controls: Mapping[str, Control]) -> int:
    """Place of the frame that is shown first, among one frame for each combination of values, the last control fastest."""
    index = 0
    for control in controls.values():
        index = index * len(control.values) + control.first
    return index
