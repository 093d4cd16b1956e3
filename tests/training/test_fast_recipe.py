"""The recipe of the fast network, piece by piece, each against the same thing written another way."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutorial_lib.data.images import ImageSet
from tutorial_lib.models import build
from tutorial_lib.models.airbench import Whitening
from tutorial_lib.studies import load_study
from tutorial_lib.training import classifier, loop
from tutorial_lib.training.classifier import (
    TrainingConfig,
    accuracy,
    augment,
    norm_biases,
    optimizer_for,
    scheduler_for,
    train_classifier,
)
from tutorial_lib.training.lookahead import Lookahead
from tutorial_lib.training.side_by_side import train_side_by_side
from tutorial_lib.training.trained import recipe, untrained_classifier

RECIPE = recipe(load_study("cifar10"), "airbench")


def stripes(n=128, seed=0):
    """Two classes: horizontal and vertical stripes under noise, 10x10."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    pattern = (torch.arange(10) % 4 < 2).float()
    clean = torch.where(labels[:, None, None] == 0, pattern[None, :, None], pattern[None, None, :])
    noisy = 0.5 * clean + 0.5 * torch.rand(n, 10, 10, generator=generator)
    return ImageSet("stripes", (255 * noisy[:, None]).to(torch.uint8), labels, ("rows", "columns"), torch.arange(n))


class Little:
    """A task for `untrained_classifier`: the stripes."""

    name, network, image_shape, num_classes, normalisation = "stripes", "airbench", (1, 10, 10), 2, None
    recipes = {"": {}}
    train, validation, test = stripes(), stripes(seed=1), stripes(seed=2)


QUICK = replace(RECIPE, epochs=4, batch_size=32, learning_rate=0.2, whitening_epochs=1, precision="float32")


def weights(model):
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


# --- as published -----------------------------------------------------------------------------------------------------


def test_a_step_is_the_published_one():
    """There the losses of a batch are summed, and rates and decay divided by a "kilostep scale"."""
    scale = 1024 * (1 + 1 / (1 - 0.85))
    rate, decay = 11.5 / scale, 0.0153 * 1024 / scale
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    theirs = nn.Sequential(nn.Linear(5, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 3)).double()
    theirs.load_state_dict(ours.state_dict())
    biases, others = [theirs[1].bias], [p for p in theirs.parameters() if p is not theirs[1].bias]
    groups = [
        {"params": biases, "lr": 64 * rate, "weight_decay": decay / (64 * rate)},
        {"params": others, "lr": rate, "weight_decay": decay / rate},
    ]
    optimizers = [
        optimizer_for(ours.parameters(), RECIPE, norm_biases(ours)),
        torch.optim.SGD(groups, momentum=0.85, nesterov=True),
    ]
    for _ in range(3):
        x, labels = torch.randn(1024, 5).double(), torch.randint(0, 3, (1024,))
        for model, optimizer, reduction in zip((ours, theirs), optimizers, ("mean", "sum"), strict=True):
            loss = F.cross_entropy(model(x), labels, label_smoothing=0.2, reduction=reduction)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        torch.testing.assert_close(weights(ours), weights(theirs))


def test_only_length_and_smoothing_are_not_as_published():
    published = TrainingConfig(
        epochs=11,  # of 45,000 images: 9.9 of 50,000
        batch_size=1024,
        learning_rate=1.5,  # 11.5 / (1 + 1 / (1 - momentum))
        momentum=0.85,
        weight_decay=0.0153 / 11.5,
        schedule="triangular",
        shift=2,
        border="mirror",
        flip="alternating",
        label_smoothing=0.2,
        norm_bias_factor=64.0,
        whitening_epochs=3,
        lookahead=True,
    )
    assert replace(RECIPE, epochs=published.epochs, label_smoothing=published.label_smoothing) == published
    assert (RECIPE.epochs, RECIPE.label_smoothing) == (16, 0.0)


def test_the_learning_rate_is_a_triangle():
    steps = 476
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.5)
    scheduler = scheduler_for(optimizer, RECIPE, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"] / 1.5)
        optimizer.step()
        scheduler.step()
    top = int(0.23 * steps)
    assert rates[0] == pytest.approx(0.2) and max(rates) == rates[top] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.07, abs=0.003)
    for part in (rates[: top + 1], rates[top:]):
        slopes = torch.tensor(part).diff()
        torch.testing.assert_close(slopes, slopes.mean().expand_as(slopes), atol=1e-5, rtol=0)


def test_lookahead_against_its_recursion_in_plain_numbers():
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    lookahead = Lookahead(model, steps=12)
    weight, average = 0.0, 0.0
    for step in range(1, 13):
        weight += 1.0  # what an optimiser might do
        with torch.no_grad():
            model.weight += 1.0
        lookahead.step()
        if step % 5 == 0:
            decay = 0.95**5 * (step / 12) ** 3
            average = decay * average + (1 - decay) * weight
            weight = average
        if step == 12:
            weight = average
        assert model.weight.item() == pytest.approx(weight, rel=1e-6)


def test_the_border_is_a_mirror():
    images = torch.randint(0, 256, (40, 3, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    offsets = torch.randint(-2, 3, (2, 40, 1), generator=torch.Generator().manual_seed(1))
    found = augment(images, torch.arange(40), 2, False, generator, "mirror")
    padded = F.pad(images.float() / 255, (2, 2, 2, 2), "reflect")
    for i, (down, right) in enumerate(offsets[:, :, 0].T.tolist()):
        torch.testing.assert_close(found[i], padded[i, :, 2 + down : 8 + down, 2 + right : 9 + right])


def test_flips_alternate(monkeypatch):
    """Every image is seen from one side and from the other in turn, half of them begin with either."""
    seen = []

    def kept(images, chosen, shift, flip, generator, border):
        seen.append((chosen, flip[chosen]))
        return augment(images, chosen, shift, flip, generator, border)

    monkeypatch.setattr(classifier, "augment", kept)
    images = stripes()
    train_classifier(untrained_classifier(Little()), images, config=QUICK, progress=False)
    sides = torch.zeros(4, 128, dtype=torch.bool)
    for number, (chosen, mirrored) in enumerate(seen):
        sides[number // 4, chosen] = mirrored
    assert torch.equal(sides[0], ~sides[1]) and torch.equal(sides[0], sides[2]) and torch.equal(sides[1], sides[3])
    assert 40 < int(sides[0].sum()) < 88


def test_which_images_are_mirrored_can_be_said():
    images = torch.randint(0, 256, (4, 1, 5, 5), dtype=torch.uint8)
    mirrored = torch.tensor([True, False, True, False])
    batch = augment(images, torch.tensor([3, 2]), 0, mirrored, torch.Generator())
    torch.testing.assert_close(batch, torch.stack([images[3], images[2].flip(2)]).float() / 255)


# --- the whole recipe -------------------------------------------------------------------------------------------------


def test_whitening_is_fixed_and_its_bias_soon(monkeypatch):
    model = untrained_classifier(Little())
    [layer] = [m for m in model.modules() if isinstance(m, Whitening)]
    before, bias, learned = layer.weight.clone(), layer.bias.clone(), []
    train_classifier(
        model,
        Little.train,
        config=replace(QUICK, lookahead=False),
        progress=False,
        after_step=lambda images, labels: learned.append(layer.bias.detach().clone()),
    )
    assert torch.equal(layer.weight, before) and not layer.weight.requires_grad
    steps = len(learned) // QUICK.epochs
    assert not torch.equal(learned[0], bias)
    assert all(torch.equal(later, learned[steps - 1]) for later in learned[steps:])
    assert layer.bias.requires_grad, "left as it was"
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            assert torch.equal(m.weight, torch.ones_like(m.weight)) and not m.weight.requires_grad


def test_it_learns_and_goes_on_after_a_stop(tmp_path, monkeypatch):
    whole = untrained_classifier(Little())
    history = train_classifier(whole, Little.train, config=QUICK, progress=False)
    assert history.loss[-1] < history.loss[0] < 2 * math.log(2)
    assert accuracy(whole, Little.test) > 0.9
    state, save = tmp_path / "state.bin", loop._State.save
    saved = []

    def stop(self):
        save(self)
        saved.append(1)
        if len(saved) == 3:  # in a mirrored epoch, with an average under way
            raise KeyboardInterrupt

    settings = {"config": QUICK, "progress": False, "resume_from": state, "save_every": 0}
    with monkeypatch.context() as patch:
        patch.setattr(loop._State, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            train_classifier(untrained_classifier(Little()), Little.train, **settings)
    again = untrained_classifier(Little())
    train_classifier(again, Little.train, **settings)
    assert torch.equal(weights(whole), weights(again))


def test_it_starts_from_whitened_training_images():
    torch.manual_seed(3)
    state = torch.get_rng_state()
    model = untrained_classifier(Little(), seed=0)
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        positive = model.backbone[0](model.normalize(Little.train.images))[:, :4]
    variances = positive.square().mean((0, 2, 3))
    assert (variances <= 1.001).all() and variances[0] > 0.99
    random = build("airbench", 2, (1, 10, 10))
    assert not torch.allclose(random.backbone[0].weight, model.backbone[0].weight)


def test_side_by_side_refuses_what_it_does_not_do():
    members = [build("lenet", 2, (1, 10, 10)) for _ in range(2)]
    for change in ({"lookahead": True}, {"flip": "alternating"}, {"norm_bias_factor": 2.0}, {"whitening_epochs": 1}):
        with pytest.raises(ValueError, match="side by side is not for"):
            train_side_by_side(members, stripes(), TrainingConfig(epochs=1, **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"momentum": 1.0}, "momentum and label_smoothing must lie in"),
        ({"label_smoothing": -0.1}, "momentum and label_smoothing must lie in"),
        ({"border": "white"}, "border must be one of black, mirror"),
        ({"flip": "often"}, "flip must be one of True, False, alternating"),
        ({"schedule": "square"}, "schedule must be one of"),
        ({"norm_bias_factor": 0.0}, "norm_bias_factor must be positive"),
        ({"norm_bias_factor": 2.0, "optimizer": "adam"}, "norm_bias_factor is for sgd"),
        ({"whitening_epochs": -1}, "whitening_epochs must not be negative"),
    ],
)
def test_settings_that_make_no_sense_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**change)
