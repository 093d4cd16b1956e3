"""Log squared gradient norms, the features of the gradient detectors.

Lee & AlRegib, "Open-set recognition with gradient-based representations", ICIP 2021; Lee et al., "Probing the purview
of neural networks via gradient analysis", IEEE Access 2023.
"""

from __future__ import annotations

from torch import Tensor, nn

from tutorial_lib.gradients import squared_norms
from tutorial_lib.gradients.losses import Loss
from tutorial_lib.gradients.targets import Label

TINY = 1e-60
"""Squared norms of exactly 0 count as this. float64 holds 1e-300, but one dead column should not look like 700
others."""


def log_squared_norms(model: nn.Module, images: Tensor, label: Label = "ones", loss: Loss = "bce") -> Tensor:
    """Natural log of each image's squared gradient norm for each parameter tensor, float64 (N, P): `squared_norms`."""
    norms, _ = squared_norms(model, images, label, loss)
    return norms.clamp(min=TINY).log()
