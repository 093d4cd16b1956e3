r"""One-dimensional regression with a gap in the data, and noise that grows to the right.

Points from :math:`y = \tfrac12 \sin(25 x) + \tfrac12 x + \varepsilon`, :math:`\varepsilon \sim N(0, \sigma(x)^2)`,
:math:`\sigma(x) = 0.2 \max(0, x + 1)`, in two bands of five of :math:`[-1, 1]`. The example is that of M. Krasser,
"Reliable uncertainty estimates for neural network predictions" (2020), after Hafner et al., "Noise Contrastive Priors
for Functional Uncertainty", UAI 2019; with the default arguments the forty points are the very same.

The truth is known everywhere, also where there are no data: that is what a toy is for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

GRID_POINTS = 1000
LEFT_BAND = (-0.6, -0.2)
RIGHT_BAND = (0.2, 0.6)
EVALUATION_RANGE = (-1.5, 1.5)
_BAND_MASK = (False, True, False, True, False)


class ToyData(NamedTuple):
    """Inputs ``x`` (n, 1) and noisy targets ``y`` (n, 1), float32."""

    x: Tensor
    y: Tensor


def true_function(x: Tensor) -> Tensor:
    """Noise-free target :math:`f(x)`, same shape as ``x``."""
    return 0.5 * torch.sin(25 * x) + 0.5 * x


def noise_std(x: Tensor, slope: float = 0.2) -> Tensor:
    """Standard deviation of the noise at ``x``, same shape: ``slope`` times the distance to x = -1, never negative."""
    return slope * (x + 1).clamp_min(0)


def toy_regression(n: int = 40, slope: float = 0.2, seed: int = 123) -> ToyData:
    """Draw ``n`` points from the two bands.

    For one seed the draws are nested: the first 40 of 80 points are the 40 points, and a steeper slope stretches the
    same noise. So two data sets of the same seed differ only in what was asked to differ.

    Args:
        n: number of points, 1 to 400 (a fifth of the grid of 1,000 falls into each band).
        slope: how fast the noise grows, see :func:`noise_std`; 0 for none.
        seed: of NumPy's ``RandomState``, as in the original.

    >>> x, y = toy_regression()
    >>> x.shape, round(x.abs().min().item(), 1), round(x.abs().max().item(), 1)
    (torch.Size([40, 1]), 0.2, 0.6)
    """
    in_band = np.repeat(_BAND_MASK, GRID_POINTS // len(_BAND_MASK))
    if not 1 <= n <= in_band.sum():
        raise ValueError(f"n must be between 1 and {in_band.sum()}, the points of the grid inside the bands, got {n}")
    if slope < 0:
        raise ValueError(f"slope must not be negative, got {slope}")
    # The legacy generator, because the original used it: with another one the points would be others.
    random = np.random.RandomState(seed)
    x = torch.linspace(-1, 1, GRID_POINTS, dtype=torch.float64)[:, None]
    # Noise first, for the whole grid, then the choice of points: the order of the original.
    y = true_function(x) + noise_std(x, slope) * torch.from_numpy(random.normal(size=x.shape))
    chosen = torch.from_numpy(random.permutation(int(in_band.sum()))[:n])
    return ToyData(*(values[torch.from_numpy(in_band)][chosen].float() for values in (x, y)))


def evaluation_inputs(n: int = 200) -> Tensor:
    """Evenly spaced inputs (n, 1) on [-1.5, 1.5], well beyond the data."""
    return torch.linspace(*EVALUATION_RANGE, n)[:, None]


def regions(x: Tensor) -> dict[str, Tensor]:
    """Boolean masks, same shape as ``x``: ``left_band``, ``right_band`` (data), ``gap`` and ``outside`` (none).

    Every finite input is in exactly one of them.
    """
    left = (x >= LEFT_BAND[0]) & (x <= LEFT_BAND[1])
    right = (x >= RIGHT_BAND[0]) & (x <= RIGHT_BAND[1])
    gap = (x > LEFT_BAND[1]) & (x < RIGHT_BAND[0])
    return {"left_band": left, "right_band": right, "gap": gap, "outside": ~(left | right | gap)}
