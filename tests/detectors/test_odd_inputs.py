"""Odd networks, labels and settings: a right score, or one sentence that says what is the matter."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tutorial_lib.detectors import (
    KNN,
    LID,
    SNGP,
    ActivationDensity,
    ActivationFusion,
    Energy,
    EnsembleUncertainty,
    LogitsControl,
    Mahalanobis,
    NotFittedError,
)
from tutorial_lib.models import Classifier
from tutorial_lib.uncertainty.deep_ensemble import DeepEnsemble


@pytest.fixture
def network():
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return Classifier(nn.Identity(), body, 24, 3).eval()


IMAGES = torch.rand(90, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(90) % 3


@pytest.mark.parametrize("whole", [list, tuple, np.array, lambda numbers: torch.tensor(numbers, dtype=torch.uint8)])
def test_labels_of_any_form(network, whole):
    wanted = Mahalanobis(network).fit((IMAGES, LABELS)).predict(IMAGES[:5])
    labels = whole(LABELS.tolist())
    np.testing.assert_array_equal(Mahalanobis(network).fit((IMAGES, labels)).predict(IMAGES[:5]), wanted)
    np.testing.assert_array_equal(Mahalanobis(network).fit(IMAGES, labels).predict(IMAGES[:5]), wanted)


@pytest.mark.parametrize(
    "make", [KNN, Mahalanobis, lambda m: Mahalanobis(m, shrink=True), SNGP, lambda m: LID(m, k=5), ActivationDensity, LogitsControl]
)  # fmt: skip
def test_a_network_of_nan_is_named(network, make):
    """Not scikit-learn's advice on missing values, nor "all images have the same features"."""
    with torch.no_grad():
        next(network.parameters()).fill_(torch.nan)
    detector = make(network)
    more = (1 - IMAGES[:30],) if detector.supervised else ()
    with pytest.raises(ValueError, match=r"images are NaN or infinite, so .* cannot learn from them; are the model's"):
        detector.fit((IMAGES, LABELS), *more)
    with pytest.raises(NotFittedError):
        detector.predict(IMAGES)


def test_new_settings_are_those_of_a_new_detector(network):
    """Also where they are handed on to parts, and never half-way."""
    changed = ActivationFusion(network, k=7).fit(IMAGES).set_params(k=3)
    with pytest.raises(NotFittedError):
        changed.predict(IMAGES)
    np.testing.assert_array_equal(
        changed.fit(IMAGES).predict(IMAGES[:9]), ActivationFusion(network, k=3).fit(IMAGES).predict(IMAGES[:9])
    )
    energy = Energy(network, temperature=2.0)
    with pytest.raises(ValueError, match="temperature"):
        energy.set_params(temperature=-1.0)
    assert energy.temperature == 2.0
    with pytest.raises(ValueError, match="nope"):
        energy.set_params(nope=1)


@pytest.mark.parametrize("score", ["mutual_information", "entropy", "variance"])
def test_ensembles_in_half_precision(network, score):
    """The softmax of bfloat16 logits is taken in float64, so that its rows sum to one."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.head.weight.mul_(-3)
    exact = EnsembleUncertainty(DeepEnsemble([network, other]), score).predict(IMAGES)
    half = EnsembleUncertainty(DeepEnsemble([network, other]).bfloat16(), score).predict(IMAGES)
    np.testing.assert_allclose(half, exact, rtol=0.1, atol=2e-3)
