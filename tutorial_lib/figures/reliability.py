"""The reliability diagram: accuracy against confidence, and how far chance alone would stray."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.stats import binom

from tutorial_lib.calibration.bins import ReliabilityBins, Scheme, reliability_bins
from tutorial_lib.plots import KNOWN, MODEL, MUTED, UNKNOWN

LARGEST_DOT = 130.0
"""Area in square points of a dot that holds half of the predictions or more."""


def reliability_diagram(
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
