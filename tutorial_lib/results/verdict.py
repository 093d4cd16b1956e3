"""Whether a published number is reproduced: a rule that was fixed before anything was compared.

A number of ours is a mean over k seeds with spread s (standard deviation, k - 1 in the denominator). The published one is
a single number, and its own spread is not printed; it is taken to be ours. Their difference d then has a standard
deviation of s sqrt(1 + 1/k), and twice that is called *seed noise*. In this order:

1. there is no number of ours: *cannot be checked here* if something is missing that this course does not have (it is
   named), else *not yet run*;
2. ``|d|`` is at most one point (of a percentage; 0.01 of anything else): *reproduced*;
3. ``|d|`` is within seed noise, and the noise is at most `WIDEST` points: *reproduced*;
4. ``|d|`` is within seed noise, but the noise is wider: *cannot be checked here*, what is missing are more seeds;
5. else: *not reproduced*, also where ours is better. With a single seed there is no spread, and only rule 2 can say yes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CANNOT", "NOT_REPRODUCED", "NOT_RUN", "REPRODUCED", "STATES", "WIDEST", "Verdict", "advantage", "judge"]

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
CANNOT, NOT_RUN = "cannot be checked here", "not yet run"
STATES = (NOT_REPRODUCED, REPRODUCED, NOT_RUN, CANNOT)
"""In the order in which a page shows them: failures first."""

WIDEST = 5.0
"""Seed noise, in points, above which a difference says nothing."""

_ROUNDING = 1e-9  # a difference of exactly one point counts as one


@dataclass(frozen=True)
class Verdict:
    """What is to be said of one published number.

    Args:
        state: one of `STATES`.
        reason: why, in a few words; for what cannot be checked, what is missing.
        difference: ours minus published, in the published unit; None without a number of ours.
        noise: seed noise in the same unit; None with fewer than two seeds.
    """

    state: str
    reason: str = ""
    difference: float | None = None
    noise: float | None = None

    @property
    def within_noise(self) -> bool:
        """Whether the difference is no larger than another seed would make it."""
        return _within(self.difference, self.noise)


def judge(published: float, ours: Sequence[float], point: float = 1.0, missing: str = "") -> Verdict:
    """Apply the rule.

    Args:
        published: the printed number.
        ours: one value per seed, in the same unit; may be empty.
        point: one point in this unit: 1 for percent, 0.01 for fractions.
        missing: what one would need to compute it and this course does not have; empty if nothing.

    >>> judge(90.0, [90.6]).state, judge(90.0, [93.0]).state
    ('reproduced', 'not reproduced')
    >>> judge(90.0, [93.0, 90.0, 95.0]).reason
    'more seeds: seed noise is 5.8 points'
    """
    if not len(ours):
        return Verdict(CANNOT, missing) if missing else Verdict(NOT_RUN)
    difference = float(np.mean(ours)) - published
    noise = 2 * float(np.std(ours, ddof=1)) * math.sqrt(1 + 1 / len(ours)) if len(ours) > 1 else None
    if abs(difference) <= point + _ROUNDING:
        return Verdict(REPRODUCED, "within one point", difference, noise)
    if noise is None:
        return Verdict(NOT_REPRODUCED, "one seed", difference)
    if not _within(difference, noise):
        return Verdict(NOT_REPRODUCED, "more than seed noise", difference, noise)
    if noise <= WIDEST * point:
        return Verdict(REPRODUCED, "within seed noise", difference, noise)
    return Verdict(CANNOT, f"more seeds: seed noise is {noise / point:.1f} points", difference, noise)


def advantage(ours: Mapping[int, float], control: Mapping[int, float]) -> tuple[float, float | None] | None:
    """Mean difference to a control, seed by seed, and its noise: twice its standard error; None where no seed is shared.

    >>> advantage({0: 0.9, 1: 0.8}, {0: 0.8, 1: 0.7, 2: 0.1})[0].__round__(6)
    0.1
    """
    shared = sorted(ours.keys() & control.keys())
    if not shared:
        return None
    differences = [ours[seed] - control[seed] for seed in shared]
    noise = 2 * float(np.std(differences, ddof=1)) / math.sqrt(len(shared)) if len(shared) > 1 else None
    return float(np.mean(differences)), noise


def _within(difference: float | None, noise: float | None) -> bool:
    return difference is not None and noise is not None and abs(difference) <= noise + _ROUNDING
