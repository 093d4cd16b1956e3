"""Pictures of chapter 6: directions of gradients, constrained and not, and what they are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from tutorial_lib.figures.common import against, by_class, draw_residuals, draw_signed, queue, words
from tutorial_lib.gradcon.toy import Constrained, Points
from tutorial_lib.plots import (
    KNOWN,
    MARKERS,
    MODEL,
    MODEL_UNCERTAINTY,
    MUTED,
    PALETTE,
    UNKNOWN,
    WIDTH,
    label_line,
    show_image,
)

__all__ = ["against", "by_class", "conditions", "cosine_panels", "directions", "queue", "rows_of_images"]


def directions(trained: Constrained, points: Points, title: str, ahead: float = 1.75) -> Figure:
    """Left: points, their reconstructions and the line. Right: the direction in which each would move the two weights.

    Args:
        trained: from `tutorial_lib.gradcon.toy.train_two_weights`.
        points: normal and strange ones.
        title: one sentence.
        ahead: how far the plane is drawn.
    """
    model, reference = trained
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 3.9))
    figure.suptitle(title, x=0.01, ha="left")
    w = model.decoder.weight.detach()[:, 0]
    colours = dict(zip(points.strange, (UNKNOWN, MODEL_UNCERTAINTY), strict=False))
    with torch.no_grad():
        for name, (inputs, colour, marker) in {
            "normal": (points.held_out, KNOWN, "o"),
            **{name: (p, colours[name], m) for (name, p), m in zip(points.strange.items(), "^D", strict=False)},
        }.items():
            few = inputs[:50]  # both sides take turns
            draw_residuals(left, few, model(few), colour)
            left.plot(*few.T, marker, color=colour, markersize=3.5, markeredgecolor="white", mew=0.3)
            ask = -model.gradients(few)
            ask = ask / ask.norm(dim=1, keepdim=True).clamp_min(1e-12)
            length = 1.0 if name == "normal" else 0.8 if colour == UNKNOWN else 0.6
            for x, y in (length * ask).tolist():
                right.plot([0, x], [0, y], color=colour, linewidth=0.8, alpha=0.6)
            right.plot(*(length * ask).T, marker, color=colour, markersize=4, markeredgecolor="white", mew=0.3)
    end = 2.2 * w / w.norm()
    left.plot([0, end[0]], [0, end[1]], color=MODEL)
    left.set(xlim=(0, ahead), ylim=(-0.3, ahead - 0.3), aspect="equal", xticks=[], yticks=[], title="points")
    usual = -1.15 * reference / reference.norm()
    right.annotate("", usual.tolist(), (0, 0), arrowprops={"arrowstyle": "-|>", "color": MODEL, "linewidth": 2.2})
    circle = np.linspace(0, 2 * np.pi, 200)
    right.plot(np.cos(circle), np.sin(circle), color=MUTED, linewidth=0.6)
    right.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal", xticks=[], yticks=[], title="the two weights")
    for axis in (left, right):
        axis.title.set_fontsize(12)
    label_line(left, 0.05, ahead - 0.42, "off the line", UNKNOWN)
    label_line(left, ahead - 0.05, ahead - 0.42, "further along", MODEL_UNCERTAINTY, ha="right")
    label_line(left, ahead - 0.05, -0.2, "normal", KNOWN, ha="right")
    return figure


def rows_of_images(rows: Mapping[str, Tensor], colours: Sequence[str | None], signed: Sequence[str] = ()) -> Figure:
    """Images one under the other, one named row a kind.

    Args:
        rows: for each name, images (n, C, H, W); clipped to [0, 1].
        colours: frame of each of the n columns.
        signed: names of rows that hold differences, drawn from violet (negative) to orange (positive).
    """
    count = max(len(images) for images in rows.values())
    figure, axes = plt.subplots(len(rows), count, figsize=(WIDTH, 0.1 + 0.72 * len(rows)), squeeze=False)
    reach = max([float(rows[name].abs().max()) for name in signed], default=1.0)
    for row, (name, images) in zip(axes, rows.items(), strict=True):
        for axis, image, colour in zip(row, images, colours, strict=True):
            if name in signed:
                draw_signed(axis, image.mean(dim=0), reach)
            else:
                show_image(axis, image.clamp(0, 1), colour=colour)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def cosine_panels(panels: Mapping[str, tuple[ArrayLike, Mapping[str, ArrayLike]]], title: str) -> Figure:
    """Where the cosines of normal images lie, and where those of strangers.

    Args:
        panels: for each title, cosines of normal images (N,), and by name those of strangers.
        title: one sentence.
    """
    figure, axes = plt.subplots(len(panels), 1, figsize=(WIDTH, 0.5 + 1.7 * len(panels)), sharex=True, squeeze=False)
    figure.suptitle(title, x=0.01, ha="left")
    for axis, (name, (normal, strange)) in zip(axes[:, 0], panels.items(), strict=True):
        kinds = {"normal": (normal, KNOWN), **{kind: (values, UNKNOWN) for kind, values in strange.items()}}
        for row, (values, colour) in enumerate(kinds.values()):
            low, quarter, middle, three, high = np.quantile(np.asarray(values), [0.05, 0.25, 0.5, 0.75, 0.95])
            axis.plot([low, high], [row, row], color=colour, linewidth=1.2)
            axis.plot([quarter, three], [row, row], color=colour, linewidth=6, solid_capstyle="butt", alpha=0.55)
            axis.plot(middle, row, MARKERS[colour], color=colour, markersize=7, markeredgecolor="white")
        axis.axvline(np.median(np.asarray(normal)), color=KNOWN, linestyle="dashed", linewidth=1)
        axis.set(ylim=(len(kinds) - 0.5, -0.5), yticks=range(len(kinds)), title=name)
        axis.set_yticklabels([words(kind) for kind in kinds])
        axis.title.set_fontsize(12)
    axes[-1, 0].set_xlabel("cosine with the mean gradient of the training")
    return figure


def conditions(values: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """AUROC of clean against corrupted over five levels: one panel a condition, one line a score.

    Args:
        values: for each condition, for each score, AUROC at levels 1 to 5.
        title: one sentence.
    """
    columns = 4
    rows = -(-len(values) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(WIDTH, 0.9 + 1.55 * rows), sharex=True, sharey=True, squeeze=False
    )
    figure.suptitle(title, x=0.01, ha="left")
    scores = list(next(iter(values.values())))
    colours = dict(zip(scores, (MUTED, MODEL, MODEL_UNCERTAINTY, PALETTE[3]), strict=False))
    for axis, (name, of) in zip(axes.flat, values.items(), strict=False):
        axis.axhline(0.5, color=MUTED, linestyle="dashed", linewidth=0.8)
        for (score, found), marker in zip(of.items(), "sosD", strict=False):
            axis.plot(range(1, 6), found, color=colours[score], marker=marker, markersize=4, linewidth=1.6, label=score)
        axis.set(title=words(name), ylim=(-0.03, 1.03), yticks=[0, 0.5, 1], xticks=[1, 3, 5])
        axis.title.set_fontsize(11)
    for axis in axes.flat[len(values) :]:
        axis.set_visible(False)
    axes[-1, 0].set_xlabel("level")
    figure.supylabel("AUROC", fontsize=12)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(scores) if len(scores) < 4 else 2)
    return figure
