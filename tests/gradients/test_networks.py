"""Whole networks against one backward pass an image: random and trained, noise and real images."""

from __future__ import annotations

import copy

import one_by_one
import pytest
import torch
from torch import nn

from tutorial_lib import load_study
from tutorial_lib.gradients import contrast_squared_norms, squared_norms
from tutorial_lib.models import build


def images(n: int, size: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ["lenet", "resnet20", "resnet18", "densenet_bc_100_12", "airbench"])
def test_network_of_the_course(name):
    model = one_by_one.randomised(build(name, 10, (3, 32, 32))).requires_grad_()  # what stays fixed in training, too
    one_by_one.assert_exact(model, images(2, size=16 if name.startswith("dense") else 32))


@pytest.mark.parametrize("name", ["mobilenet_v2", "convnext_tiny"])
def test_network_of_torchvision(name):
    """Depthwise and strided convolutions, inverted bottlenecks; layer norm on channels last, layer scale, GELU."""
    models = pytest.importorskip("torchvision").models
    model = one_by_one.randomised(getattr(models, name)(num_classes=5))
    for block in model.modules():
        if hasattr(block, "layer_scale"):
            nn.init.constant_(block.layer_scale, 0.5)
    one_by_one.assert_exact(model, images(2))


class Decoder(nn.Module):
    """A variational autoencoder at inference: the mean of the code, transposed convolutions back."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 8, 4, 2, 2), nn.ReLU(), nn.Conv2d(8, 16, 4, 2, 2), nn.ReLU(), nn.Flatten()
        )
        self.mean = nn.Linear(16 * 25, 12)
        self.back = nn.Linear(12, 16 * 25)
        self.decoder = nn.Sequential(
            nn.Unflatten(1, (16, 5, 5)), nn.ReLU(), nn.ConvTranspose2d(16, 8, 4, 2, 2), nn.BatchNorm2d(8), nn.ReLU(inplace=True),
            nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.back(self.mean(self.encoder(x))))


def test_decoder_of_an_autoencoder():
    model, x = one_by_one.randomised(Decoder()).double(), images(3, size=16).double()
    got, _ = squared_norms(model, x, label="input", loss="mse")
    wanted = torch.cat(
        [one_by_one.norms(model, image, lambda out, image=image: (out - image).square().sum()) for image in x.split(1)]
    )
    assert one_by_one.relative_error(got, wanted) < 1e-9
    single, _ = squared_norms(model.float(), x, label="input", loss="mse")
    assert one_by_one.relative_error(single, wanted) < 1e-4


@pytest.fixture(scope="module")
def digits():
    return load_study("digits")


@pytest.fixture(scope="module")
def trained(digits):
    return digits.classifier()


@pytest.mark.parametrize("shift", [None, "noise", "photographs"])
@pytest.mark.parametrize("label", ["ones", "predicted"])
def test_trained_network_on_real_images(digits, trained, shift, label):
    """Trained networks are sure of themselves: the loss's gradient is small and cancels, which random ones do not show."""
    x = (digits.test if shift is None else digits.shift(shift)).sample(6).float().double()
    model = copy.deepcopy(trained).double()
    kind = "bce" if label == "ones" else "ce"

    def loss(z: torch.Tensor) -> torch.Tensor:
        if label == "ones":
            return nn.functional.softplus(-z).sum()
        # cross-entropy, written so that the reference does not lose the digits of 1 − p either
        first, others = z.max(1).values, z.scatter(1, z.argmax(1, keepdim=True), -torch.inf).logsumexp(1)
        return nn.functional.softplus(others - first).sum()

    wanted = one_by_one.norms(model, x, loss)
    assert one_by_one.relative_error(squared_norms(model, x, label, kind)[0], wanted) < 1e-9
    assert one_by_one.relative_error(squared_norms(model.float(), x, label, kind)[0], wanted) < 1e-4


def test_contrast_norms_of_networks():
    for name, size in (("resnet20", 32), ("resnet18", 16)):
        model, x = one_by_one.randomised(build(name, 4, (3, size, size))).double(), images(2, size).double()
        got = contrast_squared_norms(model, x)
        for k in range(4):
            wanted = one_by_one.norms(
                model, x, lambda z, k=k: nn.functional.cross_entropy(z, torch.tensor([k]), reduction="sum")
            )
            assert one_by_one.relative_error(got[:, k], wanted) < 1e-9
        assert one_by_one.relative_error(contrast_squared_norms(model.float(), x), got) < 1e-4
