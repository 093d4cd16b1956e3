"""Where a backward pass starts, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

Outputs = tuple[Tensor, ...]


class Cotangent(NamedTuple):
    """Where a backward pass starts: dL/d(output) = scale · direction, sample by sample.

    Gradients are linear in the output's gradient. The pass runs on the direction, whose largest entry is 1, and the answer is
    scaled at the end in float64: the squared norms of a confident network would otherwise leave the range of float32.
    """

    direction: Outputs  # one for each output tensor, (N, L, ...)
    scale: Tensor  # (N, L, 1), float64


OutputGradient = Callable[[Outputs, Tensor, slice], Cotangent]
"""From outputs, the images they belong to and which of all samples these are, to the start of the backward pass."""


class Result(NamedTuple):
    """A statistic of the gradients for a backward pass from the *direction*, and the scale that it stands for (see `Cotangent`)."""

    values: Tensor  # (N, L, P) or (N, L, P, k), float64
    scale: Tensor  # (N, L, 1), float64
