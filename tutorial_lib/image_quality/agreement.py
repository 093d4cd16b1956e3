r"""Does a measure agree with people? The columns of the published tables.

PLCC, RMSE and the outlier ratio compare numbers, and a measure need not speak in the units of opinion scores. So it is
first fitted to them by the usual logistic with five parameters (Sheikh, Sabir and Bovik, "A Statistical Evaluation of
Recent Full Reference Image Quality Assessment Algorithms", IEEE Transactions on Image Processing 15, 2006):

.. math:: f(q) = b_1 \Bigl(\frac12 - \frac{1}{1 + e^{b_2 (q - b_3)}}\Bigr) + b_4 q + b_5

SRCC and KRCC compare orders and need no fit. Signs of all correlations are taken off: a measure of quality falls with
the *difference* mean opinion score (DMOS) and rises with MOS.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Agreement",
    "agreement",
    "fitted_scores",
    "logistic",
    "pairwise_accuracy",
    "same_correlation",
    "significance_flag",
]


@dataclass(frozen=True)
class Agreement:
    """A row of the table. None of it depends on the direction of the measure.

    Attributes:
        plcc: |Pearson| of fitted and opinion scores, in [0, 1].
        srcc: |Spearman|, in [0, 1].
        krcc: |Kendall's tau-b|, in [0, 1].
        rmse: root mean squared error after the fit, in the units of the opinion scores; divided by N, not N - 5.
        outlier_ratio: share of images whose fitted score is more than two standard deviations of the opinions away from
            their mean, in [0, 1]; None without standard deviations.
        count: N.
    """

    plcc: float
    srcc: float
    krcc: float
    rmse: float
    outlier_ratio: float | None
    count: int


def agreement(quality: ArrayLike, opinions: ArrayLike, deviations: ArrayLike | None = None) -> Agreement:
    """Compare a measure with opinion scores.

    Args:
        quality: what the measure says of N >= 6 images, finite. (PSNR of a perfect copy is not: leave references out.)
        opinions: MOS or DMOS of the same images.
        deviations: standard deviation over the observers for each image, for the outlier ratio. Databases differ in
            whether they give this or the standard error; the ratio of 0.6 that is published for TID2013 comes of the
            latter, we believe.

    Raises:
        ValueError: too few, not finite, or all alike.
    """
    first, second = _vectors(quality, opinions, 6)
    fitted = fitted_scores(first, second)
    outliers = None
    if deviations is not None:
        spread = np.asarray(deviations, dtype=np.float64)
        if spread.shape != first.shape or not np.isfinite(spread).all() or (spread < 0).any():
            raise ValueError(f"deviations must be {len(first)} finite numbers, none negative")
        outliers = float((np.abs(fitted - second) > 2 * spread).mean())
    return Agreement(
        plcc=0.0 if np.ptp(fitted) == 0 else abs(float(np.corrcoef(fitted, second)[0, 1])),
        srcc=abs(float(scipy.stats.spearmanr(first, second).statistic)),
        krcc=abs(float(scipy.stats.kendalltau(first, second).statistic)),
        rmse=float(np.sqrt(((fitted - second) ** 2).mean())),
        outlier_ratio=outliers,
        count=len(first),
    )


def logistic(
    quality: NDArray[np.float64], b1: float, b2: float, b3: float, b4: float, b5: float
) -> NDArray[np.float64]:
    """f of the top of this module. Where e^… would overflow, its limit.

    >>> logistic(np.array([0.0, 100.0]), 2.0, 1.0, 0.0, 0.0, 3.0)
    array([3., 4.])
    """
    return b1 * (scipy.special.expit(b2 * (quality - b3)) - 0.5) + b4 * quality + b5


def fitted_scores(quality: ArrayLike, opinions: ArrayLike) -> NDArray[np.float64]:
    """f(quality) with b1 to b5 of least squared error: (N,), in the units of the opinions.

    Everybody fits this function and few say how, and it has several minima: we standardise the quality, start from a
    rising and a falling curve, steep and flat, and from the straight line, and keep the best. The fit is never worse
    than a straight line.
    """
    first, second = _vectors(quality, opinions, 6)
    scaled = (first - first.mean()) / first.std()
    span, middle = float(np.ptp(second)), float(second.mean())
    slope = float(np.polyfit(scaled, second, 1)[0])
    line = slope * scaled + middle
    best, least = line, float(((line - second) ** 2).sum())
    starts = [(sign * span, steep, 0.0, 0.0, middle) for sign in (1, -1) for steep in (0.5, 2.0)]
    for start in [*starts, (0.1 * span * math.copysign(1, slope), 1.0, 0.0, slope, middle)]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.optimize.OptimizeWarning)  # the covariance is not wanted
            try:
                found, _ = scipy.optimize.curve_fit(logistic, scaled, second, p0=start, maxfev=5000)
            except RuntimeError:  # this start leads nowhere within the limit
                continue
        curve = logistic(scaled, *found)
        error = float(((curve - second) ** 2).sum())
        if error < least:
            best, least = curve, error
    return best


def same_correlation(one: float, other: float, count: int) -> float:
    """Two-sided p value of "both measures correlate alike", by Fisher's z, as ITU-T Recommendation P.1401 has it.

    The recommendation takes the two correlations as those of independent samples. Here both are of the same images, so
    the test sees fewer differences than there are; it is what the field reports, for SRCC and KRCC as well. With N = 450
    and 3,000 it gives 46 of the 48 flags of the published table (slide 108, Table 13). The other two are the PLCC of
    SUMMER: 0.901 beside 0.908 is flagged as worse there, and 0.861 beside 0.877 is not, as if the two had changed places.

    >>> round(same_correlation(0.867, 0.887, 450), 3)
    0.194
    """
    if count < 4 or not (-1 <= one <= 1 and -1 <= other <= 1):
        raise ValueError(f"correlations lie in [-1, 1] and come of at least 4 images, got {one}, {other}, {count}")
    if one == other:
        return 1.0
    with np.errstate(divide="ignore"):
        difference = abs(np.arctanh(one) - np.arctanh(other)) / math.sqrt(2 / (count - 3))
    return float(2 * scipy.stats.norm.sf(difference))


def significance_flag(correlation: float, introspective: float, count: int, level: float = 0.05) -> int:
    """The slide's -1, 0 or 1: worse than, not to be told from, or better than the introspective measure.

    Args:
        correlation, introspective: PLCC, SRCC or KRCC without sign, in [0, 1].
        count: images in the database (450 in MULTI-LIVE, 3,000 in TID2013).
        level: p value from which on the difference counts as chance.

    >>> significance_flag(0.849, 0.887, 450), significance_flag(0.867, 0.887, 450)
    (-1, 0)
    """
    if same_correlation(correlation, introspective, count) >= level:
        return 0
    return 1 if correlation > introspective else -1


def pairwise_accuracy(quality: ArrayLike, level: ArrayLike, group: ArrayLike | None = None) -> float:
    """Share of pairs that a measure puts in the right order, ties counting half; for ladders, which have no opinions.

    Args:
        quality: larger = better, infinity allowed (N,).
        level: how much was done to each image, larger = worse (N,).
        group: only pairs of one group, such as one reference under one distortion, are compared: blur at level 3 and
            noise at level 2 have no known order. None: all pairs.

    Pairs of one level have no order and are left out.

    >>> pairwise_accuracy([0.9, 0.8, 0.85], [1, 2, 3])
    0.6666666666666666
    """
    values, levels = np.asarray(quality, dtype=np.float64), np.asarray(level)
    groups = np.zeros(len(values), dtype=int) if group is None else np.unique(np.asarray(group), return_inverse=True)[1]
    if values.ndim != 1 or levels.shape != values.shape or groups.shape != values.shape or np.isnan(values).any():
        raise ValueError("quality, level and group must have one entry for each image, and no quality be NaN")
    right, pairs = 0.0, 0
    for member in np.unique(groups):
        mine, their = values[groups == member], levels[groups == member]
        milder = their[:, None] < their[None, :]
        pairs += int(milder.sum())
        right += float(
            (mine[:, None] > mine[None, :])[milder].sum() + 0.5 * (mine[:, None] == mine[None, :])[milder].sum()
        )
    if not pairs:
        raise ValueError("there is no pair of different levels")
    return right / pairs


def _vectors(quality: ArrayLike, opinions: ArrayLike, least: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.asarray(quality, dtype=np.float64), np.asarray(opinions, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) < least:
        raise ValueError(
            f"quality and opinions must be of the same {least} or more images, got {first.shape} and {second.shape}"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("quality or opinions are not finite; PSNR of a perfect copy is not, leave references out")
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        raise ValueError("quality or opinions are all alike; there is no order to compare")
    return first, second
