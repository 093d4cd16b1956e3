"""Bad input is refused, and the message says what is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tutorial_lib.calibration import (
    TemperatureScaling,
    brier_decomposition,
    brier_score,
    chance_ece,
    classwise_ece,
    ece,
    mce,
    negative_log_likelihood,
    reflected_interval,
    squared_ece,
)
from tutorial_lib.uncertainty.decomposition import decompose_classification

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
    with pytest.raises(TypeError, match="booleans are labels of two classes only"):
        ece(np.full((2, 3), 1 / 3), [True, False])
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
        reflected_interval(ece, GOOD, [0, 1], level=95)
    with pytest.raises(ValueError, match="resamples"):
        reflected_interval(ece, GOOD, [0, 1], resamples=1)
    with pytest.raises(ValueError, match="labels must lie"):
        reflected_interval(ece, GOOD, [0, 7])
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


def test_boolean_labels_are_those_of_two_classes():
    assert ece(GOOD, np.array([False, True])) == ece(GOOD, [0, 1])
    for kind in (torch.uint8, torch.int16, torch.bool):
        assert brier_score(GOOD, torch.tensor([1, 0]).to(kind)) == brier_score(GOOD, [1, 0])


@pytest.mark.parametrize("over", [1e-7, 1e-4])
def test_a_rounded_one_is_one(over):
    """The mean of members that float32 has rounded: a hair above 1, a hair below 0."""
    rows = np.array([[1 + over, -over], [0.5, 0.5]], dtype=np.float32)
    assert ece(rows, [0, 1]) == ece([[1.0, 0.0], [0.5, 0.5]], [0, 1])
    assert brier_score(rows, [0, 1]) == pytest.approx(brier_score([[1.0, 0.0], [0.5, 0.5]], [0, 1]), abs=1e-9)
    assert ece(np.array([1 + over, 0.5]), [1, 0]) == ece([1.0, 0.5], [1, 0])


def test_half_precision_probabilities_are_taken():
    logits = 4 * torch.randn(200, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 10
    exact = brier_score(logits.softmax(1), labels)
    for kind in (torch.float16, torch.bfloat16):
        rows = logits.to(kind).softmax(1)
        assert brier_score(rows, labels) == pytest.approx(exact, abs=0.02)
        assert reflected_interval(ece, rows, labels, resamples=5).value == ece(rows, labels)
    with pytest.raises(ValueError, match="row 0 sums to 1.1"):
        ece(torch.tensor([[0.6, 0.5]], dtype=torch.bfloat16), [0])


def test_an_ensemble_takes_bfloat16_members():
    members = torch.randn(3, 50, 7, generator=torch.Generator().manual_seed(0)).softmax(2)
    exact = decompose_classification(members)
    for there, here in zip(decompose_classification(members.bfloat16()), exact, strict=True):
        torch.testing.assert_close(there, here, atol=0.05, rtol=0)
