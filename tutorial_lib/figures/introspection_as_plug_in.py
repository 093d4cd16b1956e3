"""Drawings of chapter 13: what a second network adds to first networks of several kinds."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tutorial_lib.metrics import mean_interval
from tutorial_lib.plots import KNOWN, MODEL, MODEL_UNCERTAINTY, MUTED, UNKNOWN, WIDTH

__all__ = ["ChosenNetwork", "draw_gains_by_network", "draw_intervals"]

LOOKS = ((UNKNOWN, "s"), (MODEL, "o"), (MODEL_UNCERTAINTY, "^"), (KNOWN, "D"))
"""Colour and mark of each way to answer; the same in all pictures of the chapter."""

Gains = Mapping[str, Mapping[str, Mapping[int, Sequence[float]]]]
"""By first network, by who answers, by level: differences in percentage points, one per trained network."""


def draw_gains_by_network(axes: Axes, gains: Mapping[str, Mapping[str, float]]) -> None:
    """A row per first network, a mark per way to answer.

    Args:
        axes: where to draw.
        gains: by first network, by who answers, in percentage points.
    """
    names = list(dict.fromkeys(name for row in gains.values() for name in row))
    for place, row in enumerate(gains.values()):
        axes.axhline(place, color="#e6e6e6", linewidth=1, zorder=0)
        for (colour, marker), name in zip(LOOKS, names, strict=False):
            if name in row:
                shown = name if place == 0 else None
                axes.scatter(row[name], place, color=colour, marker=marker, s=42, label=shown, zorder=3)
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.set(yticks=range(len(gains)), yticklabels=list(gains), ylim=(len(gains) - 0.5, -0.5))
    axes.set_xlabel("gain in accuracy (points)")


def draw_intervals(axes: Axes, values: Mapping[str, Sequence[float]]) -> None:
    """Paired differences, a row per first network: a dot per trained network, the mean, and its 95 % interval.

    An interval that holds 0 is grey, one above it blue, one below it orange.

    Args:
        axes: where to draw.
        values: by first network, percentage points; at least two in a row.
    """
    for place, points in enumerate(values.values()):
        found = mean_interval(points)
        colour = KNOWN if found.low > 0 else UNKNOWN if found.high < 0 else MUTED
        axes.plot([found.low, found.high], [place, place], color=colour, linewidth=5, alpha=0.45, solid_capstyle="butt")
        axes.scatter(points, np.full(len(points), place), color=colour, s=14, zorder=2)
        axes.plot(found.value, place, "|", color=MODEL, markersize=12, markeredgewidth=2, zorder=3)
    axes.axvline(0, color=MODEL, linewidth=1)
    axes.set(yticks=range(len(values)), yticklabels=list(values), ylim=(len(values) - 0.5, -0.5))


class ChosenNetwork:
    """What every way to answer gains over one look on one kind of first network, by level.

    Made for `tutorial_lib.explore.explore`: called with the name of a first network it gives a figure and the sentence
    that says what is to be seen.

    Args:
        gains: see `Gains`; the highest level is what the sentence speaks of.
    """

    def __init__(self, gains: Gains) -> None:
        self.gains = gains
        every = [
            end
            for looks in gains.values()
            for levels in looks.values()
            for values in levels.values()
            for end in _ends(values)
        ]
        room = 0.05 * (max(every) - min(every))
        self.limits = (min(every) - room, max(every) + room)

    def __call__(self, first: str) -> tuple[Figure, str]:
        looks = self.gains[first]
        figure, axes = plt.subplots(figsize=(WIDTH, 3.9))
        axes.axhline(0, color=MUTED, linewidth=1)
        words = []
        for number, ((colour, marker), (name, levels)) in enumerate(zip(LOOKS, looks.items(), strict=False)):
            at = np.array(list(levels)) + 0.09 * (number - 1.5)  # side by side, or the bars hide each other
            values = np.array([np.mean(points) for points in levels.values()])
            reach = np.array([_ends(points)[1] for points in levels.values()])
            axes.errorbar(
                at, values, reach - values, color=colour, marker=marker, markersize=5, label=name, elinewidth=1
            )
            words.append(f"{name} {values[-1]:+.1f}")
        axes.set(ylim=self.limits, xlabel="level of corruption", ylabel="gain in accuracy (points)")
        axes.set_title(textwrap.fill(f"First network: {first}", 60))
        axes.set_xticks(list(levels), ["clean" if level == 0 else str(level) for level in levels])
        axes.legend(loc="lower left", fontsize=10)
        return figure, f"On top of {first}, at level {list(levels)[-1]}: " + "; ".join(words) + " percentage points."


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Of the 95 % interval of the mean; of a single value, itself."""
    if len(values) < 2:
        return values[0], values[0]
    found = mean_interval(values)
    return found.low, found.high
