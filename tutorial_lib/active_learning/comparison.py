"""What a strategy has gained over its random twin, and whether it is more than the luck of the seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.integrate
import scipy.stats
from numpy.typing import NDArray

from tutorial_lib.active_learning.loop import History
from tutorial_lib.metrics import Interval

__all__ = ["SUMMARIES", "area_under_curve", "last_round", "mean_interval", "mean_over_rounds", "paired_difference"]


def mean_over_rounds(history: History, test: str) -> float:
    """Mean accuracy over the rounds, in [0, 1]; the published tables seem to hold this, at small budgets."""
    return float(history.accuracy(test).mean())


def last_round(history: History, test: str) -> float:
    """Accuracy with all labels that were bought, in [0, 1]."""
    return float(history.accuracy(test)[-1])


def area_under_curve(history: History, test: str) -> float:
    """Area under accuracy against number of labels (trapezoids), divided by its width: in [0, 1].

    >>> from tutorial_lib.active_learning.loop import Round
    >>> curve = [Round(10, (), {"clean": 0.2}, {}), Round(20, (), {"clean": 0.6}, {})]
    >>> round(area_under_curve(History("any", 0, curve), "clean"), 6)
    0.4
    """
    labelled = history.labelled()
    if len(labelled) < 2:
        raise ValueError("an area needs at least two rounds")
    return float(scipy.integrate.trapezoid(history.accuracy(test), labelled) / (labelled[-1] - labelled[0]))


SUMMARIES = {"mean_over_rounds": mean_over_rounds, "area_under_curve": area_under_curve, "last_round": last_round}
"""One number of a run and a test set, by name."""


def mean_interval(differences: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of one number per seed, with Student's interval over the seeds.

    Args:
        differences: at least two, independent of each other.
        level: of confidence, in (0, 1).

    >>> print(mean_interval([0.01, 0.02, 0.03]))
    0.020 [-0.005, 0.045]
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level}")
    if len(differences) < 2:
        raise ValueError("an interval needs at least two seeds")
    values: NDArray[np.float64] = np.asarray(differences, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"differences must be finite, got {values}")
    mean, error = float(values.mean()), values.std(ddof=1) / len(values) ** 0.5
    half = float(error * scipy.stats.t.ppf((1 + level) / 2, len(values) - 1))
    return Interval(mean, mean - half, mean + half, level)


def paired_difference(
    runs: Sequence[History], twins: Sequence[History], test: str, summary: str = "mean_over_rounds", level: float = 0.95
) -> Interval:
    """Mean difference of runs and their twins, seed by seed, with Student's interval over the seeds.

    Start set and initial weights are a pair's own, so what is easy about a seed is easy for both and cancels. With three
    seeds the interval is twice as many standard errors wide as with thirty: it does not know the spread, either.

    Args:
        runs, twins: of the same seeds, in any order; at least two.
        test: name of the test set.
        summary: a name of `SUMMARIES`.
        level: of confidence, in (0, 1).

    Raises:
        ValueError: fewer than two seeds, a seed twice, a run without its twin, different numbers of labels.
    """
    if summary not in SUMMARIES:
        raise ValueError(f"there is no summary {summary!r}; there are {', '.join(SUMMARIES)}")
    mine, theirs = {run.seed: run for run in runs}, {run.seed: run for run in twins}
    if len(mine) < len(runs) or mine.keys() != theirs.keys() or len(theirs) < len(twins):
        raise ValueError(f"runs have the seeds {sorted(r.seed for r in runs)}, twins {sorted(r.seed for r in twins)}")
    if any(not np.array_equal(mine[s].labelled(), theirs[s].labelled()) for s in mine):
        raise ValueError("a run and its twin must have bought the same number of labels in every round")
    value = SUMMARIES[summary]
    return mean_interval([value(mine[s], test) - value(theirs[s], test) for s in sorted(mine)], level)
