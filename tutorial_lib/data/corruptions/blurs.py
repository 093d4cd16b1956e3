"""Blurs of CIFAR-10-C. Lengths are in pixels of a 32-pixel image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.data.corruptions.base import uniform, uniforms
from tutorial_lib.data.corruptions.filters import convolve, motion_blur, on_a_fine_grid, smooth

__all__ = ["defocus_blur", "glass_blur", "motion_blur_at_an_angle", "zoom_blur"]


def soft_disk_kernel(radius: float, softness: float) -> Tensor:
    """The pixels whose centres lie within ``radius``, as equal weights, after a 3x3 Gaussian of width ``softness``.

    >>> soft_disk_kernel(1.0, 0.01)
    tensor([[0.0000, 0.0000, 0.0000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.2000, 0.0000, 0.0000],
            [0.0000, 0.2000, 0.2000, 0.2000, 0.0000],
            [0.0000, 0.0000, 0.2000, 0.0000, 0.0000],
            [0.0000, 0.0000, 0.0000, 0.0000, 0.0000]], dtype=torch.float64)
    """
    reach = math.floor(radius) + 1
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (place[:, None] ** 2 + place[None, :] ** 2 <= radius**2).double()
    bell = (-0.5 * (torch.arange(-1, 2, dtype=torch.float64) / softness) ** 2).exp()
    bell = bell / bell.sum()
    soft = F.conv2d(disk[None, None], (bell[:, None] * bell[None, :])[None, None], padding=1)[0, 0]
    return soft / soft.sum()


def defocus_blur(images: Tensor, constants: tuple[float, float], seeds: Sequence[int] = ()) -> Tensor:
    """Out of focus: every point becomes a disk (``radius``, ``softness`` of its edge)."""
    radius, softness = constants
    return on_a_fine_grid(
        images, lambda fine, scale: convolve(fine, soft_disk_kernel(radius * scale, softness * scale))
    )


def glass_blur(images: Tensor, constants: tuple[float, int, int], seeds: Sequence[int]) -> Tensor:
    """Frosted glass: each pixel shows a random neighbour no more than ``shift`` away, ``rounds`` times, between two blurs."""
    sigma, shift, rounds = constants

    def behind_glass(fine: Tensor, scale: float) -> Tensor:
        count, channels, height, width = fine.shape
        reach = max(1, round(shift * scale))
        drawn = uniforms(seeds, (rounds, 2, height, width), fine)
        moves = (drawn * (2 * reach + 1)).floor().long() - reach
        rows = torch.arange(height, device=fine.device).view(1, -1, 1)
        columns = torch.arange(width, device=fine.device).view(1, 1, -1)
        shown = smooth(fine, sigma * scale) if sigma else fine
        for move in moves.unbind(dim=1):
            down, right = move.unbind(dim=1)
            place = (rows + down).clamp(0, height - 1) * width + (columns + right).clamp(0, width - 1)
            index = place.flatten(1)[:, None].expand(count, channels, -1)
            shown = shown.flatten(2).gather(2, index).view(fine.shape)
        return smooth(shown, sigma * scale)

    return on_a_fine_grid(images, behind_glass)


def motion_blur_at_an_angle(images: Tensor, constants: tuple[float, float], seeds: Sequence[int]) -> Tensor:
    """Moved while exposed: a trail (``radius``, ``sigma``) at an angle between -45° and 45°, one an image."""
    radius, sigma = constants
    angle = uniform(seeds, -math.pi / 4, math.pi / 4, images)
    return on_a_fine_grid(images, lambda fine, scale: motion_blur(fine, radius, sigma, angle))


def zoom_blur(images: Tensor, largest: float, seeds: Sequence[int] = ()) -> Tensor:
    """Moved towards while exposed: the mean of the image and its enlargements about the centre by 1, 1.01, … below
    ``largest``."""
    factors = [1 + 0.01 * i for i in range(round((largest - 1) / 0.01))]

    def zoomed(fine: Tensor, scale: float) -> Tensor:
        height, width = fine.shape[2:]
        total = fine
        for factor in factors:
            rows, columns = (_enlarging(side, factor).to(fine) for side in (height, width))
            total = total + rows @ fine @ columns.T
        return total / (len(factors) + 1)

    return on_a_fine_grid(images, zoomed)


def _enlarging(side: int, factor: float) -> Tensor:
    """Weights (side, side) that enlarge a line about its centre by ``factor``: linear between pixel centres."""
    centre = (side - 1) / 2
    at = ((torch.arange(side, dtype=torch.float64) - centre) / factor + centre).clamp(0, side - 1)
    return (1 - (at[:, None] - torch.arange(side, dtype=torch.float64)[None, :]).abs()).clamp(min=0)
