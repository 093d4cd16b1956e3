"""What chance does to a calibration error, on simulators whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from simulators import calibrated, simulate

from tutorial_lib.calibration import (
    chance_ece,
    debiased_ece,
    ece,
    reflected_interval,
    squared_ece,
)


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


def test_reflected_interval_of_a_mean_agrees_with_the_normal_one():
    right = np.random.default_rng(0).random(2000) < 0.8
    found = reflected_interval(lambda c, y: float(np.mean(y)), np.full(2000, 0.5), right, resamples=2000)
    half = 1.96 * math.sqrt(right.mean() * (1 - right.mean()) / 2000)
    assert found.value == right.mean()
    assert (found.low, found.high) == pytest.approx((right.mean() - half, right.mean() + half), abs=0.15 * half)


def test_reflected_interval_holds_the_truth_where_percentiles_do_not():
    truth = ece(*calibrated(400_000, seed=0))  # almost zero
    basic = percentile = 0
    for seed in range(60):
        confidence, correct = calibrated(300, seed=seed + 1)
        found = reflected_interval(ece, confidence, correct, resamples=100, seed=seed)
        estimate = ece(confidence, correct)
        basic += found.low <= truth <= found.high
        percentile += 2 * estimate - found.high <= truth <= 2 * estimate - found.low
    assert percentile == 0  # biased twice
    assert basic >= 15


def test_bootstrap_takes_tensors_and_is_repeatable():
    logits, labels = simulate(100, 1, seed=0)
    probabilities = logits.softmax(1)
    once = reflected_interval(ece, probabilities, labels, resamples=20, seed=4)
    assert once == reflected_interval(ece, probabilities.numpy(), labels.numpy(), resamples=20, seed=4)
    assert once != reflected_interval(ece, probabilities, labels, resamples=20, seed=5)
