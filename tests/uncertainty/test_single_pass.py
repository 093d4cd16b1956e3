"""The mathematics of the single-pass methods, each against something that does not share its code."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import BayesianRidge
from torch import nn

from tutorial_lib.uncertainty.ambiguous import blends, with_blends
from tutorial_lib.uncertainty.class_gaussians import ClassGaussians
from tutorial_lib.uncertainty.moons import PointsNetwork, far_points, fit_points, moved, two_moons
from tutorial_lib.uncertainty.random_features import RandomFeatureGP, mean_field
from tutorial_lib.uncertainty.spectral import bound_spectral_norms, spectral_norm, stretches


@pytest.fixture
def clusters():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    spread = torch.randn(3, 5, 5, generator=generator)
    noise = torch.einsum("nij,nj->ni", spread[labels], torch.randn(120, 5, generator=generator))
    return noise + 3 * labels[:, None], labels


@pytest.mark.parametrize("covariance", ["shrunk", "counted", "tied"])
def test_density_is_scipys_and_the_shrinkage_scikit_learns(clusters, covariance):
    features, labels = clusters
    found = ClassGaussians.fit(features, labels, covariance)
    x = features.double().numpy()
    groups = [x[labels == c] for c in range(3)]
    means = [g.mean(0) for g in groups]
    if covariance == "counted":
        covariances = [np.cov(g.T) for g in groups]
    elif covariance == "shrunk":
        covariances = [LedoitWolf().fit(g).covariance_ for g in groups]
    else:
        together = np.concatenate([g - m for g, m in zip(groups, means, strict=True)])
        covariances = [LedoitWolf(assume_centered=True).fit(together).covariance_] * 3
    parts = [
        multivariate_normal(m, v).logpdf(x) + np.log(len(g) / len(x))
        for m, v, g in zip(means, covariances, groups, strict=True)
    ]
    np.testing.assert_allclose(found.log_density(features), np.logaddexp.reduce(parts), rtol=1e-9)
    assert found.jitters == (0.0,) * 3


def test_fewer_images_than_features_and_dead_units(clusters):
    features, labels = clusters
    many = torch.cat([features, torch.zeros(120, 60)], dim=1)  # 65 features, 60 of which never move; 40 images a class
    counted = ClassGaussians.fit(many, labels, "counted")
    assert min(counted.jitters) > 0 and torch.isfinite(counted.log_density(many)).all()
    assert ClassGaussians.fit(many, labels).jitters == (0.0,) * 3  # shrinkage alone is enough
    with pytest.raises(ValueError, match="class 1 has 1 images"):
        ClassGaussians.fit(features[[0, 3, 1]], torch.tensor([0, 0, 1]))
    with pytest.raises(ValueError, match="no spread"):
        ClassGaussians.fit(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]))
    with pytest.raises(ValueError, match="'shrunk'"):
        ClassGaussians.fit(features, labels, "full")


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"stride": 3, "padding": 2}, {"dilation": 2}, {"groups": 2}])
def test_norm_of_a_convolution_is_that_of_its_dense_matrix(options):
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 4, 3, **options, bias=False)
    identity = torch.eye(2 * 8 * 7).view(-1, 2, 8, 7)
    matrix = layer(identity).flatten(1).T  # a column for each pixel
    exact = torch.linalg.matrix_norm(matrix, 2).item()
    assert spectral_norm(layer, (2, 8, 7), iterations=300) == pytest.approx(exact, rel=1e-3)
    flattened = torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item()
    if options.get("stride") != 3:  # kernels that do not overlap are the rows of one matrix
        assert flattened != pytest.approx(exact, rel=0.02)  # what PyTorch's spectral_norm would divide by


def test_norms_of_a_linear_layer_and_of_batch_norm():
    torch.manual_seed(0)
    layer, norm = nn.Linear(6, 4), nn.BatchNorm2d(3)
    assert spectral_norm(layer) == pytest.approx(torch.linalg.matrix_norm(layer.weight, 2).item(), rel=1e-4)
    norm.running_var.copy_(torch.tensor([0.04, 1.0, 4.0]))
    norm.weight.data.copy_(torch.tensor([1.0, -2.0, 3.0]))
    assert spectral_norm(norm) == pytest.approx(1 / (0.04 + 1e-5) ** 0.5)
    with pytest.raises(TypeError, match="ReLU"):
        spectral_norm(nn.ReLU())
    with pytest.raises(ValueError, match="give \\(C, H, W\\)"):
        spectral_norm(nn.Conv2d(1, 1, 3))


def test_bounded_layers_stay_below_the_bound_and_the_others_as_they_are():
    torch.manual_seed(0)
    images = torch.rand(4, 1, 8, 8)
    backbone = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, 2),
        nn.Flatten(),
        nn.Linear(54, 9),
    ).eval()
    with torch.no_grad():
        backbone[0].weight.mul_(50)
    free = stretches(backbone, images[:1])
    untouched = [name for name, value in free.items() if value < 2.7]
    weights = {name: backbone.get_submodule(name).weight.detach().clone() for name in untouched}
    bound_spectral_norms(backbone, images[:1], 3.0)
    backbone.train()
    for _ in range(10):
        backbone(images)  # steps of the power method
    backbone.eval()
    bounded = stretches(backbone, images[:1])
    assert max(free.values()) > 4 and len(untouched) >= 2 and max(bounded.values()) < 3.1
    for name, value in weights.items():
        torch.testing.assert_close(backbone.get_submodule(name).weight, value)
    vectors = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone(images)
    assert all(torch.equal(value, vectors[name]) for name, value in backbone.state_dict().items())


def test_gradient_goes_through_the_bound():
    torch.manual_seed(0)
    layer = bound_spectral_norms(nn.Linear(3, 3, bias=False), torch.zeros(1, 3), 0.1)
    layer(torch.eye(3)).sum().backward()
    gradient = layer.parametrizations.weight.original.grad
    # scaling the weight does not change what comes out of a binding bound
    assert (gradient * layer.parametrizations.weight.original).sum().item() == pytest.approx(0, abs=1e-2)


@pytest.mark.parametrize("ridge", [1.0, 1e-2])
def test_variance_is_that_of_a_bayesian_linear_model(ridge):
    """In the dual form: prior N(0, I) on the weights, noise of variance ridge; no matrix of the same size is inverted."""
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.randn(n, 6, generator=generator) for n in (50, 9))
    layer = RandomFeatureGP(6, 2, features=80, ridge=ridge)
    prior = layer.variance(test)
    layer.measure(train.split(16))
    seen, asked = (layer.random_features(x).double() for x in (train, test))
    gram = seen @ seen.T + ridge * torch.eye(50, dtype=torch.float64)
    explained = (asked @ seen.T @ torch.linalg.solve(gram, seen @ asked.T)).diagonal()
    torch.testing.assert_close(layer.variance(test), asked.square().sum(1) - explained)
    torch.testing.assert_close(prior, asked.square().sum(1))
    again = layer.variance(test)
    layer.measure(train.split(50))  # from nothing: a second pass counts no image twice
    torch.testing.assert_close(layer.variance(test), again)


def test_variance_is_scikit_learns():
    generator = torch.Generator().manual_seed(1)
    train, test = (torch.randn(n, 4, generator=generator) for n in (40, 7))
    layer = RandomFeatureGP(4, 2, features=30, ridge=0.5)
    layer.measure([train])
    peer = BayesianRidge(fit_intercept=False, alpha_init=2.0, lambda_init=1.0, max_iter=1)
    phi = layer.random_features(train).double().numpy()
    peer.fit(phi, np.zeros(40) + 1e-9)
    sigma = np.linalg.inv(np.eye(30) + 2.0 * phi.T @ phi)  # its formula, with precision 1 / ridge of the noise
    asked = layer.random_features(test).double().numpy()
    np.testing.assert_allclose(layer.variance(test), np.einsum("ni,ij,nj->n", asked, sigma, asked), rtol=1e-8)


def test_random_features_approach_the_kernel():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(12, 8, generator=generator)
    layer = RandomFeatureGP(8, 2, features=5_000, length_scale=0.5)
    phi = layer.random_features(hidden)
    unit = F.normalize(hidden - hidden.mean(1, keepdim=True), dim=1)
    kernel = torch.exp(-torch.cdist(unit, unit).square() / (2 * 0.5**2))
    torch.testing.assert_close(phi @ phi.T, kernel, atol=0.08, rtol=0)


def test_mean_field_for_two_classes_is_the_average_over_the_gaussian():
    logits, variance = torch.tensor([[1.0, -1.0]], dtype=torch.float64), torch.tensor([2.0])
    # the difference of the logits has twice the variance of one, and pi/8 is for a single difference
    averaged = torch.sigmoid(2 + 2 * torch.randn(200_000, generator=torch.Generator().manual_seed(0))).mean()
    assert mean_field(logits, 2 * variance).softmax(1)[0, 0].item() == pytest.approx(averaged.item(), abs=0.02)
    assert torch.equal(mean_field(logits, variance, 0.0), logits)
    with pytest.raises(ValueError, match="negative"):
        mean_field(logits, variance, -1)


def test_two_moons_and_their_useless_axis():
    flat, deep = two_moons(400, seed=3), two_moons(400, seed=3, useless_axis=True)
    assert torch.equal(deep.x[:, :2], flat.x) and torch.equal(deep.y, flat.y)
    assert deep.x[:, 2].std().item() == pytest.approx(0.1, rel=0.15)
    assert abs(np.corrcoef(deep.x[:, 2], deep.y)[0, 1]) < 0.15  # no label depends on it
    assert torch.equal(moved(deep.x, 0.5)[:, :2], deep.x[:, :2])
    assert (far_points("ring") - torch.tensor([0.5, 0.25])).norm(dim=1).sub(3.5).abs().max() < 1e-5
    with pytest.raises(ValueError, match="blob"):
        far_points("circle")


def test_points_are_learned_and_a_residual_layer_keeps_its_input():
    points = two_moons(200)
    model = fit_points(PointsNetwork(2, residual=True, width=16, depth=2), points, epochs=12, learning_rate=1e-2)
    assert (model(points.x).argmax(1) == points.y).float().mean() > 0.85
    with torch.no_grad():
        for layer in model.hidden:
            layer.weight.zero_()
            layer.bias.fill_(-1)
        torch.testing.assert_close(model.features(points.x), model.first(points.x))


def test_blends_are_means_of_two_classes():
    generator = torch.Generator().manual_seed(0)
    from tutorial_lib.data.images import ImageSet

    pixels = torch.zeros(40, 1, 2, 2, dtype=torch.uint8)
    labels = torch.randint(0, 2, (40,), generator=generator)
    pixels[labels == 1] = 100
    images = ImageSet("two", pixels, labels, ("dark", "bright"), torch.arange(40))
    mixed = blends(images, 30)
    assert (mixed.images == 50).all() and len(mixed) == 30 and 5 < int(mixed.labels.sum()) < 25
    assert torch.equal(blends(images, 30).labels, mixed.labels)
    assert len(with_blends(images, 30)) == 70
    with pytest.raises(ValueError, match="two"):
        blends(images.subset(labels == 1), 3)
