"""How well a score tells the unknown from the known: AUROC and its relatives, with intervals and paired comparisons.

Every function takes the scores of known images and the scores of unknown images, **larger = stranger**, as array,
tensor or list of numbers, shape (N,). They are compared in float64 and only by their order, so scores of 1e6 are as
good as scores of 1e-6. Equal scores count half. NaN and infinities are refused: they have no place in an order that
means something.

The papers do not agree on which class is "positive". Here each function says which one it takes, and where two are in
use, ``positive`` chooses: ``"out"`` (the unknown) or ``"in"`` (the known).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import stdtrit

__all__ = [
    "Comparison",
    "Interval",
    "aupr",
    "auroc",
    "bootstrap_interval",
    "compare",
    "detection_accuracy",
    "detection_error",
    "fpr_at_tpr",
    "least_auroc",
    "mean_interval",
    "roc_curve",
    "summary",
]

Scores = Any
"""What is accepted as scores: array, tensor (any device) or sequence of real numbers, shape (N,)."""

Metric = Callable[[Scores, Scores], float]


def auroc(scores_in: Scores, scores_out: Scores) -> float:
    """Area under the ROC curve: the probability that an unknown image scores higher than a known one.

    A tie counts half. 1 is perfect, 0.5 is guessing, below 0.5 the score points the wrong way. It does not matter
    which class is called positive, nor how many images each has.

    Args:
        scores_in: scores of known images, shape (N,), larger = stranger.
        scores_out: scores of unknown images, shape (M,).

    Raises:
        TypeError: the scores are not real numbers.
        ValueError: empty, not one-dimensional, NaN or infinite.

    >>> auroc([0.1, 0.2, 0.3], [0.2, 0.9])
    0.75
    """
    false, true = _counts(*_sides(scores_in, scores_out, "out"))
    return float(np.diff(false) @ (true[1:] + true[:-1]) / (2 * false[-1] * true[-1]))


def aupr(scores_in: Scores, scores_out: Scores, positive: str = "out") -> float:
    r"""Area under the precision-recall curve, as the average precision :math:`\sum_n (R_n - R_{n-1}) P_n`.

    There is no interpolation between the points: the trapezoidal rule that some benchmark code uses is too kind
    (Davis & Goadrich, ICML 2006). Guessing gives the share of the positive class, so values are comparable only
    between sets of the same balance.

    Args:
        scores_in, scores_out: as in `auroc`.
        positive: ``"out"``: finding unknown images is the task ("AUPR-out"; the published table of the gradient
            features fits this reading). ``"in"``: finding known ones, by their low score ("AUPR-in").

    >>> aupr([0.1, 0.4], [0.3, 0.5]), aupr([0.1, 0.4], [0.3, 0.5], positive="in")
    (0.8333333333333333, 0.8333333333333333)
    """
    false, true = _counts(*_sides(scores_in, scores_out, positive))
    precision = true[1:] / (true[1:] + false[1:])
    return float(np.diff(true) @ precision / true[-1])


def fpr_at_tpr(scores_in: Scores, scores_out: Scores, tpr: float = 0.95, positive: str = "in") -> float:
    """False positive rate at the first threshold where the true positive rate reaches ``tpr``. Smaller is better.

    Args:
        scores_in, scores_out: as in `auroc`.
        tpr: in (0, 1].
        positive: ``"in"`` is the definition of ODIN (Liang et al., ICLR 2018) and of most papers since: when ``tpr``
            of the known images are accepted, the share of unknown images that are accepted with them. ``"out"``, as
            pytorch-ood and OpenOOD compute it: when ``tpr`` of the unknown images are caught, the share of known
            images that raise a false alarm.

    >>> fpr_at_tpr([0.1, 0.2, 0.3, 0.4], [0.35, 0.5], tpr=0.75)
    0.0
    >>> fpr_at_tpr([0.1, 0.2, 0.3, 0.4], [0.35, 0.5])  # all four must be accepted, and 0.35 is accepted with them
    0.5
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must lie in (0, 1], got {tpr}")
    false, true = _counts(*_sides(scores_in, scores_out, positive))
    enough = true >= tpr * true[-1] - 1e-9  # 0.95 * 20 is not quite 19 in binary
    return float(false[np.argmax(enough)] / false[-1])


def detection_accuracy(scores_in: Scores, scores_out: Scores) -> float:
    """Largest balanced accuracy over all thresholds, max ½(TPR + TNR): known and unknown images equally likely.

    Between 0.5 and 1. The threshold is chosen on the images it is measured on, so small sets give optimistic values,
    never below 0.5. Lee et al. (NeurIPS 2018) define it so; it is the "detection accuracy" of the published tables.

    >>> detection_accuracy([0.1, 0.2], [0.15, 0.3])
    0.75
    """
    false_alarms, caught = roc_curve(scores_in, scores_out)
    return float(0.5 * (1 + np.max(caught - false_alarms)))


def detection_error(scores_in: Scores, scores_out: Scores) -> float:
    """Smallest balanced error over all thresholds, min ½(FNR + FPR) = 1 - `detection_accuracy`. Smaller is better.

    The text of the ODIN paper evaluates it at 95 % TPR, its code takes this minimum, and the tables that followed
    used the code.

    >>> detection_error([0.1, 0.2], [0.15, 0.3])
    0.25
    """
    return 1 - detection_accuracy(scores_in, scores_out)


def roc_curve(scores_in: Scores, scores_out: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curve itself: (false alarms among the known, share of the unknown that is caught), both from 0 to 1.

    >>> roc_curve([0.1, 0.4], [0.3])
    (array([0. , 0.5, 0.5, 1. ]), array([0., 0., 1., 1.]))
    """
    false, true = _counts(*_sides(scores_in, scores_out, "out"))
    return false / false[-1], true / true[-1]


def summary(scores_in: Scores, scores_out: Scores) -> dict[str, float]:
    """Every metric of this module under the name it has in result rows, fractions in [0, 1].

    Where the field has two senses, both are there, and the name ends in the class that counts as positive:
    ``fpr_at_95_tpr_in`` is ODIN's (95 % of the known are accepted; which unknown come in with them?),
    ``fpr_at_95_tpr_out`` that of pytorch-ood and OpenOOD (95 % of the unknown are caught; which known are turned away?).

    >>> sorted(summary([0.1, 0.2], [0.3, 0.4]))
    ['aupr_in', 'aupr_out', 'auroc', 'detection_accuracy', 'detection_error', 'fpr_at_95_tpr_in', 'fpr_at_95_tpr_out']
    """
    return {
        "auroc": auroc(scores_in, scores_out),
        "aupr_out": aupr(scores_in, scores_out, positive="out"),
        "aupr_in": aupr(scores_in, scores_out, positive="in"),
        "fpr_at_95_tpr_in": fpr_at_tpr(scores_in, scores_out, positive="in"),
        "fpr_at_95_tpr_out": fpr_at_tpr(scores_in, scores_out, positive="out"),
        "detection_accuracy": detection_accuracy(scores_in, scores_out),
        "detection_error": detection_error(scores_in, scores_out),
    }


@dataclass(frozen=True)
class Interval:
    """A value and its confidence interval, ``low`` to ``high`` at the given ``level``."""

    value: float
    low: float
    high: float
    level: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def least_auroc(fpr: float, error: float | None = None, tpr: float = 0.95) -> float:
    """The smallest AUROC that a concave ROC curve can have which goes through a printed point.

    A concave curve lies above its chords, so above those from (0, 0) to (fpr, tpr) to (1, 1); and the detection error,
    half the smallest sum of misses and false alarms, says how far it comes from the diagonal. Whoever finds a smaller
    AUROC printed beside these numbers has found a slip, or a curve that is not concave: one of a score that a
    rearrangement of its values would improve.

    Args:
        fpr: share of one class above the threshold at which a share ``tpr`` of the other is above it, in [0, 1].
        error: detection error, in [0, 0.5]; left out if it is not printed.
        tpr: in (0, 1).

    >>> round(least_auroc(0.0931), 4), round(least_auroc(0.0931, 0.0612), 4)
    (0.9284, 0.9388)
    """
    if not 0 <= fpr <= 1 or not 0 < tpr < 1 or not 0 <= (error or 0) <= 0.5:
        raise ValueError(f"fpr must lie in [0, 1], error in [0, 0.5], tpr in (0, 1); got {fpr}, {error}, {tpr}")
    corners = [(0.0, 0.0), (fpr, tpr), (1.0, 1.0)]
    if error is None:
        return _area_under_hull(corners)
    touching = np.linspace(0, 2 * error, 101)  # where the curve comes nearest to (0, 1) is not printed
    return min(_area_under_hull([*corners, (x, x + 1 - 2 * error)]) for x in touching)


def _area_under_hull(points: list[tuple[float, float]]) -> float:
    hull: list[tuple[float, float]] = []
    for x, y in sorted(points):
        while len(hull) > 1:
            (x1, y1), (x2, y2) = hull[-2:]
            if (x2 - x1) * (y - y1) < (y2 - y1) * (x - x1):
                break
            hull.pop()
        hull.append((x, y))
    xs, ys = np.array(hull).T
    return float((np.diff(xs) * (ys[1:] + ys[:-1]) / 2).sum())


def mean_interval(values: Any, level: float = 0.95) -> Interval:
    """Mean of a few independent numbers (one per trained network, say), and its interval by Student's t.

    For paired differences give the differences: what is hard about a network is then hard for both sides and cancels.

    Args:
        values: (N,), N at least 2.
        level: in (0, 1).

    >>> print(mean_interval([1.0, 2.0, 3.0]))
    2.000 [-0.484, 4.484]
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or len(numbers) < 2:
        raise ValueError(f"an interval needs two numbers or more in one row, got shape {numbers.shape}")
    if not np.isfinite(numbers).all():
        raise ValueError(
            f"an interval needs finite numbers, {int((~np.isfinite(numbers)).sum())} of {len(numbers)} are not"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    mean = float(numbers.mean())
    reach = float(stdtrit(len(numbers) - 1, (1 + level) / 2) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    return Interval(mean, mean - reach, mean + reach, level)


def bootstrap_interval(
    metric: Metric, scores_in: Scores, scores_out: Scores, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of a metric over the choice of test images (Efron & Tibshirani, 1993, chapter
    13).

    Known and unknown images are drawn anew separately, with replacement. The interval is about the images, not about
    the training
    of the network: that spread needs several seeds. Images are taken to be independent; patches of one photograph are
    not, and their interval is too narrow. For what is biased, as calibration errors are, see
    `tutorial_lib.calibration.reflected_interval`.

    Args:
        metric: any function of this module that takes (scores_in, scores_out), or your own.
        scores_in, scores_out: as in `auroc`.
        level: in (0, 1).
        resamples: at least 100; 1000 gives the ends to about a tenth of the interval's width.
        seed: same seed, same interval.

    >>> print(bootstrap_interval(auroc, [0.1, 0.2, 0.3, 0.4], [0.35, 0.5, 0.6]))
    0.917 [0.667, 1.000]
    """
    known, unknown = _checked(scores_in, "scores_in"), _checked(scores_out, "scores_out")
    draws = _resampled(level, resamples, seed, len(known), len(unknown))
    values = [metric(known[i], unknown[j]) for i, j in draws]
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(metric(known, unknown), float(low), float(high), level)


@dataclass(frozen=True)
class Comparison:
    """Difference of two detectors on the same images, ``metric(a) - metric(b)``, its interval, and a two-sided p
    value for "no difference"."""

    difference: float
    low: float
    high: float
    level: float
    p_value: float

    def __str__(self) -> str:
        return f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}], p = {self.p_value:.3f}"


def compare(
    a: tuple[Scores, Scores],
    b: tuple[Scores, Scores],
    metric: Metric = auroc,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Paired bootstrap comparison of two detectors that have scored the same images.

    Each resample draws images, not scores, and both detectors are measured on that draw; what is hard about an image
    is then hard for both and cancels. (Comparing two separate intervals instead throws this away and misses real
    differences.) It holds for every metric here; for the AUROC alone it agrees with DeLong et al. (Biometrics 1988).

    Args:
        a, b: (scores_in, scores_out) of each detector, in the same order of images.
        metric, level, resamples, seed: as in `bootstrap_interval`.

    Returns:
        `Comparison`. The p value is twice the smaller share of resamples on either side of zero, one resample added
        to each, so it is never below 2 / (resamples + 1).

    >>> same = ([0.1, 0.2, 0.3], [0.2, 0.9])
    >>> print(compare(same, same))
    +0.000 [+0.000, +0.000], p = 1.000
    """
    (a_in, a_out), (b_in, b_out) = _checked_pair(a, "a"), _checked_pair(b, "b")
    if a_in.shape != b_in.shape or a_out.shape != b_out.shape:
        raise ValueError(
            f"a paired comparison needs scores of the same images: a has {len(a_in)} known and {len(a_out)} unknown, "
            f"b has {len(b_in)} and {len(b_out)}"
        )
    draws = _resampled(level, resamples, seed, len(a_in), len(a_out))
    differences = np.array([metric(a_in[i], a_out[j]) - metric(b_in[i], b_out[j]) for i, j in draws])
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    smaller_side = min((differences <= 0).sum(), (differences >= 0).sum())
    p_value = min(1.0, 2 * (1 + smaller_side) / (resamples + 1))
    return Comparison(metric(a_in, a_out) - metric(b_in, b_out), float(low), float(high), level, float(p_value))


def _resampled(
    level: float, resamples: int, seed: int, n_in: int, n_out: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    if resamples < 100:
        raise ValueError(f"a bootstrap needs at least 100 resamples, got {resamples}")
    generator = np.random.default_rng(seed)
    return ((generator.integers(n_in, size=n_in), generator.integers(n_out, size=n_out)) for _ in range(resamples))


def _checked(scores: Scores, name: str) -> NDArray[np.float64]:
    if isinstance(scores, torch.Tensor):
        scores = scores.detach().cpu().double().numpy() if not scores.is_complex() else scores.detach().cpu().numpy()
    array = np.asarray(scores)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"{name} must be real numbers, got {array.dtype}")
    array = array.astype(np.float64)
    if array.ndim != 1:
        raise ValueError(f"{name} must have the shape (N,), one score an image, got {array.shape}")
    if array.size == 0:
        raise ValueError(f"{name} is empty")
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ValueError(f"{name} holds {bad} NaN or infinite values of {array.size}; find what made them")
    return array


def _checked_pair(pair: tuple[Scores, Scores], name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{name} must be a pair (scores_in, scores_out)")
    return _checked(pair[0], f"{name}[0]"), _checked(pair[1], f"{name}[1]")


def _sides(scores_in: Scores, scores_out: Scores, positive: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(negative, positive) scores, larger = more positive."""
    if positive not in ("in", "out"):
        raise ValueError(f"positive must be 'in' or 'out', got {positive!r}")
    known, unknown = _checked(scores_in, "scores_in"), _checked(scores_out, "scores_out")
    return (known, unknown) if positive == "out" else (-unknown, -known)


def _counts(
    negative: NDArray[np.float64], positive: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False and true positives when all scores down to a threshold are called positive.

    One entry a distinct score, highest first, after a first entry for "none": ties enter together. Everything above is
    read off these two counts. (scikit-learn gives the same values, some thirty times slower, which a bootstrap
    feels.)
    """
    scores = np.concatenate([negative, positive])
    order = np.argsort(-scores)
    is_positive = order >= len(negative)
    ordered = scores[order]
    last_of_tie = np.append(ordered[1:] != ordered[:-1], True)
    true = np.cumsum(is_positive)[last_of_tie]
    false = np.cumsum(~is_positive)[last_of_tie]
    return np.append(0.0, false), np.append(0.0, true)
