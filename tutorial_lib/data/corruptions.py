"""What happens to images in the field: eight corruptions at five levels.

They are eight of the twelve of the CURE-TSR data set (Temel et al., "CURE-TSR: Challenging Unreal and Real
Environments for Traffic Sign Recognition", 2017), whose own parameters are not public. The constants here are
ours, chosen for 32x32 images, except noise and snow, which are those of CIFAR-10-C (Hendrycks and Dietterich,
"Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019).

Size. Lengths (radii, sigmas) are given for an image of 32 pixels and scale with the smaller side: an 8x8 digit
is blurred over a quarter of the pixels. A blur much narrower than a pixel would do nothing, so images of 16
pixels and less are blurred on a finer grid: each pixel is repeated f x f times (f = 32 // side), blurred there
and averaged back.

Randomness. Every image has a random stream of its own, started by one number from the generator. So the result
for an image depends on the generator and the image's place in the order, and not on the device, on the images
around it, or on how they are cut into batches.

Eight bits. The result is rounded to whole 255ths, as a file would hold it. Otherwise a detector could tell a
corrupted image from a clean one by its fractional parts, which no camera delivers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.data.images import check_images
from tutorial_lib.data.registry import suggestion
from tutorial_lib.data.resize import LUMA

__all__ = ["CORRUPTIONS", "LEVELS", "Corruption", "corrupt", "corruption_names"]

LEVELS = (1, 2, 3, 4, 5)
BATCH = 1024  # bounds the memory that intermediate images take; results do not depend on it


@dataclass(frozen=True)
class Corruption:
    """One corruption.

    Attributes:
        name: as in ``corrupt(images, name, level)``.
        description: what it does to a picture, in a few words.
        constants: the strength at levels 1 to 5.
        apply: (images (N, C, H, W), constant, one random seed an image) to images, not yet clipped.
        random: whether it draws random numbers.
        colour_only: whether it leaves grey images as they are.
    """

    name: str
    description: str
    constants: tuple[Any, ...]
    apply: Callable[[Tensor, Any, Sequence[int]], Tensor] = field(repr=False)
    random: bool = False
    colour_only: bool = False


def corrupt(
    images: Tensor, name: str, level: int, generator: torch.Generator | None = None, eight_bit: bool = True
) -> Tensor:
    """Corrupted copies of images.

    Args:
        images: floating point (N, C, H, W) in [0, 1], C = 1 or 3. They are not changed.
        name: one of ``CORRUPTIONS``.
        level: 1 (mild) to 5 (severe).
        generator: source of the randomness, on any device; only ``noise`` and ``snow`` need one.
        eight_bit: round the result to whole 255ths (see above).

    Returns:
        Images of the same shape, type and device, in [0, 1].

    Raises:
        TypeError: ``uint8`` images (convert them with ``as_float``), a number in place of a generator.
        ValueError: unknown name or level, images that are not N×C×H×W in [0, 1], no generator where one is needed.

    >>> corrupt(torch.full((1, 3, 2, 2), 0.4), "exposure", 3).unique()
    tensor([0.8000])
    """
    if name not in CORRUPTIONS:
        raise ValueError(f"there is no corruption {name!r}{suggestion(name, CORRUPTIONS)}")
    if isinstance(level, bool) or level not in LEVELS:
        hint = "; for level 0 take the clean images" if level == 0 else ""
        raise ValueError(f"level must be a whole number from 1 to 5, got {level!r}{hint}")
    check_images(images)
    if images.dtype == torch.uint8:
        raise TypeError(
            "images must be floating point in [0, 1], got uint8; convert them with tutorial_lib.data.as_float"
        )
    corruption = CORRUPTIONS[name]
    constant = corruption.constants[int(level) - 1]
    seeds = _seeds(generator, len(images), name) if corruption.random else [0] * len(images)
    parts = []
    for start in range(0, len(images), BATCH):
        part = corruption.apply(images[start : start + BATCH], constant, seeds[start : start + BATCH]).clamp(0, 1)
        parts.append((part * 255).round() / 255 if eight_bit else part)
    return torch.cat(parts)


def corruption_names(channels: int) -> tuple[str, ...]:
    """The corruptions that change images of this many channels: all eight in colour, all but ``decolor`` in grey."""
    return tuple(c.name for c in CORRUPTIONS.values() if channels > 1 or not c.colour_only)


# ----------------------------------------------------------------------------------------------------------------------
# Randomness


def _seeds(generator: torch.Generator | None, count: int, name: str) -> list[int]:
    how = "pass generator=torch.Generator().manual_seed(0), say"
    if generator is None:
        raise ValueError(f"{name} draws random numbers; {how}")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {generator!r}; {how}")
    return torch.randint(2**63 - 1, (count,), generator=generator, device=generator.device).tolist()


def _normal(seeds: Sequence[int], shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Standard normal numbers (N, *shape), each image's from its own stream, drawn on the CPU for every device."""
    drawn = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return drawn.to(device=like.device, dtype=like.dtype)


def _uniform(seeds: Sequence[int], low: float, high: float, like: Tensor) -> Tensor:
    """One number in [low, high) an image, from a stream other than that of :func:`_normal`."""
    drawn = torch.stack([torch.rand((), generator=torch.Generator().manual_seed(seed ^ 1)) for seed in seeds])
    return (low + (high - low) * drawn).to(device=like.device, dtype=like.dtype)


# ----------------------------------------------------------------------------------------------------------------------
# Blur


def _scale(images: Tensor) -> float:
    """Pixels of these images for each pixel of a 32x32 one."""
    return min(images.shape[2:]) / 32


def _on_a_fine_grid(images: Tensor, blur: Callable[[Tensor, float], Tensor]) -> Tensor:
    """``blur(images, scale)``, where small images are blurred as squares of f x f finer pixels."""
    factor = max(1, 32 // min(images.shape[2:]))
    if factor == 1:
        return blur(images, _scale(images))
    fine = images.repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    return F.avg_pool2d(blur(fine, _scale(fine)), factor)


def _convolve(images: Tensor, kernel: Tensor) -> Tensor:
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


def lens_blur(images: Tensor, radius: float, seeds: Sequence[int] = ()) -> Tensor:
    """Out of focus: every point becomes a uniform disk (``radius`` in pixels of a 32-pixel image)."""
    return _on_a_fine_grid(images, lambda fine, scale: _convolve(fine, disk_kernel(radius * scale)))


def gaussian_blur(images: Tensor, sigma: float, seeds: Sequence[int] = ()) -> Tensor:
    """Soft: every point becomes a Gaussian (``sigma`` in pixels of a 32-pixel image)."""

    def blur(fine: Tensor, scale: float) -> Tensor:
        kernel = gaussian_kernel(sigma * scale)
        return _convolve(_convolve(fine, kernel[None, :]), kernel[:, None])

    return _on_a_fine_grid(images, blur)


def motion_blur(layer: Tensor, radius: float, sigma: float, angle: Tensor) -> Tensor:
    """A trail behind every point, fading as a Gaussian: 2·radius + 1 steps in the direction ``angle`` (N,), in radians.

    ``radius`` and ``sigma`` are in pixels of a 32-pixel image; x points right and y down. Beyond the border,
    the border's value.
    """
    height, width = layer.shape[2:]
    scale = _scale(layer)
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


# ----------------------------------------------------------------------------------------------------------------------
# Light, weather and dirt


def _luma(images: Tensor) -> Tensor:
    """Rec. 601 luma (N, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    return (images * torch.tensor(LUMA, dtype=images.dtype, device=images.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def noise(images: Tensor, std: float, seeds: Sequence[int]) -> Tensor:
    """Sensor noise: independent normal numbers of standard deviation ``std`` added to every value."""
    return images + std * _normal(seeds, tuple(images.shape[1:]), images)


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
    colour = colour if images.shape[1] == 3 else _luma(colour)
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
    flakes = mean + std * _normal(seeds, (1, height, width), images)
    if zoom > 1:
        rows, columns = math.ceil(height / zoom), math.ceil(width / zoom)
        top, left = (height - rows) // 2, (width - columns) // 2
        flakes = flakes[:, :, top : top + rows, left : left + columns]
        flakes = F.interpolate(flakes, size=(height, width), mode="bilinear", align_corners=True)
    flakes = torch.where(flakes < threshold, torch.zeros_like(flakes), flakes).clamp(0, 1)
    flakes = motion_blur(flakes, radius, sigma, _uniform(seeds, math.radians(45), math.radians(135), images))
    whiter = torch.maximum(images, _luma(images) * 1.5 + 0.5)
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
    return images * (1 - amount) + _luma(images) * amount


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
