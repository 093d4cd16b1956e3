"""Scores that know next to nothing: what a detector must beat before it is credited with understanding.

Simple images are reconstructed well and get a high likelihood whether they were learned or not: Serrà et al., "Input
complexity and out-of-distribution detection with likelihood-based generative models", ICLR 2020.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutorial_lib.data.images import as_float, check_images
from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.evidence import IMAGES, Evidence

__all__ = ["Brightness", "Complexity", "control_scores"]


class _Trivial(Detector):
    senses: ClassVar[tuple[str, str]]
    tags = frozenset({"any channels", "simple"})

    def __init__(self, strange: str) -> None:
        super().__init__(nn.Identity())
        if strange not in self.senses:
            raise ValueError(f"strange must be {' or '.join(self.senses)}, got {strange!r}")
        self.strange = strange

    def _score(self, seen: Evidence) -> Tensor:
        measure = self._measure(seen[IMAGES].double())
        return measure if self.strange == self.senses[0] else -measure

    def _measure(self, images: Tensor) -> Tensor:
        raise NotImplementedError


class Brightness(_Trivial):
    """Mean of all pixels, in [0, 1], or its negative.

    Args:
        strange: ``"bright"`` (larger is brighter) or ``"dark"``.

    Challenging data seen in ``fit``: none (nothing is fitted).

    >>> Brightness().predict(torch.tensor([[[[0.0, 0.5]]]]))
    array([0.25])
    """

    senses = ("bright", "dark")

    def __init__(self, strange: str = "bright") -> None:
        super().__init__(strange)

    def _measure(self, images: Tensor) -> Tensor:
        return images.flatten(1).mean(1)


class Complexity(_Trivial):
    """Total variation: mean absolute difference of neighbouring pixels, in [0, 1], or its negative.

    Args:
        strange: ``"complex"`` (larger is more complex) or ``"simple"``.

    Challenging data seen in ``fit``: none (nothing is fitted).

    >>> Complexity().predict(torch.tensor([[[[0.0, 0.5], [0.0, 0.5]]]]))
    array([0.25])
    """

    senses = ("complex", "simple")

    def __init__(self, strange: str = "complex") -> None:
        super().__init__(strange)

    def _measure(self, images: Tensor) -> Tensor:
        across, down = images.diff(dim=3).abs().flatten(1), images.diff(dim=2).abs().flatten(1)
        return torch.cat([across, down], dim=1).mean(1)


def control_scores(images: Tensor, healthy: Tensor) -> dict[str, NDArray[np.float64]]:
    """What knows no more than pixels, float64 (N,); the direction of each is fixed before anything is measured.

    * ``brightness``, ``complexity``: the detectors above; brighter and rougher is stranger;
    * ``mean image``: mean squared difference from the mean of the healthy images;
    * ``nearest healthy``: mean squared difference from the most similar healthy image.

    Args:
        images: (N, C, H, W), ``uint8`` or float in [0, 1].
        healthy: (M, C, H, W), what a detector would have been trained on.
    """
    check_images(images)
    check_images(healthy, channels=images.shape[1], size=(images.shape[2], images.shape[3]))
    x, known = as_float(images, torch.float64), as_float(healthy, torch.float64)
    nearest = [torch.cdist(part.flatten(1), known.flatten(1)).amin(1).square() / x[0].numel() for part in x.split(256)]
    return {
        "brightness": Brightness().predict(images),
        "complexity": Complexity().predict(images),
        "mean image": (x - known.mean(0)).square().mean((1, 2, 3)).numpy(),
        "nearest healthy": torch.cat(nearest).numpy(),
    }
