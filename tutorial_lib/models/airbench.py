"""A small convolutional network for CIFAR-10 that learns fast.

Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498, sections 3.1 and 3.2: the network of airbench94.
The first layer whitens 2x2 patches and is not trained; three groups of two convolutions with pooling, normalisation without a
scale, and GELU; the largest value of what is left of each map. The published factor 1/9 on the logits stands before the last
layer here, where it is the same function and the same training, so that the last layer stays a plain linear one.

Its recipe is `tutorial_lib.studies`' for ``cifar10``. It is for many networks in little time, not for the tables of papers
whose networks have residual connections.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["Whitening", "airbench_backbone", "whiten"]

PATCH = 2
"""Side of the patches that the first layer whitens."""


class Whitening(nn.Conv2d):
    """Principal directions of 2x2 patches and their negatives, each of variance one: fixed weights, a bias that learns.

    Random until `whiten` has seen images.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels * PATCH**2, PATCH)
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        self.weight.requires_grad_(False)


class Scale(nn.Module):
    """Multiply by a number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x

    def extra_repr(self) -> str:
        return f"factor={self.factor:.4g}"


def _convolution(in_width: int, width: int) -> nn.Conv2d:
    """3x3, and at first the identity on as many channels as come in."""
    layer = nn.Conv2d(in_width, width, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(layer.weight[:in_width])
    return layer


def _normalisation(width: int) -> nn.BatchNorm2d:
    """Batch normalisation whose scale stays one, with statistics that follow fast."""
    layer = nn.BatchNorm2d(width, eps=1e-12, momentum=0.4)
    layer.weight.requires_grad_(False)
    return layer


def airbench_backbone(channels: int, height: int, width: int, widths: Sequence[int] = (64, 256, 256)) -> nn.Sequential:
    """Normalised images (N, channels, height, width) to features (N, widths[-1]).

    Raises:
        ValueError: images of less than nine pixels, of which three poolings leave nothing.
    """
    if min(height, width) < 9:
        raise ValueError(f"airbench takes images of at least 9x9 pixels, got {height}x{width}")
    first = Whitening(channels)
    layers: list[nn.Module] = [first, nn.GELU()]
    in_width = first.out_channels
    for out_width in widths:
        layers += [_convolution(in_width, out_width), nn.MaxPool2d(2), _normalisation(out_width), nn.GELU()]
        layers += [_convolution(out_width, out_width), _normalisation(out_width), nn.GELU()]
        in_width = out_width
    # of 32x32 pixels, 3x3 are left
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), Scale(1 / 9))


def whiten(layer: Whitening, images: Tensor, eps: float = 5e-4) -> None:
    """Set the first layer to the whitening of the patches of these images.

    Afterwards the first half of its outputs, without the bias, are uncorrelated and of (nearly) equal mean square.

    Args:
        layer: its weights are set in place.
        images: normalised (N, C, H, W), a few thousand.
        eps: added to the variances, so that directions that hold nothing are not blown up.
    """
    patches = nn.functional.unfold(images.double(), PATCH)  # (N, C * PATCH², L)
    patches = patches.transpose(1, 2).flatten(0, 1)
    variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = (directions / (variances + eps).sqrt()).T.flip(0)  # the largest first
    # a direction has no sign of its own: make its largest number positive, so that every machine has the same ones
    largest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
    filters = (filters * largest.sign()).view(-1, *layer.weight.shape[1:])
    with torch.no_grad():
        layer.weight.copy_(torch.cat([filters, -filters]))
