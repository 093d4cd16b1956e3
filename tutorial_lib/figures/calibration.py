"""Pictures of chapter 11: confidence of right and wrong answers, against accuracy, against chance, under a temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tutorial_lib.calibration.bins import reliability_bins
from tutorial_lib.calibration.errors import ece
from tutorial_lib.calibration.inputs import confidence_and_correct
from tutorial_lib.calibration.scores import negative_log_likelihood
from tutorial_lib.calibration.temperature import TemperatureScaling
from tutorial_lib.figures.common import draw_reliability, words
from tutorial_lib.metrics import Interval
from tutorial_lib.plots import KNOWN, MODEL, MODEL_UNCERTAINTY, MUTED, TALL, UNKNOWN, label_line, show_image

__all__ = [
    "TemperaturePicture",
    "draw_against_chance",
    "draw_by_level",
    "draw_confidence",
    "draw_promises",
    "draw_reliability",
]

BINS = 10
"""Bins of every picture here: few enough that each dot can be told from the next."""


def draw_confidence(axes: Axes, confidence: ArrayLike, correct: ArrayLike) -> None:
    """How sure the right answers are, upwards, and how sure the wrong ones are, downwards; each side sums to one.

    Args:
        axes: where to draw.
        confidence: (N,) in [0, 1].
        correct: (N,) whether each answer was right.
    """
    sure, right = confidence_and_correct(confidence, correct)
    edges = np.arange(BINS + 1) / BINS
    for chosen, sign, colour, hatch, answers in ((right, 1, KNOWN, "", "right"), (~right, -1, UNKNOWN, "///", "wrong")):
        count = reliability_bins(sure[chosen], right[chosen], BINS).count
        share = sign * count / count.sum()
        axes.bar(edges[:-1], share, 1 / BINS, align="edge", color=colour, hatch=hatch, edgecolor="white")
        label_line(axes, 0.02, 0.5 * sign, f"{count.sum():,} {answers} answers", colour)
        label_line(axes, 1 - 0.5 / BINS, share[-1] + 0.1 * sign, f"{count[-1] / count.sum():.0%}", colour, ha="center")
    axes.axhline(0, color=MODEL, linewidth=1)
    axes.set(xlim=(0, 1), ylim=(-1.15, 1.15), xlabel="confidence", ylabel="share of them")
    axes.set_yticks([-1, -0.5, 0, 0.5, 1], ["1", "½", "0", "½", "1"])


def draw_against_chance(axes: Axes, measured: float, interval: Interval, chance: ArrayLike) -> None:
    """An error with its interval, and the errors that chance alone gives.

    Args:
        axes: where to draw.
        measured: the error.
        interval: see `tutorial_lib.calibration.reflected_interval`.
        chance: errors of imagined calibrated test sets, see `tutorial_lib.calibration.chance_ece`.
    """
    errors = np.asarray(chance)
    axes.hist(errors, 40, color="#c8c8c8")
    height = axes.get_ylim()[1]
    axes.errorbar(
        measured,
        height / 2,
        xerr=[[measured - interval.low], [interval.high - measured]],
        fmt="s",
        color=MODEL,
        markersize=8,
        capsize=5,
    )
    label_line(axes, measured, 0.7 * height, "measured", MODEL, ha="center")
    label_line(axes, float(np.quantile(errors, 0.9)), 0.9 * height, "  chance alone", MUTED)
    axes.set(xlim=(0, 1.08 * max(interval.high, errors.max())), xlabel="expected calibration error", yticks=[])
    axes.spines["left"].set_visible(False)


def draw_promises(axes: Axes, networks: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Mean confidence against accuracy of several networks, one mark a seed; the diagonal is a promise kept.

    Args:
        axes: where to draw.
        networks: name to (accuracy, mean confidence) of each seed; at most three networks.
    """
    lowest = min(min(pair) for pairs in networks.values() for pair in pairs)
    low = max(0.0, np.floor(10 * lowest - 0.5) / 10)  # at least half a step below the lowest mark
    axes.plot([low, 1], [low, 1], color=MUTED, linewidth=1, zorder=0)
    styles = ((MODEL, "s"), (MODEL_UNCERTAINTY, "D"), (UNKNOWN, "^"))
    for (name, pairs), (colour, marker) in zip(networks.items(), styles, strict=False):
        points = np.array(pairs)
        axes.plot(*points.T, marker, color=colour, markersize=8)
        above = points[:, 1].mean() > points[:, 0].mean() + 0.02  # the label keeps off the diagonal
        side = points[:, 0].min() - 0.015 if above else points[:, 0].max() + 0.015
        label_line(axes, side, points[:, 1].mean(), name, colour, ha="right" if above else "left")
    axes.set(xlim=(low, 1), ylim=(low, 1), xlabel="accuracy", ylabel="mean confidence", aspect="equal")
    ticks = np.arange(round(10 * low), 11) / 10
    axes.set_xticks(ticks, [f"{tick:.0%}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:.0%}" for tick in ticks])


def draw_by_level(axes: Axes, errors: NDArray[np.floating], names: Sequence[str], title: str, top: float) -> None:
    """Error against the level of corruptions, a thin line each and a thick one for their mean; the worst is named.

    Args:
        axes: where to draw.
        errors: (C, L + 1), the first column for clean images.
        names: of the C corruptions.
        title: above the panel.
        top: upper end of the error axis, the same for panels that are to be compared.
    """
    mean, last, worst = errors.mean(axis=0), errors.shape[1] - 1, int(errors[:, -1].argmax())
    axes.plot(errors.T, color=UNKNOWN, linewidth=1, alpha=0.7)
    axes.plot(mean, color=MODEL, linewidth=3)
    apart = max(0.0, 0.1 * top - (errors[worst, -1] - mean[-1])) / 2  # keep the two labels a line apart
    label_line(axes, last + 0.12, errors[worst, -1] + apart, words(names[worst]), UNKNOWN, fontweight="normal")
    label_line(axes, last + 0.12, mean[-1] - apart, "mean", MODEL)
    axes.set(xlim=(0, last + 1.8), ylim=(0, top), xlabel="corruption level", ylabel="ECE", title=title)
    axes.set_xticks(range(last + 1))
    axes.spines["bottom"].set_bounds(0, last)  # beyond it are words, not levels


class TemperaturePicture:
    """What one temperature does to a network: its reliability diagram, its loss, and five of its answers.

    Made for `tutorial_lib.explore.explore`: calling it with a temperature gives a figure and the sentence that says
    what is to be seen.

    Args:
        logits: (N, K).
        labels: (N,).
        images: (N, C, H, W), ``uint8`` or float in [0, 1].
        class_names: K names.
        fitted: the temperature to mark.
        span: lowest and highest temperature of the loss curve.
    """

    def __init__(
        self,
        logits: Tensor,
        labels: ArrayLike,
        images: Tensor,
        class_names: Sequence[str],
        fitted: float,
        span: tuple[float, float] = (0.5, 8.0),
    ) -> None:
        self.logits, self.labels, self.images = logits, np.asarray(labels), images
        self.class_names, self.fitted = class_names, fitted
        self.temperatures = np.geomspace(*span, 100)
        self.losses = [negative_log_likelihood(self._probabilities(t), self.labels) for t in self.temperatures]
        self.chosen = self._five()

    def __call__(self, temperature: float) -> tuple[Figure, str]:
        probabilities = self._probabilities(temperature)
        confidence, correct = confidence_and_correct(probabilities, self.labels)
        error, loss = ece(confidence, correct, BINS), negative_log_likelihood(probabilities, self.labels)
        # Placed by hand: the picture stays still when a label grows, and is drawn in half the time.
        figure = plt.figure(figsize=TALL, layout="none")
        diagram, curve = figure.add_axes((0.09, 0.41, 0.44, 0.53)), figure.add_axes((0.62, 0.41, 0.36, 0.53))
        draw_reliability(diagram, confidence, correct, BINS)
        diagram.set_title(f"calibration error {error:.1%}")
        self._draw_loss(curve, temperature, loss)
        for place, i in enumerate(self.chosen):
            self._draw_answer(figure.add_axes((0.01 + 0.2 * place, 0.06, 0.18, 0.19)), i, probabilities[i])
        promise = "promises more than it keeps" if confidence.mean() > correct.mean() else "keeps more than it promises"
        return figure, (
            f"At temperature {temperature:.2f} the network {promise}: it is {confidence.mean():.0%} sure and "
            f"{correct.mean():.0%} right on average. Calibration error {error:.1%}, loss {loss:.2f}."
        )

    def _probabilities(self, temperature: float) -> NDArray[np.float64]:
        return TemperatureScaling(temperature).predict_proba(self.logits).numpy()

    def _five(self) -> list[int]:
        """Three wrong answers, from very sure to fairly sure, and two right ones: one unsure, one ordinary."""
        confidence, correct = confidence_and_correct(self._probabilities(1.0), self.labels)
        ordered = np.argsort(-confidence)
        wrong, right = ordered[~correct[ordered]], ordered[correct[ordered]]
        return [
            *(int(wrong[int(q * len(wrong))]) for q in (0.05, 0.3, 0.6)),
            *(int(right[int(q * len(right))]) for q in (0.93, 0.5)),
        ]

    def _draw_loss(self, axes: Axes, temperature: float, loss: float) -> None:
        axes.axvline(self.fitted, color=MUTED, linestyle="--", linewidth=1)
        axes.plot(self.temperatures, self.losses, color=MODEL)
        axes.plot(temperature, loss, "o", color=MODEL, markersize=10)
        low, high = min(self.losses), max(self.losses)
        axes.set(xscale="log", xlabel="temperature", ylim=(low - 0.1 * (high - low), high + 0.1 * (high - low)))
        axes.set_title(f"loss (NLL) {loss:.2f}")
        axes.minorticks_off()
        axes.set_xticks([0.5, 1, 2, 4, 8], ["½", "1", "2", "4", "8"])

    def _draw_answer(self, axes: Axes, i: int, probabilities: NDArray[np.float64]) -> None:
        answer, truth = int(probabilities.argmax()), int(self.labels[i])
        show_image(axes, self.images[i], colour=KNOWN if answer == truth else UNKNOWN)
        axes.set_title(f"{self.class_names[answer]}, {probabilities[answer]:.0%}", loc="center", fontsize=11)
        axes.set_xlabel("right" if answer == truth else f"is {self.class_names[truth]}", fontsize=11)
