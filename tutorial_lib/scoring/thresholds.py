"""Thresholds that promise something, from few images and without a word about their distribution.

Two questions, two promises:

* **alarms**: from which score on is an image called strange, so that at most a share of *normal* images is? The promise
  holds on average over held-out sets (`alarm_threshold` without ``delta``), or with probability 1 - delta for the one set
  that one has.
* **answers**: from which confidence on may the network answer, so that at most a share of its *answers* is wrong
  (`answer_threshold`)?

All of it assumes one thing: what comes is exchangeable with what was held out. When it drifts, no promise is left;
`tutorial_lib.scoring.drift` watches for that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

__all__ = [
    "GRID",
    "AnswerThreshold",
    "alarm_threshold",
    "allowed_above",
    "answer_threshold",
    "chance_of_more",
    "upper_bound",
]

GRID = (0.0, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)
"""Confidences at which `answer_threshold` asks; fixed before any image is seen, or the promise would not hold."""


def alarm_threshold(held_out: ArrayLike, rate: float, delta: float | None = None) -> float:
    r"""The score above which an image is called strange, so that at most ``rate`` of normal images are.

    With n held-out scores and k of them above the threshold, a further normal image lies above it with probability at most
    :math:`(k + 1) / (n + 1)`, averaged over held-out sets (Vovk et al., 2005). For one given set the share of normal images
    above it is at most a :math:`\mathrm{Beta}(k + 1, n - k)` variable (exactly that without ties: it is an order statistic
    of uniform numbers), so that ``delta`` asks for the k whose upper quantile is still below ``rate`` (Vovk, "Conditional
    validity of inductive conformal predictors", ACML 2012).

    Args:
        held_out: scores (n,) of normal images that nothing was fitted on, larger = stranger.
        rate: share of normal images that may be called strange, in (0, 1).
        delta: probability with which a set of n images may break the promise; None for a promise on average.

    Returns:
        A held-out score t; alarm when a score is **above** t.

    Raises:
        ValueError: n is too small for this promise, and how many it takes; or a score is no number.

    >>> alarm_threshold(range(99), rate=0.05)
    94.0
    >>> alarm_threshold(range(99), rate=0.05, delta=0.1)
    97.0
    """
    scores = np.sort(np.asarray(held_out, dtype=np.float64))[::-1]
    if np.isnan(scores).any():
        raise ValueError(
            f"{int(np.isnan(scores).sum())} of {len(scores)} held-out scores are NaN; leave those images out"
        )
    return float(scores[allowed_above(len(scores), rate, delta)])


def allowed_above(count: int, rate: float, delta: float | None = None) -> int:
    """How many of ``count`` held-out scores may lie above the threshold of `alarm_threshold`.

    >>> allowed_above(99, rate=0.05), allowed_above(99, rate=0.05, delta=0.1)
    (4, 1)
    """
    _check_share("rate", rate)
    if delta is None:
        above, least = math.floor(rate * (count + 1) + 1e-9) - 1, math.ceil(1 / rate - 1e-9) - 1
    else:
        _check_share("delta", delta)
        k = np.arange(count)
        above = int((beta.ppf(1 - delta, k + 1, count - k) <= rate).sum()) - 1  # the quantile grows with k
        least = math.ceil(math.log(delta) / math.log1p(-rate))
    if above < 0:
        raise ValueError(f"{count} held-out scores are too few for this promise; it takes {least}")
    return above


def chance_of_more(above: int, count: int, rate: float) -> float:
    """Probability, over the draw of ``count`` held-out scores, that more than ``rate`` of all normal images lie above a
    threshold that ``above`` of the held-out ones exceed: the upper tail of Beta(above + 1, count - above).

    >>> round(chance_of_more(0, 59, 0.05), 3)
    0.048
    """
    _check_share("rate", rate)
    if not 0 <= above < count:
        raise ValueError(f"{above} of {count} held-out scores cannot lie above one of them")
    return float(beta.sf(rate, above + 1, count - above))


def upper_bound(wrong: int, count: int, delta: float) -> float:
    """The largest error rate that ``wrong`` errors in ``count`` answers do not rule out at level ``delta``.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 1934,
    one-sided: the true rate is below it with probability at least 1 - delta. 1 where there are no answers.

    >>> round(upper_bound(0, 100, 0.05), 4)
    0.0295
    """
    _check_share("delta", delta)
    if not 0 <= wrong <= count:
        raise ValueError(f"{wrong} of {count} answers cannot be wrong")
    return 1.0 if wrong == count else float(beta.ppf(1 - delta, wrong + 1, count - wrong))


@dataclass(frozen=True)
class AnswerThreshold:
    """A confidence from which on the network may answer, and what that promises.

    Attributes:
        threshold: answer if the confidence is at least this; None if no entry of the grid keeps the promise.
        answered: share of the calibration images that are answered.
        wrong: answers among these that were wrong.
        n: calibration images.
        bound: with probability at least 1 - delta, no larger share of answers is wrong.
        risk, delta: as asked for.
    """

    threshold: float | None
    answered: float
    wrong: int
    n: int
    bound: float
    risk: float
    delta: float

    def __str__(self) -> str:
        if self.threshold is None:
            return f"no threshold promises at most {100 * self.risk:g} % wrong answers from {self.n:,} images"
        return (
            f"answer from confidence {self.threshold:g} on ({self.answered:.1%} of {self.n:,} images, {self.wrong} wrong):\n"
            f"  at most {100 * self.bound:.2g} % of such answers are wrong, with probability {100 * (1 - self.delta):g} %\n"
            "  over the draw of these images, as long as what comes is like them"
        )


def answer_threshold(
    confidence: ArrayLike, correct: ArrayLike, risk: float, delta: float = 0.05, grid: Sequence[float] = GRID
) -> AnswerThreshold:
    """The lowest confidence of ``grid`` from which on at most ``risk`` of the answers are wrong.

    At each of the G entries the answered images are a sample of their own; the exact binomial bound at level delta / G holds
    for all entries together (a union bound), hence also for the one that is chosen. The idea is that of Geifman and
    El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017, with a grid in place of their search.

    Args:
        confidence: (n,) in [0, 1], of images on which neither the network nor its temperature was fitted.
        correct: (n,) right or wrong.
        risk: share of answers that may be wrong, in (0, 1).
        delta: probability with which the draw of these images may break the promise.
        grid: confidences, chosen without looking at these images.

    >>> answer_threshold([0.99] * 500 + [0.55] * 100, [True] * 500 + [False] * 100, risk=0.05).threshold
    0.6
    """
    _check_share("risk", risk)
    values, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    if np.isnan(values).any():
        raise ValueError(f"{int(np.isnan(values).sum())} of {len(values)} confidences are NaN; leave those images out")
    if values.shape != right.shape or values.ndim != 1 or not len(values):
        raise ValueError(f"confidence and correct must have the same shape (n,), got {values.shape} and {right.shape}")
    for threshold in sorted(grid):
        answered = values >= threshold
        wrong = int((~right[answered]).sum())
        bound = upper_bound(wrong, int(answered.sum()), delta / len(grid))
        if bound <= risk:
            return AnswerThreshold(threshold, float(answered.mean()), wrong, len(values), bound, risk, delta)
    return AnswerThreshold(None, 0.0, 0, len(values), 1.0, risk, delta)


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie strictly between 0 and 1, got {value}")
