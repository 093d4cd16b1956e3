"""Gradient norms from the cache are those of a backward pass, whatever batch an image comes in."""

import copy

import numpy as np
import pytest
import torch

from tutorial_lib import load_study
from tutorial_lib.detectors import GradientDensity, GradientFusion, GradientSum, Purview, log_squared_norms
from tutorial_lib.runs import shared_norms as module
from tutorial_lib.runs.shared_norms import shared_norms


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
    counted, measure = [], module.measured_log_norms

    def counting(model, images, label, loss):
        counted.append(len(images))
        return measure(model, images, label, loss)

    monkeypatch.setattr(module, "measured_log_norms", counting)
    return counted


def test_an_image_is_found_in_any_batch(study, model, passes):
    images = study.test.float()
    plain = log_squared_norms(model, images)
    with shared_norms(model, lambda: [study.test, study.test, study.validation]):
        backwards = log_squared_norms(model, images.flip(0)).flip(0)
    torch.testing.assert_close(backwards, plain, rtol=1e-4, atol=1e-4)  # single precision, other batches
    assert sum(passes) == len(study.test) + len(study.validation)  # each image once


@pytest.mark.parametrize("make", [GradientSum, GradientDensity, GradientFusion])
def test_scores_are_the_same_with_and_without(study, model, passes, make):
    strange = study.shift("unseen_classes")
    plain = make(model).fit(study.validation).predict(strange)
    with shared_norms(model, lambda: [study.validation, strange]):
        shared = make(model).fit(study.validation).predict(strange)
    np.testing.assert_allclose(shared, plain, rtol=1e-3, atol=1e-3)


def test_the_second_time_nothing_is_measured(study, model, passes):
    results = []
    for _ in range(2):
        with shared_norms(model, lambda: [study.test]):
            results.append(GradientSum(model).predict(study.test))
        first = sum(passes)
    np.testing.assert_array_equal(*results)
    assert first == len(study.test)


def test_other_weights_are_another_file(study, model, passes, tmp_path):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.bias += 0.1
    for network in (model, other):
        with shared_norms(network, lambda: [study.test]):
            GradientSum(network).predict(study.test)
    assert len(list((tmp_path / "features" / "gradient_norms").glob("*.npz"))) == 2


def test_what_is_not_remembered_is_measured(study, model, passes):
    with shared_norms(model, lambda: [study.test]):
        unknown = Purview(model).features(study.validation)
        torch.testing.assert_close(
            log_squared_norms(model, study.test.float()[:5], 0, "ce"),
            module.measured_log_norms(model, study.test.float()[:5], 0, "ce"),
        )
    np.testing.assert_allclose(unknown, Purview(model).features(study.validation), rtol=1e-3, atol=1e-3)


def test_a_damaged_cache_is_made_again(study, model, passes, tmp_path):
    scores = []
    for _ in range(2):
        with shared_norms(model, lambda: [study.test]):
            scores.append(GradientSum(model).predict(study.test))
        [file] = (tmp_path / "features" / "gradient_norms").glob("*.npz")
        file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(*scores)
