"""Random views of an image: what contrastive learning is told not to care about.

The published recipe (Kokilepersaud et al., ICIP 2022, after Khosla et al., NeurIPS 2020) crops a part of the picture,
mirrors it and jitters its brightness and contrast. Every such choice is a statement about the data: who crops tightly
says that a lesion outside the crop does not matter, who jitters brightness says that a lesion is more than a little
grey.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Views", "random_views"]


@dataclass(frozen=True)
class Views:
    """What a view may change.

    Args:
        smallest_crop: a view shows a random rectangle of this to 1 of the picture's area, sides in ratios of 3:4 to
            4:3, enlarged to the full size; 1: always the whole picture. The published recipe uses 0.2.
        flip: mirror half of the views left to right (not for digits).
        jitter: brightness and contrast are multiplied by numbers from 1 - jitter to 1 + jitter, in four views of five.
    """

    smallest_crop: float = 0.6
    flip: bool = False
    jitter: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.smallest_crop <= 1:
            raise ValueError(f"smallest_crop must lie in (0, 1], got {self.smallest_crop}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must lie in [0, 1), got {self.jitter}")


def random_views(images: Tensor, views: Views, generator: torch.Generator) -> Tensor:
    """One random view of each image, in [0, 1], of the same shape and device.

    Args:
        images: float (N, C, H, W) in [0, 1].
        views: what may change.
        generator: on the CPU.
    """
    count = len(images)
    drawn = torch.rand(count, 8, generator=generator).to(images)
    if views.smallest_crop < 1 or views.flip:
        area = views.smallest_crop + (1 - views.smallest_crop) * drawn[:, 0]
        ratio = torch.exp((2 * drawn[:, 1] - 1) * math.log(4 / 3) * (views.smallest_crop < 1))
        width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)  # shares of the sides
        mirror = torch.where(drawn[:, 2] < 0.5, -1.0, 1.0) if views.flip else torch.ones_like(width)
        theta = torch.zeros(count, 2, 3, dtype=images.dtype, device=images.device)
        theta[:, 0, 0], theta[:, 0, 2] = mirror * width, (2 * drawn[:, 3] - 1) * (1 - width)
        theta[:, 1, 1], theta[:, 1, 2] = height, (2 * drawn[:, 4] - 1) * (1 - height)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if views.jitter:
        brightness, contrast = (1 + views.jitter * (2 * drawn[:, column] - 1) for column in (5, 6))
        changed = (drawn[:, 7] < 0.8).view(-1, 1, 1, 1)
        bright = (images * brightness.view(-1, 1, 1, 1)).clamp(0, 1)
        middle = bright.mean((1, 2, 3), keepdim=True)
        images = torch.where(changed, (middle + contrast.view(-1, 1, 1, 1) * (bright - middle)).clamp(0, 1), images)
    return images
