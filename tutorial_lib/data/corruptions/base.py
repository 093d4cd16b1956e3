"""What a corruption is, and where its random numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

__all__ = ["LEVELS", "Corruption", "normal", "seeds_for", "uniform", "uniforms"]

LEVELS = (1, 2, 3, 4, 5)


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


def seeds_for(generator: torch.Generator | None, count: int, name: str) -> list[int]:
    how = "pass generator=torch.Generator().manual_seed(0), say"
    if generator is None:
        raise ValueError(f"{name} draws random numbers; {how}")
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator, got {generator!r}; {how}")
    return torch.randint(2**63 - 1, (count,), generator=generator, device=generator.device).tolist()


def normal(seeds: Sequence[int], shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Standard normal numbers (N, *shape), each image's from its own stream, drawn on the CPU for every device."""
    drawn = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return drawn.to(device=like.device, dtype=like.dtype)


def uniform(seeds: Sequence[int], low: float, high: float, like: Tensor) -> Tensor:
    """One number in [low, high) an image, from a stream other than that of :func:`normal`."""
    drawn = torch.stack([torch.rand((), generator=torch.Generator().manual_seed(seed ^ 1)) for seed in seeds])
    return (low + (high - low) * drawn).to(device=like.device, dtype=like.dtype)


def uniforms(seeds: Sequence[int], shape: tuple[int, ...], like: Tensor, stream: int = 2) -> Tensor:
    """Numbers in [0, 1) of shape (N, *shape), each image's from a stream of its own; ``stream`` > 1 numbers the streams."""
    drawn = torch.stack([torch.rand(shape, generator=stream_of(seed, stream)) for seed in seeds])
    return drawn.to(device=like.device, dtype=like.dtype)


def stream_of(seed: int, stream: int) -> torch.Generator:
    """One of the random streams of an image: 0 is that of :func:`normal`, 1 that of :func:`uniform`."""
    return torch.Generator().manual_seed(seed ^ stream)
