"""What comes from the cache is what the network says; what is asked twice is measured once."""

import copy
import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from tutorial_lib import load_study
from tutorial_lib.detectors import (
    BackpropDensity,
    GradientDensity,
    GradientFusion,
    GradientSum,
    LayerDensity,
    Purview,
)
from tutorial_lib.detectors.evidence import (
    FEATURES,
    IMAGES,
    LOGITS,
    ActivationNorms,
    BackpropNorms,
    GradientNorms,
    Stage,
    SteppedLogits,
    observe,
)
from tutorial_lib.gradients import n_ones
from tutorial_lib.introspection import views_of
from tutorial_lib.runs import observations as module
from tutorial_lib.runs.observations import cached_observation, cached_views
from tutorial_lib.training.robust import robust_classifier


@pytest.fixture(scope="module")
def study():
    return load_study("digits")


@pytest.fixture(scope="module")
def model(study):
    return study.classifier()


@pytest.fixture
def passes(tmp_path, monkeypatch):
    """What was measured, and of how many images; an empty cache."""
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    counted, measure = [], module._measured

    def counting(model, images, quantities):
        counted.append((len(images), *(quantity.name for quantity in quantities)))
        return measure(model, images, quantities)

    monkeypatch.setattr(module, "_measured", counting)
    return counted


def test_what_was_observed_is_what_is_measured(study, model, passes):
    forward = (LOGITS, FEATURES, Stage("backbone.3"), ActivationNorms())
    backward = (GradientNorms(), BackpropNorms(), SteppedLogits(1000.0, 0.0014))
    needs = (IMAGES, *forward, *backward)
    plain = observe(model, study.test, *needs)
    for _ in range(2):
        cached = cached_observation(model, study.test, needs)
        assert torch.equal(cached[IMAGES], study.test.images)
        for quantity in needs:
            assert cached[quantity].dtype == plain[quantity].dtype
            torch.testing.assert_close(cached[quantity], plain[quantity], rtol=1e-5, atol=1e-5)
        assert cached.names == plain.names == (study.test.name,)
        assert torch.equal(cached.labels, study.test.labels) and cached.shape == (1, 8, 8)
    together, *alone = passes
    assert together == (len(study.test), *(quantity.name for quantity in forward))
    assert alone == [(len(study.test), quantity.name) for quantity in backward]


def test_views_are_looked_at_once(study, model, passes):
    def shifted(images, generator):
        return images.roll(int(torch.randint(3, (1,), generator=generator)), dims=2)

    plain = views_of(model, study.test.images, shifted, count=3, seed=1)
    for _ in range(2):
        cached = cached_views(model, study.test.images, shifted, count=3, seed=1)
        for one, other in zip(cached, plain, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    different = len({view.logits.numpy().tobytes() for view in plain})
    assert passes == [(len(study.test), "logits", "features")] * different


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
    assert passes == [(len(study.test), "gradient_norms")]
    assert torch.equal(*(seen[GradientNorms()] for seen in results))


def test_other_weights_are_another_file(study, model, passes, tmp_path):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.head.bias += 0.1
    for network in (model, other):
        cached_observation(network, study.test, [GradientNorms()])
    cached_observation(model, study.test.subset(range(50)), [GradientNorms()])
    assert len(list((tmp_path / "features" / "gradient_norms").glob("*.npz"))) == 3


class Cooler(nn.Module):
    def __init__(self, inner, temperature=1.0, shape=None, change=None):
        super().__init__()
        self.inner, self.temperature, self.shape, self.change = inner, temperature, shape, change

    def forward(self, images):
        return self.inner(images) / self.temperature


class Warmer(Cooler):
    pass


def test_the_same_weights_in_another_network_are_another_file(model):
    def twice(x):
        return 2 * x

    def times(factor, offset=0):
        return lambda x: factor * x + offset

    def clamped(network, least):
        network = copy.deepcopy(network)
        network.head.register_forward_hook(lambda module, inputs, output: output.clamp(min=least))
        return network

    shape = type("Shape", (), {})()
    shape.sides = [8, 8]
    others = [
        model,
        Cooler(model),
        Warmer(model),
        Cooler(model, 2.0),
        Cooler(model, shape=shape),
        Cooler(model, shape={"sides": (8, 7)}),
        Cooler(model, change=torch.relu),
        Cooler(model, change=torch.tanh),
        Cooler(model, change=twice),
        Cooler(model, change=lambda x: 3 * x),
        Cooler(model, change=lambda x: 4 * x),
        Cooler(model, change=functools.partial(twice, x=1)),
        Cooler(model, change=lambda x: torch.relu(x)),
        Cooler(model, change=lambda x: torch.tanh(x)),
        Cooler(model, change=lambda x: (lambda y: y + 1)(x)),
        Cooler(model, change=lambda x: (lambda y: y + 2)(x)),
        Cooler(model, change=lambda x, by=2: by * x),
        Cooler(model, change=lambda x, by=3: by * x),
        Cooler(model, change=lambda x: x in {"a", "b", "c"}),
        Cooler(model, change=times(2)),
        Cooler(model, change=times(3)),
        Cooler(model, change=Warmer(model, 2.0).forward),
        Cooler(model, change=nn.LeakyReLU(0.3).forward),
        clamped(model, 0.0),
        clamped(model, 1.0),
        Cooler(model, change=np.arange(3)),
        Cooler(model, change=torch.arange(3)),
        robust_classifier(load_study("digits"), "denoised"),
        nn.Sequential(model, nn.LeakyReLU(0.1)),
        nn.Sequential(model, nn.LeakyReLU(0.2)),
        copy.deepcopy(model).double(),
    ]
    digests = [module.model_digest(network) for network in others]
    assert len(set(digests)) == len(others)
    assert [module.model_digest(copy.deepcopy(network)) for network in others] == digests
    program = (
        "from tutorial_lib import load_study; from tutorial_lib.runs.observations import model_digest; "
        "from tutorial_lib.training.robust import robust_classifier; "
        "print(model_digest(robust_classifier(load_study('digits'), 'denoised')))"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert there.strip() == module.model_digest(robust_classifier(load_study("digits"), "denoised"))


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
