"""Is what comes still like what was held out? A watch that may look after every image and still promises something.

Each image that comes gets its rank among all scores so far, held-out ones included: a conformal p-value. As long as nothing
changes these are independent and uniform (Vovk et al., "Algorithmic learning in a random world", 2005, section 8.2), and a
gambler who bets that they are not cannot expect to win. His wealth is the evidence: by Ville's inequality it ever reaches
:math:`1 / \\delta` with probability at most :math:`\\delta`, however long one watches. The bet is the "simple jumper" of Vovk et
al., "Retrain or not retrain: conformal test martingales for change-point detection", COPA 2021, algorithm 1.

`control_chart` is the cheap control: the mean of the last scores against the mean of the held-out ones. It keeps its level in
each window, and not over all of them.
"""

from __future__ import annotations

import bisect
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

__all__ = ["control_chart", "online_p_values", "wealth"]


def online_p_values(held_out: ArrayLike, stream: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
    """Smoothed conformal p-values (T,) in (0, 1) of scores as they come; small = stranger than what came before.

    The t-th is :math:`(\\#\\{s_i > s_t\\} + u \\, \\#\\{s_i = s_t\\}) / (n + t)` over the held-out scores and those of the stream up
    to and including t, with u uniform: ties are broken by chance. Independent and uniform if all scores are exchangeable.

    Args:
        held_out: scores (n,) of normal images, larger = stranger.
        stream: scores (T,) in the order of their coming.
        seed: of u.
    """
    seen = sorted(float(score) for score in np.asarray(held_out, dtype=np.float64))
    coming = np.asarray(stream, dtype=np.float64)
    if not np.isfinite(seen).all() or not np.isfinite(coming).all():
        raise ValueError("scores must be finite")
    uniform = np.random.default_rng(seed).uniform(size=len(coming))
    values = np.empty(len(coming))
    for place, score in enumerate(coming):
        bisect.insort(seen, float(score))
        above = len(seen) - bisect.bisect_right(seen, score)
        equal = len(seen) - above - bisect.bisect_left(seen, score)
        values[place] = (above + uniform[place] * equal) / len(seen)
    return values


def wealth(p_values: ArrayLike, jump: float = 0.01) -> NDArray[np.float64]:
    """Natural logarithm (T,) of a gambler's wealth, who started with 1 and bets against uniform p-values.

    Three gamblers bet :math:`1 + \\epsilon (p - 1/2)` with :math:`\\epsilon = -1, 0, 1`: on small p-values (stranger than
    before), on nothing, on large ones. After every bet a share ``jump`` of the money is spread evenly among them.
    The probability that the wealth ever reaches :math:`1 / \\delta` is at most :math:`\\delta` if nothing has changed.

    >>> bool(wealth([0.01] * 50)[-1] > np.log(1000)), bool(wealth([0.5] * 50)[-1] <= 0)
    (True, True)
    """
    slopes = np.array([-1.0, 0.0, 1.0])
    shares, log_total = np.full(3, 1 / 3), 0.0
    values = np.asarray(p_values, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all() or not 0 <= jump <= 1:
        raise ValueError("p-values and the jump must lie in [0, 1]")
    found = np.empty(len(values))
    for place, p in enumerate(values):
        shares = (1 - jump) * shares + jump * shares.sum() / 3
        shares = shares * (1 + slopes * (p - 0.5))
        total = shares.sum()
        log_total += math.log(total)
        shares = shares / total  # the wealth itself would overflow
        found[place] = log_total
    return found


def control_chart(held_out: ArrayLike, stream: ArrayLike, window: int = 50, delta: float = 0.01) -> NDArray[np.bool_]:
    """Alarm (T,) where the mean of the last ``window`` scores lies too far above the mean of the held-out ones.

    Too far is the upper ``delta`` quantile of a normal distribution with the deviation of such means (Shewhart's chart): in
    one window a false alarm has probability about delta, in many windows it comes in the end.
    """
    known, coming = np.asarray(held_out, dtype=np.float64), np.asarray(stream, dtype=np.float64)
    if window < 1 or len(known) < 2 or not np.isfinite(known).all() or not np.isfinite(coming).all():
        raise ValueError("a control chart needs a window of at least 1, at least 2 held-out scores, and finite ones")
    limit = known.mean() + norm.ppf(1 - delta) * known.std(ddof=1) / math.sqrt(window)
    alarms = np.zeros(len(coming), dtype=bool)
    if len(coming) >= window:
        sums = np.cumsum(np.concatenate([[0.0], coming]))
        alarms[window - 1 :] = (sums[window:] - sums[:-window]) / window > limit
    return alarms
