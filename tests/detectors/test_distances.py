"""KNN, Mahalanobis, relative Mahalanobis, LID: against distances computed one by one."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf
from torch import nn

from tutorial_lib.detectors import KNN, LID, Mahalanobis, MahalanobisEnsemble, RelativeMahalanobis, Tuned
from tutorial_lib.detectors.gaussian import TiedGaussians
from tutorial_lib.detectors.lid import local_dimension
from tutorial_lib.models.predict import predict_features


class Pixels(nn.Module):
    """A network whose features and logits are its pixels."""

    def features(self, images):
        return images.flatten(1)

    def forward(self, images):
        return self.features(images)


def as_images(points):
    return torch.as_tensor(points, dtype=torch.float64).view(len(points), 1, 1, -1)


def cloud(n=60, d=4, classes=3, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=n)
    points = 0.5 + 0.1 * labels[:, None] + 0.05 * generator.normal(size=(n, d)) @ generator.normal(size=(d, d))
    return points.clip(0, 1), torch.as_tensor(labels)


def class_statistics(points, labels):
    means = np.stack([points[labels == c].mean(0) for c in labels.unique()])
    centred = points - means[labels]
    return means, centred.T @ centred / len(points)


def test_knn_is_the_kth_smallest_distance_of_directions():
    known, _ = cloud()
    test = np.random.default_rng(1).random((10, 4))
    unit = [p / np.linalg.norm(p) for p in known]
    for k in (1, 7):
        by_hand = [sorted(np.linalg.norm(t / np.linalg.norm(t) - u) for u in unit)[k - 1] for t in test]
        scores = KNN(Pixels(), k).fit(as_images(known)).predict(as_images(test))
        np.testing.assert_allclose(scores, by_hand, rtol=1e-6)


def test_knn_knows_an_image_that_it_was_fitted_to(model, known):
    np.testing.assert_allclose(KNN(model, k=1).fit(known).predict(known), 0, atol=1e-3)


def test_mahalanobis_is_half_the_smallest_squared_distance():
    known, labels = cloud()
    test = np.random.default_rng(1).random((10, 4))
    means, covariance = class_statistics(known, labels)
    inverse = np.linalg.inv(covariance)
    by_hand = [min(0.5 * mahalanobis(t, mean, inverse) ** 2 for mean in means) for t in test]
    detector = Mahalanobis(Pixels()).fit((as_images(known), labels))
    np.testing.assert_allclose(detector.predict(as_images(test)), by_hand, rtol=1e-3)


def test_relative_mahalanobis_takes_the_distance_to_the_cloud_away():
    known, labels = cloud()
    test = np.random.default_rng(1).random((10, 4))
    means, covariance = class_statistics(known, labels)
    inverse, whole = np.linalg.inv(covariance), np.linalg.inv(np.cov(known.T, bias=True))
    by_hand = [
        min(mahalanobis(t, mean, inverse) ** 2 for mean in means) - mahalanobis(t, known.mean(0), whole) ** 2
        for t in test
    ]
    detector = RelativeMahalanobis(Pixels()).fit((as_images(known), labels))
    np.testing.assert_allclose(detector.predict(as_images(test)), by_hand, rtol=1e-3)


def test_mahalanobis_does_not_care_about_units_of_features(model, study):
    """A linear change of the features changes no distance."""
    features = predict_features(model, study.train.images).double()
    alive = features[:, features.std(0) > 1e-3]
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(alive.shape[1], alive.shape[1], generator=generator).double())[0]
    change = rotation * (0.5 + torch.rand(alive.shape[1], generator=generator))
    one = TiedGaussians.fit(alive, study.train.labels).squared_distances(alive[:20])
    other = TiedGaussians.fit(alive @ change, study.train.labels).squared_distances(alive[:20] @ change)
    torch.testing.assert_close(one, other, rtol=0.01, atol=0.01)


def test_a_dead_unit_that_wakes_is_strange():
    """The feature is 0 for every known image: a pseudo-inverse would not look at it."""
    known, labels = cloud()
    known[:, 3] = 0
    test = known[:2].copy()
    test[1, 3] = 0.1
    scores = Mahalanobis(Pixels()).fit((as_images(known), labels)).predict(as_images(test))
    assert np.isfinite(scores).all()
    assert scores[1] > 100 * scores[0]


def test_the_input_step_goes_towards_the_nearest_class():
    known, labels = cloud()
    test = as_images(0.3 + 0.4 * np.random.default_rng(1).random((10, 4)))
    plain = Mahalanobis(Pixels()).fit((as_images(known), labels))
    stepped = Mahalanobis(Pixels(), epsilon=1e-4).fit((as_images(known), labels))
    image = test.clone().requires_grad_()
    means, covariance = class_statistics(known, labels)
    inverse = torch.as_tensor(np.linalg.inv(covariance))
    centred = image.flatten(1)[:, None] - torch.as_tensor(means)
    half = 0.5 * torch.einsum("ncd,de,nce->nc", centred, inverse, centred).amin(1)
    half.sum().backward()
    by_hand = plain.predict((test - 1e-4 * image.grad.sign()).float())
    np.testing.assert_allclose(stepped.predict(test), by_hand, rtol=1e-3)
    assert (stepped.predict(test) < plain.predict(test)).all()


def test_labels_are_asked_for_by_name(model, known):
    for detector in (Mahalanobis(model), RelativeMahalanobis(model)):
        with pytest.raises(ValueError, match=f"{type(detector).__name__} learns one mean a class and needs labels"):
            detector.fit(known.images)
    with pytest.raises(ValueError, match="no image of class 1"):
        Mahalanobis(model).fit(known.subset(known.labels != 1))


def test_features_are_asked_for_by_name():
    with pytest.raises(TypeError, match="no features method"):
        KNN(nn.Flatten(), k=1).fit(torch.rand(3, 1, 2, 2))


def test_constant_features_are_refused():
    same = torch.full((6, 1, 2, 2), 0.5)
    with pytest.raises(ValueError, match="no spread"):
        Mahalanobis(Pixels()).fit((same, torch.arange(6) % 2))


def test_shrinkage_keeps_few_images_from_deciding():
    """Ten images in twenty dimensions: the counted covariance has no inverse to speak of."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(10, 20, generator=generator, dtype=torch.float64)
    new = torch.randn(500, 20, generator=generator, dtype=torch.float64)
    labels = torch.zeros(10, dtype=torch.int64)
    counted = TiedGaussians.fit(points, labels).squared_distances(new).mean()
    shrunk = TiedGaussians.fit(points, labels, shrink=True).squared_distances(new).mean()
    assert counted > 1000 * shrunk
    assert 10 < shrunk < 60  # 20 for the true covariance


def test_shrinkage_can_be_asked_for(model, known):
    """Ledoit and Wolf's covariance, by scikit-learn, under the squared distances."""
    features = predict_features(model, known.images).double().numpy()
    means = np.stack([features[known.labels == c].mean(0) for c in range(8)])
    inverse = np.linalg.inv(LedoitWolf(assume_centered=True).fit(features - means[known.labels]).covariance_)
    away = features[:20, None] - means
    by_hand = 0.5 * np.einsum("ncd,de,nce->nc", away, inverse, away).min(1)
    detector = Mahalanobis(model, shrink=True).fit(known)
    np.testing.assert_allclose(detector.predict(known.images[:20]), by_hand, rtol=1e-2)
    assert not np.allclose(detector.predict(known), Mahalanobis(model).fit(known).predict(known), rtol=0.1)
    for other in (RelativeMahalanobis(model, shrink=True), MahalanobisEnsemble(model, shrink=True)):
        assert other.shrink


def test_a_thousand_classes_take_little_memory():
    """1,000 classes in 1,024 dimensions: the differences to all means would be 2 GB for a batch of 256."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(1000, 1024, generator=generator, dtype=torch.float64)
    gaussians = TiedGaussians(means, torch.eye(1024, dtype=torch.float64))
    points = torch.randn(64, 1024, generator=generator)
    with torch.profiler.profile(profile_memory=True) as profile:
        distances = gaussians.squared_distances(points)
    held = max(event.self_cpu_memory_usage for event in profile.events())
    assert held < 10e6  # 64 x 1,024 doubles are half a megabyte
    by_hand = torch.stack([(points[i].double() - means).square().sum(1) for i in range(3)])
    torch.testing.assert_close(distances[:3], by_hand, rtol=1e-9, atol=1e-6)


def test_a_class_without_images_gets_the_mean_of_all():
    points = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0], [4.0, 4.0]])
    gaussians = TiedGaussians.fit(points, torch.tensor([0, 0, 2, 2]), classes=4)
    torch.testing.assert_close(gaussians.means, torch.tensor([[1.0, 0], [1.5, 1.5], [2, 3], [1.5, 1.5]]).double())


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_local_dimension_of_a_cube(dimension):
    """Uniform points fill a d-dimensional cube: distances to neighbours grow as the d-th root of their number."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(20_200, dimension, generator=generator, dtype=torch.float64)
    points[:200] = 0.3 + 0.4 * points[:200]  # away from the faces
    embedded = torch.cat([points, torch.full((len(points), 3), 0.7)], dim=1)  # three directions without extent
    assert local_dimension(embedded[:200], embedded[200:], k=50).median().item() == pytest.approx(dimension, rel=0.1)


def test_local_dimension_by_hand():
    reference = torch.tensor([[1.0], [2.0], [4.0], [100.0]])
    expected = -3 / (math.log(1 / 4) + math.log(2 / 4) + math.log(4 / 4))
    assert local_dimension(torch.zeros(1, 1), reference, k=3).item() == pytest.approx(expected)


def test_local_dimension_is_finite_where_distances_tie():
    assert local_dimension(torch.zeros(1, 2), torch.ones(5, 2), k=5).isfinite().all()
    assert local_dimension(torch.ones(1, 2), torch.ones(5, 2), k=5).isfinite().all()


def test_lid_does_not_learn_from_its_reference(model, known, strange):
    detector = LID(model, k=5, reference_size=50).fit(known, strange[0])
    assert [part.shape for part in detector._reference] == [(50, width) for width in (6, 16, 120, 84)]
    features = detector.features(
        detector.observe(known)
    )  # half of known is the reference: an image there finds itself at distance 0
    learned_from = (features > 0.5).all(1)
    assert 0.4 < learned_from.float().mean() < 0.8


def test_the_ensemble_weighs_one_distance_a_stage(model, study, known, strange):
    detector = MahalanobisEnsemble(model).fit(known, strange[0], study.train)
    columns = detector.features(detector.observe(known))
    assert columns.shape == (len(known), 4)
    last = Mahalanobis(model).fit(study.train)
    np.testing.assert_allclose(columns[:, -1], last.predict(known), rtol=1e-5)


def test_the_ensemble_steps_once_a_stage(model, study, known, strange):
    """The last stage's column, after its own step, is Mahalanobis (P)."""
    detector = MahalanobisEnsemble(model, epsilon=0.002).fit(known, strange[0], study.train)
    last = Mahalanobis(model, epsilon=0.002).fit(study.train)
    columns = detector.features(detector.observe(known))
    np.testing.assert_allclose(columns[:, -1], last.predict(known), rtol=1e-3, atol=0.02)


def test_layers_can_be_named(model, known, strange):
    detector = MahalanobisEnsemble(model, layers=["backbone.1", "backbone.10"]).fit(known, strange[0])
    assert detector.features(detector.observe(known)).shape[1] == 2
    with pytest.raises(ValueError, match="no submodule 'stage1'"):
        MahalanobisEnsemble(model, layers=["stage1"]).fit(known, strange[0])


def test_tuned_takes_the_candidate_that_catches_most(known, strange, model, study):
    """A step of half the range ruins every image; no step is better."""
    candidates = [Mahalanobis(model, epsilon=e) for e in (0.5, 0.0)]
    tuned = Tuned(candidates).fit(known, strange[0], study.train)
    assert tuned.chosen.epsilon == 0
    np.testing.assert_array_equal(tuned.predict(known), candidates[1].fit(study.train).predict(known))


def test_bad_settings_are_refused(model, grey_network):
    with pytest.raises(ValueError, match="k must be at least 1"):
        KNN(model, k=0)
    with pytest.raises(ValueError, match="at least 7 known images, got 5"):
        KNN(model, k=7).fit(torch.rand(5, 1, 8, 8))
    with pytest.raises(ValueError, match="epsilon"):
        Mahalanobis(model, epsilon=-1)
    with pytest.raises(ValueError, match="epsilon"):
        MahalanobisEnsemble(model, epsilon=-1)
    with pytest.raises(ValueError, match="k must lie between 2 and reference_size = 10"):
        LID(model, k=20, reference_size=10)
    with pytest.raises(ValueError, match="at least one candidate"):
        Tuned([])
    with pytest.raises(ValueError, match="same model"):
        Tuned([KNN(model), KNN(grey_network)])
