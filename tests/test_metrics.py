"""Metrics against counting by hand, closed forms, scikit-learn and pytorch-ood."""

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import norm

from tutorial_lib.metrics import (
    aupr,
    auroc,
    bootstrap_interval,
    compare,
    detection_accuracy,
    detection_error,
    fpr_at_tpr,
    least_auroc,
    mean_interval,
    roc_curve,
    summary,
)

# few distinct values, so that ties are common
scores = st.lists(st.sampled_from([-1e6, -2.5, 0.0, 1e-9, 1.0, 3.0, 1e6]), min_size=1, max_size=12)
EVERY_METRIC = [auroc, aupr, fpr_at_tpr, detection_accuracy, detection_error]


def counted_auroc(known, unknown):
    wins = sum((u > k) + 0.5 * (u == k) for k in known for u in unknown)
    return wins / (len(known) * len(unknown))


def counted_average_precision(negative, positive):
    area, recall_before = 0.0, 0.0
    for threshold in sorted({*negative, *positive}, reverse=True):
        caught = sum(p >= threshold for p in positive)
        false = sum(n >= threshold for n in negative)
        recall = caught / len(positive)
        area += (recall - recall_before) * caught / (caught + false)
        recall_before = recall
    return area


def counted_fpr(negative, positive, tpr):
    for threshold in sorted({*negative, *positive}, reverse=True):
        if sum(p >= threshold for p in positive) >= tpr * len(positive) - 1e-9:
            return sum(n >= threshold for n in negative) / len(negative)
    raise AssertionError("the lowest threshold catches everything")


def counted_accuracy(known, unknown):
    thresholds = [-math.inf, *{*known, *unknown}, math.inf]
    return max(
        0.5 * sum(u >= t for u in unknown) / len(unknown) + 0.5 * sum(k < t for k in known) / len(known)
        for t in thresholds
    )


@settings(deadline=None)
@given(scores, scores)
def test_every_metric_is_what_counting_gives(known, unknown):
    minus_known, minus_unknown = [-s for s in known], [-s for s in unknown]
    assert auroc(known, unknown) == pytest.approx(counted_auroc(known, unknown), abs=1e-12)
    assert aupr(known, unknown) == pytest.approx(counted_average_precision(known, unknown), abs=1e-12)
    assert aupr(known, unknown, positive="in") == pytest.approx(
        counted_average_precision(minus_unknown, minus_known), abs=1e-12
    )
    for tpr in (0.5, 0.95, 1.0):
        assert fpr_at_tpr(known, unknown, tpr) == pytest.approx(counted_fpr(minus_unknown, minus_known, tpr))
        assert fpr_at_tpr(known, unknown, tpr, positive="out") == pytest.approx(counted_fpr(known, unknown, tpr))
    assert detection_accuracy(known, unknown) == pytest.approx(counted_accuracy(known, unknown), abs=1e-12)


@settings(deadline=None)
@given(scores, scores)
def test_only_the_order_counts(known, unknown):
    def stretched(values):  # strictly increasing and exact on the values drawn
        return [1e6 * value + 1e6 for value in values]

    assert summary(stretched(known), stretched(unknown)) == summary(known, unknown)


@settings(deadline=None)
@given(scores, scores)
def test_exchanging_the_sets_and_the_sign_changes_nothing_or_turns_round(known, unknown):
    minus_known, minus_unknown = [-s for s in known], [-s for s in unknown]
    assert auroc(minus_unknown, minus_known) == pytest.approx(auroc(known, unknown), abs=1e-12)
    assert auroc(minus_known, minus_unknown) == pytest.approx(1 - auroc(known, unknown), abs=1e-12)
    assert detection_error(known, unknown) == pytest.approx(1 - detection_accuracy(known, unknown), abs=1e-12)
    assert 0.5 - 1e-12 <= detection_accuracy(known, unknown) <= 1


def test_gaussian_scores_have_the_closed_form():
    """Two unit Gaussians a distance d apart: AUROC = Phi(d / sqrt 2), best balanced accuracy = Phi(d / 2)."""
    generator = np.random.default_rng(0)
    d, n = 1.5, 200_000
    known, unknown = generator.normal(size=n), generator.normal(d, size=n)
    assert auroc(known, unknown) == pytest.approx(norm.cdf(d / math.sqrt(2)), abs=0.002)
    assert detection_accuracy(known, unknown) == pytest.approx(norm.cdf(d / 2), abs=0.002)
    # accepted known: score below z(0.95); unknown images below that threshold
    assert fpr_at_tpr(known, unknown) == pytest.approx(norm.cdf(norm.ppf(0.95) - d), abs=0.005)
    assert fpr_at_tpr(known, unknown, positive="out") == pytest.approx(1 - norm.cdf(d + norm.ppf(0.05)), abs=0.005)


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e6])
def test_large_scores_lose_nothing(offset):
    """A sigmoid in front, as in torchmetrics, makes these 0.5."""
    known = torch.arange(100, dtype=torch.float64) * 1e-3 + offset
    unknown = known + 0.05
    assert auroc(known, unknown) == pytest.approx(counted_auroc(known.tolist(), unknown.tolist()), abs=1e-12)
    assert auroc(known, unknown) > 0.8


def test_huge_scores_do_not_overflow():
    assert auroc([-1e308, 0.0], [1e308, 1e300]) == 1.0


def test_constant_scores_are_guessing():
    known, unknown = [3.0] * 7, [3.0] * 5
    values = summary(known, unknown)
    assert values["auroc"] == 0.5
    assert values["detection_accuracy"] == 0.5
    assert values["fpr_at_95_tpr_in"] == values["fpr_at_95_tpr_out"] == 1.0
    assert values["aupr_out"] == pytest.approx(5 / 12)
    assert values["aupr_in"] == pytest.approx(7 / 12)


def test_the_share_of_unknown_images_moves_aupr_but_not_auroc():
    generator = np.random.default_rng(1)
    known, unknown = generator.normal(size=2000), generator.normal(1, size=2000)
    few = unknown[:200]
    assert auroc(known, few) == pytest.approx(auroc(known, unknown), abs=0.03)
    assert aupr(known, few) < aupr(known, unknown) - 0.2


@pytest.mark.parametrize("ties", [False, True])
def test_pytorch_ood_agrees(ties):
    pytorch_ood = pytest.importorskip("pytorch_ood.metrics")
    generator = torch.Generator().manual_seed(0)
    known = torch.randn(1000, generator=generator, dtype=torch.float64)
    unknown = torch.randn(800, generator=generator, dtype=torch.float64) + 1
    if ties:
        known, unknown = known.round(decimals=1), unknown.round(decimals=1)
    theirs = pytorch_ood.OODMetrics()
    theirs.update(torch.cat([known, unknown]), torch.cat([torch.zeros(1000), -torch.ones(800)]))
    values = theirs.compute()
    assert auroc(known, unknown) == pytest.approx(values["AUROC"], abs=1e-9)
    assert fpr_at_tpr(known, unknown, positive="out") == pytest.approx(values["FPR95TPR"], abs=1e-9)
    # theirs is the trapezoidal area, ours the average precision, so they differ by a step
    assert aupr(known, unknown) == pytest.approx(values["AUPR-OUT"], abs=0.01)
    assert aupr(known, unknown, positive="in") == pytest.approx(values["AUPR-IN"], abs=0.01)


@pytest.mark.parametrize("decimals", [1, 15])
def test_scikit_learn_agrees(decimals):
    generator = np.random.default_rng(8)
    known = generator.normal(size=700).round(decimals) * 1e6
    unknown = generator.normal(0.5, size=500).round(decimals) * 1e6
    pooled, is_unknown = np.concatenate([known, unknown]), np.repeat([0, 1], [700, 500])
    assert auroc(known, unknown) == pytest.approx(sklearn.metrics.roc_auc_score(is_unknown, pooled), abs=1e-12)
    ap_out = sklearn.metrics.average_precision_score(is_unknown, pooled)
    ap_in = sklearn.metrics.average_precision_score(1 - is_unknown, -pooled)
    assert aupr(known, unknown) == pytest.approx(ap_out, abs=1e-12)
    assert aupr(known, unknown, positive="in") == pytest.approx(ap_in, abs=1e-12)
    fpr, tpr, _ = sklearn.metrics.roc_curve(is_unknown, pooled, drop_intermediate=False)
    np.testing.assert_allclose(roc_curve(known, unknown), (fpr, tpr), atol=1e-12)


def test_array_tensor_and_list_are_the_same():
    known, unknown = [0.25, 0.5, 1.0], [0.5, 2.0]
    expected = summary(known, unknown)
    tensor = torch.tensor(unknown, dtype=torch.float32, requires_grad=True)
    assert summary(np.array(known, dtype=np.float32), tensor) == expected
    assert auroc([1, 2], torch.tensor([2, 3])) == 0.875
    assert type(auroc(known, unknown)) is float


def test_the_curve_encloses_the_area():
    generator = np.random.default_rng(2)
    known, unknown = generator.normal(size=300), generator.normal(0.7, size=200).round(1)
    false_alarms, caught = roc_curve(known, unknown)
    assert np.diff(false_alarms) @ (caught[1:] + caught[:-1]) / 2 == pytest.approx(auroc(known, unknown), abs=1e-12)
    assert (np.diff(false_alarms) >= 0).all() and (np.diff(caught) >= 0).all()
    assert (false_alarms[0], caught[0], false_alarms[-1], caught[-1]) == (0, 0, 1, 1)


@pytest.mark.parametrize("metric", EVERY_METRIC)
@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        ([], ValueError, "scores_out is empty"),
        ([0.5, math.nan], ValueError, "1 NaN or infinite values of 2"),
        ([math.inf, -math.inf, 0.0], ValueError, "2 NaN or infinite values of 3"),
        ([[0.5], [0.6]], ValueError, r"\(2, 1\)"),
        (0.5, ValueError, r"\(N,\)"),
        (["a", "b"], TypeError, "real numbers"),
        ([True, False], TypeError, "real numbers"),
        (torch.tensor([1j]), TypeError, "real numbers"),
    ],
)
def test_what_is_not_scores_is_refused(metric, bad, error, says):
    with pytest.raises(error, match=says):
        metric([0.1, 0.2], bad)


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="positive must be 'in' or 'out'"):
        aupr([0.1], [0.2], positive="ood")
    with pytest.raises(ValueError, match="tpr"):
        fpr_at_tpr([0.1], [0.2], tpr=95)
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(auroc, [0.1], [0.2], level=95)
    with pytest.raises(ValueError, match="100 resamples"):
        bootstrap_interval(auroc, [0.1], [0.2], resamples=10)
    with pytest.raises(ValueError, match="same images"):
        compare(([0.1], [0.2]), ([0.1, 0.2], [0.2]))
    with pytest.raises(TypeError, match="pair"):
        compare([0.1], ([0.1], [0.2]))
    with pytest.raises(ValueError, match=r"b\[1\] is empty"):
        compare(([0.1], [0.2]), ([0.1], []))


def delong(known, unknown):
    """Placement values of DeLong et al. (1988): one number an image, whose means are the AUROC."""
    wins = (unknown[:, None] > known).astype(float) + 0.5 * (unknown[:, None] == known)
    return wins.mean(0), wins.mean(1)


def delong_variance(per_known, per_unknown):
    return per_known.var(ddof=1) / len(per_known) + per_unknown.var(ddof=1) / len(per_unknown)


def test_the_bootstrap_interval_is_as_wide_as_delong_says():
    generator = np.random.default_rng(3)
    known, unknown = generator.normal(size=300), generator.normal(1, size=250)
    interval = bootstrap_interval(auroc, known, unknown)
    half_width = norm.ppf(0.975) * math.sqrt(delong_variance(*delong(known, unknown)))
    assert interval.value == auroc(known, unknown)
    assert interval.low < interval.value < interval.high
    assert (interval.high - interval.low) / 2 == pytest.approx(half_width, rel=0.12)
    assert bootstrap_interval(auroc, known, unknown) == interval
    assert bootstrap_interval(auroc, known, unknown, seed=1) != interval


def test_the_interval_covers_the_truth_as_often_as_it_says():
    truth = norm.cdf(1 / math.sqrt(2))
    generator = np.random.default_rng(4)
    covered = 0
    for seed in range(60):
        interval = bootstrap_interval(
            auroc, generator.normal(size=60), generator.normal(1, size=60), level=0.8, resamples=100, seed=seed
        )
        covered += interval.low <= truth <= interval.high
    assert 38 <= covered <= 57  # 48 expected; four standard deviations of the binomial, 3.1, on the low side


def test_pairing_sees_a_difference_that_separate_intervals_miss():
    generator = np.random.default_rng(5)
    known, unknown = generator.normal(size=400), generator.normal(1, size=400)
    better = (known - 0.1 + 0.05 * generator.normal(size=400), unknown)
    worse = (known, unknown)
    comparison = compare(better, worse)
    assert comparison.low > 0 and comparison.p_value < 0.01
    a, b = (bootstrap_interval(auroc, *pair) for pair in (better, worse))
    assert a.low < b.high  # the two intervals overlap

    (a_in, a_out), (b_in, b_out) = delong(*better), delong(*worse)
    deviation = math.sqrt(delong_variance(a_in - b_in, a_out - b_out))
    assert comparison.difference == pytest.approx(auroc(*better) - auroc(*worse))
    assert (comparison.high - comparison.low) / 2 == pytest.approx(norm.ppf(0.975) * deviation, rel=0.12)


def test_no_difference_is_rarely_called_one():
    generator = np.random.default_rng(6)
    called = 0
    for seed in range(60):
        known, unknown = generator.normal(size=80), generator.normal(1, size=80)
        a = (known + 0.5 * generator.normal(size=80), unknown + 0.5 * generator.normal(size=80))
        b = (known + 0.5 * generator.normal(size=80), unknown + 0.5 * generator.normal(size=80))
        called += compare(a, b, resamples=200, seed=seed).p_value < 0.05
    assert called <= 10  # 3 expected


def test_the_comparison_turns_round_with_its_arguments():
    generator = np.random.default_rng(7)
    a = (generator.normal(size=100), generator.normal(1, size=90))
    b = (generator.normal(size=100), generator.normal(0.5, size=90))
    forth, back = compare(a, b, metric=detection_accuracy), compare(b, a, metric=detection_accuracy)
    assert forth.difference == -back.difference
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert forth.p_value == back.p_value


def test_both_senses_of_fpr95_have_a_name_of_their_own():
    """Nineteen known at 1 to 19 and one at 100; nineteen unknown at 50 and one at 0: the two senses disagree."""
    known, unknown = [*range(1, 20), 100], [50] * 19 + [0]
    values = summary(known, unknown)
    assert values["fpr_at_95_tpr_in"] == 1 / 20  # up to 19 is accepted, and the unknown at 0 with it
    assert values["fpr_at_95_tpr_out"] == 1 / 20  # from 50 up is caught, and the known at 100 with it
    values = summary(known, [50] * 18 + [0, 0])
    assert values["fpr_at_95_tpr_in"] == 2 / 20
    assert values["fpr_at_95_tpr_out"] == 1.0  # to catch nineteen, 0 must be caught, and every known image with it


def test_mean_interval_is_students_t():
    values = [0.3, -0.1, 0.4, 0.9, 0.2]
    expected = stats.t.interval(0.9, len(values) - 1, np.mean(values), stats.sem(values))
    found = mean_interval(values, 0.9)
    assert (found.low, found.high) == pytest.approx(expected)
    assert found.value == pytest.approx(np.mean(values))
    with pytest.raises(ValueError, match="two numbers or more"):
        mean_interval([1.0])
    with pytest.raises(ValueError, match="finite"):
        mean_interval([1.0, math.nan])
    with pytest.raises(ValueError, match="level must lie"):
        mean_interval(values, 95)


def test_no_concave_curve_has_less_than_the_least_auroc():
    known = norm.ppf((np.arange(2000) + 0.5) / 2000)
    for distance in (0.3, 1.0, 2.0, 3.5):  # two normal distributions of one width: their curve is concave
        strange = known + distance
        fpr, error = fpr_at_tpr(known, strange), detection_error(known, strange)
        area = auroc(known, strange)
        assert least_auroc(fpr) <= least_auroc(fpr, error) + 1e-9 <= area + 2e-3


def test_a_curve_of_two_straight_pieces_has_exactly_the_least_auroc():
    fpr, tpr = 0.2, 0.95
    area = auroc(np.r_[np.zeros(80), np.ones(20)], np.r_[np.zeros(5), np.ones(95)])
    assert least_auroc(fpr, tpr=tpr) == pytest.approx(area)
    assert least_auroc(fpr, (fpr + 1 - tpr) / 2, tpr) == pytest.approx(area, abs=1e-6)
    with pytest.raises(ValueError, match="fpr must lie"):
        least_auroc(9.31)
