r"""Scales and shifts: y = w ∘ x + b, with w and b broadcast over positions.

.. math:: \mathrm{d}w = \sum_t g_t \circ x_t, \qquad \mathrm{d}b = \sum_t g_t, \qquad \mathrm{d}x = w \circ g .

Layer, group, instance and root-mean-square normalisation are a normalisation without parameters, which autograd knows, followed
by an affine map, so they are this rule too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.gradients.rules._arithmetic import precise
from tutorial_lib.gradients.rules.layer_call import LayerCall
from tutorial_lib.gradients.rules.per_sample import Materialized, PerSampleGradients


class Affine(LayerCall):
    """y = scale ∘ input + shift; either may be missing.

    Args:
        input: (N, ...).
        scale, shift: parameters that broadcast to the input.
        trailing: how many axes to read behind the parameters' own, for channels that come after the samples and before positions.
    """

    def __init__(
        self, input: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, trailing: int | None = None
    ) -> None:
        super().__init__(input, scale=scale, shift=shift)
        self.samples_first = trailing is not None
        self.views = {
            role: (*parameter.shape, *[1] * (trailing or 0))
            for role, parameter in self.parameters.items()
            if parameter is not None
        }
        self.free_axes = input.dim() - max(map(len, self.views.values()), default=0)

    def _view(self, role: str) -> Any:  # a tensor, or None
        return self.parameters[role].view(self.views[role]) if role in self.views else None

    def output(self, x: Tensor) -> Tensor:
        scale, shift = self._view("scale"), self._view("shift")
        if scale is None:
            return x + shift
        return x * scale if shift is None else torch.addcmul(shift, x, scale)

    def backward(
        self, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, PerSampleGradients]]:
        labels = len(g) // len(x)
        gradients: dict[str, PerSampleGradients] = {}
        scale = self._view("scale")
        if scale is not None:
            repeated = x if labels == 1 else x.repeat_interleave(labels, 0)
            gradients["scale"] = Materialized(_sum_to(precise(g) * precise(repeated), self.views["scale"]), labels)
        if "shift" in self.views:
            gradients["shift"] = Materialized(_sum_to(precise(g), self.views["shift"]), labels)
        gx = None
        if needs_input_gradient:
            gx = g if scale is None else g * scale
        return gx, gradients


def _sum_to(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Sum (M, ...) to (M, *shape): what broadcasting had repeated is added up again."""
    axes = values.dim() - 1
    lead = axes - len(shape)
    repeated = [1 + axis for axis in range(axes) if axis < lead or shape[axis - lead] == 1]
    if repeated:
        values = values.sum(repeated)
    return values.reshape(len(values), *shape)


# ------------------------------------------------------------------ normalisations
def layer_norm(
    input: Tensor,
    normalized_shape: list[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: object,
) -> Affine:
    return Affine(F.layer_norm(input, normalized_shape, None, None, eps), weight, bias)


def rms_norm(
    input: Tensor, normalized_shape: list[int], weight: Tensor | None = None, eps: float | None = None
) -> Affine:
    return Affine(F.rms_norm(input, normalized_shape, None, eps), weight)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: object,
) -> Affine:
    return Affine(F.group_norm(input, num_groups, None, None, eps), weight, bias, trailing=input.dim() - 2)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Affine:
    normalised = F.instance_norm(input, running_mean, running_var, None, None, use_input_stats, momentum, eps)
    return Affine(normalised, weight, bias, trailing=input.dim() - 2)
