"""What cameras, programs and files do to an image: brightness, contrast, colour, shape, pixels, JPEG."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.data.corruptions.base import uniforms
from tutorial_lib.data.corruptions.filters import smooth

__all__ = ["brightness", "contrast", "elastic_transform", "jpeg_compression", "pixelate", "saturate"]


def brightness(images: Tensor, added: float, seeds: Sequence[int] = ()) -> Tensor:
    """``added`` to the value of hue, saturation and value: the largest channel grows, the others in proportion."""
    value = images.amax(dim=1, keepdim=True)
    brighter = (value + added).clamp(max=1)
    # black has no hue and turns grey
    return torch.where(value > 0, images * (brighter / value.clamp(min=1e-9)), brighter)


def saturate(images: Tensor, constants: tuple[float, float], seeds: Sequence[int] = ()) -> Tensor:
    """Saturation times ``gain`` plus ``shift``; hue and value stay. A grey pixel counts as red, as in the original."""
    if images.shape[1] == 1:
        return images
    gain, shift = constants
    value, least = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    spread = value - least
    # of each channel, how far it is from the largest: 0 for that, 1 for the smallest
    red = torch.tensor([0.0, 1.0, 1.0], dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    below = torch.where(spread > 0, (value - images) / spread.clamp(min=1e-9), red)
    saturation = (gain * spread / value.clamp(min=1e-9) + shift).clamp(0, 1)
    return value * (1 - saturation * below)


def contrast(images: Tensor, kept: float, seeds: Sequence[int] = ()) -> Tensor:
    """A share ``kept`` of each value's distance from the mean of its channel."""
    mean = images.mean(dim=(2, 3), keepdim=True)
    return (images - mean) * kept + mean


def pixelate(images: Tensor, share: float, seeds: Sequence[int] = ()) -> Tensor:
    """Fewer pixels: averaged into int(``share`` of the side) boxes a side, each shown in one colour.

    At 8 pixels a side that is 7, 7, 6, 6 and 5 boxes: there two levels are the same.
    """
    lines = []
    for side in images.shape[2:]:
        boxes = max(1, int(side * share))
        covering = _box_weights(side, boxes).argmax(dim=1)  # of each pixel, the box that covers most of it
        lines.append((F.one_hot(covering, boxes).double() @ _box_weights(boxes, side)).to(images))
    return lines[0] @ images @ lines[1].T


def _box_weights(boxes: int, side: int) -> Tensor:
    """Mean of ``side`` pixels in each of ``boxes`` equal boxes, as weights (boxes, side): the share of each pixel inside."""
    low = torch.arange(boxes, dtype=torch.float64)[:, None] * side / boxes
    pixel = torch.arange(side, dtype=torch.float64)[None, :]
    inside = (torch.minimum(low + side / boxes, pixel + 1) - torch.maximum(low, pixel)).clamp(min=0)
    return inside / inside.sum(dim=1, keepdim=True)


def elastic_transform(images: Tensor, constants: tuple[float, float, float], seeds: Sequence[int]) -> Tensor:
    """Rubber: three points of the image moved by up to ``affine`` sides, then every pixel by smooth noise.

    ``strength`` (times the side) scales uniform noise of [-1, 1] that was smoothed by ``sigma`` sides; both 0 at level 1.
    Beyond the border the image is reflected.
    """
    strength, sigma, affine = constants
    height, width = images.shape[2:]
    drawn = 2 * uniforms(seeds, (3, 2), images) - 1
    # three points about the centre, as (x, y) on [-1, 1], and where they go; the original moves them by pixels
    points = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]], dtype=images.dtype, device=images.device) * (2 / 3)
    ones = torch.ones_like(points[:, :1])
    moved = points + 2 * affine * drawn
    targets = torch.cat([moved, ones.expand(len(images), 3, 1)], dim=2)
    # grid_sample asks where each pixel of the result comes from: the inverse of points -> moved
    theta = torch.linalg.solve(targets.double().cpu(), points.double().cpu().expand(len(images), 3, 2))
    grid = F.affine_grid(theta.transpose(1, 2).to(images), list(images.shape), align_corners=False)
    if strength:
        noise = 2 * uniforms(seeds, (2, height, width), images, stream=3) - 1
        smoothed = smooth(noise, sigma * min(height, width))
        grid = grid + 2 * strength * smoothed.permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def jpeg_compression(images: Tensor, quality: int, seeds: Sequence[int] = ()) -> Tensor:
    """Stored as JPEG of this quality and read again, by Pillow (colours at half resolution, as JPEG does by default)."""
    from PIL import Image

    pixels = (images.detach().cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    results = []
    for image in pixels:
        stored = io.BytesIO()
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(stored, "JPEG", quality=quality)
        results.append(np.asarray(Image.open(stored)).reshape(image.shape))
    read = torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2)
    return read.to(images) / 255
