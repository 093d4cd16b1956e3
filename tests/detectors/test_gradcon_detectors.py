"""Scores of autoencoders against the scheme of the paper, image by image; classic ones against closed forms and
scikit-learn."""

import copy

import numpy as np
import pytest
import torch
from sklearn import svm

from tutorial_lib.benchmarks.gradcon_transcription import published_scores
from tutorial_lib.detectors import (
    SVDD,
    Brightness,
    Complexity,
    DeepSVDD,
    GradCON,
    GradientAlignment,
    LatentLoss,
    OneClassSVM,
    ReconstructionError,
)
from tutorial_lib.gradcon import GradientConstraint, decoder_weights, training_step
from tutorial_lib.models.autoencoder import build_autoencoder


@pytest.fixture(scope="module", params=["cae", "vae"])
def fitted(request):
    torch.manual_seed(0)
    model = build_autoencoder(request.param, (3, 28, 28), width=0.25)
    constraint = GradientConstraint(model)
    for _ in range(4):
        training_step(model, torch.rand(8, 3, 28, 28), constraint)
    return model.eval(), constraint, torch.rand(7, 3, 28, 28)


def test_scores_are_those_of_the_published_scheme(fitted):
    model, constraint, images = fitted
    weights, averages = list(decoder_weights(model).values()), list(constraint.mean.values())
    expected = np.array(published_scores(model, weights, images, averages, beta=0.12))
    np.testing.assert_allclose(ReconstructionError(model).predict(images), expected[:, 0], rtol=1e-5)
    np.testing.assert_allclose(GradientAlignment(model, constraint).predict(images), expected[:, 1], atol=1e-5)
    np.testing.assert_allclose(GradCON(model, constraint).predict(images), expected[:, 2], atol=1e-5)
    by_name = GradientAlignment(model, constraint.reference())
    np.testing.assert_array_equal(by_name.predict(images), GradientAlignment(model, constraint).predict(images))


def test_fit_takes_the_mean_gradient_of_known_images(fitted):
    model, _, images = fitted
    detector = GradientAlignment(model)
    detector.batch_size = 3
    detector.fit(images)
    mean = (model(images) - images).square().mean()
    expected = torch.autograd.grad(mean, list(decoder_weights(model).values()))
    for name, gradient in zip(decoder_weights(model), expected, strict=True):
        torch.testing.assert_close(detector._reference[name], gradient, rtol=1e-4, atol=1e-7)


def test_the_latent_loss_by_hand(fitted):
    model, _, images = fitted
    if model.kind == "cae":
        with pytest.raises(TypeError, match="no constraint on its latent"):
            LatentLoss(model)
        return
    mean, log_variance = (part.detach().double() for part in model.encode(images))
    expected = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).sum(1)
    np.testing.assert_allclose(LatentLoss(model).predict(images), expected, rtol=1e-4)


def test_the_autoencoder_is_left_as_it_was(fitted):
    model = copy.deepcopy(fitted[0]).train()
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 2 == 0)
        parameter.grad = torch.full_like(parameter, 0.25)
    before, state = copy.deepcopy(model), torch.get_rng_state()
    for detector in (ReconstructionError(model), GradCON(model, fitted[1]), GradientAlignment(model).fit(fitted[2])):
        detector.predict(fitted[2])
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    for here, there in zip(model.parameters(), before.parameters(), strict=True):
        assert torch.equal(here, there) and here.requires_grad == there.requires_grad
        assert (here.grad == 0.25).all()


def test_what_has_no_decoder_is_refused():
    with pytest.raises(TypeError, match="Flatten has no decoder"):
        GradientAlignment(torch.nn.Flatten())
    with pytest.raises(TypeError, match="latent"):
        LatentLoss(torch.nn.Flatten())
    model = build_autoencoder("cae", (1, 8, 8), width=0.1)
    with pytest.raises(ValueError, match="no gradient yet"):
        GradCON(model, GradientConstraint(model))
    with pytest.raises(ValueError, match="beta"):
        GradCON(model, beta=-1)


@pytest.fixture(scope="module")
def points():
    return torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_the_one_class_svm_is_scikit_learn_s(points):
    x = points.flatten(1).double().numpy()
    expected = -svm.OneClassSVM(nu=0.2, gamma=0.5).fit(x).decision_function(x)
    np.testing.assert_allclose(OneClassSVM(nu=0.2, gamma=0.5).fit(points).predict(points), expected)
    model = build_autoencoder("vae", (1, 8, 8), width=0.1).eval()
    images = torch.rand(30, 1, 8, 8)
    latent = model.encode(images).mean.detach().double().numpy()
    expected = -svm.OneClassSVM(nu=0.1, gamma="scale").fit(latent).decision_function(latent)
    np.testing.assert_allclose(OneClassSVM(model).fit(images).predict(images), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("nu", [0.05, 0.3])
def test_the_smallest_ball_against_a_general_optimiser(points, nu):
    from scipy.optimize import minimize

    x = points.flatten(1).double().numpy()[:40]
    outside = round(nu * len(x))

    def dual(a):  # Tax & Duin, eq. 8: maximise a·diag(K) - a K a over sum(a) = 1 and 0 <= a <= 1 / (nu N)
        return a @ gram @ a - a @ np.diag(gram)

    gram = x @ x.T
    start = np.full(len(x), 1 / len(x))
    solved = minimize(
        dual,
        start,
        jac=lambda a: 2 * gram @ a - np.diag(gram),
        bounds=[(0, 1 / outside)] * len(x),
        constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": np.ones_like},
        options={"maxiter": 500, "ftol": 1e-12},
    )
    centre = solved.x @ x
    detector = SVDD(nu=nu, steps=5000).fit(points[:40])
    np.testing.assert_allclose(detector._centre.numpy(), centre, atol=5e-3)
    scores = detector.predict(points[:40])
    assert (scores > 1e-9).sum() == outside


def test_deep_svdd_brings_known_images_closer_than_it_found_them(points):
    known = points / 4
    before, after = (
        DeepSVDD(widths=(8,), size=4, epochs=n, learning_rate=rate).fit(known) for n, rate in ((1, 1e-9), (30, 1e-2))
    )
    assert torch.allclose(before._centre, after._centre)
    assert (before._centre.abs() >= 0.1).all()
    assert after.predict(known).mean() < 0.2 * before.predict(known).mean()
    assert not any(name.endswith("bias") for name, _ in after.model.named_parameters())
    by_hand = (after.model(known) - after._centre).square().sum(1).detach()
    np.testing.assert_allclose(after.predict(known), by_hand, rtol=1e-5)
    assert after.predict(1 - known).mean() > 5 * after.predict(known).mean()


def test_controls_by_hand():
    image = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    assert Brightness().predict(image)[0] == 0.5 == -Brightness("dark").predict(image)[0]
    assert Complexity().predict(image)[0] == pytest.approx((1 + 0 + 0.5 + 0.5) / 4)
    assert Complexity("simple").predict(image)[0] == -Complexity().predict(image)[0]
    for make in (Brightness, Complexity):
        with pytest.raises(ValueError, match="strange must be"):
            make("loud")
    for make in (OneClassSVM, SVDD):
        with pytest.raises(ValueError, match="nu must lie in"):
            make(nu=0.0)
    with pytest.raises(ValueError, match="steps"):
        SVDD(steps=0)
    with pytest.raises(ValueError, match="epochs"):
        DeepSVDD(epochs=0)
