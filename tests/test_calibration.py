"""Calibration against independent counts, other libraries, closed forms and simulators whose truth is known."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from tutorial_lib.calibration import (
    TemperatureScaling,
    adaptive_ece,
    bootstrap_interval,
    brier_decomposition,
    brier_score,
    chance_ece,
    classwise_ece,
    confidence_and_correct,
    debiased_ece,
    ece,
    mce,
    negative_log_likelihood,
    reliability_bins,
    squared_ece,
)


def simulate(n: int, true_temperature: float, seed: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels such that softmax(logits / true_temperature) is the true distribution of the label."""
    generator = torch.Generator().manual_seed(seed)
    honest = 2.5 * torch.randn(n, classes, generator=generator)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator)[:, 0]
    return honest * true_temperature, labels


def calibrated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    confidence = generator.beta(5, 1, size=n)
    return confidence, generator.random(n) < confidence


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


# ------------------------------------------------------------------------- bins and calibration errors


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


# ----------------------------------------------------------------------------- bias, chance, bootstrap


def test_debiased_error_equals_its_definition_pair_by_pair():
    confidence, correct = calibrated(60, seed=11)
    index = np.minimum((confidence * 6).astype(int), 5)
    d = confidence - correct
    total = 0.0
    for m in range(6):
        member = np.flatnonzero(index == m)
        if len(member) > 1:
            pairs = [d[i] * d[j] for i in member for j in member if i != j]
            total += len(member) / 60 * np.mean(pairs)
    assert squared_ece(confidence, correct, 6) == pytest.approx(total)


def test_debiased_error_equals_kumars_where_the_model_says_one_thing_a_bin():
    confidence = np.repeat([0.15, 0.55, 0.95], [8, 20, 40])
    correct = np.random.default_rng(0).random(68) < confidence - 0.1
    total = 0.0
    for value, count in ((0.15, 8), (0.55, 20), (0.95, 40)):
        accuracy = correct[confidence == value].mean()
        total += count / 68 * ((value - accuracy) ** 2 - accuracy * (1 - accuracy) / (count - 1))
    assert squared_ece(confidence, correct, 10) == pytest.approx(total)


def test_plain_errors_are_biased_on_a_calibrated_simulator_and_the_debiased_one_is_not():
    runs = [calibrated(200, seed) for seed in range(1500)]
    plain = np.array([squared_ece(c, y, 15, debiased=False) for c, y in runs])
    debiased = np.array([squared_ece(c, y, 15) for c, y in runs])
    standard_error = debiased.std() / math.sqrt(len(runs))
    assert abs(debiased.mean()) < 4 * standard_error
    assert plain.mean() > 20 * standard_error
    assert np.mean([ece(c, y) for c, y in runs]) > 0.03
    assert (debiased < 0).any()


def test_debiased_error_is_unbiased_off_calibration_too():
    # One confidence a bin, so that the true squared error is known: 0.3 * 0.2^2 + 0.7 * 0.1^2.
    truth, generator, found = 0.3 * 0.04 + 0.7 * 0.01, np.random.default_rng(0), []
    confidence = np.repeat([0.5, 0.95], [30, 70])
    for _ in range(3000):
        found.append(squared_ece(confidence, generator.random(100) < np.repeat([0.3, 0.85], [30, 70]), 10))
    assert np.mean(found) == pytest.approx(truth, abs=4 * np.std(found) / math.sqrt(3000))


def test_ece_of_a_large_calibrated_sample_is_small_and_falls_as_the_sample_grows():
    sizes = (200, 2000, 20000, 200000)
    errors = [ece(*calibrated(n, seed=1)) for n in sizes]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.004


def test_debiased_ece_is_the_root_and_zero_below():
    confidence, correct = np.full(100, 0.9), np.arange(100) < 60
    assert debiased_ece(confidence, correct) == pytest.approx(squared_ece(confidence, correct) ** 0.5)
    exact = np.arange(100) < 90  # closer to 0.9 than chance: the debiased square is negative
    assert squared_ece(confidence, exact) < 0 and debiased_ece(confidence, exact) == 0


def test_a_bin_with_one_sample_adds_nothing_to_the_debiased_error():
    assert squared_ece([0.95], [False]) == 0
    assert squared_ece([0.95], [False], debiased=False) == pytest.approx(0.95**2)


def test_chance_ece_is_what_repeated_calibrated_test_sets_show():
    confidence, _ = calibrated(400, seed=2)
    imagined = chance_ece(confidence, repeats=800, seed=0)
    generator = np.random.default_rng(99)
    seen = np.array([ece(confidence, generator.random(400) < confidence) for _ in range(800)])
    spread = math.hypot(imagined.std(), seen.std()) / math.sqrt(800)
    assert imagined.mean() == pytest.approx(seen.mean(), abs=4 * spread)
    assert imagined.std() == pytest.approx(seen.std(), rel=0.15)
    np.testing.assert_array_equal(imagined[:5], chance_ece(confidence, repeats=5, seed=0))
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    np.testing.assert_array_equal(chance_ece(probabilities, repeats=3), chance_ece(probabilities.max(1), repeats=3))


def test_bootstrap_interval_of_a_mean_agrees_with_the_normal_one():
    right = np.random.default_rng(0).random(2000) < 0.8
    low, high = bootstrap_interval(lambda c, y: float(np.mean(y)), np.full(2000, 0.5), right, resamples=2000)
    half = 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / 2000)
    assert (low, high) == pytest.approx((right.mean() - half, right.mean() + half), abs=0.15 * half)


def test_bootstrap_interval_holds_the_truth_where_percentiles_do_not():
    truth = ece(*calibrated(400_000, seed=0))  # almost zero
    basic = percentile = 0
    for seed in range(60):
        confidence, correct = calibrated(300, seed=seed + 1)
        low, high = bootstrap_interval(ece, confidence, correct, resamples=100, seed=seed)
        estimate = ece(confidence, correct)
        basic += low <= truth <= high
        percentile += 2 * estimate - high <= truth <= 2 * estimate - low
    assert percentile == 0  # biased twice
    assert basic >= 15


def test_bootstrap_takes_tensors_and_is_repeatable():
    logits, labels = simulate(100, 1, seed=0)
    probabilities = logits.softmax(1)
    once = bootstrap_interval(ece, probabilities, labels, resamples=20, seed=4)
    assert once == bootstrap_interval(ece, probabilities.numpy(), labels.numpy(), resamples=20, seed=4)
    assert once != bootstrap_interval(ece, probabilities, labels, resamples=20, seed=5)


# --------------------------------------------------------------------------------------- proper scores


def test_scores_agree_with_scikit_learn():
    logits, labels = simulate(700, 1.5, seed=3)
    probabilities = logits.double().softmax(1)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels, probabilities))
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(
        torch.nn.functional.cross_entropy(logits.double(), labels).item()
    )
    by_class = sum(brier_score_loss(labels == k, probabilities[:, k]) for k in range(5))
    assert brier_score(probabilities, labels) == pytest.approx(by_class)


def test_scores_in_closed_form():
    uniform = np.full((4, 4), 0.25)
    assert negative_log_likelihood(uniform, [0, 1, 2, 3]) == pytest.approx(math.log(4))
    assert brier_score(uniform, [0, 1, 2, 3]) == pytest.approx(0.75**2 + 3 * 0.25**2)
    certain = np.eye(3)
    assert brier_score(certain, [0, 1, 2]) == 0 and negative_log_likelihood(certain, [0, 1, 2]) == 0
    assert brier_score(certain, [1, 2, 0]) == 2 and negative_log_likelihood(certain, [1, 2, 0]) == math.inf


def test_scores_are_proper_the_truth_is_the_best_forecast():
    truth = np.array([0.6, 0.3, 0.1])
    labels = np.repeat([0, 1, 2], [600, 300, 100])
    for score in (negative_log_likelihood, brier_score):
        best = score(np.tile(truth, (1000, 1)), labels)
        for other in ([0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.6, 0.2, 0.2], [0.9, 0.05, 0.05]):
            assert score(np.tile(other, (1000, 1)), labels) > best


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 20),
    st.sampled_from(["width", "count"]),
)
def test_brier_decomposition_adds_up(pairs, bins, scheme):
    confidence = np.array([c for c, _ in pairs])
    correct = np.array([y for _, y in pairs])
    parts = brier_decomposition(confidence, correct, bins, scheme)
    assert parts.score == pytest.approx(np.mean((confidence - correct) ** 2), abs=1e-12)
    assert parts.reliability >= 0 and parts.resolution >= 0 and 0 <= parts.uncertainty <= 0.25
    assert parts.reliability == pytest.approx(squared_ece(confidence, correct, bins, scheme, debiased=False), abs=1e-12)


def test_brier_decomposition_in_closed_form():
    # 0.9 is right 3 times of 4, 0.6 once of 2; overall 4 of 6.
    parts = brier_decomposition([0.9] * 4 + [0.6] * 2, [True, True, True, False, True, False], bins=10)
    assert parts.reliability == pytest.approx((4 * 0.15**2 + 2 * 0.1**2) / 6)
    assert parts.resolution == pytest.approx((4 * (3 / 4 - 4 / 6) ** 2 + 2 * (1 / 2 - 4 / 6) ** 2) / 6)
    assert parts.uncertainty == pytest.approx(4 / 6 * 2 / 6)
    assert parts.within_bins == pytest.approx(0, abs=1e-15)


# --------------------------------------------------------------------------------- temperature scaling


@pytest.mark.parametrize("true_temperature", [0.25, 1.0, 3.0])
def test_temperature_scaling_recovers_a_known_temperature(true_temperature):
    logits, labels = simulate(40_000, true_temperature, seed=0)
    scaling = TemperatureScaling().fit(logits, labels)
    assert scaling.temperature == pytest.approx(true_temperature, rel=0.03)
    assert ece(scaling.predict_proba(logits), labels) < 0.01


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_fit_is_the_minimum_of_the_loss_in_any_units(scale):
    logits, labels = simulate(300, 2.0, seed=4)
    logits = logits.double() * scale

    def loss(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(logits / math.exp(log_temperature), labels).item()

    centre = math.log(2 * scale)
    best = minimize_scalar(loss, bounds=(centre - 3, centre + 3), method="bounded", options={"xatol": 1e-9})
    assert TemperatureScaling().fit(logits, labels).temperature == pytest.approx(math.exp(best.x), rel=1e-5)


def test_temperature_never_changes_the_prediction():
    logits, labels = simulate(5000, 5.0, seed=6)
    logits[:100, 1] = torch.nextafter(logits[:100, 0], torch.tensor(torch.inf))  # as close as float32 goes
    for scaling in (TemperatureScaling().fit(logits, labels), TemperatureScaling(1e-3), TemperatureScaling(1e3)):
        assert (scaling.transform(logits).argmax(1) == logits.argmax(1)).all()
    fitted = TemperatureScaling().fit(logits, labels)
    before = negative_log_likelihood(logits.double().softmax(1), labels)
    assert negative_log_likelihood(fitted.predict_proba(logits), labels) < before


def test_a_fitted_temperature_lowers_nll_on_what_it_was_fitted_on_even_for_extreme_logits():
    logits = torch.tensor([[1e6, 0.0], [1e6, 0.0], [1e6, 0.0], [1e6, 0.0]])
    scaling = TemperatureScaling().fit(logits, torch.tensor([0, 0, 0, 1]))
    # three of four are right, so the best constant confidence is 3/4, and its logit is log 3
    assert scaling.temperature == pytest.approx(1e6 / math.log(3))
    np.testing.assert_allclose(scaling.predict_proba(logits)[0], [0.75, 0.25])


def test_transform_divides_and_predict_proba_sums_to_one():
    logits = [[2.0, 0.0, -2.0]]
    scaling = TemperatureScaling(4.0)
    assert scaling.transform(logits).tolist() == [[0.5, 0.0, -0.5]]
    assert scaling.predict_proba(logits).sum().item() == pytest.approx(1)
    assert scaling.predict_proba(logits).dtype == torch.float64


# ------------------------------------------------------------------------------------------ bad inputs

GOOD = np.array([[0.7, 0.3], [0.2, 0.8]])


@pytest.mark.parametrize(
    ("predictions", "outcomes", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, dtype=int), "empty"),
        ([], [], "empty"),
        ([[0.7, 0.2], [0.2, 0.8]], [0, 1], "sum to 1, row 0"),
        ([[2.0, -1.0], [0.2, 0.8]], [0, 1], r"in \[0, 1\]"),
        ([[math.nan, 0.5], [0.2, 0.8]], [0, 1], "NaN"),
        ([math.nan, 0.5], [True, False], "NaN"),
        (GOOD, [0, 2], r"0\.\.1"),
        (GOOD, [0, -1], r"0\.\.1"),
        (GOOD, [0], r"shape \(2,\)"),
        (GOOD, [[0], [1]], r"shape \(2,\)"),
        ([[1.0], [1.0]], [0, 0], "two classes"),
        (np.ones((2, 2, 2)) / 2, [0, 1], r"\(N, K\)"),
        ([0.5, 1.2], [True, False], r"in \[0, 1\]"),
        ([0.5, 0.5], [True], "must match"),
        ([0.5, 0.5], [0, 3], "right"),
    ],
)
def test_bad_predictions_are_refused_by_name(predictions, outcomes, message):
    for measure in (ece, mce, squared_ece, brier_decomposition):
        with pytest.raises(ValueError, match=message):
            measure(predictions, outcomes)


def test_wrong_types_are_refused():
    with pytest.raises(TypeError, match="integers"):
        ece(GOOD, [0.0, 1.0])
    with pytest.raises(TypeError, match="integers"):
        ece(GOOD, [True, False])
    with pytest.raises(TypeError, match="numbers"):
        ece(["a", "b"], [True, False])


@pytest.mark.parametrize("measure", [negative_log_likelihood, brier_score, classwise_ece])
def test_scores_of_all_classes_refuse_confidence_alone(measure):
    with pytest.raises(ValueError, match=r"\(N, K\)"):
        measure([0.5, 0.9], [0, 1])


@pytest.mark.parametrize("bins", [0, -3, 2.5, True])
def test_bins_must_be_a_positive_whole_number(bins):
    with pytest.raises(ValueError, match="bins"):
        ece(GOOD, [0, 1], bins)


def test_other_arguments_are_checked():
    with pytest.raises(ValueError, match="scheme"):
        ece(GOOD, [0, 1], scheme="quantile")
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(ece, GOOD, [0, 1], level=95)
    with pytest.raises(ValueError, match="resamples"):
        bootstrap_interval(ece, GOOD, [0, 1], resamples=1)
    with pytest.raises(ValueError, match="labels must lie"):
        bootstrap_interval(ece, GOOD, [0, 7])
    with pytest.raises(ValueError, match="repeats"):
        chance_ece(GOOD, repeats=0)


def test_temperature_scaling_says_when_there_is_no_temperature():
    separable = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    with pytest.raises(ValueError, match="more held-out data"):
        TemperatureScaling().fit(separable, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="no better than guessing"):
        TemperatureScaling().fit(separable, torch.tensor([1, 0]))
    with pytest.raises(ValueError, match="equal"):
        TemperatureScaling().fit(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="NaN"):
        TemperatureScaling().fit(torch.full((2, 3), torch.nan), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="labels"):
        TemperatureScaling().fit(separable, torch.tensor([0, 2]))
    with pytest.raises(ValueError, match=r"\(N, K\)"):
        TemperatureScaling().fit(separable[0], torch.tensor([0]))
    with pytest.raises(RuntimeError, match="fit"):
        TemperatureScaling().predict_proba(separable)
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="positive"):
            TemperatureScaling(bad)
