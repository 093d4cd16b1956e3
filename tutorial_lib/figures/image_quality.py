"""Drawings of chapter 15: two pictures and what every measure says of them, on one scale that people know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.plots import MODEL, MUTED, PALETTE, WIDTH, show_image

__all__ = ["draw_filters", "draw_on_jpeg_scale", "verdicts"]

LOOKS = ((MUTED, "s"), (MODEL, "o"), (PALETTE[4], "^"), (PALETTE[5], "D"))
"""Colour and marker of each measure, in the order in which they are given."""

TICKS = (5, 20, 50, 80, 95)


def draw_on_jpeg_scale(axes: Axes, values: Mapping[str, Sequence[float]], rows: Sequence[str]) -> None:
    """For each row, the JPEG quality that each measure finds as bad; a row of a change, a marker of a measure.

    Args:
        axes: where to draw; the first row is at the top.
        values: by measure, one quality per row, 5 (bad) to 95 (good).
        rows: what they are called.
    """
    count = len(values)
    for place, ((colour, marker), (name, qualities)) in enumerate(zip(LOOKS, values.items(), strict=False)):
        offset = 0.5 * ((place + 0.5) / count - 0.5)
        heights = np.arange(len(rows)) + offset
        axes.scatter(qualities, heights, color=colour, marker=marker, s=30, label=name, zorder=2)
    for row in range(len(rows)):
        axes.axhline(row, color="#e4e4e4", linewidth=10, zorder=0)
    axes.set(
        xlim=(0, 100),
        xticks=TICKS,
        yticks=range(len(rows)),
        yticklabels=list(rows),
        ylim=(len(rows) - 0.4, -0.6),
        xlabel="as bad as a JPEG of quality …",
    )
    axes.tick_params(axis="y", length=0)


def verdicts(reference: Tensor, distorted: Tensor, qualities: Mapping[str, float], title: str) -> Figure:
    """Reference and distorted picture side by side, and below what each measure says, as a JPEG quality.

    Args:
        reference, distorted: (3, H, W), ``uint8``.
        qualities: by measure, 5 (bad) to 95 (good).
        title: above the distorted one.
    """
    figure, axes = plt.subplot_mosaic(
        [["reference", "distorted"], ["scale", "scale"]], figsize=(WIDTH, 5.0), height_ratios=(3, 1.3)
    )
    show_image(axes["reference"], reference.float() / 255, "reference")
    show_image(axes["distorted"], distorted.float() / 255, title)
    scale = axes["scale"]
    for row, ((colour, marker), (name, quality)) in enumerate(zip(LOOKS, qualities.items(), strict=False)):
        scale.plot([0, quality], [row, row], color=colour, linewidth=1.5)
        scale.plot(quality, row, marker, color=colour, markersize=8)
        scale.text(-1.5, row, name, ha="right", va="center", fontsize=11)
    scale.set(
        xlim=(0, 100),
        xticks=TICKS,
        yticks=[],
        ylim=(len(qualities) - 0.5, -0.5),
        xlabel="as bad as a JPEG of quality …",
    )
    return figure


def draw_filters(axes: Axes, filters: NDArray[np.float64], columns: int = 8) -> None:
    """The luma part of filters as small pictures in rows, each on a scale of its own, grey for zero.

    Args:
        axes: where to draw.
        filters: (192, count); the first 64 numbers of each are 8 x 8 of luma.
        columns: pictures in a row.
    """
    count = filters.shape[1]
    rows = -(-count // columns)
    sheet = np.full((9 * rows - 1, 9 * columns - 1), np.nan)
    for number in range(count):
        picture = filters[:64, number].reshape(8, 8)
        top, left = 9 * (number // columns), 9 * (number % columns)
        sheet[top : top + 8, left : left + 8] = picture / np.abs(picture).max()
    axes.imshow(sheet, cmap="gray", vmin=-1, vmax=1, interpolation="none")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
