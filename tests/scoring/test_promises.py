"""Thresholds, tails and the watch for drift keep what they promise: against closed forms, and against simulated draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom, kstest, norm

from tutorial_lib.scoring import (
    alarm_threshold,
    allowed_above,
    answer_threshold,
    chance_of_more,
    control_chart,
    online_p_values,
    tail_probability,
    upper_bound,
    wealth,
)


def test_tails_are_counted_by_hand():
    held_out = [3.0, 1.0, 2.0, 2.0]
    for score in (0.0, 1.0, 2.0, 2.5, 3.0, 4.0):
        expected = (1 + sum(value >= score for value in held_out)) / 5
        assert tail_probability(held_out, [score])[0] == pytest.approx(expected)
    with pytest.raises(ValueError):
        tail_probability([], [1.0])


@pytest.mark.parametrize(("count", "rate"), [(19, 0.05), (57, 0.1), (200, 0.03), (999, 0.001)])
def test_alarms_on_average(count, rate):
    """A new score's place among n + 1 exchangeable ones is uniform, so the chance of an alarm can be counted."""
    scores = np.arange(count, dtype=float)
    threshold = alarm_threshold(scores, rate)
    chance = (1 + (scores > threshold).sum()) / (count + 1)
    assert chance <= rate + 1e-12 and chance + 1 / (count + 1) > rate
    with pytest.raises(ValueError, match="too few for this promise"):
        alarm_threshold(range(math.ceil(1 / rate) - 2), rate)
    alarm_threshold(range(math.ceil(1 / rate) - 1), rate)  # just enough


@pytest.mark.parametrize(("count", "rate", "delta"), [(100, 0.05, 0.1), (500, 0.05, 0.05), (60, 0.1, 0.2)])
def test_alarms_for_the_set_that_one_has(count, rate, delta):
    """Uniform scores: above a threshold t lies a share 1 - t. It may exceed the rate in delta of the sets, and nearly does."""
    generator = np.random.default_rng(0)
    shares = [1 - alarm_threshold(generator.uniform(size=count), rate, delta) for _ in range(1000)]
    broken = np.mean(np.array(shares) > rate)
    assert broken <= delta + 3 * np.sqrt(delta / 1000)
    with pytest.raises(ValueError, match="it takes"):
        alarm_threshold(range(3), rate, delta)


@pytest.mark.parametrize(("above", "count", "rate"), [(0, 30, 0.05), (3, 100, 0.02), (9, 80, 0.2)])
def test_the_chance_of_more_is_that_of_few_above(above, count, rate):
    """More than the rate lies above the threshold exactly if at most ``above`` of the scores lie above that quantile."""
    assert chance_of_more(above, count, rate) == pytest.approx(binom.cdf(above, count, rate))


@pytest.mark.parametrize(("wrong", "count"), [(0, 10), (3, 50), (49, 50), (120, 1000)])
def test_the_upper_bound_is_where_so_few_errors_become_improbable(wrong, count):
    assert binom.cdf(wrong, count, upper_bound(wrong, count, 0.05)) == pytest.approx(0.05)
    assert upper_bound(count, count, 0.05) == 1 == upper_bound(0, 0, 0.05)


def test_answers_are_wrong_no_more_often_than_promised():
    """A network that is right with probability c^2 at confidence c: its true risk above t is known in closed form."""
    generator, broken, chosen = np.random.default_rng(1), 0, []
    for _ in range(600):
        confidence = generator.uniform(size=800)
        found = answer_threshold(confidence, generator.uniform(size=800) < confidence**0.25, risk=0.1, delta=0.1)
        chosen.append(found.threshold)
        if found.threshold is not None:
            low = found.threshold
            right = (1 - low**1.25) / 1.25 / (1 - low)
            broken += 1 - right > 0.1
    assert broken <= 0.1 * 600 and 0.3 < np.mean([value is not None for value in chosen])
    nothing = answer_threshold([0.9] * 20, [True] * 20, risk=0.01)
    assert nothing.threshold is None and "no threshold" in str(nothing)
    with pytest.raises(ValueError, match="same shape"):
        answer_threshold([0.5], [True, False], 0.1)


def test_online_p_values_are_uniform_and_ties_too():
    generator = np.random.default_rng(2)
    for scores in (generator.normal(size=3000), generator.integers(0, 4, size=3000)):
        values = online_p_values(scores[:500], scores[500:], seed=3)
        assert kstest(values, "uniform").pvalue > 0.001
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.06
    one = online_p_values([1.0, 2.0, 3.0], [2.5], seed=0)[0]
    assert 1 / 4 < one < 2 / 4  # one of four is larger, and itself


def test_wealth_is_the_gamblers_by_hand_and_seldom_large_by_chance():
    money = np.full(3, 1 / 3)
    values, logs = [0.2, 0.9, 0.01, 0.5], []
    for p in values:
        money = 0.9 * money + 0.1 * money.sum() / 3
        money *= np.array([1 - (p - 0.5), 1.0, 1 + (p - 0.5)])
        logs.append(np.log(money.sum()))
    np.testing.assert_allclose(wealth(values, jump=0.1), logs)
    uniform = np.random.default_rng(4).uniform(size=(300, 600))
    assert np.mean([wealth(row).max() >= np.log(20) for row in uniform]) <= 0.05 + 3 * np.sqrt(0.05 / 300)


def test_a_shift_is_noticed_and_the_control_chart_cries_wolf():
    generator = np.random.default_rng(5)
    held_out, calm = generator.normal(size=300), generator.normal(size=2000)
    shifted = np.concatenate([generator.normal(size=200), generator.normal(1.0, size=400)])
    evidence = wealth(online_p_values(held_out, shifted))
    assert evidence[:200].max() < np.log(100) < evidence[-1]
    assert wealth(online_p_values(held_out, calm)).max() < np.log(100)
    assert control_chart(held_out, shifted)[250:].any() and control_chart(held_out, calm, window=20).any()
    by_hand = [np.mean(calm[end - 20 : end]) for end in range(20, 60)]
    limit = held_out.mean() + 2.3263478740408408 * held_out.std(ddof=1) / np.sqrt(20)
    assert (control_chart(held_out, calm[:59], window=20)[19:] == (np.array(by_hand) > limit)).all()
    assert not control_chart(held_out, calm[:5], window=20).any()


@pytest.mark.parametrize("delta", [0.05, 0.2])
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.3])
@pytest.mark.parametrize("count", [30, 72, 100, 400])
def test_as_many_above_as_the_promise_allows_and_no_more(count, rate, delta):
    """With k above, more than the rate is above if at most k of n uniform scores fall there: a binomial sum, by hand."""

    def broken(k):
        return sum(math.comb(count, i) * rate**i * (1 - rate) ** (count - i) for i in range(k + 1))

    fitting = [k for k in range(count) if broken(k) <= delta]
    if fitting:
        assert allowed_above(count, rate, delta) == max(fitting)
    else:
        with pytest.raises(ValueError, match="too few"):
            allowed_above(count, rate, delta)


@pytest.mark.parametrize("delta", [None, 0.05, 0.2])
@pytest.mark.parametrize("rate", [0.02, 0.05, 0.1, 1 / 3])
def test_the_number_of_scores_that_it_takes_is_the_smallest_that_will_do(rate, delta):
    with pytest.raises(ValueError, match="it takes") as error:
        allowed_above(1, rate, delta)
    needed = int(str(error.value).split()[-1])
    assert allowed_above(needed, rate, delta) == 0
    with pytest.raises(ValueError, match=f"it takes {needed}$"):
        allowed_above(needed - 1, rate, delta)


def test_the_lowest_confidence_that_keeps_the_promise_by_a_loop():
    """All of the grid at once (a union bound), a confidence on the threshold is answered, the first that will do is taken."""
    generator = np.random.default_rng(3)
    grid = (0.5, 0.7, 0.9, 0.99)
    confidence = generator.choice([0.4, *grid], size=900)
    correct = generator.uniform(size=900) < np.where(confidence < 0.7, 0.8, np.where(confidence < 0.9, 0.965, 0.999))
    for risk in (0.01, 0.02, 0.03, 0.05, 0.15, 0.25):
        found = answer_threshold(confidence, correct, risk, delta=0.1, grid=grid)
        expected = None
        for threshold in reversed(grid):
            answered = [right for value, right in zip(confidence, correct, strict=True) if value >= threshold]
            wrong = answered.count(False)
            bound = next(p / 10_000 for p in range(10_001) if binom.cdf(wrong, len(answered), p / 10_000) <= 0.1 / 4)
            if bound <= risk:
                expected = threshold, len(answered) / 900, wrong
        assert (expected or (None, 0.0, 0)) == (found.threshold, pytest.approx(found.answered), found.wrong)
        if found.threshold is not None:
            assert found.bound == pytest.approx(upper_bound(found.wrong, round(900 * found.answered), 0.1 / 4))
    assert answer_threshold(confidence, correct, 0.02, 0.1, grid).threshold not in (None, grid[0]), (
        "a case in the middle"
    )


def test_alarms_of_a_control_chart_by_a_loop():
    generator = np.random.default_rng(0)
    known, coming = generator.normal(size=80), generator.normal(0.6, 1, size=60)
    found = control_chart(known, coming, window=7, delta=0.02)
    limit = known.mean() + norm.isf(0.02) * math.sqrt(((known - known.mean()) ** 2).sum() / 79) / math.sqrt(7)
    expected = [t >= 6 and coming[t - 6 : t + 1].mean() > limit for t in range(60)]
    assert found.tolist() == expected and any(expected) and not all(expected[6:])
