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


def _sum_to(values: Tensor, shape: torch.Size) -> Tensor:
    """Sum (L, N, ...) to (L, N, *shape): what broadcasting had repeated is added up again."""
    per_sample = values.shape[2:]
    inner = shape[1:] if len(shape) == len(per_sample) + 1 else shape  # a leading 1 stands for the samples
    lead = len(per_sample) - len(inner)
    repeated = [2 + i for i in range(lead)] + [2 + lead + i for i, size in enumerate(inner) if size == 1]
    if repeated:
        values = values.sum(repeated)
    return values.reshape(*values.shape[:2], *shape)


class Affine(Use):
    """y = scale ∘ input + shift; either may be missing."""

    def __init__(self, input: Tensor, scale: Tensor | None = None, shift: Tensor | None = None,
                 views: dict[str, tuple[int, ...]] | None = None) -> None:
        super().__init__(input, scale=scale, shift=shift)
        self.views = views or {}
        if not isinstance(input, Tensor):
            raise Unsupported("a parameter times or plus a number")
        shapes = [torch.Size(self.views.get(role, tensor.shape)) for role, tensor in self.parameters.items()]
        for shape in shapes:
            if len(shape) > input.dim() or (len(shape) == input.dim() and shape[0] != 1):
                raise Unsupported("a parameter with an entry for each sample")
        self.free_axes = max(1, input.dim() - max(len(shape) for shape in shapes))

    def __getitem__(self, role: str) -> Tensor | None:
        tensor = super().__getitem__(role)
        return tensor.view(self.views[role]) if tensor is not None and role in self.views else tensor

    def output(self, x: Tensor) -> Tensor:
        scale, shift = self["scale"], self["shift"]
        if scale is None:
            return x + shift
        return x * scale if shift is None else torch.addcmul(shift, x, scale)

    def backward(self, x: Tensor, g: Tensor, needs_input_gradient: bool) -> tuple[Tensor | None, dict[str, SampleGradients]]:
        gradients: dict[str, SampleGradients] = {}
        scale = self["scale"]
        if scale is not None:
            gradients["scale"] = Formed(_sum_to(precise(g) * precise(x), scale.shape))
        if "shift" in self.parameters:
            gradients["shift"] = Formed(_sum_to(precise(g), self["shift"].shape))
        gx = None
        if needs_input_gradient:
            gx = g if scale is None else g * scale
        return gx, gradients


# ------------------------------------------------------------------ normalisations
def _by_channel(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Affine:
    view = (-1,) + (1,) * (x.dim() - 2)
    return Affine(x, scale, shift, views={"scale": view, "shift": view})


def layer_norm(input: Tensor, normalized_shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5, *_: object) -> Affine:
    return Affine(F.layer_norm(input, normalized_shape, None, None, eps), weight, bias)


def rms_norm(input: Tensor, normalized_shape: list[int], weight: Tensor | None = None, eps: float | None = None) -> Affine:
    return Affine(F.rms_norm(input, normalized_shape, None, eps), weight)


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
               eps: float = 1e-5, *_: object) -> Affine:
    return _by_channel(F.group_norm(input, num_groups, None, None, eps), weight, bias)


def instance_norm(input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
                  weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-5) -> Affine:
    return _by_channel(F.instance_norm(input, running_mean, running_var, None, None, use_input_stats, momentum, eps), weight, bias)


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
