"""Bins and calibration errors against an exact count, torchmetrics and scikit-learn."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators import calibrated, simulate
from sklearn.calibration import calibration_curve
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from tutorial_lib.calibration import (
    adaptive_ece,
    classwise_ece,
    confidence_and_correct,
    ece,
    mce,
    reliability_bins,
    squared_ece,
)


def counted_bins(confidence: list[Fraction], correct: list[bool], bins: int) -> list[list[int]]:
    """Members of each (low, high] bin, by comparing exact fractions, one prediction and one bin at a time."""
    members: list[list[int]] = [[] for _ in range(bins)]
    for position, value in enumerate(confidence):
        for m in range(bins):
            if Fraction(m, bins) < value <= Fraction(m + 1, bins) or (m == 0 and value == 0):
                members[m].append(position)
    return members


def counted_ece(confidence: list[Fraction], correct: list[bool], bins: int) -> Fraction:
    total = Fraction(0)
    for member in counted_bins(confidence, correct, bins):
        if member:
            gap = sum(confidence[i] for i in member) - sum(correct[i] for i in member)
            total += abs(gap)
    return total / len(confidence)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_bins_and_errors_equal_an_exact_count(data):
    # Quarters, fifths, sevenths ... of small denominators land on edges, tie, and reach 0 and 1 all the time.
    bins = data.draw(st.integers(1, 20))
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, 60), st.sampled_from([1, 4, 5, 10, 15, 20, 60]), st.booleans()), min_size=1)
    )
    confidence = [Fraction(min(k, d), d) for k, d, _ in pairs]
    correct = [c for _, _, c in pairs]
    members = counted_bins(confidence, correct, bins)
    table = reliability_bins([float(c) for c in confidence], correct, bins)
    assert table.count.tolist() == [len(m) for m in members]
    for m, member in enumerate(members):
        if member:
            assert table.accuracy[m] == pytest.approx(sum(correct[i] for i in member) / len(member))
            assert table.confidence[m] == pytest.approx(float(sum(confidence[i] for i in member)) / len(member))
        else:
            assert math.isnan(table.accuracy[m]) and math.isnan(table.confidence[m])
    assert ece([float(c) for c in confidence], correct, bins) == pytest.approx(
        float(counted_ece(confidence, correct, bins)), abs=1e-12
    )
    gaps = [abs(float(sum(confidence[i] for i in m) - sum(correct[i] for i in m)) / len(m)) for m in members if m]
    assert mce([float(c) for c in confidence], correct, bins) == pytest.approx(max(gaps), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [1, 5, 6, 10, 12, 15, 16])
def test_a_confidence_that_reads_as_an_edge_closes_the_bin_below(dtype, bins):
    confidence = torch.tensor([k / bins for k in range(bins + 1)], dtype=torch.float64).to(dtype)
    table = reliability_bins(confidence, torch.ones(bins + 1, dtype=torch.bool), bins)
    assert table.count.tolist() == [2] + [1] * (bins - 1)  # 0 shares the first bin with 1/M


@pytest.mark.parametrize("bins", [1, 2, 10, 15])
def test_confidence_exactly_one_is_in_the_last_bin_and_exactly_zero_in_the_first(bins):
    ones = reliability_bins(np.ones(7, dtype=np.float32), [True] * 5 + [False] * 2, bins)
    assert ones.count.tolist() == [0] * (bins - 1) + [7]
    assert ones.accuracy[-1] == pytest.approx(5 / 7)
    zeros = reliability_bins(np.zeros(3), [True, False, False], bins)
    assert zeros.count.tolist() == [3] + [0] * (bins - 1)
    assert ece(np.ones(7, dtype=np.float32), [True] * 5 + [False] * 2, bins) == pytest.approx(2 / 7)


def test_a_saturated_float32_softmax_is_counted_and_not_lost():
    logits = torch.tensor([[40.0, 0.0], [40.0, 0.0], [0.5, 0.0]])
    probabilities = logits.softmax(1)
    assert probabilities[0, 0] == 1  # the premise: float32 rounds 1 - exp(-40) to 1
    labels = torch.tensor([1, 0, 0])
    table = reliability_bins(probabilities, labels, 10)
    assert table.count[-1] == 2 and table.count.sum() == 3
    share = 1 / (1 + math.exp(-0.5))
    assert ece(probabilities, labels, 10) == pytest.approx((abs(2 - 1) + abs(share - 1)) / 3, abs=1e-6)


def test_one_bin_compares_mean_confidence_with_accuracy():
    confidence, correct = calibrated(500, seed=3)
    assert ece(confidence, correct, bins=1) == pytest.approx(abs(confidence.mean() - correct.mean()))
    assert adaptive_ece(confidence, correct, bins=1) == pytest.approx(abs(confidence.mean() - correct.mean()))


@pytest.mark.parametrize("bins", [1, 7, 15, 40])
def test_ece_and_mce_agree_with_torchmetrics_away_from_the_edges(bins):
    # Not on an edge and below 1: torchmetrics' bins are [low, high), and it puts confidence 1 into a bin of its own.
    logits, labels = simulate(3000, true_temperature=1.7, seed=bins)
    probabilities = logits.double().softmax(1)
    assert probabilities.max() < 1
    for norm, ours in (("l1", ece), ("max", mce)):
        theirs = multiclass_calibration_error(probabilities, labels, num_classes=5, n_bins=bins, norm=norm)
        assert ours(probabilities, labels, bins) == pytest.approx(theirs.item(), abs=1e-6)
    theirs = multiclass_calibration_error(probabilities, labels, num_classes=5, n_bins=bins, norm="l2")
    assert squared_ece(probabilities, labels, bins, debiased=False) == pytest.approx(theirs.item() ** 2, abs=1e-6)


@pytest.mark.parametrize("bins", [5, 15])
def test_classwise_ece_is_the_mean_of_one_against_the_rest(bins):
    logits, labels = simulate(2000, true_temperature=0.6, seed=1)
    probabilities = logits.double().softmax(1)
    # torchmetrics turns a positive-class probability below one half into the confidence of "no", so mirror it first:
    # what is left is the plain table of probability against frequency, counted here one class and one bin at a time.
    by_class = []
    for k in range(5):
        p, hit = probabilities[:, k].numpy(), (labels == k).numpy()
        total = 0.0
        for m in range(bins):
            inside = (p > m / bins) & (p <= (m + 1) / bins)
            total += abs(p[inside].sum() - hit[inside].sum())
        by_class.append(total / len(p))
    assert classwise_ece(probabilities, labels, bins) == pytest.approx(np.mean(by_class))


def test_two_classes_agree_with_torchmetrics_binary():
    p = np.random.default_rng(0).uniform(0.5, 0.999, 2000)
    hit = np.random.default_rng(1).random(2000) < p**2
    theirs = binary_calibration_error(torch.from_numpy(p), torch.from_numpy(hit).int(), n_bins=12, norm="l1")
    assert ece(p, hit, 12) == pytest.approx(theirs.item(), abs=1e-6)


@pytest.mark.parametrize(("scheme", "strategy"), [("width", "uniform"), ("count", "quantile")])
def test_the_table_agrees_with_scikit_learns_calibration_curve(scheme, strategy):
    confidence, correct = calibrated(1500, seed=5)
    table = reliability_bins(confidence, correct, 10, scheme)
    truth, predicted = calibration_curve(correct, confidence, n_bins=10, strategy=strategy)
    full = table.count > 0
    # Quantile edges differ by an interpolation between two neighbours: at most one sample of 150 changes its bin.
    tolerance = 1e-12 if scheme == "width" else 1e-2
    np.testing.assert_allclose(table.accuracy[full], truth, atol=tolerance)
    np.testing.assert_allclose(table.confidence[full], predicted, atol=tolerance)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=80),  # thirteen values only: ties everywhere
    st.integers(1, 20),
)
def test_equal_count_bins_keep_ties_together_and_lose_nobody(values, bins):
    confidence = np.array(values) / 12
    correct = np.arange(len(values)) % 2 == 0
    table = reliability_bins(confidence, correct, bins, scheme="count")
    assert table.count.sum() == len(values)
    assert (table.count > 0).all()
    assert table.edges[0] == 0 and table.edges[-1] == 1
    assert (np.diff(table.edges) >= 0).all()
    # Ties: the bins, in order, are whole groups of equal values.
    starts = np.concatenate([[0], np.cumsum(table.count)])
    ordered = np.sort(confidence)
    for start in starts[1:-1]:
        assert ordered[start - 1] < ordered[start]
    # The stated rule: a bin closes at the value that its quantile meets.
    ranks = [math.ceil(len(values) * m / bins) - 1 for m in range(1, bins + 1)]
    closing = sorted({ordered[rank] for rank in ranks})
    counts = [
        int(((ordered > low) & (ordered <= high)).sum()) for low, high in zip([-1.0, *closing], closing, strict=False)
    ]
    assert table.count.tolist() == counts


def test_equal_count_bins_are_equal_without_ties_and_the_last_one_is_visited():
    confidence = np.linspace(0.3, 1.0, 150)
    correct = np.ones(150, dtype=bool)
    correct[-10:] = False  # only the most confident ten are wrong: a last bin that is skipped would hide it
    table = reliability_bins(confidence, correct, 15, scheme="count")
    assert table.count.tolist() == [10] * 15
    assert table.accuracy[-1] == 0
    by_hand = sum(abs(confidence[i : i + 10].mean() - correct[i : i + 10].mean()) for i in range(0, 150, 10)) / 15
    assert adaptive_ece(confidence, correct, 15) == pytest.approx(by_hand)


def test_gap_is_positive_for_overconfidence_and_weights_sum_to_one():
    table = reliability_bins([0.9, 0.9, 0.3], [False, True, True], 10)
    assert table.weight.sum() == pytest.approx(1)
    assert table.gap[8] == pytest.approx(0.4)
    assert table.gap[2] == pytest.approx(-0.7)


def test_probabilities_and_their_confidence_give_the_same_numbers():
    logits, labels = simulate(400, 1.3, seed=8)
    probabilities = logits.softmax(1)
    confidence, correct = confidence_and_correct(probabilities, labels)
    assert confidence.shape == correct.shape == (400,)
    assert ece(probabilities, labels) == ece(confidence, correct) == ece(probabilities.tolist(), labels.tolist())
    # the first of two equally probable classes is the prediction
    assert confidence_and_correct([[0.5, 0.5], [0.5, 0.5]], [0, 1])[1].tolist() == [True, False]


def test_errors_vanish_for_perfect_predictions_and_reach_one_for_the_worst():
    assert ece(np.ones(5), np.ones(5, dtype=bool)) == 0
    assert ece(np.ones(5), np.zeros(5, dtype=bool)) == 1
    assert mce(np.ones(5), np.zeros(5, dtype=bool)) == 1
    assert squared_ece(np.ones(5), np.zeros(5, dtype=bool)) == pytest.approx(1)
