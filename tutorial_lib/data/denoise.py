"""Non-local means: each pixel becomes the mean of pixels whose surroundings look alike.

Buades, Coll and Morel, "A non-local algorithm for image denoising", CVPR 2005, eq. 2, with weights from the mean squared
difference of patches. It can be differentiated, so that a network may stand behind it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.data.images import as_float

__all__ = ["non_local_means"]


def non_local_means(images: Tensor, strength: float = 0.1, patch: int = 3, search: int = 7) -> Tensor:
    r"""Denoised images: :math:`\sum_q w_{pq} x_q / \sum_q w_{pq}` with :math:`w_{pq} = e^{-d_{pq} / s^2}`.

    d is the mean squared difference between the patches around p and q, over all channels. Pixels beyond the border are
    mirrored.

    Args:
        images: (N, C, H, W), ``uint8`` or float in [0, 1].
        strength: s > 0, the difference between patches, in [0, 1] pixels, from which on they count as different.
        patch: width of a patch, odd.
        search: width of the window of pixels q around p, odd.

    Returns:
        float (N, C, H, W).

    >>> flat = torch.full((1, 1, 8, 8), 0.5)
    >>> bool(torch.allclose(non_local_means(flat), flat))
    True
    """
    if not strength > 0:
        raise ValueError(f"strength must be positive, got {strength}")
    for name, width in (("patch", patch), ("search", search)):
        if width < 1 or width % 2 == 0:
            raise ValueError(f"{name} must be odd and at least 1, got {width}")
    pixels = as_float(images)
    height, width = pixels.shape[2:]
    reach, half = search // 2, patch // 2
    if reach + half >= min(height, width):
        raise ValueError(f"images of {height} x {width} pixels are too small for a search of {search} with {patch}")
    around = F.pad(pixels, [reach + half] * 4, mode="reflect")
    centre = around[..., reach : reach + height + 2 * half, reach : reach + width + 2 * half]
    total = torch.zeros_like(pixels)
    weights = torch.zeros_like(pixels[:, :1])
    for down in range(search):
        for right in range(search):
            other = around[..., down : down + height + 2 * half, right : right + width + 2 * half]
            apart = (centre - other).square().mean(dim=1, keepdim=True)
            alike = torch.exp(-F.avg_pool2d(apart, patch, stride=1) / strength**2)  # (N, 1, H, W)
            total = total + alike * other[..., half : half + height, half : half + width]
            weights = weights + alike
    return total / weights
