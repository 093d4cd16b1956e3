"""Weather of CIFAR-10-C: fog, frost and spatter, each from noise of its own kind."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tutorial_lib.data.corruptions.base import normal
from tutorial_lib.data.corruptions.filters import luma, on_a_fine_grid, smooth

__all__ = ["clouds", "fog", "frost", "needles", "spatter"]


def clouds(white: Tensor, decay: float) -> Tensor:
    """Noise that looks alike at every size, in [0, 1]: white noise (N, 1, H, W) with its frequencies weighed.

    A plasma fractal halves the distance of its points and divides their scatter by ``decay``. An octave of frequencies
    then has the power decay^-2 of the one below it, and a single frequency f the amplitude f^-(1 + log2 decay).
    """
    height, width = white.shape[2:]
    down = torch.fft.fftfreq(height, device=white.device, dtype=white.dtype)[:, None]
    across = torch.fft.rfftfreq(width, device=white.device, dtype=white.dtype)[None, :]
    frequency = (down**2 + across**2).sqrt()
    weight = torch.where(frequency > 0, frequency.clamp(min=1e-9) ** -(1 + math.log2(decay)), 0.0)
    field = torch.fft.irfft2(torch.fft.rfft2(white) * weight, s=(height, width))
    low, high = field.amin(dim=(2, 3), keepdim=True), field.amax(dim=(2, 3), keepdim=True)
    return (field - low) / (high - low).clamp(min=1e-9)


def fog(images: Tensor, constants: tuple[float, float], seeds: Sequence[int]) -> Tensor:
    """Fog: ``strength`` times clouds added, then as dark as before at the brightest; a smaller ``decay`` is patchier."""
    strength, decay = constants

    def foggy(fine: Tensor, scale: float) -> Tensor:
        brightest = fine.amax(dim=(1, 2, 3), keepdim=True)
        cloud = clouds(normal(seeds, (1, *fine.shape[2:]), fine), decay)
        return (fine + strength * cloud) * brightest / (brightest + strength)

    return on_a_fine_grid(images, foggy)


def frost(images: Tensor, constants: tuple[float, float], seeds: Sequence[int]) -> Tensor:
    """Ice on the pane: ``scale`` times the image and ``weight`` times a picture of needles, denser towards the rim."""
    keep, weight = constants

    def frozen(fine: Tensor, scale: float) -> Tensor:
        return keep * fine + weight * needles(normal(seeds, (3, *fine.shape[2:]), fine))

    return on_a_fine_grid(images, frozen)


def needles(white: Tensor) -> Tensor:
    """Pictures of frost (N, 1, H, W) in [0, 1] from white noise (N, 3, H, W): the ridges of three fields of clouds, on a
    veil that is thicker towards the rim."""
    height, width = white.shape[2:]
    ridges = torch.stack([(1 - (2 * clouds(field, 1.6) - 1).abs()) ** 3 for field in white.split(1, dim=1)])
    down = torch.linspace(-1, 1, height, device=white.device, dtype=white.dtype)[:, None].abs()
    across = torch.linspace(-1, 1, width, device=white.device, dtype=white.dtype)[None, :].abs()
    veil = 0.25 + 0.35 * torch.maximum(down, across) ** 2
    return (veil + 0.6 * ridges.amax(dim=0)).clamp(0, 1)


_WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
_MUD = (63 / 255, 42 / 255, 20 / 255)


def spatter(images: Tensor, constants: tuple[float, float, float, float, float, bool], seeds: Sequence[int]) -> Tensor:
    """Splashes on the lens: water that brightens (levels 1 to 3) or mud that covers (4 and 5).

    Where smoothed noise (``mean``, ``std``, ``sigma``) exceeds ``threshold``, there is liquid: lit from above on the left
    and as strong as ``strength`` for water, softened by ``strength`` as a blur's width for mud.
    """
    mean, std, sigma, threshold, strength, mud = constants

    def splashed(fine: Tensor, scale: float) -> Tensor:
        # the spread that smoothing leaves at 32 pixels, whatever the size
        white = smooth(normal(seeds, (1, *fine.shape[2:]), fine), sigma * scale)
        spread = std / (2 * math.sqrt(math.pi) * sigma)
        liquid = mean + spread * white * (2 * math.sqrt(math.pi) * sigma * scale)
        tint = torch.tensor(_MUD if mud else _WATER, dtype=fine.dtype, device=fine.device).view(1, 3, 1, 1)
        tint = tint if fine.shape[1] == 3 else luma(tint)
        if mud:
            cover = smooth((liquid > threshold).to(fine), strength * scale)
            cover = torch.where(cover < 0.4, torch.zeros_like(cover), cover)
            return fine * (1 - cover) + tint * cover
        wet = smooth((liquid > threshold).to(fine), 0.5 * scale)
        slope = liquid - liquid.roll((1, 1), dims=(2, 3))
        light = 0.75 + 0.25 * torch.tanh(slope / spread)
        return fine + strength * wet * light * tint

    return on_a_fine_grid(images, splashed)
