"""H: learns, keeps its best epoch, is the same in torch, is a classifier for everything else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from torch import nn

from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors import MSP, ODIN
from tutorial_lib.introspection import (
    IntrospectiveClassifier,
    IntrospectiveNetwork,
    balanced_logits,
    second_network,
    views_of,
)
from tutorial_lib.models import Classifier, Normalize

K, D = 3, 4


def blobs(count, seed):
    """Features around K corners, and a last layer that is not the best one for them."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % K
    features = 3 * torch.eye(K, D)[labels] + torch.randn(count, D, generator=generator)
    weight = torch.randn(K, D, generator=torch.Generator().manual_seed(9))
    return features @ weight.T, features, labels


@pytest.fixture(scope="module")
def fitted():
    logits, features, labels = blobs(240, 0)
    return IntrospectiveNetwork(hidden=(20, 10), epochs=60).fit([(logits, features)], labels, blobs(120, 1))


def test_a_second_look_mends_a_bad_last_layer(fitted):
    logits, features, labels = blobs(300, 2)
    first = (logits.argmax(1) == labels).float().mean()
    second = (fitted.predict_logits(logits, features).argmax(1) == labels).float().mean()
    assert second > first + 0.1


def test_the_best_epoch_is_kept(fitted):
    logits, features, labels = blobs(120, 1)
    loss = nn.functional.cross_entropy(fitted.predict_logits(logits, features), labels)
    assert loss.item() == pytest.approx(min(fitted.validation_loss), rel=1e-4)
    assert fitted.validation_loss[fitted.best_epoch] == min(fitted.validation_loss)


def test_probabilities_are_scikit_learns(fitted):
    logits, features, _ = blobs(50, 3)
    ours = fitted.predict_logits(logits, features).softmax(1)
    theirs = fitted._h.predict_proba(fitted._standardised(fitted._look(logits, features)))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_module_gives_the_same_answers_and_a_gradient(fitted):
    logits, features, _ = blobs(50, 3)
    features.requires_grad_()
    answers = fitted.module()(logits, features)
    torch.testing.assert_close(answers.double(), fitted.predict_logits(logits, features), rtol=1e-3, atol=1e-3)
    answers.logsumexp(1).sum().backward()
    assert features.grad.abs().sum() > 0


def test_same_seed_same_network():
    logits, features, labels = blobs(90, 0)
    one, two = (
        IntrospectiveNetwork(hidden=(8,), epochs=3, seed=5).fit([(logits, features)], labels, blobs(30, 1))
        for _ in range(2)
    )
    torch.testing.assert_close(one.predict_logits(logits, features), two.predict_logits(logits, features))


def test_two_classes():
    """scikit-learn keeps one logit for two classes; ours are two, with the same probabilities."""
    features = torch.randn(80, D, generator=torch.Generator().manual_seed(0))
    labels = (features[:, 0] > 0).long()
    logits = torch.stack([-features[:, 1], features[:, 1]], dim=1)
    h = IntrospectiveNetwork(hidden=(8,), epochs=20).fit([(logits, features)], labels, (logits, features, labels))
    seen = h._standardised(h._look(logits, features))
    np.testing.assert_allclose(h.predict_logits(logits, features).softmax(1), h._h.predict_proba(seen), atol=1e-6)


def test_any_other_classifier_can_be_put_in():
    logits, features, labels = blobs(240, 0)
    h = IntrospectiveNetwork(second_stage=LogisticRegression(max_iter=500))
    h.fit([(logits, features)], labels, blobs(120, 1))
    tested = blobs(300, 2)
    assert (h.predict_logits(*tested[:2]).argmax(1) == tested[2]).float().mean() > 0.8
    with pytest.raises(TypeError, match="LogisticRegression answers through predict_logits"):
        h.module()


def test_unfitted_and_bad_settings_are_refused():
    with pytest.raises(NotFittedError, match="call fit"):
        IntrospectiveNetwork().predict_logits(torch.zeros(1, 3), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="at least one view"):
        IntrospectiveNetwork().fit([], torch.zeros(3), blobs(3, 0))
    with pytest.raises(ValueError, match="epochs and patience"):
        IntrospectiveNetwork(epochs=0)
    with pytest.raises(ValueError, match="clamp must be positive"):
        IntrospectiveNetwork(clamp=0.0)
    with pytest.raises(TypeError, match=r"torch\.nn\.Linear called head"):
        IntrospectiveClassifier(nn.Linear(2, 2))


@pytest.fixture(scope="module")
def classifier():
    """Tiny images of K kinds, a network of the course's form, and H on top of it."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % K
    images = torch.rand(120, 1, 2, 2, generator=generator) * 0.5
    images.view(120, 4)[torch.arange(120), labels] += 0.4
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier(Normalize([0.3], [0.2]), nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU()), 6, K)
    known = ImageSet("squares", (images * 255).round().byte(), labels, tuple("abc"), torch.arange(120))
    network = IntrospectiveNetwork(loss="mse", hidden=(12,), epochs=40)
    return IntrospectiveClassifier(model, network).fit(known, known).eval(), known


def test_the_pair_is_a_classifier(classifier):
    pair, known = classifier
    views = views_of(pair.first, known.images)[0]
    torch.testing.assert_close(
        pair(known.images.float() / 255).double(), pair.network.predict_logits(*views), rtol=1e-3, atol=1e-3
    )
    assert pair.network.scale != 1.0  # measured on the training images, for the squared error
    loss = nn.functional.cross_entropy(pair(known.images.float() / 255), known.labels)
    assert loss.item() == pytest.approx(min(pair.network.validation_loss), rel=1e-2)


def test_detectors_take_it_and_odin_goes_through_both_networks(classifier):
    pair, known = classifier
    pair = pair.double()
    images = (known.images[:8].double() / 255).clamp(0.01, 0.99)
    assert MSP(pair).predict(images).shape == (8,)
    step = 1e-3
    moved = images.clone().requires_grad_()
    (-(pair(moved) / 10).log_softmax(1).amax(1)).sum().backward()
    finite = torch.zeros_like(images)
    for pixel in range(4):
        shift = torch.zeros(4, dtype=torch.float64)
        shift[pixel] = 1e-6
        with torch.no_grad():
            up, down = (-(pair(images + sign * shift.view(1, 1, 2, 2)) / 10).log_softmax(1).amax(1) for sign in (1, -1))
        finite.view(8, 4)[:, pixel] = (up - down) / 2e-6
    torch.testing.assert_close(moved.grad, finite, rtol=1e-3, atol=1e-7)
    by_hand = images - step * finite.sign()
    with torch.no_grad():
        expected = -(pair(by_hand) / 10).softmax(1).amax(1)
    np.testing.assert_allclose(ODIN(pair, 10.0, step).predict(images), expected, rtol=1e-6, atol=1e-9)


def test_views_are_changed_anew_and_by_seed(classifier):
    pair, known = classifier

    def noisy(images, generator):
        return (images.float() / 255 + 0.1 * torch.rand(images.shape, generator=generator)).clamp(0, 1)

    first, second = views_of(pair.first.float(), known.images, noisy, count=2, seed=1)
    again = views_of(pair.first, known.images, noisy, count=2, seed=1)
    assert not torch.equal(first.logits, second.logits)
    torch.testing.assert_close(second.features, again[1].features)
    with pytest.raises(ValueError, match="without augmentation there is one view"):
        views_of(pair.first, known.images, count=2)


def test_balanced_logits_share_the_classes_equally_and_keep_the_order_within_one():
    logits = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) * 3 + torch.tensor([4.0, 0, 0, -2, 0])
    shifted = balanced_logits(logits)
    torch.testing.assert_close(
        shifted.softmax(1).mean(0), torch.full((5,), 0.2, dtype=torch.float64), atol=1e-5, rtol=0
    )
    shift = shifted - logits.double()
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), atol=1e-9, rtol=0)
    with pytest.raises(ValueError, match="shape"):
        balanced_logits(torch.zeros(0, 3))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda z, h, y: ([(z, h)], y[:5], (z, h, y)), "60 training images need as many labels"),
        (lambda z, h, y: ([(z, h)], y + 1, (z, h, y)), "training labels must be 0 to 2, got 1 to 3"),
        (lambda z, h, y: ([(z, h)], y, (z, h, y + 1)), "validation labels must be 0 to 2"),
        (lambda z, h, y: ([(z, h)], y, (z, h, y - 1)), "validation labels must be 0 to 2, got -1"),
        (lambda z, h, y: ([(z, h)], y, (z[:0], h[:0], y[:0])), "0 validation images"),
        (lambda z, h, y: ([(z * torch.nan, h)], y, (z, h, y)), "training images are not finite"),
        (lambda z, h, y: ([(z, h)], y, (z, h / 0, y)), "validation images are not finite"),
        (lambda z, h, y: ([(z[:, :1], h)], y * 0, (z[:, :1], h, y * 0)), "at least two classes"),
        (lambda z, h, y: ([], y, (z, h, y)), "at least one view"),
    ],
)
def test_what_h_cannot_learn_from_is_said(change, says):
    with pytest.raises(ValueError, match=says):
        IntrospectiveNetwork(epochs=1).fit(*change(*blobs(60, 0)))


@pytest.mark.parametrize("stage", [None, LogisticRegression()], ids=["H", "another classifier"])
def test_a_class_without_training_images_keeps_its_place(stage):
    logits, features, labels = blobs(120, 0)
    kept = labels != 1
    network = IntrospectiveNetwork(hidden=(20,), second_stage=stage)
    held_out = [part[blobs(60, 1)[2] != 1] for part in blobs(60, 1)]
    network.fit([(logits[kept], features[kept])], labels[kept], tuple(held_out))
    answers = network.predict_logits(logits[kept], features[kept])
    assert answers.shape == (int(kept.sum()), K)
    assert (answers.argmax(1) == labels[kept]).float().mean() > 0.8 and (answers.softmax(1)[:, 1] < 0.2).all()


def test_balanced_logits_of_nothing_finite_are_refused():
    with pytest.raises(ValueError, match="finite"):
        balanced_logits(torch.tensor([[torch.nan, 0.0]]))


def test_inputs_are_held_to_the_clamp_in_numpy_as_in_torch(fitted):
    """What lies a thousand deviations away is answered as what lies ten away, in the same direction."""
    logits, features, _ = blobs(20, 3)
    network = IntrospectiveNetwork(inputs="features", hidden=(6,), epochs=3).fit(
        [(logits, features)], blobs(20, 3)[2], blobs(20, 1)
    )
    middle = torch.from_numpy(network._mean).float()
    deviation = torch.from_numpy(network._std).float()
    far = [middle + step * deviation[None] * torch.ones(2, 1) for step in (10, 1000)]
    answers = [network.predict_logits(torch.zeros(2, K), one) for one in far]
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-5, atol=1e-5)
    modules = [network.module()(torch.zeros(2, K), one) for one in far]
    torch.testing.assert_close(modules[0], modules[1], rtol=1e-4, atol=1e-4)
    assert fitted.clamp == 10


def test_training_stops_when_patience_is_over_and_goes_through_the_views_in_turn(monkeypatch):
    logits, features, labels = blobs(60, 0)
    other = features.flip(0)
    network = IntrospectiveNetwork(inputs="features", hidden=(5,), epochs=40, patience=3)
    met, losses = [], iter([1.0, 0.5, 0.7, 0.6, 0.9, 0.1])

    class Watched:
        def __init__(self, *arguments, **more):
            pass

        def partial_fit(self, seen, true, classes):
            met.append(seen)

        def predict_proba(self, seen):
            return np.full((len(seen), K), np.exp(-next(losses)))

    monkeypatch.setattr("tutorial_lib.introspection.network.MLPClassifier", Watched)
    network.fit([(logits, features), (logits, other)], labels, blobs(30, 1))
    assert network.validation_loss == pytest.approx([1.0, 0.5, 0.7, 0.6, 0.9]) and network.best_epoch == 1
    assert len(met) == 5, "three epochs without a lower loss, and no more"
    for number, seen in enumerate(met):
        expected = network._standardised((features, other)[number % 2].double().numpy())
        np.testing.assert_array_equal(seen, expected)


def test_a_column_that_never_changes_says_nothing_when_it_does():
    logits, features, labels = blobs(60, 0)
    features = torch.cat([features, torch.full((60, 1), 0.1)], dim=1)  # its deviation is rounding
    held_out = (blobs(30, 1)[0], torch.cat([blobs(30, 1)[1], torch.full((30, 1), 0.1)], dim=1), blobs(30, 1)[2])
    network = IntrospectiveNetwork(inputs="features", hidden=(5,), epochs=3).fit([(logits, features)], labels, held_out)
    moved = features.clone()
    moved[:, -1] += 1e-6
    before, after = (network.predict_logits(logits, one) for one in (features, moved))
    assert (before - after).abs().max() < 1e-4


def test_the_height_of_the_ones_is_that_of_the_training_logits_for_the_squared_error_only():
    logits = torch.tensor([[1.0, 5.0], [3.0, 0.0]])
    assert second_network("introspective_mse", logits).scale == 4.0
    assert second_network("introspective_mse", logits, scale=2.0).scale == 2.0
    assert second_network("introspective_ce", logits).scale == second_network("control_features", logits).scale == 1.0
