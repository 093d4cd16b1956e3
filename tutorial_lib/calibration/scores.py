"""Proper scores: numbers that only the true probabilities minimise.

Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA 2007. Both are averages over
samples, smaller is better, and neither needs a bin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tutorial_lib.calibration.bins import Scheme, assign_bins
from tutorial_lib.calibration.inputs import check_probabilities, confidence_and_correct


def negative_log_likelihood(probabilities: Any, labels: Any) -> float:
    """Mean of minus the natural logarithm of the label's probability, in nats, from 0 to infinity.

    Args:
        probabilities: (N, K), rows summing to one.
        labels: (N,), integers from 0 to K - 1.

    Infinite when a label was given probability 0. A float32 softmax rounds small probabilities to 0: compute it in
    float64 (`tutorial_lib.models.predict.predict_probabilities` does).

    >>> negative_log_likelihood([[0.5, 0.5], [0.5, 0.5]], [0, 1])
    0.6931471805599453
    """
    array, classes = check_probabilities(probabilities, labels)
    with np.errstate(divide="ignore"):
        return float(-np.log(array[np.arange(len(array)), classes].astype(np.float64)).mean())


def brier_score(probabilities: Any, labels: Any) -> float:
    """Mean squared distance between the probabilities and the one-hot label, from 0 to 2 (Brier, 1950).

    Summed over classes, as Brier wrote it; for two classes that is twice scikit-learn's default.

    Args:
        probabilities: (N, K), rows summing to one.
        labels: (N,), integers from 0 to K - 1.

    >>> brier_score([[0.5, 0.5], [0.5, 0.5]], [0, 1])
    0.5
    """
    array, classes = check_probabilities(probabilities, labels)
    return float(((array - np.eye(array.shape[1])[classes]) ** 2).sum(axis=1).mean())


@dataclass(frozen=True)
class BrierDecomposition:
    """Murphy's three parts of the Brier score of an event, and what binning leaves over.

    ``score == reliability - resolution + uncertainty + within_bins`` exactly.

    Attributes:
        reliability: mean squared gap between confidence and accuracy over the bins, at least 0, smaller is better: the
            part that calibration can mend.
        resolution: how far the accuracies of the bins spread around the overall accuracy, at least 0, larger is better.
        uncertainty: accuracy times one minus accuracy, at most 1/4: the score of one who always says the overall
            accuracy.
        within_bins: variance of the confidence inside the bins less twice its covariance with being right (Stephenson
            et al., 2008); 0 when a bin holds one value only.
    """

    reliability: float
    resolution: float
    uncertainty: float
    within_bins: float

    @property
    def score(self) -> float:
        """Mean squared difference between confidence and right-or-wrong, in [0, 1]."""
        return self.reliability - self.resolution + self.uncertainty + self.within_bins


def brier_decomposition(
    predictions: Any, outcomes: Any, bins: int = 15, scheme: Scheme = "width"
) -> BrierDecomposition:
    """Murphy's decomposition of the Brier score of the event "the prediction is right".

    Murphy, "A new vector partition of the probability score", J. Applied Meteorology 1973, over bins of confidence.

    Args:
        predictions, outcomes, bins, scheme: see `reliability_bins`.

    >>> parts = brier_decomposition([0.9, 0.9, 0.6, 0.6], [True, True, True, False], bins=10)
    >>> round(parts.reliability, 4), round(parts.resolution, 4), round(parts.uncertainty, 4)
    (0.01, 0.0625, 0.1875)
    """
    confidence, correct = confidence_and_correct(predictions, outcomes)
    edges, index = assign_bins(confidence, bins, scheme)
    values, right = confidence.astype(np.float64), correct.astype(np.float64)
    count = np.bincount(index, minlength=len(edges) - 1)
    safe = np.maximum(count, 1)  # an empty bin has weight 0 below
    mean_value = np.bincount(index, weights=values, minlength=len(count)) / safe
    mean_right = np.bincount(index, weights=right, minlength=len(count)) / safe
    weight = count / len(values)
    within = (values - mean_value[index]) ** 2 - 2 * (values - mean_value[index]) * (right - mean_right[index])
    overall = right.mean()
    return BrierDecomposition(
        reliability=float((weight * (mean_value - mean_right) ** 2).sum()),
        resolution=float((weight * (mean_right - overall) ** 2).sum()),
        uncertainty=float(overall * (1 - overall)),
        within_bins=float(within.mean()),
    )
