"""The one door: corrupted copies of images."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from tutorial_lib.data.corruptions.base import LEVELS, Corruption, seeds_for
from tutorial_lib.data.corruptions.cifar10_c import CIFAR10_C
from tutorial_lib.data.corruptions.cure import CORRUPTIONS
from tutorial_lib.data.images import as_float, check_images
from tutorial_lib.data.registry import suggestion

__all__ = ["FAMILIES", "corrupt", "corruption_names"]

BATCH = 512  # bounds the memory that intermediate images take; results do not depend on it

FAMILIES: Mapping[str, Mapping[str, Corruption]] = MappingProxyType({"cure": CORRUPTIONS, "cifar10_c": CIFAR10_C})
"""Corruptions by family and name. ``gaussian_blur`` and ``snow`` are in both; the blur's constants differ."""


def corrupt(
    images: Tensor,
    name: str,
    level: int,
    generator: torch.Generator | None = None,
    eight_bit: bool = True,
    family: str = "cure",
) -> Tensor:
    """Corrupted copies of images.

    Args:
        images: ``uint8`` or floating point in [0, 1], (N, C, H, W), C = 1 or 3. They are not changed.
        name: one of the family's corruptions.
        level: 1 (mild) to 5 (severe).
        generator: source of the randomness, on any device; only corruptions that draw random numbers need one.
        eight_bit: round the result to whole 255ths, as a file would hold it; ``uint8`` images always are.
        family: ``"cure"``, the eight after CURE-TSR, or ``"cifar10_c"``, the nineteen of CIFAR-10-C.

    Returns:
        Images of the same shape, type and device.

    Raises:
        TypeError: a number in place of a generator, images that are neither ``uint8`` nor floating point.
        ValueError: unknown name, level or family, images that are not N×C×H×W in [0, 1], no generator where one is
            needed.

    >>> corrupt(torch.full((1, 3, 2, 2), 0.4), "exposure", 3).unique()
    tensor([0.8000])
    >>> corrupt(torch.full((1, 3, 2, 2), 100, dtype=torch.uint8), "brightness", 3, family="cifar10_c").unique()
    tensor([138], dtype=torch.uint8)
    """
    if family not in FAMILIES:
        raise ValueError(f"there is no family of corruptions {family!r}{suggestion(family, FAMILIES)}")
    known = FAMILIES[family]
    if name not in known:
        other = next((f for f in FAMILIES if name in FAMILIES[f]), None)
        hint = f"; pass family={other!r}" if other else suggestion(name, known)
        raise ValueError(f"there is no corruption {name!r} in the family {family!r}{hint}")
    if isinstance(level, bool) or level not in LEVELS:
        hint = "; for level 0 take the clean images" if level == 0 else ""
        raise ValueError(f"level must be a whole number from 1 to 5, got {level!r}{hint}")
    check_images(images)
    corruption = known[name]
    constant = corruption.constants[int(level) - 1]
    seeds = seeds_for(generator, len(images), name) if corruption.random else [0] * len(images)
    parts = []
    for start in range(0, len(images), BATCH):
        part = images[start : start + BATCH]
        part = as_float(part, part.dtype if part.is_floating_point() else torch.float32)
        part = corruption.apply(part, constant, seeds[start : start + BATCH]).clamp(0, 1)
        if images.dtype == torch.uint8:
            part = (part * 255).round().to(torch.uint8)
        elif eight_bit:
            part = (part * 255).round() / 255
        parts.append(part)
    return torch.cat(parts)


def corruption_names(channels: int, family: str = "cure") -> tuple[str, ...]:
    """The corruptions of a family that change images of this many channels: all in colour, in grey all but those of colour.

    >>> len(corruption_names(3)), len(corruption_names(1)), len(corruption_names(3, "cifar10_c"))
    (8, 7, 19)
    """
    return tuple(c.name for c in FAMILIES[family].values() if channels > 1 or not c.colour_only)
