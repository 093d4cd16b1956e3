"""Gradient features against a loop of ordinary backward passes in float64, layer by layer and for whole networks."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutorial_lib.gradients import _engine, alignment, contrast_squared_norms, introspective_features, squared_norms
from tutorial_lib.models import build

LOSSES = {
    "bce": lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction="none").sum(1),
    "ce": lambda z, t: -(t * z.log_softmax(1)).sum(1),
    "mse": lambda z, t: (z - t).square().flatten(1).sum(1),
}


def gradients_one_by_one(model, images, loss_of):
    """Each image's gradients, by the plainest route there is: a list of dictionaries."""
    rows = []
    for image in images.split(1):
        named = dict(model.named_parameters())
        found = torch.autograd.grad(loss_of(model(image), image).sum(), list(named.values()), allow_unused=True)
        rows.append(
            {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}
        )
    return rows


def norms_one_by_one(model, images, loss_of):
    rows = gradients_one_by_one(model, images, loss_of)
    return torch.stack([torch.stack([g.square().sum() for g in row.values()]) for row in rows])


def against_ones(loss="bce"):
    return lambda z, _: LOSSES[loss](z, torch.ones_like(z))


def randomised(model):
    """Statistics and scales away from their initial values, evaluation mode, float64."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.double().eval()


class Pooled(nn.Module):
    """A layer on 3x9x7 images, pooled to logits."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x).flatten(2).mean(2)


class Twice(nn.Module):
    """One convolution and one linear layer, each used twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 3)

    def forward(self, x):
        x = self.conv(F.relu(self.conv(x))).mean((2, 3))
        return self.linear(self.linear(x).tanh())


class Words(nn.Module):
    """Embedding, layer norm and a linear layer on sequences; repeated tokens, tied output weights."""

    def __init__(self):
        super().__init__()
        self.embedding, self.norm = nn.Embedding(6, 5), nn.LayerNorm(5)
        self.linear = nn.Linear(5, 5)

    def forward(self, x):
        tokens = (x[:, 0] * 6).long().clamp(0, 5)[:, :, 0]
        hidden = self.linear(self.norm(self.embedding(tokens))).tanh().mean(1)
        return hidden @ self.embedding.weight.T


class Foreign(nn.Module):
    """A parameter that no rule covers."""

    def __init__(self):
        super().__init__()
        self.scale, self.linear = nn.Parameter(torch.randn(3)), nn.Linear(3, 4)

    def forward(self, x):
        return self.linear((self.scale.exp() * x.mean((2, 3))).sin())


NETWORKS = {
    "conv": lambda: Pooled(nn.Conv2d(3, 5, 3)),
    "conv, stride and padding": lambda: Pooled(nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 2))),
    "conv, dilation": lambda: Pooled(nn.Conv2d(3, 5, 3, dilation=2, padding=2)),
    "conv, same": lambda: Pooled(nn.Conv2d(3, 5, 4, padding="same")),
    "conv, reflected border": lambda: Pooled(nn.Conv2d(3, 5, 3, padding=1, padding_mode="reflect")),
    "conv, groups": lambda: Pooled(nn.Conv2d(3, 6, 1), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2)),
    "conv, depthwise": lambda: Pooled(nn.Conv2d(3, 6, 3, groups=3, bias=False)),
    "conv, many channels and few positions": lambda: Pooled(nn.Conv2d(3, 40, 3, 4), nn.ReLU(), nn.Conv2d(40, 50, 2)),
    "transposed conv": lambda: Pooled(nn.ConvTranspose2d(3, 5, 4, stride=2, padding=1)),
    "transposed conv, groups and output padding": lambda: Pooled(
        nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2, dilation=2)
    ),
    "batch norm": lambda: Pooled(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)),
    "group norm": lambda: Pooled(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True)),
    "linear": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(189, 8), nn.ReLU(inplace=True), nn.Linear(8, 4, bias=False)
    ),
    "words": Words,
    "used twice": Twice,
    "foreign": Foreign,
}  # fmt: skip


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.filterwarnings("ignore:no rule covers")
@pytest.mark.parametrize("loss", ["bce", "ce"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_agrees_with_the_loop(name, loss):
    model, images = randomised(NETWORKS[name]()), torch.rand(5, 3, 9, 7, dtype=torch.float64)
    found, names = squared_norms(model, images, loss=loss)
    assert names == tuple(n for n, _ in model.named_parameters())
    torch.testing.assert_close(found, norms_one_by_one(model, images, against_ones(loss)), rtol=1e-9, atol=1e-14)


@pytest.mark.filterwarnings("ignore:no rule covers")
@pytest.mark.parametrize("worth_avoiding", [1, 30, 100])
@pytest.mark.parametrize("name", NETWORKS)
def test_one_image_agrees_wherever_the_line_between_watched_and_ordinary_is_drawn(name, worth_avoiding, monkeypatch):
    monkeypatch.setattr(_engine, "WORTH_AVOIDING", worth_avoiding)
    model, images = randomised(NETWORKS[name]()), torch.rand(1, 3, 9, 7, dtype=torch.float64)
    found, _ = squared_norms(model, images)
    torch.testing.assert_close(found, norms_one_by_one(model, images, against_ones()), rtol=1e-9, atol=1e-14)
    reference = {name: torch.randn_like(parameter) for name, parameter in model.named_parameters()}
    both = alignment(model, images.repeat(2, 1, 1, 1), reference, "ones", "bce")
    torch.testing.assert_close(alignment(model, images, reference, "ones", "bce"), both[:1], rtol=1e-9, atol=1e-12)


def vae_decoder():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.Sequential(
                nn.Conv2d(1, 6, 4, 2, 2), nn.ReLU(), nn.Flatten(),
                nn.Linear(6 * 25, 4 * 9), nn.Unflatten(1, (4, 3, 3)),
                nn.ConvTranspose2d(4, 6, 4, 2, 2), nn.ReLU(), nn.ConvTranspose2d(6, 1, 4, 2, 1), nn.Sigmoid(),
            )  # fmt: skip

        def forward(self, x):
            return self.up(x)

    return Decoder()


BIG = {
    "resnet18": lambda: build("resnet18", 10, (3, 32, 32)),
    "resnet20": lambda: build("resnet20", 10, (3, 32, 32)),
    "densenet": lambda: build("densenet_bc_100_12", 10, (3, 32, 32)),
    "mobilenet_v2": lambda: __import__("torchvision").models.mobilenet_v2(num_classes=10),
    "convnext_tiny": lambda: __import__("torchvision").models.convnext_tiny(num_classes=10),
}


@pytest.mark.filterwarnings("ignore:no rule covers")
@pytest.mark.parametrize("name", BIG)
def test_whole_networks_agree_with_the_loop(name):
    model, images = randomised(BIG[name]()), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    reference = norms_one_by_one(model, images, against_ones())
    torch.testing.assert_close(squared_norms(model, images)[0], reference, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", ["lenet", "resnet20"])
def test_single_precision_stays_close_to_the_double_loop(name):
    model = randomised(build(name, 10, (3, 32, 32)))
    images = torch.rand(4, 3, 32, 32)
    reference = norms_one_by_one(model, images.double(), against_ones())
    found = squared_norms(copy.deepcopy(model).float(), images)[0]
    torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-12)


def test_a_trained_network_on_real_images():
    from tutorial_lib import load_study

    study = load_study("digits")
    model, images = study.classifier().double(), study.test.images[:6].double() / 255
    reference = norms_one_by_one(model, images, against_ones())
    torch.testing.assert_close(squared_norms(model, images)[0], reference, rtol=1e-9, atol=1e-25)


def test_the_shipped_network_on_cifar10_images():
    from tutorial_lib import load_study
    from tutorial_lib.data import DataUnavailable

    study = load_study("cifar10")
    try:
        images = study.test.images[:3].double() / 255
    except DataUnavailable as reason:
        pytest.skip(str(reason))
    model = study.classifier().double()
    reference = norms_one_by_one(model, images, against_ones())
    torch.testing.assert_close(squared_norms(model, images)[0], reference, rtol=1e-9, atol=1e-20)


def test_neither_batch_nor_budget_matters():
    model, images = randomised(BIG["resnet20"]()), torch.rand(7, 3, 32, 32, dtype=torch.float64)
    whole = squared_norms(model, images)[0]
    parts = torch.cat([squared_norms(model, part)[0] for part in images.split(3)])
    tight = squared_norms(model, images, memory_budget=1)[0]  # one image at a time
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(tight, whole, rtol=1e-10, atol=1e-14)


def test_memory_format_does_not_matter():
    model, images = randomised(BIG["resnet20"]()), torch.rand(3, 3, 32, 32, dtype=torch.float64)
    plain = squared_norms(model, images)[0]
    other = squared_norms(model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last))[0]
    torch.testing.assert_close(other, plain, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("label", ["zeros", "uniform", "predicted", 2])
@pytest.mark.parametrize("loss", ["bce", "ce", "mse"])
def test_labels_and_losses_mean_what_they_say(label, loss):
    model, images = randomised(NETWORKS["batch norm"]()), torch.rand(4, 3, 9, 7, dtype=torch.float64)

    def loss_of(z, _):
        classes = z.shape[1]
        wanted = {
            "zeros": torch.zeros_like(z),
            "uniform": torch.full_like(z, 1 / classes),
            "predicted": F.one_hot(z.argmax(1), classes).to(z),
            2: F.one_hot(torch.tensor([2]), classes).to(z),
        }[label]
        return LOSSES[loss](z, wanted)

    reference = norms_one_by_one(model, images, loss_of)
    torch.testing.assert_close(squared_norms(model, images, label, loss)[0], reference, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("loss", ["bce", "ce"])
def test_contrast_norms_are_those_of_every_label_in_turn(loss):
    model, images = randomised(build("resnet20", 4, (3, 16, 16))), torch.rand(3, 3, 16, 16, dtype=torch.float64)
    found = contrast_squared_norms(model, images, loss)
    for label in range(4):
        torch.testing.assert_close(found[:, label], squared_norms(model, images, label, loss)[0], rtol=1e-9, atol=1e-14)


def test_contrast_norms_of_a_network_that_is_sure():
    """The label that a sure network gives has a gradient of nearly nothing: it must not drown in rounding."""
    model = build("lenet", 3, (1, 8, 8)).eval()
    with torch.no_grad():
        model.head.weight.mul_(300)
    images = torch.rand(5, 1, 8, 8)
    reference = norms_one_by_one(
        copy.deepcopy(model).double(), images.double(), lambda z, _: LOSSES["ce"](z, F.one_hot(z.argmax(1), 3).to(z))
    )
    predicted = model(images).argmax(1)
    found = contrast_squared_norms(model, images)[torch.arange(5), predicted]
    torch.testing.assert_close(found, reference, rtol=1e-3, atol=1e-30)


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_introspective_features_are_rows_of_autograd(loss):
    model, images = randomised(build("lenet", 4, (1, 8, 8))), torch.rand(3, 1, 8, 8, dtype=torch.float64)
    found = introspective_features(model, images, loss)
    for n, image in enumerate(images.split(1)):
        for k in range(4):
            z = model(image)
            (gradient,) = torch.autograd.grad(
                LOSSES[loss](z, F.one_hot(torch.tensor([k]), 4).to(z)).sum(), model.head.weight
            )
            torch.testing.assert_close(found[n, k], gradient[k], rtol=1e-9, atol=1e-14)
    assert torch.autograd.gradcheck(lambda x: introspective_features(model, x, loss), images[:1].requires_grad_())


def test_alignment_of_a_decoder_is_the_cosine_of_the_loop():
    model, images = randomised(vae_decoder()), torch.rand(4, 1, 8, 8, dtype=torch.float64)
    names = [name for name, p in model.named_parameters() if p.dim() == 4]
    reference = {name: torch.randn_like(dict(model.named_parameters())[name]) for name in names}

    class Reconstruct(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            return F.interpolate(self.model(x), x.shape[2:])

    network = Reconstruct()
    found = alignment(network, images, {f"model.{name}": tensor for name, tensor in reference.items()})
    for n, row in enumerate(gradients_one_by_one(network, images, LOSSES["mse"])):
        for p, name in enumerate(names):
            cosine = F.cosine_similarity(row[f"model.{name}"].flatten(), reference[name].flatten(), dim=0)
            torch.testing.assert_close(found[n, p], cosine, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fail", [False, True])
def test_the_model_comes_back_as_it_was(fail):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 7 * 5, 3)).eval()
    model[0].weight.requires_grad_(False)
    model[3].bias.grad = torch.ones(3)
    images = torch.rand(3, 3, 9, 7)
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    def broken(z):
        raise RuntimeError("inside")

    try:
        squared_norms(model, images, label=broken if fail else "ones")
    except RuntimeError:
        assert fail
    assert not model[0].weight.requires_grad and model[3].weight.requires_grad and not model.training
    assert model[0].weight.grad is None and torch.equal(model[3].bias.grad, torch.ones(3))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        (nn.Flatten(), torch.rand(2, 4), "no parameters"),
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train(), torch.rand(2, 1, 3, 3), "(?i)batch"),
        (nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5)).train(), torch.rand(2, 4), "(?i)dropout"),
        (nn.Linear(4, 2).eval(), torch.full((2, 4), torch.nan), "NaN"),
        (nn.Linear(4, 2).eval(), torch.rand(2, 5), "shape"),
        (nn.Linear(4, 2).eval(), torch.rand(0, 4), "empty"),
    ],
)
def test_bad_input_gets_one_clear_error(model, images, message):
    with pytest.raises(ValueError, match=message):
        squared_norms(model, images)
