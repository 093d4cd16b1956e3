"""Pictures of chapter 3: a score over the plane, three kinds in one histogram, what a few points are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor

from tutorial_lib.figures.common import draw_dots, words
from tutorial_lib.figures.ensembles import COLOURS
from tutorial_lib.plots import KNOWN, MODEL, SEQUENTIAL, UNKNOWN, label_line

__all__ = ["draw_by_kind", "draw_dots", "draw_kinds", "draw_plane", "draw_points_needed"]

_HATCHES = {"known": "", "ambiguous": "...", "photographs": "///"}


def draw_plane(axes: Axes, values: Tensor, known: Tensor, foreign: Tensor, title: str) -> None:
    """A score over `tutorial_lib.uncertainty.moons.plane`, dark for familiar and bright for strange, from its least to its largest value.

    Args:
        axes: where to draw.
        values: (side²,), larger = stranger.
        known, foreign: points (n, 2) to draw on it.
        title: what the picture says.
    """
    side = round(len(values) ** 0.5)
    axes.imshow(values.reshape(side, side), origin="lower", extent=(-3, 4, -3.5, 3.5), cmap=SEQUENTIAL, aspect="equal")
    axes.scatter(known[:, 0], known[:, 1], s=3, color="white", lw=0)
    axes.scatter(foreign[:, 0], foreign[:, 1], s=5, color=UNKNOWN, marker="^", lw=0)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=11)


def draw_kinds(axes: Axes, scores: Mapping[str, ArrayLike], label: str, bins: int = 40) -> None:
    """Histograms of one score, a kind of image each, on one axis; the share of each kind in a bin.

    Args:
        axes: where to draw.
        scores: (N,) by the kind: ``known``, ``ambiguous``, ``photographs``.
        label: of the axis.
        bins: over the range of all.
    """
    everything = np.concatenate([np.asarray(values) for values in scores.values()])
    edges = np.linspace(everything.min(), np.quantile(everything, 0.995), bins + 1)
    for kind, given in scores.items():
        values = np.clip(np.asarray(given), edges[0], edges[-1])
        weights = np.full(len(values), 1 / len(values))
        look: dict[str, Any] = {"color": COLOURS[kind], "alpha": 0.6, "hatch": _HATCHES[kind], "edgecolor": "white"}
        axes.hist(values, edges.tolist(), weights=weights, label=kind, **look)
    axes.set(xlabel=label, ylabel="share of them")


def draw_points_needed(
    axes: Axes, counts: Sequence[int], lines: Mapping[str, ArrayLike], chosen: int, lowest: float = 0.5
) -> None:
    """AUROC of a density against the images a class that it was fitted to, one line a covariance, mean over seeds.

    Args:
        axes: where to draw.
        counts: (S,) images a class.
        lines: (seeds, S) by the name of the covariance.
        chosen: the count that is marked.
        lowest: of the axis.
    """
    styles = {"counted": (UNKNOWN, "^", "--"), "shrunk": (KNOWN, "o", "-"), "tied": (MODEL, "s", ":")}
    at = list(counts).index(chosen)
    for name, values in lines.items():
        colour, marker, style = styles[name]
        means = np.atleast_2d(np.asarray(values, dtype=float)).mean(0)
        axes.plot(counts, means, color=colour, marker=marker, ls=style, ms=4)
        axes.plot(chosen, means[at], marker=marker, color=colour, ms=11)
    axes.axvline(chosen, color="#bbbbbb", lw=1, zorder=0)
    axes.set_xscale("log")
    axes.set_xticks(list(counts), [str(count) for count in counts])
    axes.minorticks_off()
    axes.set(xlabel="training images of each class", ylabel="AUROC", ylim=(lowest, 1.02))
    for row, name in enumerate(lines):
        label_line(axes, counts[-1], lowest + 0.06 + 0.07 * row, name, styles[name][0], ha="right")


def draw_by_kind(axes: Axes, told: Mapping[str, Sequence[float]], label: str, colour: str, marker: str) -> None:
    """A row for each kind of stranger, a mark for each seed.

    Args:
        axes: where to draw; several scores may share them, if they tell the same kinds.
        told: by the name of the kind, AUROC of each seed; the first at the top.
        label, colour, marker: of the score.
    """
    for row, values in enumerate(told.values()):
        axes.plot(values, [row] * len(values), marker, color=colour, alpha=0.8)
    axes.plot([], [], marker, color=colour, label=label)
    axes.set_yticks(range(len(told)), [words(kind) for kind in told])
    axes.set_ylim(len(told) - 0.5, -0.5)
