"""Agreement with opinions against scipy, against known curves, and against the flags of the published table."""

import math

import numpy as np
import pytest
import scipy.stats

from tutorial_lib.image_quality import agreement, fitted_scores, pairwise_accuracy, same_correlation, significance_flag
from tutorial_lib.image_quality.agreement import logistic


@pytest.fixture
def scores():
    """A measure in units of its own, and opinions that follow it through a steep S."""
    generator = np.random.default_rng(0)
    quality = generator.uniform(20, 45, size=80)
    return quality, logistic(quality, -60.0, 0.5, 31.0, -0.2, 50.0) + generator.normal(0, 2, size=80)


def test_orders_are_scipys(scores):
    ours = agreement(*scores)
    assert ours.srcc == pytest.approx(abs(scipy.stats.spearmanr(*scores).statistic))
    assert ours.krcc == pytest.approx(abs(scipy.stats.kendalltau(*scores).statistic))
    assert ours.count == 80 and ours.outlier_ratio is None


def test_the_fit_finds_the_curve_and_never_loses_to_a_line(scores):
    quality, opinions = scores
    truth = logistic(quality, -60.0, 0.5, 31.0, -0.2, 50.0)
    fitted = fitted_scores(quality, opinions)
    assert ((fitted - opinions) ** 2).sum() <= ((truth - opinions) ** 2).sum() * (1 + 1e-6)
    assert np.abs(fitted - truth).max() < 3
    ours = agreement(quality, opinions)
    assert ours.plcc == pytest.approx(np.corrcoef(fitted, opinions)[0, 1])
    assert ours.rmse == pytest.approx(np.sqrt(np.mean((fitted - opinions) ** 2)))
    noise = np.random.default_rng(1).normal(size=80)
    line = np.polyval(np.polyfit(noise, opinions, 1), noise)
    assert ((fitted_scores(noise, opinions) - opinions) ** 2).sum() <= ((line - opinions) ** 2).sum() + 1e-9


def test_units_and_direction_do_not_matter(scores):
    quality, opinions = scores
    ours, other = agreement(quality, opinions), agreement(1e4 - 300 * quality, opinions)
    assert (other.plcc, other.srcc, other.krcc, other.rmse) == pytest.approx(
        (ours.plcc, ours.srcc, ours.krcc, ours.rmse), rel=1e-4
    )


def test_outliers_are_counted(scores):
    quality, opinions = scores
    spread = np.full(80, 1.0)
    by_hand = sum(abs(f - o) > 2 for f, o in zip(fitted_scores(quality, opinions), opinions, strict=True)) / 80
    assert agreement(quality, opinions, spread).outlier_ratio == by_hand > 0
    assert agreement(quality, opinions, 100 * spread).outlier_ratio == 0


def test_fishers_test_by_simulation():
    """Two samples of one correlation differ significantly in one case of twenty."""
    generator = np.random.default_rng(0)
    covariance = [[1, 0.8], [0.8, 1]]
    draws = generator.multivariate_normal([0, 0], covariance, size=(1500, 2, 60))
    centred = draws - draws.mean(axis=2, keepdims=True)
    products = (centred[..., 0] * centred[..., 1]).sum(-1)
    correlations = products / np.sqrt((centred[..., 0] ** 2).sum(-1) * (centred[..., 1] ** 2).sum(-1))
    rejected = np.mean([same_correlation(a, b, 60) < 0.05 for a, b in correlations])
    assert rejected == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(
    "count, other, introspective, flag",  # slide 108, Table 13: the borderline cells of SRCC and KRCC
    [
        (450, 0.867, 0.887, 0),
        (450, 0.849, 0.887, -1),
        (450, 0.655, 0.702, 0),
        (450, 0.624, 0.702, -1),
        (3000, 0.854, 0.865, 0),
        (3000, 0.851, 0.865, -1),
        (3000, 0.654, 0.677, 0),
        (3000, 0.641, 0.677, -1),
    ],
)
def test_flags_are_those_of_the_published_table(count, other, introspective, flag):
    assert significance_flag(other, introspective, count) == flag
    assert significance_flag(introspective, other, count) == -flag


def test_pairs_by_loops():
    generator = np.random.default_rng(0)
    quality, level, group = (
        generator.integers(6, size=40),
        generator.integers(4, size=40),
        generator.integers(3, size=40),
    )
    right, pairs = 0.0, 0
    for i in range(40):
        for j in range(40):
            if group[i] == group[j] and level[i] < level[j]:
                pairs += 1
                right += 1.0 if quality[i] > quality[j] else 0.5 if quality[i] == quality[j] else 0.0
    assert pairwise_accuracy(quality, level, group) == pytest.approx(right / pairs)
    assert pairwise_accuracy([np.inf, 3.0], [0, 1]) == 1


def test_numbers_that_mean_nothing_are_refused(scores):
    quality, opinions = scores
    for one, two, message in [
        (quality[:5], opinions[:5], "6 or more"),
        (np.append(quality[1:], np.inf), opinions, "leave references out"),
        (np.zeros(80), opinions, "all alike"),
    ]:
        with pytest.raises(ValueError, match=message):
            agreement(one, two)
    with pytest.raises(ValueError, match="deviations"):
        agreement(quality, opinions, np.ones(3))
    with pytest.raises(ValueError, match="correlations lie"):
        same_correlation(1.2, 0.3, 50)
    with pytest.raises(ValueError, match="no pair"):
        pairwise_accuracy([1.0, 2.0], [3, 3])


@pytest.mark.parametrize(("one", "other", "count"), [(0.9, 0.3, 8), (0.5, 0.7, 20), (-0.2, 0.4, 12)])
def test_fishers_z_has_three_images_less(one, other, count):
    """By hand: z = artanh r has the variance 1 / (n - 3), the difference of two twice that."""
    z = abs(0.5 * math.log((1 + one) / (1 - one)) - 0.5 * math.log((1 + other) / (1 - other)))
    expected = math.erfc(z / math.sqrt(2 / (count - 3)) / math.sqrt(2))
    assert same_correlation(one, other, count) == pytest.approx(expected)
