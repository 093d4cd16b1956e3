"""What the pictures of several chapters share, and the rules that every module of this package keeps.

* One module per chapter, named as the chapter. What two chapters draw stands here and is imported into both, so that a
  chapter needs one module.
* A function whose name says *what is shown* (``queue``, ``by_class``) returns a new Figure. A function whose name begins
  with ``draw_`` draws into the axes that it is given first, and returns no Figure. A class is for
  :func:`tutorial_lib.explore.explore`: called with one value of each slider, it returns a Figure and the sentence that says
  what is to be seen.
* Numbers come in, ink goes out. Scores, rates and intervals are computed on the floors below; a figure decides only where
  they stand.
* The look is that of :mod:`tutorial_lib.plots`: what is known is blue, what is strange is orange, the model is black.
  Scores are larger for stranger images, so strangers belong on the right. A title is a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom
from torch import Tensor

from tutorial_lib.calibration.bins import ReliabilityBins, Scheme, reliability_bins
from tutorial_lib.metrics import fpr_at_tpr
from tutorial_lib.plots import (
    DIVERGING,
    HATCHES,
    KNOWN,
    MARKERS,
    MODEL,
    MUTED,
    PALETTE,
    UNKNOWN,
    WIDTH,
    image_pixels,
    label_line,
)

LARGEST_DOT = 130.0
"""Area in square points of a dot that holds half of the predictions or more."""

BARS = 24
"""Bars of the histograms over a queue."""

PRINTED = {
    "svhn": "SVHN",
    "tiny_imagenet": "Tiny ImageNet",
    "mnist": "MNIST",
    "fashion_mnist": "Fashion-MNIST",
    "notmnist": "notMNIST",
    "cifar10": "CIFAR-10",
}
"""Image sets that have a name of their own."""


def words(name: str) -> str:
    """The name of an image set, of a corruption or of a method, for readers.

    >>> words("temple_roofs"), words("svhn")
    ('temple roofs', 'SVHN')
    """
    return PRINTED.get(name, name.replace("_", " "))


# ----------------------------------------------------------------------------------------------------------------------
# Known images and strangers in one queue


def queue(
    images: Tensor | Sequence[Tensor],
    scores: ArrayLike,
    strange: Sequence[bool],
    known: ArrayLike,
    unknown: ArrayLike,
    title: str,
    below: Mapping[str, Tensor] | None = None,
    ends: tuple[str, str] = ("← normal", "strange →"),
    *,
    answers: Sequence[str] | None = None,
    names: tuple[str, str] = ("normal", "strange"),
    accepted: float | None = None,
) -> Figure:
    """A few images in person in the order of a score, and below them all known and all strange ones as histograms.

    Args:
        images: the few, (n, C, H, W) or n of (C, H, W); ``uint8``, or float and then clipped to [0, 1].
        scores: theirs (n,), larger = stranger.
        strange: which of them are.
        known, unknown: scores of all known images (N,) and of all strange ones (M,).
        title: one sentence.
        below: further images (n, C, H, W) for a row each, by name; say, reconstructions.
        ends: what to write at the two ends of the queue.
        answers: n short texts to write under the images; say, what the network calls each.
        names: what the known and the strange images are called.
        accepted: share of the known images that a gate lets pass, in (0, 1]; None draws no gate.
    """
    order = np.argsort(np.asarray(scores, dtype=np.float64), kind="stable").tolist()
    rows: dict[str, Tensor | Sequence[Tensor]] = {"": images, **(below or {})}
    # Placed by hand, in inches: the picture stays still when a number grows, and is drawn in a third of the time.
    left = 0.12 if below is None else 0.8
    cell = (WIDTH - left - 0.12) / len(order)
    high = min(cell, 0.8) * images[0].shape[-2] / images[0].shape[-1]
    line = 0.2  # of text
    top = 0.16 + line * (title.count("\n") + 1)
    under = 0.0 if answers is None else 0.08 + line * max(answer.count("\n") + 1 for answer in answers)
    height = top + high * len(rows) + under + 2.45
    figure = plt.figure(figsize=(WIDTH, height), layout="none")
    figure.text(0.02, 1 - 0.08 / height, title, fontsize=13, va="top")
    for number, (name, pictures) in enumerate(rows.items()):
        lower = height - top - high * (number + 1)
        strip = figure.add_axes((left / WIDTH, lower / height, cell * len(order) / WIDTH, high / height))
        chosen = [pictures[n] for n in order]
        _draw_strip(strip, chosen, [UNKNOWN if strange[n] else KNOWN for n in order], min(cell, 0.8) / cell)
        strip.set_ylabel(name, rotation=0, ha="right", va="center")
    if answers is not None:
        strip.set_xticks(np.arange(len(order)) + 0.5, [answers[n] for n in order], fontsize=11)
    axes = figure.add_axes((0.02, 0.32 / height, 0.96, 2.0 / height))
    draw_queue(axes, known, unknown, names, accepted)
    name_ends(axes, *ends)
    return figure


def draw_queue(
    axes: Axes,
    known: ArrayLike,
    strange: ArrayLike,
    names: tuple[str, str] | None = None,
    accepted: float | None = None,
) -> None:
    """Histograms over one queue, sorted by score: known images upwards, strangers downwards.

    Both groups weigh the same, however many images they have, and images with equal scores share their stretch of the
    queue: what a score cannot tell apart is not drawn apart. A bar of full height is a stretch with only one kind, so
    the two bars of a stretch are always as long as one full bar together. Only the order of the scores counts.

    Args:
        axes: where to draw.
        known, strange: scores (N,) and (M,), larger = stranger.
        names: what the known and the strange images are called; they are written with their numbers. None: nothing is.
        accepted: share of the known images that a gate lets pass, in (0, 1]: the gate is marked, and what it catches.
    """
    known, strange = np.asarray(known, dtype=np.float64), np.asarray(strange, dtype=np.float64)
    edges = np.linspace(0, 1, BARS + 1)
    for share, colour, side in zip(_shares(known, strange, edges), (KNOWN, UNKNOWN), (1, -1), strict=True):
        axes.bar(
            edges[:-1], side * share, 1 / BARS, align="edge", color=colour, hatch=HATCHES[colour], edgecolor="white"
        )
    axes.axhline(0, color=MODEL, linewidth=1)
    axes.set(xlim=(0, 1), ylim=(-1.45, 1.45), xticks=[], yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    if names is not None:
        label_line(axes, 0.02, 1.25, f"{len(known)} {names[0]}", KNOWN)
        label_line(axes, 0.02, -1.25, f"{len(strange)} {names[1]}", UNKNOWN)
    if accepted is not None:
        passed = fpr_at_tpr(known, strange, accepted)
        gate = np.quantile(known, accepted, method="inverted_cdf")
        at = float(((known <= gate).mean() + (strange <= gate).mean()) / 2)  # both groups weigh one half
        axes.axvspan(at, 1, color=MUTED, alpha=0.16, linewidth=0, zorder=0)
        axes.axvline(at, color=MODEL, linewidth=1.2)
        for height, text in ((1.25, f"{accepted:.0%} accepted"), (-1.25, f"{1 - passed:.0%} caught")):
            left = at > (0.5 if height > 0 else 0.8)  # of the line, as long as there is room
            label_line(axes, at - 0.012 if left else at + 0.012, height, text, MODEL, ha="right" if left else "left")


def places(known: ArrayLike, strange: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where each image stands in the queue of :func:`draw_queue`: 0 the least strange, 1 the strangest.

    Images with equal scores stand in the middle of their stretch.

    Args:
        known, strange: scores (N,) and (M,), larger = stranger.

    Returns:
        Places of the known images (N,) and of the strange ones (M,), in (0, 1).

    >>> places([1.0, 2.0], [2.0, 9.0])
    (array([0.125, 0.5  ]), array([0.5  , 0.875]))
    """
    group, known_weight, strange_weight = _weights(known, strange)
    weight = known_weight + strange_weight
    place = (weight.cumsum() - weight / 2)[group]
    count = len(np.asarray(known))
    return place[:count], place[count:]


def _weights(known: ArrayLike, strange: ArrayLike) -> tuple[NDArray[np.intp], NDArray, NDArray]:
    """For all N + M scores the index among the different ones, and at each of these the weight of either group."""
    scores = np.concatenate([np.asarray(known, dtype=np.float64), np.asarray(strange, dtype=np.float64)])
    count = len(np.asarray(known))
    different, group = np.unique(scores, return_inverse=True)
    known_weight = np.bincount(group[:count], minlength=len(different)) / (2 * count)
    strange_weight = np.bincount(group[count:], minlength=len(different)) / (2 * (len(scores) - count))
    return group, known_weight, strange_weight


def _shares(known: ArrayLike, strange: ArrayLike, edges: NDArray) -> tuple[NDArray, NDArray]:
    """The share of either group in each stretch of the queue; the two add up to one."""
    _, known_weight, strange_weight = _weights(known, strange)
    ends = np.r_[0, (known_weight + strange_weight).cumsum()]  # of the stretch of each score
    up, down = (
        np.diff(np.interp(edges, ends, np.r_[0, weight.cumsum()])) / np.diff(edges)
        for weight in (known_weight, strange_weight)
    )
    return up, down


def _draw_strip(axes: Axes, images: Sequence[Tensor], colours: Sequence[str], side: float) -> None:
    """Images in a row, each in a frame of its colour and ``side`` cells wide."""
    for number, (image, colour) in enumerate(zip(images, colours, strict=True)):
        pixels = image_pixels(image.clamp(0, 1) if image.is_floating_point() else image)
        low, high = number + 0.5 - 0.43 * side, number + 0.5 + 0.43 * side
        axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, aspect="auto", extent=(low, high, 0.07, 0.93))
        axes.add_patch(Rectangle((low, 0.07), high - low, 0.86, fill=False, edgecolor=colour, linewidth=3))
    axes.set(xlim=(0, len(images)), ylim=(0, 1), xticks=[], yticks=[])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)


# ----------------------------------------------------------------------------------------------------------------------
# AUROC


def by_class(
    values: Mapping[str, Mapping[str, float | Sequence[float]]], title: str, empty: Sequence[str] = ()
) -> Figure:
    """AUROC of several methods for each normal class: one row a class, one marker a method.

    Args:
        values: for each method, its AUROC by class; where several seeds are given, their range is drawn and the mean
            marked. A class that a method lacks stays empty.
        title: one sentence.
        empty: methods drawn with hollow markers (published ones, say).
    """
    classes = max((list(of) for of in values.values()), key=len)
    colours = (MODEL, *PALETTE[2:])
    figure, axes = plt.subplots(figsize=(WIDTH, 1.1 + 0.36 * len(classes) + 0.25 * ((len(values) + 1) // 2)))
    for place, (method, of) in enumerate(values.items()):
        colour, marker = colours[place % len(colours)], "osD^vPX"[place % 7]
        face = "white" if method in empty else colour
        for row, name in enumerate(classes):
            if name not in of:
                continue
            y, found = row + 0.5 * ((place + 0.5) / len(values) - 0.5), np.atleast_1d(of[name])
            axes.plot([found.min(), found.max()], [y, y], color=colour, linewidth=1.5, alpha=0.6)
            axes.plot(
                found.mean(), y, marker, color=colour, markerfacecolor=face, markersize=7, mew=1.4,
                label=method if name == next(iter(of)) else None,
            )  # fmt: skip
    axes.axvline(0.5, color=MUTED, linestyle="dashed", linewidth=1)
    axes.set(ylim=(len(classes) - 0.4, -0.6), yticks=range(len(classes)), title=title, xlabel="AUROC")
    axes.set_yticklabels(classes)
    figure.legend(loc="outside lower center", ncols=2, columnspacing=1.2)
    return figure


def against(panels: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]], across: str) -> Figure:
    """Two AUROCs of each class against each other, one panel a pair; the diagonal is "the same".

    Args:
        panels: for each title, AUROC by class for the horizontal and for the vertical axis.
        across: what the horizontal axis is.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.9), sharex=True, sharey=True, squeeze=False)
    every = [v for pair in panels.values() for of in pair for v in of.values()]
    low, high = min(every) - 0.05, max(every) + 0.08
    for axis, (title, (x, y)) in zip(axes[0], panels.items(), strict=True):
        axis.plot([low, high], [low, high], color=MUTED, linewidth=1)
        axis.axhline(0.5, color=MUTED, linestyle="dashed", linewidth=0.8)
        axis.axvline(0.5, color=MUTED, linestyle="dashed", linewidth=0.8)
        axis.plot([x[name] for name in y], [y[name] for name in y], MARKERS[MODEL], color=MODEL, markersize=4.5)
        _name_points(axis, x, y, gap=0.024 * (high - low) * len(panels))
        axis.set(title=title, aspect="equal", xlim=(low, high), ylim=(low, high))
        axis.title.set_fontsize(12)
    axes[0, 0].set_ylabel("AUROC")
    figure.supxlabel(across, fontsize=12)
    return figure


def _name_points(axis: Axes, x: Mapping[str, float], y: Mapping[str, float], gap: float) -> None:
    """Names to the left of the points in the right half and to the right of the others; no two on top of each other."""
    middle = float(np.mean(axis.get_xlim()))
    for left in (True, False):
        names = [name for name in y if (x[name] > middle) == left]
        shift, side = (-0.02, "right") if left else (0.02, "left")
        for name, height in zip(names, apart([y[name] for name in names], gap), strict=True):
            axis.text(x[name] + shift, height, name, ha=side, va="center", fontsize=9.5)


def draw_table(
    axes: Axes, values: ArrayLike, rows: Sequence[str], title: str, framed: NDArray[np.bool_] | None = None
) -> None:
    """AUROC as a table of colours: orange above one half, violet below, the value written into each cell.

    Args:
        axes: where to draw; the columns are named by the caller.
        values: (R, C) in [0, 1].
        rows: R names.
        title: above it.
        framed: (R, C), which values are to stand out, in bold and in a frame.
    """
    cells = np.asarray(values, dtype=np.float64)
    axes.imshow(cells, cmap=DIVERGING, vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(cells):
        text = f"{value:.2f}".removeprefix("0") if value < 0.995 else "1"
        colour = "white" if abs(value - 0.5) > 0.32 else MODEL
        won = framed is not None and bool(framed[i, j])
        weight = "bold" if won else "normal"
        axes.text(j, i, text, ha="center", va="center", fontsize=11, fontweight=weight, color=colour)
        if won:
            axes.add_patch(Rectangle((j - 0.46, i - 0.42), 0.92, 0.84, fill=False, edgecolor=MODEL, linewidth=1.8))
    axes.set(yticks=range(len(rows)), yticklabels=list(rows), xticks=[])
    axes.set_title(title, fontsize=12, x=0)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


# ----------------------------------------------------------------------------------------------------------------------
# Small parts


def draw_signed(axes: Axes, values: Tensor, reach: float) -> None:
    """A map (H, W) of signed numbers, from violet (``-reach``) over white to orange (``reach``)."""
    axes.imshow(values.numpy(), cmap=DIVERGING, vmin=-reach, vmax=reach, interpolation="none")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=MUTED, linewidth=0.8)


def draw_residuals(axes: Axes, points: Tensor, reconstructions: Tensor, colour: str) -> None:
    """A thin line from each point (n, 2) of the plane to its reconstruction (n, 2)."""
    for start, end in zip(points.tolist(), reconstructions.tolist(), strict=True):
        axes.plot(*zip(start, end, strict=True), color=colour, linewidth=0.7, alpha=0.7)


def name_ends(axes: Axes, first: str, last: str, at: float = 1) -> None:
    """Words at both ends of the horizontal axis, inside the picture."""
    axes.set_xticks([0, at], [first, last])
    for label, side in zip(axes.get_xticklabels(), ("left", "right"), strict=True):
        label.set(horizontalalignment=side)


def apart(heights: ArrayLike, gap: float) -> NDArray[np.float64]:
    """Heights of labels, moved until no two are closer than ``gap``, in the same order.

    >>> apart([0.0, 0.0, 9.0], gap=1.0)
    array([-0.5,  0.5,  9. ])
    """
    wanted = np.asarray(heights, dtype=np.float64)
    order = np.argsort(wanted, kind="stable")
    placed = wanted[order]
    for _ in range(500):
        overlap = np.clip(gap - np.diff(placed), 0, None) / 2
        if not overlap.any():
            break
        placed[:-1] -= overlap
        placed[1:] += overlap
    moved = np.empty_like(placed)
    moved[order] = placed
    return moved


def draw_reliability(
    axes: Axes, predictions: Any, outcomes: Any, bins: int = 15, scheme: Scheme = "width", chance: float = 0.95
) -> ReliabilityBins:
    """Draw accuracy against confidence, one dot for each bin that is not empty, after Guo et al., ICML 2017, figure 1.

    A dot's area is its share of the predictions (up to one half), its distance from the diagonal is the gap: an orange
    line where the network promises too much, a blue one where it promises too little. The grey bar behind it is where
    the dot would lie, with probability ``chance``, if the bin were calibrated: the binomial quantiles of Bröcker and
    Smith, Weather and Forecasting 2007.

    Args:
        axes: where to draw; gets both limits and both labels.
        predictions, outcomes, bins, scheme: see `reliability_bins`.
        chance: probability that the grey bars hold, in (0, 1).

    Returns:
        What is drawn, see `ReliabilityBins`.
    """
    if not 0 < chance < 1:
        raise ValueError(f"chance must lie strictly between 0 and 1, got {chance}")
    table = reliability_bins(predictions, outcomes, bins, scheme)
    full = table.count > 0
    count, confidence, accuracy = table.count[full], table.confidence[full], table.accuracy[full]
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, zorder=1)
    low, high = (binom.ppf(tail, count, confidence) / count for tail in ((1 - chance) / 2, (1 + chance) / 2))
    axes.vlines(confidence, low, high, color="#d9d9d9", linewidth=7, zorder=0)
    colours = np.where(accuracy < confidence, UNKNOWN, KNOWN)
    axes.vlines(confidence, accuracy, confidence, color=colours, linewidth=2.5, zorder=2)
    axes.scatter(
        confidence,
        accuracy,
        s=np.minimum(2 * table.weight[full], 1) * LARGEST_DOT + 9,
        color=MODEL,
        zorder=3,
        clip_on=False,
    )
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="confidence", ylabel="accuracy", aspect="equal")
    return table


def draw_dots(axes: Axes, values: Mapping[str, Sequence[float]], colours: Mapping[str, str] | None = None) -> None:
    """A row a method, a dot a seed, and a bar at the mean; the first row at the top.

    Args:
        axes: where to draw.
        values: one number a seed, by the name of the row.
        colours: of a row; black where none is given.
    """
    for row, (name, found) in enumerate(values.items()):
        colour = (colours or {}).get(name, MODEL)
        marker = MARKERS.get(colour, "D")
        axes.scatter(found, [row] * len(found), s=22, color=colour, alpha=0.6, marker=marker)
        axes.plot([np.mean(found)] * 2, [row - 0.3, row + 0.3], color=colour, lw=2.5)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.grid(axis="x", color="#dddddd", lw=0.8)
    axes.set_axisbelow(True)
