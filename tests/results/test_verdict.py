"""The rule for "reproduced": each of its branches, against the arithmetic done by hand."""

from __future__ import annotations

import math
import statistics

import pytest

from tutorial_lib.results.verdict import CANNOT, NOT_REPRODUCED, NOT_RUN, REPRODUCED, WIDEST, advantage, judge


def test_without_a_number_of_ours_what_is_missing_decides():
    assert judge(0.5, []).state == NOT_RUN
    assert judge(0.5, [], missing="the images of LSUN").state == CANNOT
    assert judge(0.5, [], missing="the images of LSUN").reason == "the images of LSUN"
    assert judge(50, [50], missing="the images of LSUN").state == REPRODUCED, "somebody has them"


@pytest.mark.parametrize(("point", "scale"), [(1.0, 1.0), (0.01, 0.01)], ids=["percent", "fractions"])
@pytest.mark.parametrize(("ours", "state"), [(91.0, REPRODUCED), (89.0, REPRODUCED), (91.1, NOT_REPRODUCED)])
def test_one_point_is_enough_and_no_more_with_one_seed(ours, state, point, scale):
    assert judge(90 * scale, [ours * scale], point).state == state


def test_a_better_number_is_not_the_same_number():
    assert judge(80, [95, 95.1, 94.9]).state == NOT_REPRODUCED


@pytest.mark.parametrize("seeds", [[91.5, 93.0, 91.0], [93.0, 91.0], [90.0, 93.5, 92.5, 91.0]])
def test_seed_noise_is_twice_the_deviation_of_a_difference_of_two_such_numbers(seeds):
    spread, k = statistics.stdev(seeds), len(seeds)
    by_hand = 2 * math.sqrt(spread**2 + spread**2 / k)
    verdict = judge(90, seeds)
    assert verdict.noise == pytest.approx(by_hand)
    assert verdict.difference == pytest.approx(statistics.mean(seeds) - 90)
    assert verdict.within_noise == (abs(statistics.mean(seeds) - 90) <= by_hand)


def test_noise_may_explain_a_difference_but_not_any():
    assert judge(90, [91, 92, 93]).state == REPRODUCED  # noise 2.3, difference 2
    assert judge(80, [91, 92, 93]).state == NOT_REPRODUCED
    wide = judge(80, [70, 80, 90])
    assert wide.state == REPRODUCED, "within one point comes first"
    wide = judge(84, [70, 80, 90])
    assert wide.noise > WIDEST and wide.state == CANNOT and "more seeds" in wide.reason


def test_a_control_is_compared_seed_by_seed():
    difference, noise = advantage({0: 0.9, 1: 0.7, 2: 0.5}, {0: 0.8, 1: 0.5, 2: 0.5, 3: 1.0})
    assert difference == pytest.approx(0.1)
    assert noise == pytest.approx(2 * statistics.stdev([0.1, 0.2, 0.0]) / math.sqrt(3))
    assert advantage({0: 0.9}, {1: 0.8}) is None
    assert advantage({0: 0.9}, {0: 0.8}) == (pytest.approx(0.1), None)


@pytest.mark.parametrize(("point", "scale"), [(1.0, 1.0), (0.01, 0.01)], ids=["percent", "fractions"])
def test_noise_that_is_too_wide_is_measured_in_points(point, scale):
    verdict = judge(90 * scale, [93.0 * scale, 90.0 * scale, 95.0 * scale], point)
    assert verdict.state == CANNOT and verdict.reason == "more seeds: seed noise is 5.8 points"
