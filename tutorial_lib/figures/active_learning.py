"""Drawings of chapter 14: where a strategy asks, what the answers were worth, and whether it was luck."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from tutorial_lib.metrics import Interval
from tutorial_lib.plots import KNOWN, MODEL, MODEL_UNCERTAINTY, MUTED, PALETTE, UNKNOWN, WIDTH

__all__ = ["BY_TEST", "Asked", "Rounds", "draw_asked", "draw_intervals", "draw_lead", "draw_seeds"]

_CLASSES = "osD"
"""Marker of each class of the points."""
_LINES = ((UNKNOWN, "^"), (KNOWN, "o"), (PALETTE[4], "v"), (MODEL_UNCERTAINTY, "D"), (MODEL, "s"))


BY_LOOK = ((MODEL, "D"), (MODEL_UNCERTAINTY, "s"), (MUTED, "v"))
"""Colour and marker of each kind of second look."""
BY_TEST = ((KNOWN, "o"), (UNKNOWN, "^"))
"""Of clean images, and of noisy ones."""


@dataclass(frozen=True)
class Asked:
    """One round in the plane.

    Args:
        labelled: places in the pool that have a label.
        asked: places that will get one next; none after the last round.
        utility: what a point at each place of the square would be worth (side, side), larger = ask; None for a strategy
            that does not look.
        accuracy: of the network of this round, in [0, 1].
    """

    labelled: Sequence[int]
    asked: Sequence[int]
    utility: ArrayLike | None
    accuracy: float


def draw_asked(axes: Axes, points: ArrayLike, classes: Sequence[int], now: Asked, title: str = "") -> None:
    """The pool in grey, the labelled points in blue by class, those that are asked for next as orange triangles.

    Args:
        axes: where to draw.
        points: all of the pool, (N, 2) in [0, 1].
        classes: theirs (N,); only those of labelled points are shown.
        now: the round.
        title: a few words above.
    """
    at, kinds = np.asarray(points), np.asarray(classes)
    if now.utility is not None:
        shade = np.asarray(now.utility, dtype=np.float64)
        along = np.linspace(0, 1, len(shade))
        axes.contourf(along, along, shade, levels=6, cmap="Greys", alpha=0.5, zorder=0)
    axes.scatter(at[:, 0], at[:, 1], s=5, color=MUTED, zorder=1)
    labelled = np.asarray(now.labelled, dtype=int)
    for kind, marker in enumerate(_CLASSES):
        those = labelled[kinds[labelled] == kind]
        axes.scatter(at[those, 0], at[those, 1], s=30, marker=marker, color=KNOWN, edgecolor="white", lw=0.7, zorder=3)
    asked = np.asarray(now.asked, dtype=int)
    axes.scatter(at[asked, 0], at[asked, 1], s=46, marker="^", color=UNKNOWN, edgecolor="white", lw=0.7, zorder=4)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], aspect="equal")
    axes.set_title(title, fontsize=11, loc="center")


@dataclass(frozen=True)
class Rounds:
    """A strategy and its random twin side by side, round by round; for `tutorial_lib.explore.explore`.

    Args:
        points: the pool (N, 2).
        classes: (N,).
        runs: the rounds of each strategy, by the name that readers see.
        twin: the rounds of the random twin.
    """

    points: ArrayLike
    classes: Sequence[int]
    runs: Mapping[str, Sequence[Asked]]
    twin: Sequence[Asked]

    def __call__(self, strategy: str, number: int) -> tuple[Figure, str]:
        """One round, counted from 1."""
        figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.5))
        words = []
        for panel, name, rounds in zip(axes, (strategy, "random twin"), (self.runs[strategy], self.twin), strict=True):
            now = rounds[number - 1]
            title = f"{name}: {now.accuracy:.0%} right"
            draw_asked(panel, self.points, self.classes, now, title)
            words.append(f"{name} {now.accuracy:.0%} right")
        return figure, f"Round {number}, {len(now.labelled)} labels: {', '.join(words)}."


def draw_seeds(axes: Axes, differences: Mapping[str, Sequence[float]]) -> None:
    """A row per strategy, a dot per seed: its difference to the random twin, in points; a bar at the mean.

    Args:
        axes: where to draw.
        differences: fractions, by the name of the row; the first row at the top.
    """
    for row, values in enumerate(differences.values()):
        points = 100 * np.asarray(values)
        colours = np.where(points < 0, UNKNOWN, KNOWN)
        spread = np.linspace(-0.22, 0.22, len(points))
        axes.scatter(points, row + spread, s=16, c=colours, alpha=0.8, zorder=2)
        axes.plot([points.mean()] * 2, [row - 0.35, row + 0.35], color=MODEL, lw=2.2, zorder=3)
    axes.axvline(0, color=MUTED, lw=1)
    axes.set_yticks(range(len(differences)), list(differences))
    axes.set(ylim=(len(differences) - 0.5, -0.5), xlabel="difference to the random twin (points)")


def draw_lead(axes: Axes, labelled: Sequence[int], leads: Mapping[str, Sequence[Interval]]) -> None:
    """Difference to the random twin against the number of labels, a line per strategy, with intervals.

    Args:
        axes: where to draw.
        labelled: number of labels of each round (R,).
        leads: R intervals, fractions, by the name of the strategy.
    """
    at = np.asarray(labelled, dtype=float)
    step = 0.06 * np.diff(at).min()
    axes.axhline(0, color=MUTED, lw=1)
    for place, ((colour, marker), (name, intervals)) in enumerate(zip(_LINES, leads.items(), strict=False)):
        x = at + step * (place - (len(leads) - 1) / 2)  # side by side, so that no bar hides another
        mean = np.array([100 * interval.value for interval in intervals])
        half = np.array([100 * (interval.high - interval.value) for interval in intervals])
        axes.errorbar(x, mean, half, color=colour, marker=marker, ms=5, lw=1.4, elinewidth=1, label=name)
    axes.set(xlabel="labels", xticks=list(labelled), ylabel="lead (points)")


def draw_intervals(
    axes: Axes,
    intervals: Mapping[str, Mapping[str, Interval]],
    published: Mapping[str, Sequence[float]] | None = None,
    looks: Sequence[tuple[str, str]] = BY_LOOK,
) -> None:
    """Published numbers as hollow marks above ours with intervals, several of ours below each other in a row.

    Args:
        axes: where to draw.
        intervals: for each kind of ours, fractions by the name of the row; drawn in points, the first row at the top.
        published: likewise, for the rows that have them.
        looks: colour and marker of each kind.
    """
    names = list(next(iter(intervals.values())))
    for place, ((label, found), (colour, marker)) in enumerate(zip(intervals.items(), looks, strict=False)):
        mean = np.array([100 * found[name].value for name in names])
        half = np.array([100 * (found[name].high - found[name].value) for name in names])
        rows = np.arange(len(names)) + 0.22 * place
        axes.errorbar(mean, rows, xerr=half, fmt=marker, color=colour, ms=5, elinewidth=1.8, label=label)
    printed = [(100 * value, row - 0.24) for row, name in enumerate(names) for value in (published or {}).get(name, ())]
    at = np.array(printed).reshape(-1, 2)
    if published is not None:
        axes.plot(at[:, 0], at[:, 1], "o", mfc="white", mec=UNKNOWN, mew=1.6, ms=6, label="published")
    axes.axvline(0, color=MUTED, lw=1, zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.3, -0.6))
