"""Scores that know next to nothing: what a detector must beat before it is credited with understanding.

Simple images are reconstructed well and get a high likelihood whether they were learned or not: Serrà et al., "Input
complexity and out-of-distribution detection with likelihood-based generative models", ICLR 2020.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.evidence import IMAGES, Evidence

__all__ = ["Brightness", "Complexity"]


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
