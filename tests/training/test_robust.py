"""First networks trained to stand corruption: each kind is what it says, is kept, and depends on its seed alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from tutorial_lib.data.denoise import non_local_means
from tutorial_lib.studies import load_study
from tutorial_lib.training import robust
from tutorial_lib.training.robust import KINDS, jensen_shannon, noisy, robust_classifier

QUICK = {"epochs": 1, "batch_size": 128, "learning_rate": 1e-2, "optimizer": "adam", "shift": 1, "flip": False}
TRAINED = [kind for kind in KINDS if kind not in ("plain", "denoised")]


@pytest.fixture(autouse=True)
def quickly(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    monkeypatch.setattr(robust, "CONTRASTIVE_EPOCHS", 2)


@pytest.fixture(scope="module")
def study():
    digits = load_study("digits")
    small = digits.train.subset(range(128)), digits.validation.subset(range(32)), digits.test.subset(range(32))
    return replace(digits, splits=lambda: small, recipes={"lenet": QUICK, "": QUICK})


def test_each_kind_becomes_another_network_and_is_kept(study, monkeypatch):
    images = study.test.images[:8]
    answers = {}
    for kind in TRAINED:
        model = robust_classifier(study, kind)
        assert not model.training
        assert all(parameter.requires_grad for parameter in model.parameters())
        with torch.no_grad():
            answers[kind] = model(images)
    assert len({tuple(answer.flatten().tolist()) for answer in answers.values()}) == len(TRAINED)

    def forbidden(*args):
        raise AssertionError("it was trained before")

    monkeypatch.setattr(robust, "_train", forbidden)
    for kind in TRAINED:
        with torch.no_grad():
            torch.testing.assert_close(robust_classifier(study, kind)(images), answers[kind])
    with pytest.raises(AssertionError, match="trained before"):
        robust_classifier(study, "noise", seed=1)


def test_the_random_state_is_left_alone_and_the_seed_decides(study, tmp_path, monkeypatch):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = robust_classifier(study, "augmix", seed=2).head.weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(4)
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path / "other"))
    torch.testing.assert_close(robust_classifier(study, "augmix", seed=2).head.weight, one)


def test_plain_is_the_studys_own_and_denoised_puts_a_filter_before_it():
    study = load_study("digits")
    images = study.test.images[:8]
    with torch.no_grad():
        plain = study.classifier()
        torch.testing.assert_close(robust_classifier(study, "plain")(images), plain(images))
        torch.testing.assert_close(robust_classifier(study, "denoised")(images), plain(non_local_means(images)))


def test_a_linear_probe_leaves_the_features_alone(study):
    model = study.classifier()
    body = [value.clone() for value in model.backbone.parameters()]
    loss = robust._linear_probe(model)
    loss(study.train.images[:16].float() / 255, study.train.labels[:16]).backward()
    assert all(torch.equal(a, b) and b.grad is None for a, b in zip(body, model.backbone.parameters(), strict=True))
    assert model.head.weight.grad is not None


def test_adversarial_training_sees_attacked_images(study):
    model = load_study("digits").classifier()
    images, labels = study.train.images[:64].float() / 255, study.train.labels[:64]
    with torch.no_grad():
        clean = torch.nn.functional.cross_entropy(model(images), labels)
    assert robust._losses("adversarial", model, 48 / 255)(images, labels) > clean + 0.1


def test_the_jensen_shannon_loss_is_scipys():
    generator = torch.Generator().manual_seed(0)
    logits = tuple(3 * torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    distances = jensenshannon(*(one.softmax(1).numpy() for one in logits), axis=1)
    assert float(jensen_shannon(logits)) == pytest.approx(np.square(distances).mean())
    assert float(jensen_shannon((logits[0], logits[0], logits[0]))) == pytest.approx(0, abs=1e-12)


def test_noise_has_a_strength_for_each_image():
    images = torch.full((4000, 1, 4, 4), 0.5)
    spread = (noisy(images, torch.Generator().manual_seed(0)) - images).flatten(1).std(dim=1)
    assert spread.min() < 0.01
    assert 0.09 < spread.max() < 0.2
    assert float(spread.mean()) == pytest.approx(0.05, rel=0.1)  # of uniform strengths up to 0.1


def test_an_unknown_kind_is_refused(study):
    with pytest.raises(ValueError, match="no first network 'bigger'"):
        robust_classifier(study, "bigger")
