"""Calibration errors: one number for how far confidence is from accuracy.

All of them take probabilities (N, K) with labels (N,), or confidence (N,) with right or wrong (N,), and are zero at
best. Derived by hand, with what each of them hides, in chapter 11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutorial_lib.calibration.bins import Scheme, assign_bins, reliability_bins
from tutorial_lib.calibration.inputs import as_array, check_probabilities, confidence_and_correct, top_confidence
from tutorial_lib.metrics import Interval


def ece(predictions: Any, outcomes: Any, bins: int = 15, scheme: Scheme = "width") -> float:
    r"""Expected calibration error, :math:`\sum_m \frac{n_m}{n} |\mathrm{acc}_m - \mathrm{conf}_m|`, in [0, 1].

    Guo et al., ICML 2017, eq. 3 (after Naeini et al., AAAI 2015); 15 bins of equal width by default, as there.

    Args:
        predictions, outcomes, bins, scheme: see `reliability_bins`.

    It is biased upwards: chance alone opens a gap in every bin, more so with few samples and many bins. See
    `squared_ece`.

    >>> ece([0.9, 0.9, 0.9, 0.9], [True, True, True, False])
    0.15000000000000002
    """
    table = reliability_bins(predictions, outcomes, bins, scheme)
    return float(np.nansum(table.weight * np.abs(table.gap)))


def adaptive_ece(predictions: Any, outcomes: Any, bins: int = 15) -> float:
    """`ece` over bins of equal count instead of equal width, in [0, 1].

    Nguyen and O'Connor, EMNLP 2015; Nixon et al., CVPR workshops 2019. Modern networks put most predictions near
    confidence 1, where equal width has only one bin.
    """
    return ece(predictions, outcomes, bins, scheme="count")


def mce(predictions: Any, outcomes: Any, bins: int = 15, scheme: Scheme = "width") -> float:
    """Maximum calibration error, the largest gap of any bin that is not empty, in [0, 1].

    Guo et al., ICML 2017, eq. 5. One prediction alone in its bin can decide it: read it beside the counts.
    """
    return float(np.nanmax(np.abs(reliability_bins(predictions, outcomes, bins, scheme).gap)))


def classwise_ece(probabilities: Any, labels: Any, bins: int = 15, scheme: Scheme = "width") -> float:
    """Mean over classes of the `ece` of "the probability of class k" against "the label is k", in [0, 1].

    Kull et al., NeurIPS 2019, section 2 (Nixon et al., 2019, call it static calibration error). It sees what the
    largest probability hides: a class that is always promised too little, another too much.

    Args:
        probabilities: (N, K), rows summing to one.
        labels: (N,), integers from 0 to K - 1.
        bins, scheme: see `reliability_bins`.
    """
    array, classes = check_probabilities(probabilities, labels)
    return float(np.mean([ece(array[:, k], classes == k, bins, scheme) for k in range(array.shape[1])]))


def squared_ece(
    predictions: Any, outcomes: Any, bins: int = 15, scheme: Scheme = "width", debiased: bool = True
) -> float:
    r"""Squared calibration error :math:`\sum_m \frac{n_m}{n} (\mathrm{acc}_m - \mathrm{conf}_m)^2`, less its bias.

    The square of a noisy gap is too large by the variance of the gap, and that variance can be estimated and taken
    off: Kumar et al., "Verified uncertainty calibration", NeurIPS 2019, section 5 (the same step as in Bröcker's and
    in Ferro and Fricker's work of 2012 on the Brier score). They take the variance of the accuracy, for a model that
    gives one confidence to a whole bin; ours is the variance of confidence minus right-or-wrong, which is the same
    thing there and stays right when confidence varies inside a bin. In a bin with differences :math:`d_i` the term is
    :math:`((\sum_i d_i)^2 - \sum_i d_i^2) / (n_m (n_m - 1))`.

    Args:
        predictions, outcomes, bins, scheme: see `reliability_bins`.
        debiased: False gives the plain square, too large on average.

    Returns:
        Debiased: at most 1, zero on average for a calibrated model, hence **negative** about as often as positive
        there. A bin with one sample knows nothing of its own variance and contributes zero.
    """
    confidence, correct = confidence_and_correct(predictions, outcomes)
    edges, index = assign_bins(confidence, bins, scheme)
    difference = confidence.astype(np.float64) - correct
    count = np.bincount(index, minlength=len(edges) - 1)
    total = np.bincount(index, weights=difference, minlength=len(edges) - 1)
    if not debiased:
        return float((total[count > 0] ** 2 / count[count > 0]).sum() / len(difference))
    squares = np.bincount(index, weights=difference**2, minlength=len(edges) - 1)
    enough = count > 1
    return float(((total**2 - squares)[enough] / (count[enough] - 1)).sum() / len(difference))


def debiased_ece(predictions: Any, outcomes: Any, bins: int = 15, scheme: Scheme = "width") -> float:
    """Root of the debiased `squared_ece`, zero where that is negative: an error in units of confidence, in [0, 1].

    The root-mean-square gap of Kumar et al., NeurIPS 2019; for the same gaps it is at least the mean gap, which `ece`
    estimates. The root brings a little bias back: over many runs, average `squared_ece`.
    """
    return max(0.0, squared_ece(predictions, outcomes, bins, scheme)) ** 0.5


def chance_ece(
    predictions: Any, bins: int = 15, scheme: Scheme = "width", repeats: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """The `ece` that a *calibrated* model with these confidences would show, in ``repeats`` imagined test sets.

    Every prediction is made right with a probability equal to its confidence: consistency resampling, Bröcker and
    Smith, "Increasing the reliability of reliability diagrams", Weather and Forecasting 2007. A measured error inside
    this distribution is no evidence of miscalibration.

    Args:
        predictions: probabilities (N, K), or confidence (N,).
        bins, scheme: see `reliability_bins`.
        repeats: how many test sets to imagine.
        seed: of the drawing.

    Returns:
        (repeats,), each in [0, 1].
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    confidence = top_confidence(predictions)
    edges, index = assign_bins(confidence, bins, scheme)
    values = confidence.astype(np.float64)
    promised = np.bincount(index, weights=values, minlength=len(edges) - 1)
    generator = np.random.default_rng(seed)
    errors = np.empty(repeats)
    for repeat in range(repeats):
        right = np.bincount(index, weights=generator.random(len(values)) < values, minlength=len(promised))
        errors[repeat] = np.abs(promised - right).sum() / len(values)
    return errors


def reflected_interval(
    statistic: Callable[[Any, Any], float],
    predictions: Any,
    outcomes: Any,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Basic ("reflected") bootstrap interval of a calibration error or a proper score.

    That of AUROC and its like, which are not biased, is `tutorial_lib.metrics.bootstrap_interval`.

    Samples are drawn with replacement, and the spread around the estimate is *reflected*: the two quantiles are
    subtracted from twice the estimate (Davison and Hinkley, "Bootstrap methods and their application", 1997, section
    5.2). Reading the quantiles directly would count the upward bias of a binned error twice; then the interval of a
    calibrated model never holds the truth. Reflected it still holds it less often than ``level`` says where the true
    error is close to zero; ask `chance_ece` there.

    Args:
        statistic: for example `ece`, or ``lambda p, y: ece(p, y, bins=10)``.
        predictions, outcomes: what it takes, N of each.
        level: coverage asked for, in (0, 1).
        resamples: how many bootstrap samples, at least 2.
        seed: of the resampling.

    Returns:
        The estimate, and the ends of its interval. The lower one can be negative where the estimate is no larger than
        chance makes it.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    if resamples < 2:
        raise ValueError(f"resamples must be at least 2, got {resamples}")
    rows, results = as_array(predictions), as_array(outcomes)
    estimate = statistic(rows, results)  # first, so that bad input is refused by the statistic's own message
    generator = np.random.default_rng(seed)
    values = np.empty(resamples)
    for resample in range(resamples):
        draw = generator.integers(len(rows), size=len(rows))
        values[resample] = statistic(rows[draw], results[draw])
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(2 * estimate - high), float(2 * estimate - low), level)
