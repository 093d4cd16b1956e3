"""Pictures of chapter 16: which score to use when, what a threshold promises, and who notices a drift."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from scipy.stats import beta
from torch import Tensor

from tutorial_lib.figures.common import words
from tutorial_lib.plots import KNOWN, MODEL, MUTED, UNKNOWN, WIDE, WIDTH, label_line, show_image
from tutorial_lib.scoring.decision import WAYS, good_ways
from tutorial_lib.scoring.thresholds import allowed_above, chance_of_more

__all__ = ["PromisePicture", "decision", "draw_evidence", "draw_tails", "ends"]

RATE, DELTA = 0.05, 0.1


def ends(rows: Mapping[str, tuple[Sequence[Tensor], Sequence[str]]], title: str) -> Figure:
    """A few images in a row per end of a table of scores, each with a word below.

    Args:
        rows: by the name of the end, images (C, H, W) and a word for each.
        title: what is to be seen.
    """
    columns = max(len(images) for images, _ in rows.values())
    side = WIDTH / columns
    figure, axes = plt.subplots(len(rows), columns, figsize=(WIDTH, len(rows) * (side + 0.55) + 0.35), squeeze=False)
    for line, (name, (images, said)) in zip(axes, rows.items(), strict=True):
        for cell in line[len(images) :]:
            cell.remove()
        for cell, image, word in zip(line, images, said, strict=False):
            show_image(cell, image)
            cell.set_xlabel(textwrap.fill(words(word), 11), fontsize=10)
        line[0].set_title(name, fontsize=12)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def decision(table: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """AUROC of every way to score, a panel per kind of stranger, a dot per network.

    Blue discs are ways that cannot be told from the best of their panel, grey diamonds the others; see
    `tutorial_lib.scoring.decision.good_ways`. The lowest line of each panel's ways costs most. Where a way is worse than a
    coin, a dashed line at one half says so.

    Args:
        table: by kind and way, one number per network.
        title: what is to be seen.
    """
    names = [way for way in WAYS if any(way in by_way for by_way in table.values())]
    across = 2
    down = math.ceil(len(table) / across)
    lowest_value = min(value for by_way in table.values() for values in by_way.values() for value in values)
    figure, axes = plt.subplots(
        down, across, figsize=(WIDTH, down * (0.25 * len(names) + 0.95) + 0.4), sharex=True, sharey=True, squeeze=False
    )
    for cell in axes.flat[len(table) :]:
        cell.remove()
    for cell, (kind, by_way) in zip(axes.flat, table.items(), strict=False):
        good = good_ways(by_way)
        for row, way in enumerate(names):
            values = by_way.get(way, [])
            colour, marker = (KNOWN, "o") if way in good else (MUTED, "D")
            cell.scatter(values, [row] * len(values), color=colour, marker=marker, s=26, alpha=0.8)
            if len(values):
                cell.plot([np.mean(values)] * 2, [row - 0.32, row + 0.32], color=colour, lw=2.5)
        cell.set_title(textwrap.fill(kind, 19), fontsize=12)
        cell.set_yticks(range(len(names)), [WAYS[way].title for way in names])
        cell.set_ylim(len(names) - 0.5, -0.5)
        cell.set_xlim(min(0.5, lowest_value - 0.02), 1.02)
        if lowest_value < 0.5:
            cell.axvline(0.5, color=MUTED, lw=1, ls="--", zorder=0)
        cell.grid(axis="x", color="#dddddd", lw=0.8)
        cell.set_axisbelow(True)
    for column in range(across):
        lowest = [axes[row, column] for row in range(down) if row * across + column < len(table)]
        if lowest:
            lowest[-1].set_xlabel("AUROC")
            lowest[-1].tick_params(labelbottom=True)
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def draw_tails(axes: Axes, tails: Mapping[str, ArrayLike], colours: Sequence[str] = (KNOWN, UNKNOWN)) -> None:
    """Share of images with a tail probability up to each level; what is exchangeable with normal lies on the diagonal.

    Args:
        axes: where to draw.
        tails: tail probabilities (n,) by the name of the images.
        colours: one for each.
    """
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1.2, ls="--")
    for (name, values), colour in zip(tails.items(), colours, strict=False):
        ordered = np.sort(np.asarray(values, dtype=np.float64))
        share = np.arange(1, len(ordered) + 1) / len(ordered)
        axes.step(np.concatenate([[0], ordered, [1]]), np.concatenate([[0], share, [1]]), where="post", color=colour)
        place = int(0.55 * len(ordered))
        label_line(axes, max(ordered[place], 0.03) + 0.02, share[place] - 0.04, name, colour)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="tail probability p", ylabel="share of images at or below p")


class PromisePicture:
    """How many normal images a threshold will really call strange, by how many were held out to set it.

    Made for `tutorial_lib.explore.explore`: the density of the true rate over the draw of the held-out images, which is a
    beta distribution whatever the scores are (without ties), for a threshold that keeps ``rate`` on average and for one that
    keeps it with probability 1 - ``delta``.
    """

    def __init__(self, rate: float = RATE, delta: float = DELTA) -> None:
        self.rate, self.delta = rate, delta

    def __call__(self, held_out: int) -> tuple[Figure, str]:
        figure, axes = plt.subplots(figsize=WIDE)
        x = np.linspace(0, 4 * self.rate, 801)
        axes.axvline(self.rate, color=MUTED, lw=1.2, ls="--")
        words = []
        looks = ((None, "on average", MODEL, "-"), (self.delta, f"in {1 - self.delta:.0%} of draws", KNOWN, "-."))
        for delta, said, colour, style in looks:
            try:
                above = allowed_above(held_out, self.rate, delta)
            except ValueError:
                words.append(f"{held_out} are too few to promise it {said}")
                continue
            rates = beta(above + 1, held_out - above)
            density = rates.pdf(x)
            axes.plot(x, density, color=colour, ls=style, label=f"promised {said}")
            axes.fill_between(x, density, where=x > self.rate, color=colour, alpha=0.25, lw=0)
            words.append(
                f"promised {said}: more than {self.rate:.0%} in {chance_of_more(above, held_out, self.rate):.0%} of draws"
            )
        axes.set(xlim=(0, 4 * self.rate), yticks=[], xlabel="normal images that will be called strange")
        axes.set_xticks(np.arange(5) * self.rate)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        axes.legend(loc="upper right")
        axes.set_title(f"A threshold from {held_out} held-out images")
        return figure, f"With {held_out} held-out images, " + "; ".join(words) + "."


def draw_evidence(axes: Axes, evidence: ArrayLike, alarms: ArrayLike, change: int, delta: float) -> None:
    """The gambler's wealth over the images that come, the level at which he is believed, and the chart's alarms.

    Args:
        axes: where to draw.
        evidence: natural logarithm of the wealth (T,).
        alarms: of the control chart (T,).
        change: where the images begin to change.
        delta: probability of a false alarm, ever.
    """
    wealth = np.asarray(evidence, dtype=np.float64) / np.log(10)
    time = np.arange(1, len(wealth) + 1)
    level = -np.log10(delta)
    axes.plot(time, wealth, color=MODEL)
    axes.axhline(level, color=MUTED, lw=1.2, ls="--")
    axes.axvline(change, color=MUTED, lw=1.2, ls=":")
    high = max(float(wealth.max()), level)
    step = (high - min(float(wealth.min()), 0.0)) / 12  # a line of text
    low = min(float(wealth.min()), 0.0) - 2.5 * step
    places = time[np.asarray(alarms, dtype=bool)]
    axes.plot(places, np.full(len(places), low + 0.5 * step), ls="none", marker="|", ms=8, color=UNKNOWN)
    axes.set(xlim=(0, len(wealth)), ylim=(low, high + 1.5 * step), xlabel="images", ylabel="wealth, powers of 10")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    label_line(axes, 2, level + 0.15 * step, f"believed: wealth {1 / delta:,.0f}", MUTED, va="bottom")
    label_line(axes, 2, low + step, "alarms of the control chart", UNKNOWN, va="bottom")
    label_line(axes, change + 1, high + 0.8 * step, "change begins", MUTED)
