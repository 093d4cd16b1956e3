"""Members that train side by side end where each would have ended alone."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tutorial_lib.data.images import ImageSet, as_float
from tutorial_lib.models import build
from tutorial_lib.training.classifier import TrainingConfig, TrainingDiverged, train_classifier
from tutorial_lib.training.side_by_side import train_side_by_side

CONFIG = TrainingConfig(epochs=2, batch_size=20, learning_rate=1e-2, optimizer="adam", shift=1, precision="float32")


def networks(count, name="lenet"):
    made = []
    with torch.random.fork_rng():
        for seed in range(count):
            torch.manual_seed(seed)
            made.append(build(name, 3, (1, 8, 8)).double())
    return made


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return ImageSet("random", pixels, torch.arange(50) % 3, ("a", "b", "c"), torch.arange(50))


@pytest.mark.parametrize("name, optimizer", [("lenet", "adam"), ("lenet", "sgd"), ("resnet20", "sgd")])
def test_a_member_is_the_network_trained_alone(images, name, optimizer):
    """Batch normalisation's statistics and the summed loss too: SGD would show a loss divided by M."""
    config = replace(CONFIG, optimizer=optimizer, epochs=2 if name == "lenet" else 1)
    together = networks(2, name)
    alone = copy.deepcopy(together)
    histories = train_side_by_side(together, images, config, seeds=(5, 7))
    for seed, member, network, history in zip((5, 7), together, alone, histories, strict=True):
        expected = train_classifier(network, images, config=replace(config, seed=seed), progress=False)
        assert history.loss == pytest.approx(expected.loss, rel=1e-5)
        assert not member.training
        for (key, here), there in zip(member.state_dict().items(), network.state_dict().values(), strict=True):
            torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5, msg=key)


def test_adversarial_step_by_hand(images):
    """One step of SGD: the gradients of the loss at x and at x + epsilon range sign(gradient), added."""
    still = {"shift": 0, "flip": False, "weight_decay": 0.0, "schedule": "constant"}
    config = TrainingConfig(epochs=1, batch_size=50, learning_rate=0.01, **still)
    (member,) = networks(1)
    network, untouched = copy.deepcopy(member), copy.deepcopy(member)
    train_side_by_side([member], images, config, adversarial_step=0.01)

    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    x, y = as_float(images.images[order]).requires_grad_(), images.labels[order]
    span = 0.01 * (images.images.amax(0).float() - images.images.amin(0).float()) / 255
    F.cross_entropy(network(x), y).backward()
    moved = (x + span * x.grad.sign()).clamp(0, 1).detach()
    F.cross_entropy(network(moved), y).backward()  # adds to what is there
    for here, start, grad in zip(
        member.parameters(), untouched.parameters(), (p.grad for p in network.parameters()), strict=True
    ):
        torch.testing.assert_close(here, start - 0.01 * 1.9 * grad, rtol=1e-6, atol=1e-9)  # Nesterov: 1 + 0.9


def test_bad_input_is_named(images):
    with pytest.raises(ValueError, match="one seed for each"):
        train_side_by_side(networks(2), images, CONFIG, seeds=(1,))
    with pytest.raises(ValueError, match="at least one member"):
        train_side_by_side([], images, CONFIG)
    with pytest.raises(ValueError, match="negative"):
        train_side_by_side(networks(1), images, CONFIG, adversarial_step=-1)
    with pytest.raises(TrainingDiverged, match="seed 4"):
        train_side_by_side(networks(1), images, replace(CONFIG, optimizer="sgd", learning_rate=1e30), seeds=(4,))


def test_a_loss_of_ones_own_and_what_follows_a_step(images):
    plain, own = networks(1)[0], networks(1)[0]
    seen = []
    train_classifier(plain, images, config=CONFIG, progress=False)
    train_classifier(
        own,
        images,
        config=CONFIG,
        progress=False,
        loss_of=lambda x, y: F.cross_entropy(own(x), y),
        after_step=lambda x, y: seen.append(len(y)),
    )
    assert seen == [20, 20, 10] * 2
    for here, there in zip(own.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(here, there)
