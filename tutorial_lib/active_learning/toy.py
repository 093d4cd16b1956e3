"""Points in a square as the smallest images there are: a pool in which one can see where a strategy asks.

Two classes overlap, a third stands apart, and one point in twenty-five belongs to an island of the first class, far from
it and near nothing: the border is where a network is unsure, the island is where it is wrong without knowing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutorial_lib.data.images import ImageSet

__all__ = ["PointsClassifier", "as_points", "plane", "points_in_a_square"]

_CENTRES = torch.tensor([[0.26, 0.62], [0.44, 0.40], [0.76, 0.78], [0.84, 0.16]])
_SPREAD = torch.tensor([0.10, 0.10, 0.08, 0.035])
_CLASS = torch.tensor([0, 1, 2, 0])
_SHARE = torch.tensor([0.32, 0.32, 0.32, 0.04])


def points_in_a_square(count: int = 300, seed: int = 0) -> ImageSet:
    """Points as images of 1 x 2 pixels, the two coordinates, in 255 steps from 0 to 1.

    >>> points_in_a_square(3).images.shape
    torch.Size([3, 1, 1, 2])
    """
    generator = torch.Generator().manual_seed(seed)
    group = torch.multinomial(_SHARE, count, replacement=True, generator=generator)
    spread = torch.randn(count, 2, generator=generator) * _SPREAD[group, None]
    pixels = (255 * (_CENTRES[group] + spread)).round().clamp(0, 255).to(torch.uint8)
    return ImageSet("points", pixels.view(count, 1, 1, 2), _CLASS[group], ("a", "b", "c"), torch.arange(count))


def as_points(images: Tensor) -> Tensor:
    """Coordinates (N, 2) in [0, 1] of images of 1 x 2 pixels, ``uint8`` or float."""
    flat = images.flatten(1)
    return flat / 255 if flat.dtype == torch.uint8 else flat


def plane(side: int = 64) -> Tensor:
    """A grid over the square as float images (side², 1, 1, 2), row by row from below."""
    along = torch.linspace(0, 1, side)
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y], dim=-1).view(-1, 1, 1, 2)


class PointsClassifier(nn.Module):
    """Two hidden layers on a point's coordinates, and a linear ``head``.

    Args:
        width: of the hidden layers.
        classes: K.
    """

    def __init__(self, width: int = 64, classes: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, classes)

    def features(self, images: Tensor) -> Tensor:
        """Images (N, 1, 1, 2) in [0, 1] to (N, width)."""
        features: Tensor = self.body(4 * images - 2)
        return features

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits
