"""Norms from the cache are those of a backward pass; what is asked twice is measured once."""

import copy

import numpy as np
import pytest
import torch

from tutorial_lib import load_study
from tutorial_lib.detectors import (
    BackpropDensity,
    GradientDensity,
    GradientFusion,
    GradientSum,
    LayerDensity,
    Purview,
)
from tutorial_lib.detectors.evidence import LOGITS, BackpropNorms, GradientNorms, observe
from tutorial_lib.gradients import n_ones
from tutorial_lib.runs import observations as module
from tutorial_lib.runs.observations import cached_observation


@pytest.fixture(scope="module")
def study():
    return load_study("digits")


@pytest.fixture(scope="module")
def model(study):
    return study.classifier()


@pytest.fixture
def passes(tmp_path, monkeypatch):
    """How many images went through a backward pass; an empty cache."""
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    counted, measure = [], module._measured

    def counting(model, images, quantity):
        counted.append(len(images))
        return measure(model, images, quantity)

    monkeypatch.setattr(module, "_measured", counting)
    return counted


def test_what_was_observed_is_what_is_measured(study, model, passes):
    needs = (LOGITS, GradientNorms(), BackpropNorms())
    cached, plain = cached_observation(model, study.test, needs), observe(model, study.test, *needs)
    for quantity in needs:
        torch.testing.assert_close(cached[quantity], plain[quantity], rtol=1e-5, atol=1e-5)
    assert cached.names == plain.names == (study.test.name,)
    assert torch.equal(cached.labels, study.test.labels) and cached.shape == (1, 8, 8)
    assert passes == [len(study.test)] * 2


@pytest.mark.parametrize("make", [GradientSum, GradientDensity, BackpropDensity, LayerDensity, GradientFusion])
def test_scores_are_the_same_with_and_without(study, model, passes, make):
    strange = study.shift("unseen_classes")
    plain = make(model).fit(study.validation).predict(strange)
    detector = make(model)
    if detector.requires_fit:
        detector.fit_from(cached_observation(model, study.validation, detector.needs_to_fit()))
    shared = detector.predict_from(cached_observation(model, strange, detector.needs()))
    np.testing.assert_allclose(shared, plain, rtol=1e-3, atol=1e-3)


def test_the_second_time_nothing_is_measured(study, model, passes):
    asked = [Purview(model), GradientSum(model)]  # the same label and loss
    results = [cached_observation(model, study.test, detector.needs()) for detector in asked]
    assert passes == [len(study.test)]
    assert torch.equal(*(seen[GradientNorms()] for seen in results))


def test_other_weights_are_another_file(study, model, passes, tmp_path):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.bias += 0.1
    for network in (model, other):
        cached_observation(network, study.test, [GradientNorms()])
    cached_observation(model, study.test.subset(range(50)), [GradientNorms()])
    assert len(list((tmp_path / "features" / "gradient_norms").glob("*.npz"))) == 3


def test_a_label_without_a_name_is_measured(study, model, passes):
    asked = GradientNorms(n_ones(3), "bce")
    seen = cached_observation(model, study.test, [asked])
    assert not passes and len(seen[asked]) == len(study.test)


def test_a_damaged_cache_is_made_again(study, model, passes, tmp_path):
    found = []
    for _ in range(2):
        found.append(cached_observation(model, study.test, [GradientNorms()])[GradientNorms()])
        [file] = (tmp_path / "features" / "gradient_norms").glob("*.npz")
        file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(*found) and len(passes) == 2
