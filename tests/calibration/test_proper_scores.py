"""Proper scores against scikit-learn and in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulators import simulate
from sklearn.metrics import brier_score_loss, log_loss

from tutorial_lib.calibration import (
    brier_decomposition,
    brier_score,
    negative_log_likelihood,
    squared_ece,
)


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
