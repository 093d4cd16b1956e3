"""Pictures of chapter 9: an attack in person, gradients by layer, detectors on the ladder, an epsilon to slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from torch import Tensor

from tutorial_lib.figures.common import apart, draw_signed
from tutorial_lib.plots import KNOWN, MODEL, MUTED, PALETTE, TALL, UNKNOWN, WIDTH, label_line, show_image

_SHAPES = ("o", "^", "s", "D", "v", "P", "X")

__all__ = ["EpsilonPicture", "attack_in_person", "draw_ladder", "draw_layers"]


def attack_in_person(clean: Tensor, changed: Tensor, before: Sequence[str], after: Sequence[str]) -> Figure:
    """Three rows: the images, what was added (violet darker, orange lighter, white nothing), and the result.

    Args:
        clean, changed: (n, C, H, W) in [0, 1].
        before, after: n short texts each, what the network calls them.
    """
    count = len(clean)
    figure, rows = plt.subplots(3, count, figsize=(WIDTH, 3.9), squeeze=False)
    added = (changed - clean).mean(dim=1)
    reach = float(added.abs().max())
    for i in range(count):
        show_image(rows[0, i], clean[i], before[i], KNOWN)
        draw_signed(rows[1, i], added[i], reach)
        show_image(rows[2, i], changed[i], after[i], UNKNOWN)
    for row, said in zip(rows, ("image", "added", "sum"), strict=True):
        row[0].set_ylabel(said, rotation=0, ha="right", va="center")
    return figure


def draw_layers(axes: Axes, clean: ArrayLike, changed: ArrayLike, names: Sequence[str]) -> None:
    """How far the log squared gradient norm of each parameter tensor moves, in standard deviations of the clean images.

    Args:
        axes: where to draw.
        clean, changed: log norms (N, P) of the same N images before and after.
        names: P parameter tensors, first layer first.
    """
    before, after = np.asarray(clean), np.asarray(changed)
    moved = (after - before) / before.std(axis=0).clip(min=1e-9)
    place = np.arange(len(names))
    low, middle, high = np.quantile(moved, (0.1, 0.5, 0.9), axis=0)
    axes.vlines(place, low, high, color=UNKNOWN, linewidth=3, alpha=0.5)
    axes.scatter(place, middle, color=UNKNOWN, zorder=3)
    axes.axhline(0, color=KNOWN, linewidth=2)
    axes.set_xticks(place, names, rotation=60, ha="right", fontsize=9)
    axes.set_ylabel("moved by, standard deviations")


def draw_ladder(axes: Axes, rungs: Sequence[str], values: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """One line a detector, falling along the ladder: its mean over seeds, and every seed as a mark.

    Args:
        axes: where to draw.
        rungs: what the attack knows, in few words, from nothing to all.
        values: for each detector, one list of values in [0, 1] for each rung, a value a seed; an empty list breaks the line.
    """
    ends = []
    for (name, by_rung), colour, marker in zip(values.items(), PALETTE, _SHAPES, strict=False):
        means = [float(np.mean(seeds)) if len(seeds) else np.nan for seeds in by_rung]
        axes.plot(range(len(rungs)), means, color=colour)
        for place, seeds in enumerate(by_rung):
            axes.scatter([place] * len(seeds), seeds, color=colour, marker=marker, s=26, zorder=3)
        last = max(place for place, seeds in enumerate(by_rung) if len(seeds))
        ends.append((last, means[last], name, colour))
    for place in {last for last, *_ in ends}:
        here = [end for end in ends if end[0] == place]
        heights = apart([end[1] for end in here], 0.1)
        for (_, _, name, colour), height in zip(here, heights, strict=True):
            label_line(axes, place + 0.12, height, name, colour)
    axes.set_xticks(range(len(rungs)), rungs)
    axes.set(ylim=(-0.09, 1.05), xlim=(-0.3, len(rungs) + 0.3))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25 %", "50 %", "75 %", "100 %"])


class EpsilonPicture:
    """What one epsilon buys: a few attacked images, and the scores of clean and of attacked images.

    Made for `tutorial_lib.explore.explore`: calling it with a number of grey levels gives a figure and the sentence that
    says what is to be seen.

    Args:
        images: for each number of grey levels, the same few attacked images (n, C, H, W).
        answers: for each, what the network calls them.
        fooled: for each, whether it is fooled about them.
        success: for each, the share of all images that fool.
        known: scores of clean images (N,), larger = stranger.
        strange: for each, the scores of the images that fool.
        caught: for each, the share of those that is caught at 5 % false alarms.
    """

    def __init__(
        self,
        images: Mapping[int, Tensor],
        answers: Mapping[int, Sequence[str]],
        fooled: Mapping[int, Sequence[bool]],
        success: Mapping[int, float],
        known: ArrayLike,
        strange: Mapping[int, ArrayLike],
        caught: Mapping[int, float],
    ) -> None:
        self.images, self.answers, self.fooled = images, answers, fooled
        self.success, self.caught = success, caught
        self.known = np.asarray(known)
        self.strange = {level: np.asarray(scores) for level, scores in strange.items()}
        everything = np.concatenate([self.known, *self.strange.values()])
        low, high = np.quantile(everything, (0.005, 0.995))
        self.edges = np.linspace(low, high, 31).tolist()

    def __call__(self, grey_levels: int) -> tuple[Figure, str]:
        figure = plt.figure(figsize=TALL, layout="none")
        count = len(self.images[grey_levels])
        for i in range(count):
            axes = figure.add_axes((0.01 + i * 0.98 / count, 0.6, 0.92 / count, 0.21))
            fooled = self.fooled[grey_levels][i]
            show_image(axes, self.images[grey_levels][i], self.answers[grey_levels][i], UNKNOWN if fooled else KNOWN)
        axes = figure.add_axes((0.02, 0.13, 0.96, 0.4))
        self._draw_scores(axes, grey_levels)
        share, alarm = self.success[grey_levels], self.caught[grey_levels]
        figure.suptitle(f"{share:.0%} fooled, {alarm:.0%} of these caught", x=0.01, ha="left")
        said = (
            f"With {grey_levels} grey levels the attack fools the network about {share:.0%} of the images; at 5 % false "
            f"alarms the detector catches {alarm:.0%} of those."
        )
        return figure, said

    def _draw_scores(self, axes: Axes, grey_levels: int) -> None:
        scores: Any = self.strange[grey_levels]
        low, high = self.edges[0], self.edges[-1]
        share = np.full(len(self.known), 1 / len(self.known))
        axes.hist(self.known.clip(low, high), self.edges, weights=share, color=KNOWN, alpha=0.75)
        if len(scores):
            look: dict[str, Any] = {"color": UNKNOWN, "alpha": 0.75, "hatch": "///", "edgecolor": "white"}
            axes.hist(scores.clip(low, high), self.edges, weights=np.full(len(scores), 1 / len(scores)), **look)
        threshold = np.quantile(self.known, 0.95)
        axes.axvline(threshold, color=MODEL)
        axes.text(threshold, 0.335, " alarm", va="top", color=MODEL)
        label_line(axes, low, 0.31, "clean", KNOWN)
        label_line(axes, high, 0.31, "attacked", UNKNOWN, ha="right")
        axes.set(ylim=(0, 0.34), yticks=[], xlabel="score, larger is stranger")
        axes.tick_params(axis="x", colors=MUTED)
