"""Detectors that look at the logits, against sums written out."""

import math

import numpy as np
import pytest
import torch

from tutorial_lib.detectors import MSP, ODIN, Energy, Entropy, MaxLogit

LOGITS = [[0.0, 0.0, 0.0], [4.0, -1.0, 0.5], [30.0, -30.0, 0.0], [-500.0, -510.0, -505.0]]


class Logits(torch.nn.Module):
    """A network whose logits are what the test says, whatever the images."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images):
        return self.logits


def softmax(row, temperature=1.0):
    powers = [math.exp((z - max(row)) / temperature) for z in row]
    return [power / sum(powers) for power in powers]


def predicted(detector):
    return detector(Logits(LOGITS)).predict(torch.zeros(len(LOGITS), 1, 2, 2))


def test_msp_is_minus_the_largest_probability():
    np.testing.assert_allclose(predicted(MSP), [-max(softmax(row)) for row in LOGITS], rtol=1e-12)


def test_entropy_is_minus_sum_p_log_p():
    by_hand = [-sum(p * math.log(p) for p in softmax(row)) for row in LOGITS]
    np.testing.assert_allclose(predicted(Entropy), by_hand, rtol=1e-9, atol=1e-15)


def test_max_logit_is_minus_the_largest_logit():
    np.testing.assert_array_equal(predicted(MaxLogit), [-max(row) for row in LOGITS])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 10.0])
def test_energy_is_minus_log_sum_exp(temperature):
    by_hand = [
        -temperature * (max(row) / temperature + math.log(sum(math.exp((z - max(row)) / temperature) for z in row)))
        for row in LOGITS
    ]
    scores = Energy(Logits(LOGITS), temperature).predict(torch.zeros(len(LOGITS), 1, 2, 2))
    np.testing.assert_allclose(scores, by_hand, rtol=1e-9)


def test_confident_answers_that_float32_rounds_to_one_still_differ():
    network = Logits([[20.0, 0.0], [25.0, 0.0], [30.0, 0.0]])
    scores = MSP(network).predict(torch.zeros(3, 1, 2, 2))
    assert (np.diff(scores) < 0).all()
    assert (-scores.astype(np.float32) == 1).all()


def odin_by_hand(network, image, temperature, epsilon):
    """One image, one ordinary backward pass."""
    image = image.clone().requires_grad_()
    logits = network(image[None])[0] / temperature
    (-logits.log_softmax(0)[logits.argmax()]).backward()
    stepped = image.detach() - epsilon * image.grad.sign()
    return -(network(stepped[None])[0].double() / temperature).softmax(0).max().item()


@pytest.mark.parametrize(("temperature", "epsilon"), [(1000.0, 0.0014), (1.0, 0.05), (1000.0, 0.0)])
def test_odin_steps_against_the_gradient_of_the_predicted_class(colour_network, temperature, epsilon):
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scores = ODIN(colour_network, temperature, epsilon).predict(images)
    with torch.enable_grad():
        by_hand = [odin_by_hand(colour_network, image, temperature, epsilon) for image in images]
    colour_network.zero_grad(set_to_none=True)
    np.testing.assert_allclose(scores, by_hand, rtol=1e-5)


def test_odin_without_a_step_at_temperature_one_is_msp(model, known):
    np.testing.assert_allclose(ODIN(model, 1.0, 0.0).predict(known), MSP(model).predict(known), rtol=1e-12)


def test_the_step_makes_answers_surer():
    """Of a linear network, where the gradient holds all the way, every single one."""
    torch.manual_seed(0)
    network, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 5)), torch.rand(50, 1, 4, 4)
    before, after = ODIN(network, 1.0, 0.0).predict(images), ODIN(network, 1.0, 0.01).predict(images)
    assert (after < before).all()


def test_bad_settings_are_refused(model):
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature must be positive"):
            Energy(model, temperature)
        with pytest.raises(ValueError, match="temperature must be positive"):
            ODIN(model, temperature)
    for epsilon in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="epsilon"):
            ODIN(model, epsilon=epsilon)
