"""Pictures of chapter 7: a lesion that grows, scores against truth, bins, what probes know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tutorial_lib.data.lesions import paint_lesions
from tutorial_lib.detectors.gradcon import autoencoder_scores
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
from tutorial_lib.severity.labels import among, spearman
from tutorial_lib.training.trained import TrainedAutoencoder

__all__ = ["GrowingLesion", "against_truth", "bins_of", "by_bins", "dots", "rebuilt", "share_by_tenth"]


class GrowingLesion:
    """One image and one lesion of each kind on it, as the model of the healthy sees them while they grow.

    Call it with a severity and a kind of lesion, as `tutorial_lib.explore.explore` does.

    Args:
        model: what was learned from healthy images.
        image: a healthy image (1, C, H, W) that was not trained on.
        healthy: other healthy images, to say where the score falls among them.
        severities: those that will be asked for; the axes have room for all of them.
        seed: of the place of the lesion.
        score: one of `tutorial_lib.detectors.gradcon.autoencoder_scores`.
    """

    def __init__(
        self,
        model: TrainedAutoencoder,
        image: Tensor,
        healthy: Tensor,
        severities: Sequence[float],
        seed: int = 0,
        score: str = "combined",
    ) -> None:
        self.model, self.image, self.seed, self.score = model, image, seed, score
        self.among_healthy = autoencoder_scores(model, healthy)[score]
        self.paths = {
            kind: (list(severities), [self._scored(self.painted(s, kind)) for s in severities])
            for kind in ("spot", "gap")
        }
        reached = np.concatenate([self.among_healthy, *(path[1] for path in self.paths.values())])
        reach = reached.max() - reached.min()
        self.limits = (reached.min() - 0.15 * reach, reached.max() + 0.05 * reach)  # on the left, room for words

    def painted(self, severity: float, kind: str) -> Tensor:
        """The image with the lesion (1, C, H, W)."""
        return paint_lesions(self.image, severity, torch.Generator().manual_seed(self.seed), kind).images

    def _scored(self, image: Tensor) -> float:
        return float(autoencoder_scores(self.model, image)[self.score][0])

    def __call__(self, severity: float, lesion: str) -> tuple[Figure, str]:
        """The picture at this severity, and the sentence that says what is to be seen."""
        ill = self.painted(severity, lesion)
        rebuilt_image = self.model.reconstruct(ill)
        score = self._scored(ill)
        share = among(self.among_healthy, score)
        figure = plt.figure(figsize=(WIDTH, 4.9))
        above, below = figure.subfigures(2, 1, height_ratios=[1, 1.35], squeeze=False).flat
        cells = above.subplots(1, 3)
        frame = KNOWN if severity == 0 else UNKNOWN
        show_image(cells[0], ill[0], "healthy" if severity == 0 else f"{lesion}, severity {severity:g}", frame)
        show_image(cells[1], rebuilt_image[0].clamp(0, 1), "what the model rebuilds", MODEL)
        difference = (ill - rebuilt_image)[0].abs().mean(0).clamp(0, 1)
        show_image(cells[2], difference, "what it leaves over", MUTED)
        axes = below.subplots()
        self._place(axes, severity, lesion, score)
        axes.set_title(f"Iller than {share:.0%} of the healthy, by its score")
        sentence = (
            f"A {lesion} of severity {severity:g}: the score is {score:.3f}, higher than that of {share:.0%} of the "
            "healthy images that the model had not seen."
        )
        return figure, sentence

    def _place(self, axes: Axes, severity: float, lesion: str, score: float) -> None:
        """The healthy as a histogram; above it the way of the score as each lesion grows, and where it is now."""
        counts, _, _ = axes.hist(self.among_healthy, 30, range=self.limits, color=KNOWN, alpha=0.8)
        top = np.max(counts)
        for kind, height in (("spot", 1.45), ("gap", 1.85)):
            way = np.array(self.paths[kind][1])
            chosen = kind == lesion
            colour = UNKNOWN if chosen else "#d8d8d8"
            axes.plot(way, np.full_like(way, height * top), color=colour, marker="|", linewidth=1, markersize=9)
            label_line(axes, self.limits[0], height * top, f" {kind}", colour if chosen else MUTED, ha="left")
        height = {"spot": 1.45, "gap": 1.85}[lesion] * top
        axes.plot(score, height, marker=MARKERS[UNKNOWN], color=UNKNOWN, markersize=11, markeredgecolor="white")
        axes.vlines(score, 0, height, color=UNKNOWN, linewidth=1.2, linestyle="dashed")
        label_line(axes, self.limits[0], 1.08 * top, f" {len(self.among_healthy)} healthy", KNOWN, ha="left")
        axes.set(xlim=self.limits, ylim=(0, 2.15 * top), yticks=[], xlabel=f"{self.score} score →")
        axes.spines["left"].set_visible(False)


def against_truth(
    scores: Mapping[str, ArrayLike], severity: ArrayLike, kind: ArrayLike, names: Sequence[str]
) -> Figure:
    """Each score against the known severity, one panel a score, one dot an image; above it their rank correlation.

    Args:
        scores: for each panel's title (N,).
        severity: (N,) in [0, 1].
        kind: (N,) index into ``names``; the first kind is orange triangles, the second violet diamonds.
        names: of the kinds.
    """
    truth, kinds = np.asarray(severity), np.asarray(kind)
    figure, panels = plt.subplots(1, len(scores), figsize=(WIDTH, 3.1), squeeze=False)
    for axes, (title, values) in zip(panels[0], scores.items(), strict=True):
        y = np.asarray(values)
        for place, (colour, marker) in enumerate(((UNKNOWN, "^"), (PALETTE[3], "D"))):
            chosen = kinds == place
            axes.plot(truth[chosen], y[chosen], marker, color=colour, markersize=3.5, alpha=0.6, markeredgewidth=0)
        low, high = np.quantile(y, [0.005, 0.995])
        room = 0.08 * (high - low)
        axes.set(xlim=(-0.03, 1.03), ylim=(low - room, high + 2 * room), xticks=[0, 0.5, 1], yticks=[])
        axes.set_title(f"{title}\nρ = {spearman(y, truth):.2f}", loc="center", fontsize=12)
    panels[0, 0].set_ylabel("score →")
    figure.supxlabel("known severity", fontsize=12)
    handles = [
        plt.Line2D([], [], linestyle="none", marker=marker, color=colour, label=name)
        for name, colour, marker in zip(names, (UNKNOWN, PALETTE[3]), "^D", strict=False)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, handletextpad=0.2, columnspacing=1)
    return figure


def bins_of(scores: ArrayLike, labels: ArrayLike, images: Tensor, title: str) -> Figure:
    """A histogram of scores cut into severity bins, and above each bin three of its images.

    Args:
        scores: (N,), larger = iller.
        labels: severity labels (N,), few different ones.
        images: (N, C, H, W).
        title: one sentence.
    """
    values, bins = np.asarray(scores), np.asarray(labels)
    present = np.unique(bins)
    figure = plt.figure(figsize=(WIDTH, 5.0))
    above, below = figure.subfigures(2, 1, height_ratios=[1.35, 1], squeeze=False).flat
    above.suptitle(title, x=0.01, ha="left")
    cells = above.subplots(3, len(present), squeeze=False)
    shades = plt.get_cmap("cividis")(np.linspace(0, 0.9, len(present)))
    axes = below.subplots()
    low, high = np.quantile(values, [0.002, 0.998])
    grid = np.linspace(low, high, 61)
    for column, (name, shade) in enumerate(zip(present, shades, strict=True)):
        inside = np.flatnonzero(bins == name)
        middle = inside[np.argsort(np.abs(values[inside] - np.median(values[inside])))][:3]
        for cell, place in zip(cells[:, column], middle, strict=False):
            show_image(cell, images[place])
            for spine in cell.spines.values():
                spine.set(color=shade, linewidth=3)
        cells[0, column].set_title(f"label {name}", loc="center", fontsize=11)
        axes.hist(values[inside], grid, color=shade)
        if column:
            axes.axvline(values[inside].min(), color=MODEL, linewidth=1, linestyle="dashed")
    axes.set(xlim=(low, high), yticks=[], xlabel="score →")
    axes.spines["left"].set_visible(False)
    return figure


def dots(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
    xlabel: str,
    chance: float | None = None,
    limits: tuple[float, float] | None = None,
    highlighted: Sequence[str] = (),
) -> Figure:
    """One row a method, one panel a group, one dot a seed, the mean as a bar: for correlations, AUROC, accuracy.

    Args:
        groups: for each panel's title, for each method, its seeds' values.
        title: one sentence.
        xlabel: what is measured.
        chance: value of guessing, drawn as a dashed line.
        limits: of the x axis.
        highlighted: methods that the sentence is about; they are orange, the others black.
    """
    methods = list(dict.fromkeys(name for group in groups.values() for name in group))
    figure, panels = plt.subplots(
        1, len(groups), figsize=(WIDTH, 1.25 + 0.29 * len(methods)), sharey=True, squeeze=False
    )
    for axes, (name, group) in zip(panels[0], groups.items(), strict=True):
        for row, method in enumerate(methods):
            axes.axhline(row, color="#ececec", linewidth=1, zorder=0)
            found = np.array(group.get(method, []))
            if not len(found):
                continue
            colour = UNKNOWN if method in highlighted else MODEL
            axes.plot(found, np.full(len(found), row), "o", color=colour, markersize=5, alpha=0.5, markeredgewidth=0)
            axes.plot([found.mean()] * 2, [row - 0.32, row + 0.32], color=colour, linewidth=2.5)
        if chance is not None:
            axes.axvline(chance, color=MUTED, linestyle="dashed", linewidth=1)
        axes.set_title(name, loc="center", fontsize=12)
        if limits:
            axes.set_xlim(limits)
    panels[0, 0].set(yticks=range(len(methods)), yticklabels=methods, ylim=(len(methods) - 0.4, -0.6))
    figure.supxlabel(xlabel, fontsize=12)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def by_bins(
    values: Mapping[str, Mapping[int, Sequence[float]]],
    references: Mapping[str, Mapping[str, Sequence[float]]],
    companions: Mapping[int, float],
    title: str,
    ylabel: str,
) -> Figure:
    """A metric over the number of bins, one panel a task; references without bins as dashed lines.

    Args:
        values: for each task, for each number of bins, its seeds' values.
        references: for each task, for each method's name, its seeds' values.
        companions: images that share an image's label in a batch, for each number of bins; written below it.
        title: one sentence.
        ylabel: the metric.
    """
    figure, panels = plt.subplots(1, len(values), figsize=(WIDTH, 3.7), squeeze=False, sharey=True)
    for axes, (task, found) in zip(panels[0], values.items(), strict=True):
        bins = sorted(found)
        x = np.arange(len(bins))
        means = [np.mean(found[count]) for count in bins]
        for place, count in zip(x, bins, strict=True):
            axes.plot([place] * len(found[count]), found[count], "^", color=UNKNOWN, alpha=0.5, markeredgewidth=0)
        axes.plot(x, means, color=UNKNOWN)
        styles = zip((MODEL, KNOWN, MODEL_UNCERTAINTY, MUTED), ("dashed", "dashdot", "dotted", "dotted"), strict=True)
        for (name, seeds), (colour, style) in zip(references[task].items(), styles, strict=False):
            axes.axhline(float(np.mean(seeds)), color=colour, linestyle=style, linewidth=1.5, label=name)
        shown = [f"{count}\n{companions[count]:.1f}" if companions[count] < 10 else f"{count}\n{companions[count]:.0f}"
                 for count in bins]  # fmt: skip
        axes.set(xticks=x, xticklabels=shown, xlim=(-0.3, len(bins) - 0.7))
        axes.set_title(task, loc="center", fontsize=12)
        axes.set_xlabel("bins\n(companions in a batch)")
    panels[0, 0].set_ylabel(ylabel)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def rebuilt(rows: Mapping[str, tuple[Tensor | NDArray[np.uint8], Tensor | NDArray[np.uint8]]], title: str) -> Figure:
    """Images and, below each, what the model of the healthy rebuilds; one pair of rows a group.

    Args:
        rows: for each group's name, images (n, C, H, W) and reconstructions of the same shape. A group whose name
            begins with "healthy" is framed in blue, the others in orange.
        title: one sentence.
    """
    count = max(len(images) for images, _ in rows.values())
    figure = plt.figure(figsize=(WIDTH, 2.35 * len(rows) + 0.35))
    figure.suptitle(title, x=0.01, ha="left")
    parts = figure.subfigures(len(rows), 1, squeeze=False)
    for part, (name, (images, reconstructions)) in zip(parts[:, 0], rows.items(), strict=True):
        cells = part.subplots(2, count, squeeze=False)
        for column in range(len(images)):
            show_image(cells[0, column], images[column], colour=KNOWN if name.startswith("healthy") else UNKNOWN)
            show_image(cells[1, column], reconstructions[column])
        for cell in cells[:, len(images) :].flat:
            cell.remove()
        part.suptitle(name, fontsize=12)
    return figure


def share_by_tenth(healthy: ArrayLike, ill: ArrayLike, names: tuple[str, str], title: str) -> Figure:
    """Which share of each tenth of the score is ill: ten bars from the least to the most severe.

    Args:
        healthy, ill: scores (N,) and (M,), larger = iller.
        names: how the healthy and the ill are called.
        title: one sentence.
    """
    scores = np.concatenate([np.asarray(healthy), np.asarray(ill)])
    truth = np.r_[np.zeros(len(np.asarray(healthy))), np.ones(len(np.asarray(ill)))]
    tenths = np.array_split(truth[scores.argsort(kind="stable")], 10)
    share = np.array([part.mean() for part in tenths])
    figure, axes = plt.subplots(figsize=(WIDTH, 3.0))
    axes.bar(range(1, 11), share, color=UNKNOWN, hatch="///", edgecolor="white")
    axes.bar(range(1, 11), 1 - share, bottom=share, color=KNOWN, edgecolor="white")
    axes.plot([0.4, 10.55], [truth.mean()] * 2, color=MODEL, linewidth=1.2, linestyle="dashed")
    axes.text(10.65, truth.mean(), "of all", va="center", fontsize=11)
    for name, colour, height in ((names[0], KNOWN, 0.92), (names[1], UNKNOWN, 0.2)):
        label_line(axes, 10.65, height, name, colour)
    axes.set(xlim=(0.4, 13.2), ylim=(0, 1), xticks=[1, 10], yticks=[0, 0.5, 1], title=title)
    axes.set_xticklabels(["least severe tenth", "most severe"])
    plt.setp(axes.get_xticklabels()[:1], ha="left")
    return figure
