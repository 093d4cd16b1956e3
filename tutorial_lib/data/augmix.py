"""AugMix: several random chains of harmless changes of an image, mixed with each other and with the image.

Hendrycks et al., "AugMix: a simple data processing method to improve robustness and uncertainty", ICLR 2020, algorithm 1,
with the nine operations of the paper at severity 3 of 10; none of them is a corruption of CIFAR-10-C. Every image draws
its own chains.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.data.images import as_float

__all__ = ["OPERATIONS", "augmix", "auto_contrast", "equalize", "posterize", "solarize"]

CHAINS, DEPTH, SEVERITY = 3, 3, 3
"""Chains that are mixed, operations in a chain at most, and how strong they are, of 10."""


def auto_contrast(images: Tensor) -> Tensor:
    """Each channel stretched to [0, 1]; float images (N, C, H, W) in, and out. A flat channel stays as it is."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = high <= low
    return torch.where(flat, images, (images - low) / torch.where(flat, 1.0, high - low))


def equalize(images: Tensor) -> Tensor:
    """Grey levels spread so that all are about equally frequent, channel by channel; a flat channel stays as it is.

    Pillow's ``equalize`` rounds its step to a whole number, which is 0 on images of a few hundred pixels; here it is a
    fraction.

    >>> equalize(torch.tensor([0.0, 0.1, 0.1, 0.2]).view(1, 1, 2, 2)).flatten() * 255
    tensor([  0.,  85.,  85., 255.])
    """
    count, channels, height, width = images.shape
    levels = (images * 255).round().long().view(count * channels, height * width)
    histogram = torch.zeros(len(levels), 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(1, levels, torch.ones_like(levels))
    below = (histogram.cumsum(1) - histogram).gather(1, levels)  # pixels that are darker
    most = below.amax(dim=1, keepdim=True)
    spread = (255 * below / most.clamp(min=1)).round()
    return (torch.where(most > 0, spread, levels) / 255).to(images).view_as(images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Only the highest ``bits`` (N,) of 8 of every grey level are kept."""
    step = 2.0 ** (8 - bits.view(-1, 1, 1, 1))
    return ((images * 255).round() / step).floor() * step / 255


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Pixels of at least ``threshold`` (N,), in [0, 1], are inverted."""
    return torch.where(images >= threshold.view(-1, 1, 1, 1), 1 - images, images)


def augmix(images: Tensor, generator: torch.Generator) -> Tensor:
    """Every image mixed with random chains of changes of itself; in [0, 1], of the same shape and device.

    Args:
        images: (N, C, H, W), ``uint8`` or float in [0, 1].
        generator: on the CPU.
    """
    pixels = as_float(images)
    count = len(pixels)
    weights = _dirichlet(count, CHAINS, generator).to(pixels)
    kept = _dirichlet(count, 2, generator).to(pixels)  # the share of the image and that of the mixture: Beta(1, 1)
    mixture = torch.zeros_like(pixels)
    for chain in range(CHAINS):
        changed = pixels.clone()
        depth = torch.randint(1, DEPTH + 1, (count,), generator=generator)
        for step in range(DEPTH):
            chosen = torch.randint(len(OPERATIONS), (count,), generator=generator)
            strength = (0.1 + (SEVERITY - 0.1) * torch.rand(count, generator=generator)) / 10
            sign = 1 - 2 * torch.randint(2, (count,), generator=generator)
            for number, operation in enumerate(OPERATIONS.values()):
                here = ((chosen == number) & (depth > step)).nonzero().flatten()
                if len(here):
                    there = here.to(pixels.device)
                    changed[there] = operation(changed[there], strength[here].to(pixels), sign[here].to(pixels))
        mixture += weights[:, chain].view(-1, 1, 1, 1) * changed
    share = kept[:, :1].view(-1, 1, 1, 1)
    return (share * pixels + (1 - share) * mixture).clamp(0, 1)


def _dirichlet(count: int, parts: int, generator: torch.Generator) -> Tensor:
    """Shares (count, parts), uniform among all that add up to 1: Dirichlet(1, …, 1)."""
    drawn = -torch.log1p(-torch.rand(count, parts, generator=generator, dtype=torch.float64))
    return drawn / drawn.sum(dim=1, keepdim=True)


def _moved(matrix: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """An operation that moves pixels: ``matrix`` gives (N, 2, 3) from signed strengths; from outside comes black."""

    def operation(images: Tensor, strength: Tensor, sign: Tensor) -> Tensor:
        grid = F.affine_grid(matrix(strength * sign), list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, align_corners=False)

    return operation


def _rotation(amount: Tensor) -> Tensor:
    angle = amount * math.radians(30)
    return _matrix(angle.cos(), -angle.sin(), 0 * angle, angle.sin(), angle.cos(), 0 * angle)


def _matrix(*entries: Tensor) -> Tensor:
    return torch.stack(entries, dim=1).view(-1, 2, 3)


def _shear_x(amount: Tensor) -> Tensor:
    one, none = torch.ones_like(amount), torch.zeros_like(amount)
    return _matrix(one, 0.3 * amount, none, none, one, none)


def _shear_y(amount: Tensor) -> Tensor:
    one, none = torch.ones_like(amount), torch.zeros_like(amount)
    return _matrix(one, none, none, 0.3 * amount, one, none)


def _shift_x(amount: Tensor) -> Tensor:
    one, none = torch.ones_like(amount), torch.zeros_like(amount)
    return _matrix(one, none, 2 / 3 * amount, none, one, none)  # up to a third of the width, which is 2 in a grid


def _shift_y(amount: Tensor) -> Tensor:
    one, none = torch.ones_like(amount), torch.zeros_like(amount)
    return _matrix(one, none, none, none, one, 2 / 3 * amount)


OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "auto_contrast": lambda images, strength, sign: auto_contrast(images),
    "equalize": lambda images, strength, sign: equalize(images),
    "posterize": lambda images, strength, sign: posterize(images, 4 - (4 * strength).floor()),
    "rotate": _moved(_rotation),
    "solarize": lambda images, strength, sign: solarize(images, 1 - strength),
    "shear_x": _moved(_shear_x),
    "shear_y": _moved(_shear_y),
    "shift_x": _moved(_shift_x),
    "shift_y": _moved(_shift_y),
}
"""From images (N, C, H, W), strengths (N,) in [0, 1] and signs (N,) to changed images, by name."""
