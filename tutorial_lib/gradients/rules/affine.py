r"""Scales and shifts: y = w ∘ x + b, with w and b broadcast over positions.

.. math:: \mathrm{d}w = \sum_t g_t \circ x_t, \qquad \mathrm{d}b = \sum_t g_t, \qquad \mathrm{d}x = w \circ g .

Layer, group, instance and root-mean-square normalisation are a normalisation without parameters, which autograd knows, followed
by an affine map, so they are this rule too; so are products and sums with a parameter (layer scale, position embeddings, class
tokens).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.gradients.rules.base import Formed, SampleGradients, Unsupported, Use, precise


class Affine(Use):
    """y = scale ∘ input + shift; either may be missing.

    Args:
        input: (N, ...).
        scale, shift: parameters that broadcast to the input and have no entries for single samples.
        trailing: how many axes of size 1 to read behind the parameters' own (channels that come before positions).
    """

    def __init__(
        self, input: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, trailing: int = 0
    ) -> None:
        super().__init__(input, scale=scale, shift=shift)
        if not isinstance(input, Tensor):
            raise Unsupported("a parameter times or plus a number")
        self.views = {
            role: (*parameter.shape, *[1] * trailing)
            for role, parameter in self.parameters.items()
            if parameter is not None
        }
        for shape in self.views.values():
            if len(shape) > input.dim() or (len(shape) == input.dim() and shape[0] != 1):
                raise Unsupported("a parameter with an entry for each sample")
        self.free_axes = max(1, input.dim() - max(map(len, self.views.values())))

    def _view(self, role: str) -> Tensor | None:
        return self.parameters[role].view(self.views[role]) if role in self.views else None

    def output(self, x: Tensor) -> Tensor:
        scale, shift = self._view("scale"), self._view("shift")
        if scale is None:
            return x + shift
        return x * scale if shift is None else torch.addcmul(shift, x, scale)

    def backward(
        self, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, SampleGradients]]:
        labels = len(g) // len(x)
        gradients: dict[str, SampleGradients] = {}
        scale = self._view("scale")
        if scale is not None:
            repeated = x if labels == 1 else x.repeat_interleave(labels, 0)
            gradients["scale"] = Formed(_sum_to(precise(g) * precise(repeated), self.views["scale"]), labels)
        if "shift" in self.views:
            gradients["shift"] = Formed(_sum_to(precise(g), self.views["shift"]), labels)
        gx = None
        if needs_input_gradient:
            gx = g if scale is None else g * scale
        return gx, gradients


def _sum_to(values: Tensor, shape: Sequence[int]) -> Tensor:
    """Sum (M, ...) to (M, *shape): what broadcasting had repeated is added up again."""
    axes = values.dim() - 1
    own = shape[1:] if len(shape) == axes + 1 else shape  # a leading 1 stands for the samples
    lead = axes - len(own)
    repeated = [1 + axis for axis in range(axes) if axis < lead or own[axis - lead] == 1]
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


# ------------------------------------------------------------------ arithmetic with a parameter
def multiply(input: Tensor, other: Tensor) -> Affine:
    return Affine(other, scale=input) if isinstance(input, torch.nn.Parameter) else Affine(input, scale=other)


def add(input: Tensor, other: Tensor, *, alpha: float = 1) -> Affine:
    if alpha != 1:
        raise Unsupported("a scaled sum")
    return Affine(other, shift=input) if isinstance(input, torch.nn.Parameter) else Affine(input, shift=other)


def expand(input: Tensor, *sizes: int | Sequence[int]) -> Affine:
    """A parameter repeated for every sample (a class token, say) is a shift of nothing."""
    repeated = input.detach().expand(*sizes)
    return Affine(torch.zeros_like(repeated), shift=input)
