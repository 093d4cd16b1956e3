"""Noise, as CIFAR-10-C has it: each pixel for itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tutorial_lib.data.corruptions.base import normal, stream_of, uniforms

__all__ = ["gaussian_noise", "impulse_noise", "shot_noise", "speckle_noise"]

BRIGHTEST = 500
"""Photons of a white pixel at level 1 of shot noise."""


def gaussian_noise(images: Tensor, std: float, seeds: Sequence[int]) -> Tensor:
    """Independent normal numbers of standard deviation ``std`` added to every value."""
    return images + std * normal(seeds, tuple(images.shape[1:]), images)


def speckle_noise(images: Tensor, std: float, seeds: Sequence[int]) -> Tensor:
    """Noise in proportion to the light: every value times 1 + ``std`` times a normal number."""
    return images * (1 + std * normal(seeds, tuple(images.shape[1:]), images))


def shot_noise(images: Tensor, photons: float, seeds: Sequence[int]) -> Tensor:
    """Light comes in photons: a Poisson number of mean ``photons`` times the value, divided by ``photons``.

    All levels share the photons of the brightest, and a darker one keeps each with probability ``photons`` / 500: the
    result is Poisson again, and level 5 is level 1 with fewer of the same photons.
    """
    # on the CPU and image by image: the number of draws depends on the values, and the stream must not
    counts = []
    for image, seed in zip(images.detach().cpu().double(), seeds, strict=True):
        generator = stream_of(seed, 2)
        counted = torch.poisson(BRIGHTEST * image, generator=generator)
        if photons < BRIGHTEST:
            kept = torch.tensor(photons / BRIGHTEST, dtype=torch.float64).expand_as(counted)
            counted = torch.binomial(counted, kept, generator=stream_of(seed, 3))
        counts.append(counted)
    return (torch.stack(counts) / photons).to(images)


def impulse_noise(images: Tensor, amount: float, seeds: Sequence[int]) -> Tensor:
    """Salt and pepper: a share ``amount`` of all values becomes 0 or 1, each with equal chance."""
    struck, colour = uniforms(seeds, (2, *images.shape[1:]), images).unbind(dim=1)
    return torch.where(struck < amount, (colour < 0.5).to(images), images)
