"""Pictures of anomalies, manifolds and gradient directions, as chapters 5 and 6 draw them.

Every function takes numbers and returns a figure in the style of :mod:`tutorial_lib.plots`. What is normal is blue,
what is strange is orange, the model is black.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from tutorial_lib.gradcon.toy import Constrained, Points
from tutorial_lib.plots import (
    DIVERGING,
    HATCHES,
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

STRANGE_MARKERS = "^vD"


def queue(
    images: Tensor,
    scores: ArrayLike,
    strange: Sequence[bool],
    known: ArrayLike,
    unknown: ArrayLike,
    title: str,
    below: Mapping[str, Tensor] | None = None,
    ends: tuple[str, str] = ("← normal", "strange →"),
) -> Figure:
    """Images in the order of a score, and below them all normal and all strange ones as histograms over that order.

    Args:
        images: a few (n, C, H, W).
        scores: theirs (n,), larger = stranger.
        strange: which of them are.
        known, unknown: scores of all normal and all strange test images.
        title: one sentence.
        below: further images (n, C, H, W) for a row each, by name; say, reconstructions. Clipped to [0, 1].
        ends: what to write at the two ends of the order.
    """
    scores, known, unknown = (np.asarray(values, dtype=float) for values in (scores, known, unknown))
    rows = {"": images, **(below or {})}
    height = 0.2 + 0.62 * len(rows)
    figure = plt.figure(figsize=(WIDTH, height + 2.3))
    above, under = figure.subfigures(2, 1, height_ratios=[height, 2.3])  # type: ignore[misc]
    axes = above.subplots(len(rows), len(images), squeeze=False)
    above.suptitle(title, x=0.01, ha="left")
    for row, (name, pictures) in zip(axes, rows.items(), strict=True):
        for axis, n in zip(row, np.argsort(scores, kind="stable"), strict=True):
            show_image(axis, pictures[n].clamp(0, 1), colour=UNKNOWN if strange[n] else KNOWN)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    _both_in_order(under.subplots(), known, unknown, ends)
    return figure


def _both_in_order(axes: Axes, known: NDArray, unknown: NDArray, ends: tuple[str, str]) -> None:
    """Histograms, back to back, of the places that scores have in the order of all."""
    together = np.concatenate([known, unknown])
    places = np.argsort(np.argsort(together, kind="stable"), kind="stable") / max(1, len(together) - 1)
    edges = np.linspace(0, 1, 21)
    for part, colour, side in ((places[: len(known)], KNOWN, 1), (places[len(known) :], UNKNOWN, -1)):
        share = np.histogram(part, edges)[0] / len(part)
        axes.bar(
            edges[:-1], side * share, np.diff(edges), align="edge", color=colour, hatch=HATCHES[colour], ec="white"
        )
    axes.axhline(0, color=MODEL, linewidth=1)
    reach = 1.25 * len(together) / min(len(known), len(unknown)) / (len(edges) - 1)  # the highest bar that can be
    axes.set(xlim=(0, 1), ylim=(-reach, reach), yticks=[], xticks=[0, 1])
    first, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    axes.set_xticklabels(ends)
    for spine in ("left", "bottom"):
        axes.spines[spine].set_visible(False)
    axes.tick_params(length=0)
    label_line(axes, 0.5, 0.9 * reach, f"{len(known)} normal", KNOWN, ha="center")
    label_line(axes, 0.5, -0.9 * reach, f"{len(unknown)} strange", UNKNOWN, ha="center")


def manifolds(panels: Mapping[str, nn.Module], points: Points, extent: float = 1.9) -> Figure:
    """What each autoencoder of the plane can reconstruct, and where it puts points.

    Args:
        panels: for each title, an autoencoder of points (N, 2).
        points: what it was trained on, and strangers.
        extent: of the drawn plane around (0, 0.3).
    """
    ticks = torch.linspace(-extent, extent, 121)
    grid = torch.stack(torch.meshgrid(ticks, ticks + 0.3, indexing="xy"), dim=-1).reshape(-1, 2)
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.5), sharex=True, sharey=True)
    for axis, (title, model) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        with torch.no_grad():
            axis.plot(*model(grid).T, ".", color=MODEL, markersize=1.2, rasterized=True)
            axis.plot(*points.held_out.T, ".", color=KNOWN, markersize=4, alpha=0.7)
            for marker, strangers in zip(STRANGE_MARKERS, points.strange.values(), strict=False):
                _sticks(axis, strangers, model(strangers), UNKNOWN)
                axis.plot(*strangers.T, marker, color=UNKNOWN, markersize=4.5, markeredgecolor="white", mew=0.4)
        axis.set(title=title, xticks=[], yticks=[], aspect="equal")
        axis.set(xlim=(-extent, extent), ylim=(0.3 - extent, 0.3 + extent))
    return figure


def _sticks(axis: Axes, points: Tensor, reconstructions: Tensor, colour: str) -> None:
    for start, end in zip(points.tolist(), reconstructions.tolist(), strict=True):
        axis.plot(*zip(start, end, strict=True), color=colour, linewidth=0.7, alpha=0.7)


def demands(
    images: Tensor, reconstructions: Tensor, codes: Tensor, titles: Sequence[str], strange: Sequence[bool]
) -> Figure:
    """For each image: the image, its reconstruction, the residual, and what a linear decoder's gradient asks for.

    Args:
        images, reconstructions: (n, C, H, W).
        codes: (n, r), the first three of which are drawn.
        titles: n short texts.
        strange: which of the images are.

    The gradient of the squared error with respect to the decoder's k-th direction is -2 (x - x̂) z_k: the residual, once
    for each code. Drawn is its negative, the demand.
    """
    residuals = (images - reconstructions).mean(dim=1, keepdim=True)
    count = min(3, codes.shape[1])
    asked = torch.stack([residuals * codes[:, k, None, None, None] for k in range(count)], dim=1)
    names = ["image", "recon-\nstruction", "what is\nleft", *(f"ask of\ndirection {k + 1}" for k in range(count))]
    figure, axes = plt.subplots(len(images), 3 + count, figsize=(WIDTH, 0.35 + 1.12 * len(images)), squeeze=False)
    largest, loudest = float(residuals.abs().max()), float(asked.abs().max())
    for row, image, answer, left, parts, title, odd in zip(
        axes, images, reconstructions.clamp(0, 1), residuals, asked, titles, strange, strict=True
    ):
        colour = UNKNOWN if odd else KNOWN
        show_image(row[0], image, colour=colour)
        show_image(row[1], answer)
        for axis, values, reach in (
            (row[2], left, largest),
            *((a, p, loudest) for a, p in zip(row[3:], parts, strict=True)),
        ):
            _signed(axis, values[0], reach)
        row[0].set_ylabel(title, color=colour, fontweight="bold", rotation=0, ha="right", va="center")
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, loc="center", fontsize=11)
    return figure


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
            _sticks(left, few, model(few), colour)
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
                _signed(axis, image.mean(dim=0), reach)
            else:
                show_image(axis, image.clamp(0, 1), colour=colour)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center")
    return figure


def by_directions(curves: Mapping[str, Mapping[int, float]], title: str, most: int) -> Figure:
    """AUROC over the number of directions of the plane.

    Args:
        curves: for each score, AUROC by number of directions.
        title: one sentence.
        most: number of pixels, drawn as the right end.
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
    for (name, values), colour, marker in zip(curves.items(), (MODEL, *PALETTE[4:]), "soD^", strict=False):
        ranks = sorted(values)
        axes.plot(ranks, [values[r] for r in ranks], color=colour, marker=marker)
        label_line(axes, most * 1.08, values[ranks[-1]], name, colour)
    axes.axhline(0.5, color=MUTED, linestyle="dashed", linewidth=1)
    axes.set_xscale("log", base=2)
    shown = sorted({r for values in curves.values() for r in values})
    axes.set(xticks=shown, xticklabels=[str(r) for r in shown], ylim=(0.45, 1.02), xlim=(shown[0] * 0.9, most * 2.6))
    axes.minorticks_off()
    axes.set(xlabel="directions of the plane", ylabel="AUROC", title=title)
    return figure


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
    classes = list(max(values.values(), key=len))
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
        names = sorted((name for name in y if (x[name] > middle) == left), key=lambda name: y[name])
        heights = np.array([y[name] for name in names])
        for _ in range(100):  # push neighbours apart until they have room
            short = np.clip(gap - np.diff(heights), 0, None) / 2
            heights[:-1] -= short
            heights[1:] += short
        for name, height in zip(names, heights, strict=True):
            shift, side = (-0.02, "right") if left else (0.02, "left")
            axis.text(x[name] + shift, height, name, ha=side, va="center", fontsize=9.5)


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
        axis.set_yticklabels([kind.replace("_", " ") for kind in kinds])
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
        axis.set(title=name.replace("_", " "), ylim=(-0.03, 1.03), yticks=[0, 0.5, 1], xticks=[1, 3, 5])
        axis.title.set_fontsize(11)
    for axis in axes.flat[len(values) :]:
        axis.set_visible(False)
    axes[-1, 0].set_xlabel("level")
    figure.supylabel("AUROC", fontsize=12)
    handles, names = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(scores) if len(scores) < 4 else 2)
    return figure


def _signed(axis: Axes, values: Tensor, reach: float) -> None:
    axis.imshow(values.numpy(), cmap=DIVERGING, vmin=-reach, vmax=reach, interpolation="none")
    axis.set(xticks=[], yticks=[])
    for spine in axis.spines.values():
        spine.set(visible=True, color=MUTED, linewidth=0.8)
