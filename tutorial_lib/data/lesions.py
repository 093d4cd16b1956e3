r"""Painted lesions: images of a known degree of illness, for a field in which nobody knows the degree.

A lesion is one soft round blot, of one of two kinds. A **spot** is light where the healthy picture is darker; a **gap**
is dark where it is lighter. Brightness alone can therefore not tell the ill from the healthy. With the mask
:math:`m \in [0, 1]` of the blot, the picture becomes :math:`x + m (1 - x)` for a spot and :math:`x (1 - m)` for a gap.

Severity is a number s in [0, 1], and it has a unit: the mask adds up to s times :data:`SHARE` of the picture's area.
The blot is a Gaussian of height :data:`OPACITY`, averaged over each pixel, so that a blot much smaller than a pixel
still leaves its share of grey. Twice the severity is twice the area; where the blot lies changes how much of it shows
(a gap beside a thin stroke erases little), and what reaches beyond the border is lost.

A lesion lies where an anatomy is: a gap on light tissue, a spot on a dark place close to it.

Nothing here claims to look like a disease. What it has and a disease has not is a known truth.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.data.images import check_images
from tutorial_lib.data.registry import suggestion
from tutorial_lib.data.resize import LUMA

__all__ = ["KINDS", "OPACITY", "SHARE", "Lesioned", "lesion_mask", "paint_lesions"]

KINDS = ("spot", "gap")
"""What a lesion can be; `Lesioned.kind` counts in this order."""
SHARE = 0.2
"""Part of the picture's area that a lesion of severity 1 covers."""
OPACITY = 0.9
"""How much of the picture is hidden in the middle of a lesion."""

_ELSEWHERE = (
    1e-3  # weight of the places where a lesion is unlikely: a black picture has no tissue, and gets one as well
)


class Lesioned(NamedTuple):
    """Images with a lesion each, and the truth about it.

    Attributes:
        images: (N, C, H, W), as the images given.
        severity: float32 (N,) in [0, 1]; 0 is healthy.
        kind: ``int64`` (N,), index into `KINDS`.
        centre: float32 (N, 2), row and column of the lesion's centre in pixels, the first pixel's middle at 0.5.
    """

    images: Tensor
    severity: Tensor
    kind: Tensor
    centre: Tensor


def paint_lesions(
    images: Tensor,
    severity: Tensor | float,
    generator: torch.Generator,
    kind: str | Tensor | None = None,
    eight_bit: bool = True,
) -> Lesioned:
    """Copies of healthy images, each with one lesion.

    Args:
        images: floating point (N, C, H, W) in [0, 1]. They are not changed.
        severity: one number in [0, 1] for all, or a tensor (N,). At 0 an image stays as it is.
        generator: on the CPU. Where the lesion lies, and its kind, are drawn before the severity is looked at: the
            same generator with another severity gives the same lesion, grown or shrunk.
        kind: ``"spot"`` or ``"gap"`` for all, or indices into `KINDS` (N,); None: each with probability one half.
        eight_bit: round the result to whole 255ths, as a file would hold it. Otherwise the fractional parts would
            give the lesion away.

    Raises:
        TypeError: ``uint8`` images (convert them with ``as_float``), or no generator.
        ValueError: a severity outside [0, 1], an unknown kind, numbers that are not one an image.

    >>> healthy = torch.zeros(2, 1, 8, 8)
    >>> ill = paint_lesions(healthy, torch.tensor([0.0, 1.0]), torch.Generator().manual_seed(0), kind="spot")
    >>> ill.images.sum((1, 2, 3)).round()
    tensor([0., 9.])
    """
    check_images(images)
    if images.dtype == torch.uint8:
        raise TypeError(
            "images must be floating point in [0, 1], got uint8; convert them with tutorial_lib.data.as_float"
        )
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"generator must be a torch.Generator, got {generator!r}; pass torch.Generator().manual_seed(0), say"
        )
    count, _, height, width = images.shape
    degree = _one_each(severity, count, "severity").to(torch.float32)
    if not bool(((degree >= 0) & (degree <= 1)).all()):  # NaN fails, too
        raise ValueError(f"severity must lie in [0, 1], got {degree.min():g} to {degree.max():g}")
    drawn = torch.rand(count, 4, generator=generator)
    kinds = (drawn[:, 0] < 0.5).long() if kind is None else _kinds(kind, count)
    place = _weights(images.detach().float().cpu(), kinds).cumsum(1)  # inverse transform sampling of the pixel
    pixel = torch.searchsorted(place, drawn[:, 1:2] * place[:, -1:]).clamp(max=height * width - 1)[:, 0]
    centre = torch.stack([pixel // width, pixel % width], dim=1) + drawn[:, 2:]
    mask = lesion_mask(degree, centre, height, width).to(images)[:, None]
    light = (kinds == KINDS.index("spot")).to(images).view(-1, 1, 1, 1)
    painted = (images + mask * (light - images)).clamp(0, 1)
    if eight_bit:
        painted = torch.where(degree.to(images.device).view(-1, 1, 1, 1) > 0, (painted * 255).round() / 255, images)
    return Lesioned(painted, degree, kinds, centre)


def lesion_mask(severity: Tensor, centre: Tensor, height: int, width: int) -> Tensor:
    """How much of each pixel the lesions hide: float32 (N, height, width) in [0, OPACITY].

    Args:
        severity: (N,) in [0, 1].
        centre: (N, 2), row and column in pixels, the first pixel's middle at 0.5.
    """
    # the integral of OPACITY exp(-d^2 / 2 sigma^2) over the plane is 2 pi sigma^2 OPACITY; it is to be s SHARE H W
    sigma = (severity.double() * SHARE * height * width / (2 * math.pi * OPACITY)).sqrt().clamp_min(1e-9)[:, None]

    def along(centre: Tensor, length: int) -> Tensor:
        """Mean over each pixel of exp(-d^2 / 2 sigma^2) along one axis (N, length)."""
        edges = torch.arange(length + 1, dtype=torch.float64) - centre.double()[:, None]
        return sigma * math.sqrt(math.pi / 2) * torch.erf(edges / (sigma * math.sqrt(2))).diff(dim=1)

    rows, columns = along(centre[:, 0], height), along(centre[:, 1], width)
    return (OPACITY * rows[:, :, None] * columns[:, None, :]).float()


def _weights(images: Tensor, kinds: Tensor) -> Tensor:
    """How likely a lesion of each kind lies on each pixel (N, H W), up to a factor: on tissue, or dark and near it."""
    luma = torch.tensor(LUMA).view(1, 3, 1, 1)
    light = images if images.shape[1] == 1 else (images * luma).sum(1, keepdim=True)
    reach = max(1, min(images.shape[2:]) // 8)
    near = F.avg_pool2d(light, 2 * reach + 1, stride=1, padding=reach)
    weights = torch.where(kinds.view(-1, 1, 1, 1) == KINDS.index("gap"), light, near * (1 - light))
    return (weights + _ELSEWHERE).flatten(1).double()


def _kinds(kind: str | Tensor, count: int) -> Tensor:
    if isinstance(kind, str):
        if kind not in KINDS:
            raise ValueError(f"there is no lesion of kind {kind!r}{suggestion(kind, KINDS)}")
        return torch.full((count,), KINDS.index(kind))
    kinds = _one_each(kind, count, "kind").long()
    if not bool(((kinds >= 0) & (kinds < len(KINDS))).all()):
        raise ValueError(f"kind must index {KINDS}, got {kinds.min()} to {kinds.max()}")
    return kinds


def _one_each(values: Tensor | float, count: int, name: str) -> Tensor:
    values = torch.as_tensor(values).detach().cpu()
    if values.ndim == 0:
        return values.expand(count)
    if values.shape != (count,):
        raise ValueError(f"{name} must be one number, or one an image ({count}), got shape {tuple(values.shape)}")
    return values
