"""Changes that nobody minds, changes that nobody misses, and changes that are equal to PSNR.

Opinion scores cost an experiment with people. But some orders need nobody to be asked: a photograph moved by one pixel
looks better than the same photograph in blocks of 8 x 8. `CHANGES` has such pairs. Which change is harmless and which is
not is **our assertion**, made for photographs of about 256 pixels; look at them, and disagree.

`matched` does the reverse: it makes different changes that PSNR finds equal, so that eyes and the other measures can say
what they think of that.

`jpeg_equivalent` brings every measure to one scale that people know: as bad as a JPEG of which quality?
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from tutorial_lib.data.corruptions import CIFAR10_C
from tutorial_lib.data.corruptions.filters import luma, smooth
from tutorial_lib.data.images import as_float, check_images
from tutorial_lib.data.registry import suggestion
from tutorial_lib.image_quality.fidelity import psnr

__all__ = [
    "CHANGES",
    "JPEG_SCALE",
    "STRENGTHS",
    "Change",
    "changed",
    "jpeg_equivalent",
    "jpeg_scale",
    "matched",
]

JPEG_SCALE = (5, 10, 20, 30, 50, 70, 80, 90, 95)
"""JPEG qualities of `jpeg_scale`, from bad to good."""


@dataclass(frozen=True)
class Change:
    """Something done to a photograph.

    Attributes:
        name: short.
        description: in a few words, for a reader.
        harmless: whether nobody would mind; otherwise nobody would miss it.
        apply: floats (N, 3, H, W) in [0, 1] to the same, not yet clipped.
    """

    name: str
    description: str
    harmless: bool
    apply: Callable[[Tensor], Tensor] = field(repr=False)


def _like_cifar10_c(name: str, constant: float) -> Callable[[Tensor], Tensor]:
    return lambda images: CIFAR10_C[name].apply(images, constant, list(range(len(images))))


def _moved(images: Tensor) -> Tensor:
    """One pixel to the right; the column that comes in at the left is that of the border."""
    return F.pad(images, (1, 0, 0, 0), mode="replicate")[..., :-1]


def _nearer(images: Tensor) -> Tensor:
    """The middle 98.5 % of each side, enlarged to the whole."""
    cut = [max(1, round(0.0075 * side)) for side in images.shape[2:]]
    middle = images[..., cut[0] : -cut[0], cut[1] : -cut[1]]
    return F.interpolate(middle, size=images.shape[2:], mode="bicubic", align_corners=False)


def _warmer(images: Tensor) -> Tensor:
    return images * torch.tensor([1.04, 1.0, 0.96], dtype=images.dtype, device=images.device).view(1, 3, 1, 1)


def _scratched(images: Tensor) -> Tensor:
    """Three black lines across, one pixel high."""
    scratched = images.clone()
    scratched[:, :, [round(share * images.shape[2]) for share in (0.3, 0.5, 0.7)]] = 0
    return scratched


def _patched(images: Tensor) -> Tensor:
    """A grey square in the middle, an eighth of the side."""
    patched, (height, width) = images.clone(), images.shape[2:]
    patched[:, :, 7 * height // 16 : 9 * height // 16, 7 * width // 16 : 9 * width // 16] = 0.5
    return patched


CHANGES: Mapping[str, Change] = MappingProxyType(
    {
        change.name: change
        for change in (
            Change("brighter", "brighter by 8 of 255 grey levels", True, lambda images: images + 8 / 255),
            Change("contrast", "a twentieth more contrast", True, _like_cifar10_c("contrast", 1.05)),
            Change("moved", "one pixel to the right", True, _moved),
            Change("nearer", "from a little nearer", True, _nearer),
            Change("warmer", "a little warmer", True, _warmer),
            Change("jpeg_95", "JPEG, quality 95", True, _like_cifar10_c("jpeg_compression", 95)),
            Change("blurred", "blurred over 3 pixels", False, lambda images: smooth(images, 3.0)),
            Change("jpeg_5", "JPEG, quality 5", False, _like_cifar10_c("jpeg_compression", 5)),
            Change("noisy", "noise of 30 grey levels", False, _like_cifar10_c("gaussian_noise", 30 / 255)),
            Change("pixelated", "a quarter of the pixels a side", False, _like_cifar10_c("pixelate", 0.25)),
            Change("scratched", "three black lines", False, _scratched),
            Change("patched", "a grey square", False, _patched),
            Change("grey", "without colour", False, lambda images: luma(images).expand_as(images)),
            Change("dark", "a third of the light", False, lambda images: images / 3),
        )
    }
)
"""Changes by name, the harmless ones first."""


def changed(references: Tensor, name: str) -> Tensor:
    """Copies (N, 3, H, W) of ``uint8`` photographs under one of `CHANGES`, in whole grey levels.

    >>> changed(torch.full((1, 3, 16, 16), 90, dtype=torch.uint8), "dark").unique()
    tensor([30], dtype=torch.uint8)
    """
    if name not in CHANGES:
        raise ValueError(f"there is no change {name!r}{suggestion(name, CHANGES)}")
    return _bytes(references, CHANGES[name].apply)


def _bytes(references: Tensor, apply: Callable[[Tensor], Tensor]) -> Tensor:
    check_images(references, channels=3)
    if references.dtype != torch.uint8:
        raise ValueError(f"references must be uint8, got {references.dtype}")
    return (apply(as_float(references, torch.float32)).clamp(0, 1) * 255).round().to(torch.uint8)


# ----------------------------------------------------------------------------------------------------------------------
# As bad as which JPEG?


def jpeg_scale(reference: Tensor, qualities: Sequence[int] = JPEG_SCALE) -> Tensor:
    """One ``uint8`` photograph (1, 3, H, W) stored at each quality: (Q, 3, H, W)."""
    stored = [_bytes(reference, _like_cifar10_c("jpeg_compression", quality)) for quality in qualities]
    return torch.cat(stored)


def jpeg_equivalent(
    values: ArrayLike, on_scale: ArrayLike, qualities: Sequence[int] = JPEG_SCALE
) -> NDArray[np.float64]:
    """The JPEG quality at which a measure says the same of the same photograph.

    Args:
        values: what the measure says of changed copies of a photograph (N,), larger = better, infinity allowed.
        on_scale: what it says of `jpeg_scale` of that photograph (Q,), from the lowest quality to the highest. Where a
            better file got a lower value, the larger of the values so far is taken.
        qualities: Q qualities, rising.

    Returns:
        (N,) between the first and the last quality, linear in the measure between two rungs; the ends stand for all that
        is worse or better.

    >>> jpeg_equivalent([25.0, 99.0, 1.0], [20.0, 30.0], qualities=(10, 50))
    array([30., 50., 10.])
    """
    scale = np.maximum.accumulate(np.asarray(on_scale, dtype=np.float64))
    if scale.shape != (len(qualities),) or np.isnan(scale).any() or (np.diff(qualities) <= 0).any():
        raise ValueError(f"a scale needs one number for each of the rising qualities {tuple(qualities)}, got {scale}")
    rising = scale + 1e-12 * np.arange(len(scale))  # np.interp wants no ties
    return np.interp(np.asarray(values, dtype=np.float64), rising, np.asarray(qualities, dtype=np.float64))


# ----------------------------------------------------------------------------------------------------------------------
# Equal to PSNR

STRENGTHS: Mapping[str, tuple[str, tuple[float, float], Callable[[Tensor, float], Tensor]]] = MappingProxyType(
    {
        "brighter": ("evenly brighter", (0.0, 0.5), lambda images, added: images + added),
        "contrast": ("more contrast", (0.0, 3.0), lambda images, more: _like_cifar10_c("contrast", 1 + more)(images)),
        "moved": ("moved", (0.0, 32.0), lambda images, pixels: _moved_by(images, round(pixels))),
        "noise": ("noise", (0.0, 0.5), lambda images, sd: _like_cifar10_c("gaussian_noise", sd)(images)),
        "blur": ("blur", (0.05, 32.0), smooth),
        "pixelated": ("fewer pixels", (0.0, 0.97), lambda images, lost: _like_cifar10_c("pixelate", 1 - lost)(images)),
        "jpeg": (
            "JPEG",
            (0.0, 95.0),
            lambda images, loss: _like_cifar10_c("jpeg_compression", round(96 - loss))(images),
        ),
    }
)
"""Changes of any strength, by name: what to call them, least and largest strength, and what they do to floats."""


def _moved_by(images: Tensor, pixels: int) -> Tensor:
    return F.pad(images, (pixels, 0, 0, 0), mode="replicate")[..., : images.shape[3]]


def matched(reference: Tensor, name: str, target: float, steps: int = 24) -> tuple[Tensor, float]:
    """A copy of one photograph under a change of `STRENGTHS`, as strong as to have a PSNR of ``target`` dB.

    Args:
        reference: ``uint8`` (1, 3, H, W).
        name: of the change.
        target: PSNR in dB over RGB.
        steps: of the bisection.

    Returns:
        The copy, ``uint8`` (1, 3, H, W), and its PSNR: the nearest to the target that was met. Strengths that come in
        whole numbers, pixels and JPEG qualities, miss it by up to a few dB.
    """
    if name not in STRENGTHS:
        raise ValueError(f"there is no change of strength {name!r}{suggestion(name, STRENGTHS)}")
    if not 0 < target < np.inf:
        raise ValueError(f"target must be a positive, finite number of dB, got {target}")
    if len(reference) != 1:
        raise ValueError(f"give one photograph, got {len(reference)}")
    _, (low, high), apply = STRENGTHS[name]
    best, nearest = reference, np.inf
    for _ in range(steps):
        strength = (low + high) / 2
        copy = _bytes(reference, partial(_by, strength, apply))
        found = float(psnr(reference, copy)[0])
        if abs(found - target) < abs(nearest - target):
            best, nearest = copy, found
        low, high = (strength, high) if found > target else (low, strength)
    return best, nearest


def _by(strength: float, apply: Callable[[Tensor, float], Tensor], images: Tensor) -> Tensor:
    return apply(images, strength)
