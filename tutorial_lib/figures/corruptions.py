"""Pictures of chapter 10: a gallery with a level to slide, lines over levels, dots beside dots."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from tutorial_lib.figures.common import apart, words
from tutorial_lib.plots import KNOWN, MODEL, MUTED, PALETTE, UNKNOWN, WIDTH, label_line, show_image

__all__ = ["GalleryPicture", "draw_dots", "draw_levels", "draw_over_levels"]


class GalleryPicture:
    """The same image under every corruption, at one level.

    Made for `tutorial_lib.explore.explore`: calling it with a level gives a figure and the sentence that says what is to
    be seen.

    Args:
        images: for each level, one image (C, H, W) a corruption.
        answers: for each level, what the network says of each.
        right: for each level, whether that is right.
        names: of the corruptions.
    """

    def __init__(
        self,
        images: Mapping[int, Tensor],
        answers: Mapping[int, Sequence[str]],
        right: Mapping[int, Sequence[bool]],
        names: Sequence[str],
    ) -> None:
        self.images, self.answers, self.right, self.names = images, answers, right, names

    def __call__(self, level: int) -> tuple[Figure, str]:
        columns = 4
        rows = -(-len(self.names) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, 2.05 * rows), squeeze=False)
        for cell in axes.flat[len(self.names) :]:
            cell.remove()
        for i, name in enumerate(self.names):
            colour = KNOWN if self.right[level][i] else UNKNOWN
            show_image(axes.flat[i], self.images[level][i], f"{words(name)}\n{self.answers[level][i]}", colour)
        count = sum(self.right[level])
        return figure, f"At level {level} the network is right about {count} of {len(self.names)} pictures."


def draw_over_levels(axes: Axes, values: Mapping[str, Sequence[float]], names: Sequence[str] = ()) -> None:
    """One thin line a corruption over levels 0 to 5, and their mean, thick; those in ``names`` are named at their end.

    Args:
        axes: where to draw.
        values: for each corruption, six numbers in [0, 1]: clean, then levels 1 to 5.
        names: corruptions to name.
    """
    lines = np.array(list(values.values()))
    for line in lines:
        axes.plot(range(6), line, color=MUTED, linewidth=1)
    axes.plot(range(6), lines.mean(axis=0), color=MODEL, linewidth=3)
    ends = apart([values[name][-1] for name in names], 0.07)
    for name, height in zip(names, ends, strict=True):
        label_line(axes, 5.1, height, words(name), MUTED)
    axes.set(xlim=(0, 5), ylim=(0, 1.03), xlabel="level")
    axes.set_xticks(range(6), ["clean", "1", "2", "3", "4", "5"])


def draw_levels(axes: Axes, lines: Mapping[str, ArrayLike], colours: Sequence[str] = PALETTE) -> None:
    """AUROC over levels 1 to 5: one named line a detector, or a source of numbers.

    Args:
        axes: where to draw.
        lines: for each name, five numbers in [0, 1], or (networks, 5): their mean, and a band from the least network to
            the largest.
        colours: one a line.
    """
    drawn = {name: np.atleast_2d(np.asarray(values, dtype=float)) for name, values in lines.items()}
    ends = apart([values[:, -1].mean() for values in drawn.values()], 0.065)
    for (name, values), colour, end in zip(drawn.items(), colours, ends, strict=False):
        if len(values) > 1:
            axes.fill_between(range(1, 6), values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(range(1, 6), values.mean(0), color=colour, marker="o")
        label_line(axes, 5.15, end, name, colour)
    axes.axhline(0.5, color=MUTED, linewidth=1, linestyle="--")
    axes.set(xlim=(0.8, 7.4), xlabel="level", ylabel="AUROC")
    axes.set_xticks(range(1, 6))


def draw_dots(axes: Axes, rows: Mapping[str, Mapping[str, Sequence[float]]], colours: Sequence[str] = PALETTE) -> None:
    """One row a thing, one mark a detector and network, on a common scale of AUROC; dashed: guessing.

    Args:
        axes: where to draw.
        rows: for each thing, for each detector, values in [0, 1], one a network.
        colours: one a detector.
    """
    shapes = ("o", "^", "s", "D")
    detectors = list(dict.fromkeys(name for row in rows.values() for name in row))
    for place, row in enumerate(rows.values()):
        axes.axhline(place, color="#e6e6e6", linewidth=1, zorder=0)
        for detector, values in row.items():
            number = detectors.index(detector)
            shift = 0.18 * (number - (len(detectors) - 1) / 2)
            marks: dict[str, Any] = {"color": colours[number], "marker": shapes[number], "s": 34, "zorder": 3}
            axes.scatter(values, [place + shift] * len(values), label=detector if place == 0 else None, **marks)
    axes.axvline(0.5, color=MUTED, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [textwrap.fill(name, 24) for name in rows])
    axes.invert_yaxis()
    axes.set(xlim=(0.3, 1.03), xlabel="AUROC")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.3, -0.13),
        ncols=len(detectors),
        fontsize=10,
        columnspacing=1,
        handletextpad=0.2,
    )
