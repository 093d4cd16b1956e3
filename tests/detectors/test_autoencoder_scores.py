"""All scores of a trained autoencoder at once, and the scores of pixels beside them: against loops of their own."""

import numpy as np
import pytest
import torch

from tutorial_lib.data.embedded import digits
from tutorial_lib.detectors import GradCON
from tutorial_lib.detectors.gradcon import autoencoder_scores
from tutorial_lib.detectors.trivial import control_scores
from tutorial_lib.training.autoencoder import AutoencoderConfig
from tutorial_lib.training.trained import trained_autoencoder


@pytest.fixture(scope="module")
def healthy():
    return digits().float()[:96]


@pytest.fixture(scope="module")
def trained(healthy, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTORIAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        config = AutoencoderConfig(epochs=2, seed=3)
        return {kind: trained_autoencoder(healthy, kind, config=config, widths=(6, 2)) for kind in ("cae", "vae")}


def test_scores_are_those_of_a_loop(trained, healthy):
    model, constraint = trained["cae"].model, trained["cae"].constraint
    scores = autoencoder_scores(trained["cae"], healthy[:5])
    assert list(scores) == ["reconstruction", "gradient", "combined"]
    for place, image in enumerate(healthy[:5].split(1)):
        error = (model(image) - image).square().mean()
        weights = [model.get_parameter(name) for name in constraint.names]
        gradients = torch.autograd.grad(error, weights)
        cosine = np.mean(
            [
                torch.cosine_similarity(gradient.flatten(), mean.flatten(), dim=0).item()
                for gradient, mean in zip(gradients, constraint.mean.values(), strict=True)
            ]
        )
        assert scores["reconstruction"][place] == pytest.approx(error.item(), rel=1e-5)
        assert scores["gradient"][place] == pytest.approx(-cosine, abs=1e-5)
        assert scores["combined"][place] == pytest.approx(error.item() - 0.12 * cosine, abs=1e-5)
    np.testing.assert_allclose(scores["combined"], GradCON(model, constraint).predict(healthy[:5]), rtol=1e-6)


def test_only_a_variational_autoencoder_has_a_latent_score(trained, healthy):
    has = {kind: "latent" in autoencoder_scores(found, healthy[:2]) for kind, found in trained.items()}
    assert has == {"cae": False, "vae": True}


def test_controls_by_hand(healthy):
    images, known = healthy[:3], healthy[3:40]
    scores = control_scores((255 * images).round().to(torch.uint8), known)
    for place, image in enumerate(images[:, 0].double().numpy()):
        assert scores["brightness"][place] == pytest.approx(image.mean(), abs=1e-3)
        rough = (np.abs(np.diff(image, axis=0)).mean() + np.abs(np.diff(image, axis=1)).mean()) / 2
        assert scores["complexity"][place] == pytest.approx(rough, abs=1e-3)
        away = ((known[:, 0].double().numpy() - image) ** 2).mean((1, 2))
        assert scores["nearest healthy"][place] == pytest.approx(away.min(), abs=1e-3)
        mean = ((known[:, 0].double().numpy().mean(0) - image) ** 2).mean()
        assert scores["mean image"][place] == pytest.approx(mean, abs=1e-3)
    assert control_scores(known, known)["nearest healthy"].max() < 1e-9
