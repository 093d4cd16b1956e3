"""Training by contrast finds what labels say."""

import numpy as np
import pytest
import torch

from tutorial_lib.models import build
from tutorial_lib.models.predict import predict_features
from tutorial_lib.severity import Views, linear_probe
from tutorial_lib.training.contrastive import ContrastiveConfig, train_contrastive
from tutorial_lib.training.loop import TrainingDiverged


def two_kinds(count, seed):
    """Noise with a bright upper or lower half: (images, which half)."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(0, 2, (count,), generator=generator)
    images = 0.5 * torch.rand(count, 1, 8, 8, generator=generator)
    images[kind == 0, :, :4] += 0.2
    images[kind == 1, :, 4:] += 0.2
    return images, kind


def test_training_gathers_what_has_one_label():
    images, kind = two_kinds(200, seed=0)
    torch.manual_seed(0)
    model = build("lenet", 2, (1, 8, 8))
    head, before = model.head.weight.clone(), torch.get_rng_state()
    losses = train_contrastive(model, images, kind, ContrastiveConfig(steps=60, batch_size=64, views=Views(1.0)))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.5
    assert torch.equal(model.head.weight, head) and torch.equal(torch.get_rng_state(), before) and not model.training
    unseen, truth = two_kinds(200, seed=1)
    features = torch.nn.functional.normalize(predict_features(model, unseen), dim=1)
    same = truth[:, None] == truth
    similar = features @ features.T
    assert similar[same].mean() > similar[~same].mean() + 0.3
    assert linear_probe(features[:50], truth[:50], features[50:], truth[50:]).accuracy > 0.95


def test_the_seed_decides():
    images, kind = two_kinds(64, seed=0)

    def trained(seed):
        torch.manual_seed(0)
        model = build("lenet", 2, (1, 8, 8))
        return train_contrastive(model, images, kind.numpy(), ContrastiveConfig(steps=4, batch_size=32, seed=seed))

    assert trained(0) == trained(0) != trained(1)


def test_bad_input_is_named():
    model = build("lenet", 2, (1, 8, 8))
    for call, message in (
        (lambda: train_contrastive(model, torch.zeros(1, 1, 8, 8)), "two images or more"),
        (lambda: train_contrastive(model, torch.zeros(4, 1, 8, 8), [0, 1]), "one an image, 4"),
        (lambda: ContrastiveConfig(steps=0), "steps must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="step 1 of 600; try a learning rate below 0.003"):
        train_contrastive(model, torch.rand(4, 1, 8, 8))
