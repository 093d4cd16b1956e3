"""The fast network: the published one, written down again with its own layers, and what whitening is."""

import pytest
import torch
from torch import nn

from tutorial_lib.models import build
from tutorial_lib.models.airbench import PATCH, Whitening, whiten


def published(model):
    """The network as published, pooling by 3 and factor behind the last layer, with the weights of ours."""

    def group(start):
        conv1, _, norm1, _, conv2, norm2, _ = list(model.backbone)[start : start + 7]
        return [conv1, nn.MaxPool2d(2), norm1, nn.GELU(), conv2, norm2, nn.GELU()]

    layers = [model.backbone[0], nn.GELU(), *group(2), *group(9), *group(16), nn.MaxPool2d(3), nn.Flatten(), model.head]
    body = nn.Sequential(*layers)
    return lambda images: body(model.normalize(images)) / 9


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build("airbench", 10, (3, 32, 32))


@pytest.mark.parametrize("training", [True, False])
def test_it_is_the_published_network(model, training):
    images = torch.rand(4, 3, 32, 32)
    torch.testing.assert_close(model.train(training)(images), published(model)(images))


def test_its_size(model):
    convolutions = (24 * 64 + 64 * 64 + 64 * 256 + 256 * 256 + 256 * 256 + 256 * 256) * 9
    assert sum(p.numel() for p in model.parameters()) == (12 + 1) * 24 + convolutions + 2 * 2 * (64 + 256 + 256) + 2560
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert learned == 24 + convolutions + 2 * (64 + 256 + 256) + 2560  # neither the whitening nor the scales


def test_a_convolution_begins_as_the_identity_on_what_comes_in(model):
    first = model.backbone[2]
    x = torch.rand(2, 24, 7, 7)
    torch.testing.assert_close(first(x)[:, :24], x)


def test_whitened_patches_are_uncorrelated_and_of_variance_one():
    generator = torch.Generator().manual_seed(0)
    smooth = nn.functional.avg_pool2d(torch.rand(200, 3, 20, 20, generator=generator), 3, 1) - 0.5
    layer = Whitening(3)
    whiten(layer, smooth, eps=0.0)
    with torch.no_grad():
        positive, negative = layer(smooth).chunk(2, dim=1)
    torch.testing.assert_close(positive, -negative)
    values = positive.transpose(0, 1).flatten(1).double()
    torch.testing.assert_close(values @ values.T / values.shape[1], torch.eye(12).double(), atol=1e-4, rtol=0)
    again = Whitening(3)
    whiten(again, smooth[torch.randperm(200, generator=generator)], eps=0.0)  # in any order the same filters
    torch.testing.assert_close(again.weight, layer.weight, atol=1e-3, rtol=1e-3)


def test_patches_by_a_slow_loop():
    images = torch.rand(2, 1, 4, 5, generator=torch.Generator().manual_seed(1)).double()
    patches = torch.stack(
        [im[:, r : r + PATCH, c : c + PATCH].flatten() for im in images for r in range(3) for c in range(4)]
    )
    variances = torch.linalg.eigvalsh(patches.T @ patches / len(patches)).flip(0)
    layer = Whitening(1)
    whiten(layer, images, eps=0.5)
    lengths = layer.weight[:4].flatten(1).double().square().sum(1)
    torch.testing.assert_close(lengths, 1 / (variances + 0.5), atol=1e-6, rtol=1e-5)
