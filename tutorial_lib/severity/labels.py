"""From a score to a severity, and from a severity to labels.

Kokilepersaud et al., "Gradient-based severity labeling for biomarker classification in OCT", ICIP 2022, take the score
of an anomaly detector trained on healthy images for a degree of illness, cut it into bins, and use the bins as labels.
How the bins are cut is not published; ours hold equally many images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

from tutorial_lib.metrics import auroc

__all__ = ["among", "expected_companions", "quantile_bins", "spearman"]


def quantile_bins(scores: Any, bins: int) -> NDArray[np.int64]:
    """Severity labels: 0 for the lowest scores, ``bins`` - 1 for the highest, equally many images in each.

    Equal scores get equal labels, even where that makes bins unequal. With as many bins as images every image is alone.

    Args:
        scores: (N,), larger = stranger.
        bins: at least 1.

    Returns:
        labels (N,) in 0 .. bins - 1; with ties or more bins than images some labels do not occur.

    Raises:
        ValueError: no score, NaN or infinite scores, or less than one bin.

    >>> quantile_bins([0.1, 0.5, 0.2, 0.9], bins=2)
    array([0, 1, 0, 1])
    """
    values = _checked(scores, "scores")
    if bins != int(bins) or bins < 1:
        raise ValueError(f"bins must be a whole number from 1 on, got {bins!r}")
    places = rankdata(values, method="min").astype(np.int64) - 1
    return places * int(bins) // len(values)


def expected_companions(labels: Any, batch_size: int) -> float:
    """How many other images of its own label an image meets in a random batch, on average over images.

    This is what makes a severity label different from none: with 0.1 companions, nine images in ten have no positive
    but their own second view, and supervised contrastive learning has become SimCLR.

    Args:
        labels: whole numbers (N,).
        batch_size: images in a batch drawn without replacement, at most N.

    >>> round(expected_companions([0, 0, 1, 1], batch_size=4), 3), expected_companions([0, 1, 2, 3], batch_size=4)
    (1.0, 0.0)
    """
    names, counts = np.unique(np.asarray(labels).ravel(), return_counts=True)
    total = int(counts.sum())
    if not 1 <= batch_size <= total:
        raise ValueError(f"a batch holds 1 to {total} of these images, got {batch_size}")
    if total == 1:
        return 0.0
    return float((counts * (counts - 1)).sum() / total * (batch_size - 1) / (total - 1))


def spearman(scores: Any, severity: Any) -> float:
    """Spearman's rank correlation of a score with a known severity, in [-1, 1]; ties get their mean rank.

    Raises:
        ValueError: different lengths, fewer than three images, NaN, or a constant, which has no order to compare.

    >>> round(spearman([0.1, 0.3, 0.2, 0.9], [1, 2, 3, 4]), 3)
    0.8
    """
    a, b = _checked(scores, "scores"), _checked(severity, "severity")
    if len(a) != len(b) or len(a) < 3:
        raise ValueError(f"a rank correlation needs three or more pairs, got {len(a)} scores and {len(b)} severities")
    for name, values in (("scores", a), ("severity", b)):
        if (values == values[0]).all():
            raise ValueError(f"{name} are all {values[0]:g}: a constant has no order to compare")
    return float(spearmanr(a, b).statistic)


def among(healthy: Any, score: float) -> float:
    """Share of the healthy images with a smaller score, ties counted half; in [0, 1].

    >>> among([1.0, 2.0, 3.0, 4.0], 3.5)
    0.75
    """
    return auroc(healthy, [float(score)])


def _checked(values: Any, name: str) -> NDArray[np.float64]:
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{name} must have the shape (N,) with N of at least 1, got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} hold NaN or infinite values")
    return array
