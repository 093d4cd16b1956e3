"""The eight corruptions after CURE-TSR, with constants of our own.

They are eight of the twelve of the CURE-TSR data set (Temel et al., "CURE-TSR: Challenging Unreal and Real
Environments for Traffic Sign Recognition", 2017), whose own parameters are not public. The constants here are
ours, chosen for 32x32 images, except noise and snow, which are those of CIFAR-10-C (Hendrycks and Dietterich,
"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.data.corruptions.base import Corruption, normal, uniform
from tutorial_lib.data.corruptions.filters import convolve, disk_kernel, luma, motion_blur, on_a_fine_grid, smooth

__all__ = ["CORRUPTIONS", "snow"]


def lens_blur(images: Tensor, radius: float, seeds: Sequence[int] = ()) -> Tensor:
    """Out of focus: every point becomes a uniform disk (``radius`` in pixels of a 32-pixel image)."""
    return on_a_fine_grid(images, lambda fine, scale: convolve(fine, disk_kernel(radius * scale)))


def gaussian_blur(images: Tensor, sigma: float, seeds: Sequence[int] = ()) -> Tensor:
    """Soft: every point becomes a Gaussian (``sigma`` in pixels of a 32-pixel image)."""

    return on_a_fine_grid(images, lambda fine, scale: smooth(fine, sigma * scale))


def noise(images: Tensor, std: float, seeds: Sequence[int]) -> Tensor:
    """Sensor noise: independent normal numbers of standard deviation ``std`` added to every value."""
    return images + std * normal(seeds, tuple(images.shape[1:]), images)


#: Smudges of the dirty lens: centre (x, y), radius and opacity, in units of the picture's sides.
_SMUDGES = (
    (0.22, 0.25, 0.14, 0.9),
    (0.34, 0.33, 0.07, 0.6),
    (0.74, 0.18, 0.08, 0.8),
    (0.86, 0.42, 0.16, 0.6),
    (0.55, 0.52, 0.06, 0.9),
    (0.12, 0.70, 0.10, 0.7),
    (0.42, 0.82, 0.18, 0.8),
    (0.70, 0.76, 0.06, 1.0),
    (0.93, 0.88, 0.11, 0.9),
)
_GRIME = (0.34, 0.30, 0.23)  # a greyish brown


def grime_mask(height: int, width: int) -> Tensor:
    """Opacity (H, W) in [0, 1] of the one dirty lens through which every image is seen: nine smooth smudges."""
    y = (torch.arange(height, dtype=torch.float64) + 0.5)[:, None] / height
    x = (torch.arange(width, dtype=torch.float64) + 0.5)[None, :] / width
    clear = torch.ones(height, width, dtype=torch.float64)
    for centre_x, centre_y, radius, opacity in _SMUDGES:
        clear = clear * (1 - opacity * (-0.5 * ((x - centre_x) ** 2 + (y - centre_y) ** 2) / radius**2).exp())
    return 1 - clear


def dirty_lens(images: Tensor, amount: float, seeds: Sequence[int] = ()) -> Tensor:
    """Grime on the lens: ``amount`` times :func:`grime_mask` of the light replaced by a greyish brown."""
    opacity = amount * grime_mask(*images.shape[2:]).to(device=images.device, dtype=images.dtype)
    colour = torch.tensor(_GRIME, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)
    colour = colour if images.shape[1] == 3 else luma(colour)
    return images * (1 - opacity) + colour * opacity


def exposure(images: Tensor, gain: float, seeds: Sequence[int] = ()) -> Tensor:
    """Overexposed: every value times ``gain``; what exceeds white is lost."""
    return images * gain


def snow(images: Tensor, constants: tuple[float, ...], seeds: Sequence[int]) -> Tensor:
    """Falling snow, after the description of CIFAR-10-C.

    Normal numbers (``mean``, ``std``), enlarged by ``zoom`` about the centre; what is below ``threshold`` is no
    flake. Flakes are drawn out by a motion blur (``radius``, ``sigma``) at an angle between 45° and 135°, one
    an image. The scene is mixed with a whiter version of itself (weight 1 - ``mix``), and the flakes are added
    twice, the second time turned by 180°.
    """
    mean, std, zoom, threshold, radius, sigma, mix = constants
    height, width = images.shape[2:]
    flakes = mean + std * normal(seeds, (1, height, width), images)
    if zoom > 1:
        rows, columns = math.ceil(height / zoom), math.ceil(width / zoom)
        top, left = (height - rows) // 2, (width - columns) // 2
        flakes = flakes[:, :, top : top + rows, left : left + columns]
        flakes = F.interpolate(flakes, size=(height, width), mode="bilinear", align_corners=True)
    flakes = torch.where(flakes < threshold, torch.zeros_like(flakes), flakes).clamp(0, 1)
    flakes = motion_blur(flakes, radius, sigma, uniform(seeds, math.radians(45), math.radians(135), images))
    whiter = torch.maximum(images, luma(images) * 1.5 + 0.5)
    return mix * images + (1 - mix) * whiter + flakes + flakes.rot90(2, (2, 3))


def haze(images: Tensor, transmission: float, seeds: Sequence[int] = ()) -> Tensor:
    """Haze: a share ``transmission`` of the light comes through, the rest is air of brightness 0.9.

    The top of the picture is taken to be farther away: the share is 0.1 smaller in the first row and 0.1 larger
    in the last.
    """
    rows = torch.linspace(-0.1, 0.1, images.shape[2], dtype=images.dtype, device=images.device).view(1, 1, -1, 1)
    share = transmission + rows
    return images * share + 0.9 * (1 - share)


def decolor(images: Tensor, amount: float, seeds: Sequence[int] = ()) -> Tensor:
    """Colours fade: ``amount`` of the way to Rec. 601 luma. Grey images have no colour to lose and stay as they are."""
    return images * (1 - amount) + luma(images) * amount


#: The eight corruptions by name, with their constants at levels 1 to 5.
CORRUPTIONS: dict[str, Corruption] = {
    corruption.name: corruption
    for corruption in (
        Corruption("noise", "sensor noise", (0.04, 0.06, 0.08, 0.09, 0.10), noise, random=True),
        Corruption("lens_blur", "out of focus", (0.7, 1.0, 1.3, 1.6, 2.0), lens_blur),
        Corruption("gaussian_blur", "soft", (0.4, 0.6, 0.8, 1.0, 1.3), gaussian_blur),
        Corruption("dirty_lens", "grime on the lens", (0.10, 0.20, 0.30, 0.45, 0.60), dirty_lens),
        Corruption("exposure", "overexposed", (1.3, 1.6, 2.0, 2.6, 3.5), exposure),
        Corruption(
            "snow",
            "falling snow",
            (
                (0.10, 0.2, 1.00, 0.60, 8, 3, 0.95),
                (0.10, 0.2, 1.00, 0.50, 10, 4, 0.90),
                (0.15, 0.3, 1.75, 0.55, 10, 4, 0.90),
                (0.25, 0.3, 2.25, 0.60, 12, 6, 0.85),
                (0.30, 0.3, 1.25, 0.65, 14, 12, 0.80),
            ),
            snow,
            random=True,
        ),
        Corruption("haze", "haze", (0.85, 0.70, 0.55, 0.40, 0.25), haze),
        Corruption("decolor", "faded colours", (0.2, 0.4, 0.6, 0.8, 1.0), decolor, colour_only=True),
    )
}
