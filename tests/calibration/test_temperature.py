"""Temperature scaling recovers what a simulator has put in."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from simulators import simulate

from tutorial_lib.calibration import (
    TemperatureScaling,
    ece,
    negative_log_likelihood,
)


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
