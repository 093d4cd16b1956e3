"""Ensembles, dropout, DUQ and SNGP as detectors, each against a slow or independent computation."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tutorial_lib.detectors import DDU, DUQ, SNGP, DropoutUncertainty, EnsembleUncertainty
from tutorial_lib.detectors.duq import DUQNetwork
from tutorial_lib.detectors.ensemble import train_ensemble
from tutorial_lib.experiments.single_pass_vs_ensembles import dropout_everywhere
from tutorial_lib.models import build
from tutorial_lib.studies import load_study
from tutorial_lib.uncertainty.deep_ensemble import UNCERTAINTIES, DeepEnsemble
from tutorial_lib.uncertainty.dropout import DropoutBeforeHead, mc_dropout_probabilities
from tutorial_lib.uncertainty.random_features import RandomFeatureGP


def network(seed=0, classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build("lenet", classes, (1, 8, 8)).eval()


@pytest.fixture
def images():
    return torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_every_score_of_an_ensemble_by_hand(images):
    members = [network(seed) for seed in range(3)]
    with torch.no_grad():
        p = torch.stack([member(images).double().softmax(1) for member in members]).numpy()
    mean = p.mean(0)
    entropies = -(p * np.log(p)).sum(-1)
    total = -(mean * np.log(mean)).sum(-1)
    expected = {
        "entropy": total,
        "mean_entropy": entropies.mean(0),
        "mutual_information": total - entropies.mean(0),
        "disagreement": sum((q * np.log(q / mean)).sum(-1) for q in p),
        "variance": p.var(0).sum(-1),
    }
    assert set(expected) == set(UNCERTAINTIES)
    for score, values in expected.items():
        found = EnsembleUncertainty(DeepEnsemble(members), score).predict(images)
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-7)
        assert (found >= 0).all()
    with torch.no_grad():
        np.testing.assert_allclose(DeepEnsemble(members)(images).exp(), mean, rtol=1e-5)


def test_mutual_information_is_never_negative():
    generator = torch.Generator().manual_seed(0)
    for sharpness in (1e-3, 1, 30):
        p = (sharpness * torch.randn(4, 500, 6, generator=generator)).softmax(-1)
        for score in ("mutual_information", "disagreement", "variance"):
            assert UNCERTAINTIES[score](p).min() >= 0
        equal = p[:1].expand(4, -1, -1)
        assert UNCERTAINTIES["mutual_information"](equal).max() < 1e-12


def test_dropout_as_a_detector_is_the_decomposition_of_its_passes(images):
    model = DropoutBeforeHead(network(), 0.4)
    found = DropoutUncertainty(model, "entropy", passes=6, seed=3).predict(images)
    p = mc_dropout_probabilities(model, images, 6, seed=3).mean(0)
    np.testing.assert_allclose(found, -(p * p.log()).sum(1), rtol=1e-6)
    everywhere = dropout_everywhere(copy.deepcopy(network()), 0.3)
    assert DropoutUncertainty(everywhere, passes=3).predict(images).min() > 0


def test_what_is_no_ensemble_is_refused():
    with pytest.raises(TypeError, match="DeepEnsemble"):
        EnsembleUncertainty(network())
    with pytest.raises(ValueError, match="cannot disagree with itself"):
        EnsembleUncertainty(DeepEnsemble([network()]))
    with pytest.raises(ValueError, match="score must be one of"):
        EnsembleUncertainty(DeepEnsemble([network()] * 2), "doubt")
    with pytest.raises(ValueError, match="needs members"):
        DeepEnsemble([])
    with pytest.raises(ValueError, match="all different"):
        train_ensemble(load_study("digits"), (1, 1))
    with pytest.raises(TypeError, match="DUQNetwork"):
        DUQ(network())


@pytest.fixture
def duq():
    return DUQNetwork(network(), 3, 84, size=5, length_scale=0.5, momentum=0.9, penalty=0.5)


def test_kernels_lie_in_zero_to_one_and_are_one_at_a_centroid(duq, images):
    kernels = duq(images).exp()
    assert kernels.min() > 0 and kernels.max() <= 1
    with torch.no_grad():
        h = duq.model.features(images)
        by_hand = torch.stack(
            [torch.exp(-(h @ duq.maps[c].T - duq.centroids[c]).square().mean(1) / (2 * 0.5**2)) for c in range(3)], 1
        )
        torch.testing.assert_close(kernels, by_hand, rtol=1e-4, atol=1e-7)
        duq.sums.copy_(duq.counts[:, None] * (duq.maps @ h[4]))  # centroids where image 4 is mapped to
        assert duq(images[4:5]).exp().min() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(DUQ(duq).predict(images), -duq(images).amax(1).detach(), rtol=1e-5, atol=1e-7)


def test_loss_is_cross_entropy_and_a_penalty_from_both_sides(duq, images):
    labels = torch.arange(12) % 3
    kernels = duq(images).exp()
    expected = F.binary_cross_entropy(kernels, F.one_hot(labels, 3).float())
    penalty = 0.0
    x = duq.model.normalize(images)
    for image in x:  # one at a time, by finite differences of the sum of the kernels
        slope = torch.autograd.functional.jacobian(
            lambda z: duq.log_kernels(duq.model.backbone(z[None])).exp().sum(), image
        )
        penalty += (slope.norm() - 1) ** 2 / len(x)
    assert duq.loss(images, labels).item() == pytest.approx((expected + 0.5 * penalty).item(), rel=1e-4)


def test_centroids_are_running_means_of_the_mapped_features(duq, images):
    labels = torch.tensor([0] * 7 + [2] * 5)
    counts, sums = duq.counts.clone(), duq.sums.clone()
    duq.train()
    duq.move_centroids(images, labels)
    assert duq.training
    with torch.no_grad():
        h = duq.model.features(images)
        for c in range(3):
            mapped = h[labels == c] @ duq.maps[c].T
            assert duq.counts[c].item() == pytest.approx(0.9 * counts[c].item() + 0.1 * len(mapped), rel=1e-5)
            torch.testing.assert_close(duq.sums[c], 0.9 * sums[c] + 0.1 * mapped.sum(0), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="momentum"):
        DUQNetwork(network(), 3, 84, momentum=1.0)


def test_sngp_on_a_trained_classifier_is_a_gaussian_process_on_its_features(images):
    model = network()
    detector = SNGP(model, features=64, ridge=0.5, seed=2).fit(images[:8])
    process = RandomFeatureGP(84, 1, 64, ridge=0.5, seed=2)
    with torch.no_grad():
        phi = process.random_features(model.features(images)).double()
    precision = 0.5 * torch.eye(64, dtype=torch.float64) + phi[:8].T @ phi[:8]
    expected = 0.5 * (phi @ torch.linalg.inv(precision) * phi).sum(1)
    np.testing.assert_allclose(detector.predict(images), expected, rtol=1e-5)
    assert detector.predict(images[8:]).mean() > detector.predict(images[:8]).mean()


def test_sngp_uses_a_head_that_is_a_gaussian_process(images):
    model = network()
    model.head = RandomFeatureGP(84, 3, 32, ridge=2.0, seed=5)
    untouched = copy.deepcopy(model.head.state_dict())
    detector = SNGP(model).fit(images)
    assert all(torch.equal(value, model.head.state_dict()[name]) for name, value in untouched.items())
    with torch.no_grad():
        model.head.measure([model.features(images)])
        np.testing.assert_allclose(detector.predict(images), model.head.variance(model.features(images)), rtol=1e-6)


def test_ddu_says_what_it_added(images):
    labels = torch.arange(12) % 3
    counted = DDU(network(), "counted").fit((images, labels))
    assert min(counted.gaussians.jitters) > 0  # 4 images a class, 84 features
    assert DDU(network()).fit((images, labels)).gaussians.jitters == (0.0,) * 3
    with pytest.raises(ValueError, match="needs labels"):
        DDU(network()).fit(images)
    assert math.isfinite(counted.predict(images).sum())


def test_an_ensemble_trained_side_by_side_is_one_of_the_studys_own_networks():
    """Five steps of training, not all: the same weights as `train_classifier` gives from the same seed."""
    study = load_study("digits")
    few = study.train.subset(torch.arange(80))
    small = copy.copy(study)
    small._loaded = {"train": few, "validation": study.validation, "test": study.test}
    ensemble = train_ensemble(small, (0, 3), epochs=1)
    assert not ensemble.training and len(ensemble.members) == 2
    assert EnsembleUncertainty(ensemble).predict(study.test.images[:20]).min() >= 0
