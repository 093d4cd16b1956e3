"""Blurs, grids and colours that several corruptions share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.data.resize import LUMA

__all__ = ["convolve", "disk_kernel", "gaussian_kernel", "luma", "motion_blur", "on_a_fine_grid", "scale_of", "smooth"]


def scale_of(images: Tensor) -> float:
    """Pixels of these images for each pixel of a 32x32 one."""
    return min(images.shape[2:]) / 32


def on_a_fine_grid(images: Tensor, blur: Callable[[Tensor, float], Tensor]) -> Tensor:
    """``blur(images, scale)``, where small images are blurred as squares of f x f finer pixels."""
    factor = max(1, 32 // min(images.shape[2:]))
    if factor == 1:
        return blur(images, scale_of(images))
    fine = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    return F.avg_pool2d(blur(fine, scale_of(fine)), factor)


def convolve(images: Tensor, kernel: Tensor) -> Tensor:
    """Each channel with one kernel of odd sides; beyond the border, the border's colour."""
    channels = images.shape[1]
    rows, columns = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = F.pad(images, (columns, columns, rows, rows), mode="replicate")
    weight = kernel.to(device=images.device, dtype=images.dtype).expand(channels, 1, *kernel.shape)
    return F.conv2d(padded, weight, groups=channels)


def disk_kernel(radius: float) -> Tensor:
    """A disk of this radius in pixels, as weights that sum to one: of each pixel, the share of its area that
    the disk covers.

    >>> disk_kernel(0.5).shape, disk_kernel(0.7).shape
    (torch.Size([1, 1]), torch.Size([3, 3]))
    """
    reach = max(0, math.ceil(radius - 0.5))
    fine = 64  # each pixel is probed at 64x64 points
    points = (torch.arange((2 * reach + 1) * fine, dtype=torch.float64) + 0.5) / fine - reach - 0.5
    inside = (points[:, None] ** 2 + points[None, :] ** 2 <= radius**2).double()
    kernel = F.avg_pool2d(inside[None, None], fine)[0, 0]
    return kernel / kernel.sum()


def gaussian_kernel(sigma: float) -> Tensor:
    """A one-dimensional Gaussian sampled at whole pixels up to four standard deviations, as weights that sum to one."""
    reach = int(4 * sigma + 0.5)
    kernel = (-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float64) / sigma) ** 2).exp()
    return kernel / kernel.sum()


def smooth(images: Tensor, sigma: float) -> Tensor:
    """Each channel with a Gaussian of ``sigma`` pixels; beyond the border, the border's colour."""
    kernel = gaussian_kernel(sigma)
    return convolve(convolve(images, kernel[None, :]), kernel[:, None])


def motion_blur(layer: Tensor, radius: float, sigma: float, angle: Tensor) -> Tensor:
    """A trail behind every point, fading as a Gaussian: 2·radius + 1 steps in the direction ``angle`` (N,), in radians.

    ``radius`` and ``sigma`` are in pixels of a 32-pixel image; x points right and y down. Beyond the border,
    the border's value.
    """
    height, width = layer.shape[2:]
    scale = scale_of(layer)
    stride = min(1.0, scale)  # pixels between two samples of the trail: never so far apart that it falls into dots
    samples = math.ceil((2 * radius + 1) * scale / stride)
    distance = torch.arange(samples, dtype=layer.dtype, device=layer.device) * stride
    weights = (-0.5 * (distance / (sigma * scale)) ** 2).exp()
    weights = weights / weights.sum()
    step = torch.stack([angle.cos() * 2 / width, angle.sin() * 2 / height], dim=1)  # one pixel of a grid on [-1, 1]
    identity = torch.eye(2, 3, dtype=layer.dtype, device=layer.device).expand(len(layer), 2, 3)
    grid = F.affine_grid(identity, list(layer.shape), align_corners=False)
    trail = torch.zeros_like(layer)
    for pixels, weight in zip(distance, weights, strict=True):
        behind = grid - (pixels * step)[:, None, None, :]
        trail = trail + weight * F.grid_sample(layer, behind, padding_mode="border", align_corners=False)
    return trail


def luma(images: Tensor) -> Tensor:
    """Rec. 601 luma (N, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    return (images * torch.tensor(LUMA, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
