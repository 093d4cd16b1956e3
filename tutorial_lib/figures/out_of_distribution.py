"""Pictures of chapter 8: detectors at work, what gradients look like, how good and how dear each score is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tutorial_lib.data.images import ImageSet
from tutorial_lib.figures.common import apart, draw_queue, draw_table, name_ends, places, queue, words
from tutorial_lib.metrics import auroc, fpr_at_tpr
from tutorial_lib.plots import (
    DIVERGING,
    KNOWN,
    MODEL,
    MUTED,
    PALETTE,
    UNKNOWN,
    WIDTH,
    image_grid,
    label_line,
)

__all__ = [
    "SHORT",
    "Queue",
    "auroc_table",
    "barcodes",
    "price",
    "queue_of_sets",
    "queues",
    "same_and_other",
    "strangers",
    "two_layers",
]

IN_PERSON = 13
"""Images that are shown of a queue."""

SHORT: Mapping[bool, Mapping[str, str]] = {
    True: {
        "msp": "confidence", "energy": "energy", "odin": "ODIN", "knn": "neighbours", "mahalanobis": "Mahalanobis",
        "relative_mahalanobis": "relative Mahal.",
        "gradient_sum_large": "sum of norms", "gradpca": "GradPCA", "gradpca_output": "its control",
        "gradient_density": "gradient density", "activation_density": "activation density",
        "gradient_fusion": "gradient fusion", "activation_fusion": "activation fusion",
    },
    False: {
        "mahalanobis_fe": "H, distances", "mahalanobis_p_fe": "H, dist. (P)", "purview": "H, gradients", "control_logits": "H, logits",
        "control_penultimate": "H, features", "control_activations": "H, activations",
    },
}  # fmt: skip
"""Short names for narrow tables, by name in result rows: of what has seen no stranger (True), and of what has."""

Pair = tuple[ArrayLike, ArrayLike]
"""Scores of known images (N,) and of strangers (M,), larger = stranger."""


def strangers(images: Tensor, names: Sequence[str], probabilities: Tensor, classes: Sequence[str]) -> Figure:
    """Images with their kind and the network's answer above them; the first is a known one.

    Args:
        images: (n, C, H, W), ``uint8`` or float in [0, 1].
        names: n kinds.
        probabilities: the network's answers (n, K).
        classes: names of the K classes.
    """
    confidence, answers = (values.tolist() for values in probabilities.max(dim=1))
    said = [f"“{classes[k]}”, {p:.1%}" for k, p in zip(answers, confidence, strict=True)]
    titles = [f"{words(name)}\n{answer}" for name, answer in zip(names, said, strict=True)]
    return image_grid(images, titles, columns=3, colours=[KNOWN] + [UNKNOWN] * (len(images) - 1))


# ----------------------------------------------------------------------------------------------------------------------
# Known images and strangers in one queue


def queue_of_sets(
    known: tuple[ArrayLike, ImageSet], strange: tuple[ArrayLike, ImageSet], title: str, accepted: float = 0.95
) -> Figure:
    """Known images and strangers in one queue by one score: some from evenly spaced places in person, all as histograms.

    Args:
        known, strange: scores (N,), larger = stranger, and the images. The strangers go by the name of their set.
        title: one sentence.
        accepted: share of the known images that the gate lets pass, in (0, 1].
    """
    scores = np.concatenate([np.asarray(known[0], dtype=np.float64), np.asarray(strange[0], dtype=np.float64)])
    count = len(known[1])
    chosen = _evenly(np.concatenate(places(known[0], strange[0])))
    return queue(
        [strange[1].images[n - count] if n >= count else known[1].images[n] for n in chosen],
        scores[chosen],
        [n >= count for n in chosen],
        known[0],
        strange[0],
        title,
        ends=("← familiar", "strange →"),
        names=("known", words(strange[1].name)),
        accepted=accepted,
    )


def _evenly(place: NDArray[np.float64]) -> list[int]:
    """Indices of `IN_PERSON` images from evenly spaced places of the queue."""
    chosen = []
    for number, wanted in enumerate((np.arange(IN_PERSON) + 0.5) / IN_PERSON):
        nearest = np.abs(place - wanted)
        # among equals a different one each time, so that a long tie does not show one image again and again
        candidates = np.flatnonzero(nearest <= nearest.min() + 1e-12)
        chosen.append(int(candidates[(number * 7919) % len(candidates)]))
    return chosen


class Queue:
    """`queue_of_sets` for every detector and every kind of stranger, made for :func:`tutorial_lib.explore.explore`.

    Calling it with the name of a detector and that of a stranger gives a figure and the sentence that says what is to
    be seen.

    Args:
        scores: for each detector, for each kind of stranger, the scores of the known images and of the strangers.
        known: the known images.
        strange: for each kind of stranger, its images.
    """

    def __init__(
        self, scores: Mapping[str, Mapping[str, Pair]], known: ImageSet, strange: Mapping[str, ImageSet]
    ) -> None:
        self.scores, self.known, self.strange = scores, known, strange

    def __call__(self, detector: str, stranger: str) -> tuple[Figure, str]:
        known, strange = self.scores[detector][stranger]
        area = auroc(known, strange)
        title = f"{detector[0].upper()}{detector[1:]}: AUROC {area:.2f}"
        picture = queue_of_sets((known, self.known), (strange, self.strange[stranger]), title)
        share = 1 - fpr_at_tpr(known, strange)
        return picture, (
            f"By {detector}, against {words(stranger)}: AUROC {area:.2f}. With 95 % of the known images accepted, "
            f"{share:.0%} of the strangers are caught."
        )


def queues(rows: Mapping[str, Pair], stranger: str) -> Figure:
    """Histograms over the queue, one row per score: known images upwards, strangers downwards.

    Args:
        rows: for each title, the scores of the known images and of the strangers.
        stranger: what to call the strangers.
    """
    figure, axes = plt.subplots(len(rows), 1, figsize=(WIDTH, 1.55 * len(rows) + 0.3), squeeze=False)
    for axis, (title, (known, strange)) in zip(axes[:, 0], rows.items(), strict=True):
        draw_queue(axis, known, strange)
        axis.set_title(f"{title}: AUROC {auroc(known, strange):.2f}", fontsize=12)
    label_line(axes[0, 0], 0.99, 1.2, "known", KNOWN, ha="right")
    label_line(axes[0, 0], 0.01, -1.2, stranger, UNKNOWN)
    name_ends(axes[-1, 0], "← familiar", "strange →")
    return figure


# ----------------------------------------------------------------------------------------------------------------------
# What the gradients look like


def barcodes(groups: Mapping[str, Tensor], known: str) -> Figure:
    """Gradient norms of some images: one line per image, one column per parameter tensor, first layer to last.

    Args:
        groups: for each kind of image, how many standard deviations each log norm is from the mean of the known
            images, (n, P).
        known: name of the known kind.
    """
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(WIDTH, 0.66 * len(groups) + 1.0), sharex=True, squeeze=False,
        height_ratios=[len(lines) for lines in groups.values()],
    )  # fmt: skip
    for axis, (name, lines) in zip(axes[:, 0], groups.items(), strict=True):
        drawn = axis.imshow(lines.numpy(), aspect="auto", cmap=DIVERGING, vmin=-4, vmax=4)
        colour = KNOWN if name == known else UNKNOWN
        axis.set_ylabel(
            words(name).replace(" ", "\n", 1), rotation=0, ha="right", va="center", color=colour,
            fontweight="bold", fontsize=11,
        )  # fmt: skip
        axis.set(xticks=[], yticks=[])
        axis.tick_params(length=0)
        for spine in axis.spines.values():
            spine.set(visible=True, color=colour, linewidth=1.5)
    last = lines.shape[1] - 1
    name_ends(axes[-1, 0], "first layer", "last layer", last)
    bar = figure.colorbar(drawn, ax=axes, pad=0.02, aspect=30)
    bar.set_ticks([-4, -2, 0, 2, 4], labels=["−4", "−2", "0", "2", "4"])
    bar.set_label("standard deviations from the known", fontsize=11)
    return figure


def two_layers(known: Tensor, strange: Mapping[str, Tensor]) -> Figure:
    """First and last layer's norms against each other: where known images lie, what a sum and a density make of it.

    The ellipse is that of a Gaussian and holds 95 % of the known images; on the dashed line the sum of the two norms is
    that of a typical known image.

    Args:
        known: natural logarithms of two squared norms (N, 2).
        strange: the same for at most three kinds of strangers, each (M, 2).
    """
    figure, axes = plt.subplots(figsize=(WIDTH, 4.4))
    powers = known.numpy() / np.log(10)
    shades = (KNOWN, UNKNOWN, PALETTE[4], PALETTE[5])
    for (name, points), colour, marker in zip({"known": known, **strange}.items(), shades, "o^sD", strict=False):
        x, y = points.numpy().T / np.log(10)
        axes.scatter(
            x, y, s=14, color=colour, alpha=0.55, linewidth=0, marker=marker, rasterized=True, label=words(name)
        )  # fmt: skip
    limits = axes.axis()
    mean, covariance = powers.mean(0), np.cov(powers.T)
    distance = np.einsum("ni,ij,nj->n", powers - mean, np.linalg.inv(covariance), powers - mean)
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.quantile(distance, 0.95) ** 0.5 * np.stack([np.cos(angle), np.sin(angle)])
    axes.plot(*(mean[:, None] + np.linalg.cholesky(covariance) @ circle), color=MODEL, linewidth=1.6)
    total = float(np.median((10.0**powers).sum(1)))
    across = np.linspace(limits[0], limits[1], 2000)
    rest = total - 10.0**across
    axes.plot(across[rest > 0], np.log10(rest[rest > 0]), color=MODEL, linewidth=1.6, linestyle="dashed")
    axes.axis(limits)
    for axis, name in ((axes.xaxis, "first layer"), (axes.yaxis, "last layer")):
        axis.set_major_formatter(lambda power, _: f"$10^{{{power:g}}}$" if power == round(power) else "")
        axis.set_label_text(f"squared norm, {name}")
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.45, -0.16), ncols=4, columnspacing=1, handletextpad=0.2, markerscale=1.8
    )
    return figure


# ----------------------------------------------------------------------------------------------------------------------
# How good, how dear, how much of it is the supervision


def auroc_table(blocks: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """AUROC of many detectors and strangers as a table of colours, orange above one half and violet below.

    The best of each column of a block is framed; the last column is the mean of the others.

    Args:
        blocks: for each title, for each detector, for each kind of stranger, its AUROC.
    """
    rows = [len(block) for block in blocks.values()]
    strangers = list(next(iter(next(iter(blocks.values())).values())))
    figure, axes = plt.subplots(
        len(blocks), 1, figsize=(WIDTH, 0.32 * sum(rows) + 0.42 * len(blocks) + 1.1), height_ratios=rows, squeeze=False
    )
    for axis, (title, block) in zip(axes[:, 0], blocks.items(), strict=True):
        found = np.array([[row[name] for name in strangers] for row in block.values()])
        cells = np.column_stack([found, found.mean(axis=1)])
        best = cells.round(2) == cells.round(2).max(axis=0)
        draw_table(axis, cells, list(block), title, best if len(block) > 1 else None)
        axis.axvline(len(strangers) - 0.5, color="white", linewidth=5, zorder=0.5)  # below the frames
    names = [*(words(name) for name in strangers), "mean"]
    axes[-1, 0].set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    return figure


def same_and_other(
    values: Mapping[str, Mapping[str, tuple[float, float]]], unsupervised: Mapping[str, float], title: str
) -> Figure:
    """What a second stage is worth on the kind of stranger it was fitted on, and on one that it was not.

    Args:
        values: for each detector, for each kind of stranger, its AUROC fitted on the same kind and fitted on all the
            others.
        unsupervised: for each kind of stranger, the AUROC of a detector that has seen none.
        title: one sentence.
    """
    detectors, step = list(values), 0.72 / len(values)
    figure, axes = plt.subplots(figsize=(WIDTH, 1.5 + 0.16 * (len(detectors) + 1.2) * len(unsupervised)))
    colours = (MODEL, PALETTE[4], PALETTE[5], *PALETTE[2:4])
    for row, (name, none) in enumerate(unsupervised.items()):
        axes.plot([none, none], [row - 0.42, row + 0.42], color=MUTED, linewidth=3, zorder=0)
        for number, (detector, colour, marker) in enumerate(zip(detectors, colours, "osD^v", strict=False)):
            y = row + step * (number - (len(detectors) - 1) / 2)
            same, other = values[detector][name]
            axes.plot([same, other], [y, y], color=colour, linewidth=1.4)
            axes.plot(
                same,
                y,
                marker=marker,
                color=colour,
                markersize=7,
                linestyle="none",
                label=detector if row == 0 else None,
            )
            axes.plot(
                other,
                y,
                marker=marker,
                markeredgecolor=colour,
                markerfacecolor="white",
                markeredgewidth=1.6,
                markersize=7,
            )
    low = min(*(min(pair) for each in values.values() for pair in each.values()), *unsupervised.values())
    left = low - 0.06 * (1.01 - low)
    axes.set(xlim=(left, 1.01 + 0.02 * (1.01 - low)), ylim=(len(unsupervised) - 0.45, -0.85), title=title)
    label_line(axes, next(iter(unsupervised.values())), -0.62, "saw no stranger", MUTED, ha="right")
    axes.set(yticks=range(len(unsupervised)), yticklabels=[words(name) for name in unsupervised])
    axes.set_xlabel("AUROC: filled, fitted on this set; hollow, on the others")
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.38, -0.7 / figure.get_figheight()),
        ncols=4,
        columnspacing=1,
        handletextpad=0.2,
    )
    return figure


def price(values: Mapping[str, tuple[float, float]], supervised: Sequence[str], title: str) -> Figure:
    """What each detector finds and what it takes: mean AUROC against time per image, both marked and named.

    Args:
        values: for each detector, its time (any unit, drawn as a multiple of the first one's) and its AUROC.
        supervised: names of those that have learned from strangers; they are drawn hollow.
        title: one sentence.
    """
    first = next(iter(values.values()))[0]
    figure, axes = plt.subplots(figsize=(WIDTH, 4.2))
    times = np.array([time / first for time, _ in values.values()])
    found = np.array([quality for _, quality in values.values()])
    reach = times.max() * 1.15
    heights = apart(found, 0.05 * max(found.max() - found.min(), 0.1) * 1.35)
    for name, x, y, height in zip(values, times, found, heights, strict=True):
        hollow = name in supervised
        axes.plot(
            x, y, marker="D" if hollow else "s", color=MODEL, markersize=8, linestyle="none",
            markerfacecolor="white" if hollow else MODEL, markeredgewidth=1.6,
        )  # fmt: skip
        axes.plot([x * 1.07, reach * 1.05, reach * 1.2], [y, height, height], color=MUTED, linewidth=0.7, zorder=0)
        label_line(axes, reach * 1.25, height, name, MODEL, fontweight="normal")
    low, names_from = 0.75 * times.min(), 0.66  # of the width; the names stand right of it
    axes.set(xscale="log", xlim=(low, low * (reach * 1.25 / low) ** (1 / names_from)), title=title)
    spread = max(heights.max(), found.max()) - min(heights.min(), found.min())
    axes.set_ylim(min(heights.min(), found.min()) - 0.06 * spread, max(heights.max(), found.max()) + 0.06 * spread)
    axes.xaxis.set_minor_formatter(NullFormatter())
    steps = [step for step in (0.5, 1, 2, 5, 10, 20, 50, 100) if 0.75 * times.min() <= step <= reach]
    axes.set_xticks(steps, [f"{step:g}" for step in steps])
    axes.minorticks_off()
    axes.spines["bottom"].set_bounds(axes.get_xlim()[0], reach)
    axes.set_xlabel("time, multiple of the first", loc="left")
    axes.set_ylabel("mean AUROC")
    return figure
