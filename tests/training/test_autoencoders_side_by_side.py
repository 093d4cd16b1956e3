"""Training several at once is training each, but for rounding."""

import copy

import pytest
import torch

from tutorial_lib.gradcon import GradientConstraint, one_class_split
from tutorial_lib.models.autoencoder import build_autoencoder
from tutorial_lib.training.autoencoder import AutoencoderConfig, train_autoencoder
from tutorial_lib.training.autoencoders_side_by_side import train_autoencoders_side_by_side


def several(kind, alpha=0.03, count=3, dtype=torch.float32):
    torch.manual_seed(0)
    models = [build_autoencoder(kind, (1, 8, 8), width=0.2).to(dtype) for _ in range(count)]
    return models, [GradientConstraint(model, alpha) for model in models]


@pytest.mark.parametrize("kind", ["cae", "vae"])
@pytest.mark.parametrize("alpha", [0.0, 0.03])
def test_side_by_side_is_one_after_the_other(kind, alpha):
    sets = [one_class_split("digits", c).train.subset(range(n)) for c, n in ((0, 50), (3, 33), (8, 64))]
    config = AutoencoderConfig(epochs=4, batch_size=16, seed=5)
    models, constraints = several(kind, alpha)
    apart, apart_constraints = several(kind, alpha)
    initial = copy.deepcopy(models)
    histories = train_autoencoders_side_by_side(models, sets, constraints, config)
    for i, images in enumerate(sets):
        expected = train_autoencoder(apart[i], images, apart_constraints[i], config, progress=False)
        for name, value in apart[i].state_dict().items():
            torch.testing.assert_close(models[i].state_dict()[name], value, rtol=1e-3, atol=2e-5, msg=name)
        assert constraints[i].steps == apart_constraints[i].steps == 4 * -(-len(images) // 16)
        for name, mean in apart_constraints[i].mean.items():
            torch.testing.assert_close(constraints[i].mean[name], mean, rtol=1e-3, atol=1e-6, msg=name)
        for part in ("reconstruction", "latent", "alignment"):
            assert getattr(histories[i], part) == pytest.approx(getattr(expected, part), rel=1e-3, abs=1e-5), part
        assert histories[i].best_epoch == 3 and not models[i].training
        moved = max(
            float((a - b).detach().abs().max())
            for a, b in zip(models[i].parameters(), initial[i].parameters(), strict=True)
        )
        assert moved > 5e-3  # far beyond the tolerance


def test_bad_input_is_refused():
    models, constraints = several("cae", count=2)
    images = [torch.rand(4, 1, 8, 8)] * 2
    with pytest.raises(ValueError, match="2 models, 1 sets, 2 constraints"):
        train_autoencoders_side_by_side(models, images[:1], constraints)
    with pytest.raises(ValueError, match="one kind and shape"):
        train_autoencoders_side_by_side([models[0], build_autoencoder("cae", (1, 8, 8))], images, constraints)
    with pytest.raises(ValueError, match="different alphas"):
        train_autoencoders_side_by_side(models, images, [constraints[0], GradientConstraint(models[1], 0.5)])
    with pytest.raises(ValueError, match="float32"):
        train_autoencoders_side_by_side(models, images, constraints, AutoencoderConfig(precision="bfloat16"))
    with pytest.raises(ValueError, match=r"images: .*\[0, 1\]"):
        train_autoencoders_side_by_side(models, [images[0], images[0] + 1], constraints)
