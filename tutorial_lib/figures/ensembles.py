"""Pictures of chapter 2: bands around a curve, answers in a triangle, the two kinds apart, what members buy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

from tutorial_lib.figures.common import draw_dots
from tutorial_lib.plots import DATA_UNCERTAINTY, KNOWN, MODEL, MODEL_UNCERTAINTY, MUTED, UNKNOWN

__all__ = ["COLOURS", "draw_band", "draw_dots", "draw_simplex", "draw_trade"]

COLOURS = {"known": KNOWN, "ambiguous": DATA_UNCERTAINTY, "photographs": UNKNOWN}
"""Of the three kinds of image, in both chapters."""


def draw_band(axes: Axes, x: Tensor, mean: Tensor, std: Tensor, points: tuple[Tensor, Tensor]) -> None:
    """A mean with three standard deviations around it, the points it was learned from, and the cubic.

    Args:
        axes: where to draw.
        x: (N, 1).
        mean, std: (N,).
        points: x and y of the training points.
    """
    axes.fill_between(x[:, 0], mean - 3 * std, mean + 3 * std, color=MODEL_UNCERTAINTY, alpha=0.25, lw=0)
    axes.plot(x, x**3, color=MUTED, ls="--", lw=1.5)
    axes.plot(x, mean, color=MODEL, lw=1.8)
    axes.scatter(*points, s=16, color=KNOWN, zorder=3)
    axes.set(xlim=(-6, 6), ylim=(-200, 200))


def draw_simplex(axes: Axes, members: ArrayLike, names: Sequence[str], title: str, colour: str = MODEL) -> None:
    """Answers of the members over three classes, a dot each, in a triangle whose corners are the sure answers.

    Args:
        axes: where to draw.
        members: (M, 3), each row adds up to one.
        names: of the classes.
        title: a few words above.
        colour: of the dots.
    """
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]])
    outline = np.vstack([corners, corners[:1]])
    axes.plot(*outline.T, color=MUTED, lw=1.2)
    at = np.asarray(members) @ corners
    axes.scatter(at[:, 0], at[:, 1], s=42, color=colour, alpha=0.65, edgecolor="white", zorder=3, clip_on=False)
    cross = at.mean(0)
    axes.scatter(cross[0], cross[1], marker="x", s=70, color=MODEL, zorder=4, clip_on=False)
    for (x, y), name, ha, shift in zip(corners, names, ("right", "left", "center"), (-0.09, -0.09, 0.1), strict=True):
        axes.text(x, y + shift, name, ha=ha, va="center", fontsize=11)
    axes.set(xlim=(-0.15, 1.15), ylim=(-0.2, 1.05), aspect="equal")
    axes.axis("off")
    axes.set_title(title, loc="center", fontsize=11)


def draw_trade(axes: Axes, sizes: Sequence[int], by_seed: ArrayLike, chosen: int, colour: str, label: str) -> None:
    """One number against the number of members: a thin line a seed, their mean, and a mark at the chosen size.

    Args:
        axes: where to draw.
        sizes: (S,) numbers of members.
        by_seed: (seeds, S).
        chosen: one of the sizes.
        colour: of the lines.
        label: of the axis.
    """
    lines = np.atleast_2d(np.asarray(by_seed, dtype=float))
    axes.plot(sizes, lines.T, color=colour, lw=0.8, alpha=0.4)
    mean = lines.mean(0)
    axes.plot(sizes, mean, color=colour, lw=2.2)
    at = list(sizes).index(chosen)
    axes.plot(chosen, mean[at], "o", ms=9, color=colour)
    words = f"{mean[at]:.3f}"
    axes.text(0.97, 0.5, words, color=colour, fontsize=13, fontweight="bold", transform=axes.transAxes, ha="right")
    axes.set(xlabel="members", ylabel=label, xticks=list(sizes))
