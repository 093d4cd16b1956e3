"""Drawings of chapter 12: what a second answer gains over the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tutorial_lib.figures.common import draw_reliability
from tutorial_lib.plots import KNOWN, MODEL, MODEL_UNCERTAINTY, MUTED, UNKNOWN, WIDTH

__all__ = ["differences", "draw_gains", "draw_reliability"]

_LOOKS = ((UNKNOWN, "s"), (MODEL, "o"), (MODEL_UNCERTAINTY, "^"), (KNOWN, "D"))


def draw_gains(axes: Axes, levels: Sequence[int], gains: Mapping[str, Sequence[float]]) -> None:
    """Accuracy gained over one look, percentage points, a line per way to answer.

    Args:
        axes: where to draw.
        levels: of corruption, 0 for clean images.
        gains: by name, one number per level.
    """
    axes.axhline(0, color=MUTED, linewidth=1)
    for (colour, marker), (name, values) in zip(_LOOKS, gains.items(), strict=False):
        axes.plot(levels, values, color=colour, marker=marker, label=name)
    axes.set(xlabel="level of corruption", xticks=list(levels), ylabel="gain in accuracy (points)")
    axes.legend(loc="upper left")


def differences(values: Mapping[str, Sequence[float]], title: str) -> Figure:
    """Differences of accuracy, a row per method, a dot per first network and a bar at their mean.

    Args:
        values: by method, fractions; drawn in percentage points.
        title: what is to be seen.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 0.36 * len(values) + 1.2))
    for row, points in enumerate(values.values()):
        inside = 100 * np.asarray(points)
        colour = UNKNOWN if inside.mean() < 0 else KNOWN
        axes.scatter(inside, np.full(len(inside), row), color=colour, s=18, alpha=0.8, zorder=2)
        axes.plot([inside.mean()] * 2, [row - 0.3, row + 0.3], color=MODEL, linewidth=2, zorder=3)
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.set(yticks=range(len(values)), yticklabels=list(values), xlabel="difference in accuracy (points)", title=title)
    axes.invert_yaxis()
    return figure
