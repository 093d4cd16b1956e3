"""Autoencoders of the healthy and trivial scores: against computations of their own."""

import numpy as np
import pytest
import torch

from tutorial_lib.data.embedded import digits
from tutorial_lib.gradcon import AutoencoderConfig
from tutorial_lib.severity.healthy import MODELS, control_scores, train_healthy


@pytest.fixture(scope="module")
def healthy():
    return digits().float()[:96]


@pytest.fixture(scope="module")
def trained(healthy):
    config = AutoencoderConfig(epochs=2, seed=3)
    return {name: train_healthy(healthy, name, (6, 2), config) for name in MODELS}


def test_scores_are_those_of_a_loop(trained, healthy):
    model = trained["cae+grad"]
    scores = model.scores(healthy[:5])
    assert list(scores) == ["reconstruction", "gradient", "combined"]
    for place, image in enumerate(healthy[:5].split(1)):
        error = (model.autoencoder(image) - image).square().mean()
        weights = [model.autoencoder.get_parameter(name) for name in model.constraint.names]
        gradients = torch.autograd.grad(error, weights)
        cosine = np.mean(
            [
                torch.cosine_similarity(gradient.flatten(), mean.flatten(), dim=0).item()
                for gradient, mean in zip(gradients, model.constraint.mean.values(), strict=True)
            ]
        )
        assert scores["reconstruction"][place] == pytest.approx(error.item(), rel=1e-5)
        assert scores["gradient"][place] == pytest.approx(-cosine, abs=1e-5)
        assert scores["combined"][place] == pytest.approx(error.item() - 0.12 * cosine, abs=1e-5)
    torch.testing.assert_close(model.reconstruct(healthy[:5]), model.autoencoder(healthy[:5]).detach())


def test_only_a_variational_autoencoder_has_a_latent_score(trained, healthy):
    assert {name: "latent" in model.scores(healthy[:2]) for name, model in trained.items()} == {
        "cae": False, "cae+grad": False, "vae": True, "vae+grad": True,
    }  # fmt: skip
    assert [model.constraint.alpha for model in trained.values()] == [0, 0.03, 0, 0.03]
    assert all(model.constraint.steps > 0 for model in trained.values())


def test_the_seed_decides_and_torch_is_left_alone(trained, healthy):
    before = torch.get_rng_state()
    again = train_healthy(healthy, "cae+grad", (6, 2), AutoencoderConfig(epochs=2, seed=3))
    other = train_healthy(healthy, "cae+grad", (6, 2), AutoencoderConfig(epochs=2, seed=4))
    assert torch.equal(torch.get_rng_state(), before)
    first = trained["cae+grad"].scores(healthy[:9])["combined"]
    np.testing.assert_array_equal(again.scores(healthy[:9])["combined"], first)
    assert not np.allclose(other.scores(healthy[:9])["combined"], first)


def test_controls_by_hand(healthy):
    images, known = healthy[:3], healthy[3:40]
    scores = control_scores((255 * images).round().to(torch.uint8), known)
    for place, image in enumerate(images[:, 0].double().numpy()):
        assert scores["brightness"][place] == pytest.approx(image.mean(), abs=1e-3)
        rough = np.abs(np.diff(image, axis=0)).mean() + np.abs(np.diff(image, axis=1)).mean()
        assert scores["complexity"][place] == pytest.approx(rough, abs=1e-3)
        away = ((known[:, 0].double().numpy() - image) ** 2).mean((1, 2))
        assert scores["nearest healthy"][place] == pytest.approx(away.min(), abs=1e-3)
        mean = ((known[:, 0].double().numpy().mean(0) - image) ** 2).mean()
        assert scores["mean image"][place] == pytest.approx(mean, abs=1e-3)
    assert control_scores(known, known)["nearest healthy"].max() < 1e-9


def test_an_unknown_model_is_named(healthy):
    with pytest.raises(ValueError, match="no model 'gan'"):
        train_healthy(healthy, "gan")
