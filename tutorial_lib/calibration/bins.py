"""Confidence bins: the table behind every reliability diagram and every expected calibration error.

Bins are ``(low, high]`` as in Guo et al., "On calibration of modern neural networks", ICML 2017, section 2; the first
one also holds confidence 0. Derived by hand in chapter 11.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tutorial_lib.calibration.inputs import confidence_and_correct

Scheme = Literal["width", "count"]


@dataclass(frozen=True)
class ReliabilityBins:
    """What happened in each of M confidence bins; empty bins are kept, with NaN for what they cannot say.

    Attributes:
        edges: (M + 1,) increasing; bin m is ``(edges[m], edges[m + 1]]``, the first one closed on the left too.
        count: (M,) predictions in each bin, int64.
        confidence: (M,) mean confidence in [0, 1], NaN where empty.
        accuracy: (M,) fraction of right predictions in [0, 1], NaN where empty.
    """

    edges: NDArray[np.float64]
    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def weight(self) -> NDArray[np.float64]:
        """(M,) share of all predictions, sums to one."""
        return self.count / self.count.sum()

    @property
    def gap(self) -> NDArray[np.float64]:
        """(M,) confidence minus accuracy, in [-1, 1]: positive is overconfident; NaN where empty."""
        return self.confidence - self.accuracy


def _edges(confidence: NDArray[np.floating], bins: int, scheme: Scheme) -> NDArray[np.float64]:
    # k / bins, correctly rounded. numpy.linspace multiplies instead and puts 5/6 just below the double nearest to it.
    if scheme == "width":
        return np.arange(bins + 1) / bins
    ranks = np.ceil(np.arange(1, bins + 1) * len(confidence) / bins).astype(int) - 1
    inner = np.unique(np.sort(confidence)[ranks].astype(np.float64))  # unique: a tie at a quantile is one edge, not two
    return np.concatenate([[0.0], inner[:-1], [1.0]])


def assign_bins(
    confidence: NDArray[np.floating], bins: int, scheme: Scheme
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Edges (M + 1,) and the bin (N,), 0 to M - 1, of every confidence; for the meaning see `reliability_bins`."""
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 1:
        raise ValueError(f"bins must be a positive whole number, got {bins!r}")
    if scheme not in ("width", "count"):
        raise ValueError(f"scheme must be 'width' (equal width) or 'count' (equal count), got {scheme!r}")
    edges = _edges(confidence, int(bins), scheme)
    # Rounded to the precision of the confidence: a float32 0.6 is on the edge 0.6, as it reads, not just above it.
    index = np.searchsorted(edges.astype(confidence.dtype), confidence, side="left") - 1
    return edges, index.clip(0, len(edges) - 2)


def reliability_bins(predictions: Any, outcomes: Any, bins: int = 15, scheme: Scheme = "width") -> ReliabilityBins:
    """Sort predictions into bins of confidence.

    Args:
        predictions: probabilities (N, K), or confidence (N,).
        outcomes: labels (N,) beside probabilities, right or wrong (N,) beside confidence; see `confidence_and_correct`.
        bins: how many.
        scheme: ``"width"``: edges at 0, 1/M, ..., 1. ``"count"``: edges at the quantiles of the confidence, each bin
            closing at the value that its quantile meets; equal confidences stay together, so ties leave fewer bins.

    Confidence 0 is in the first bin and confidence 1 in the last, whatever the precision.

    >>> table = reliability_bins([0.0, 0.2, 0.6, 1.0], [False, True, True, True], bins=5)
    >>> table.count
    array([2, 0, 1, 0, 1])
    >>> table.accuracy
    array([0.5, nan, 1. , nan, 1. ])
    """
    confidence, correct = confidence_and_correct(predictions, outcomes)
    edges, index = assign_bins(confidence, bins, scheme)
    many = len(edges) - 1
    count = np.bincount(index, minlength=many)
    with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN of an empty bin
        mean_confidence = np.bincount(index, weights=confidence, minlength=many) / count
        accuracy = np.bincount(index, weights=correct, minlength=many) / count
    return ReliabilityBins(edges, count, mean_confidence, accuracy)
