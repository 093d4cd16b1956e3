"""Convolutions and transposed convolutions, in one, two and three dimensions, with stride, padding, dilation and groups.

The gradient of the weight is a correlation of activations and backprops, see `correlation`; that of the bias their sum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.gradients.rules._arithmetic import autocast, precise
from tutorial_lib.gradients.rules.correlation import correlation
from tutorial_lib.gradients.rules.layer_call import LayerCall, Unsupported
from tutorial_lib.gradients.rules.per_sample import Materialized, PerSampleGradients


def _spread(value: int | Sequence[int], dimensions: int) -> Sequence[int]:
    if isinstance(value, int):
        return (value,) * dimensions
    return tuple(value) * dimensions if len(value) == 1 else tuple(value)


class Convolution(LayerCall):
    """``conv1d``, ``conv2d`` and ``conv3d``."""

    images = samples_first = True
    transposed = False

    def __init__(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> None:
        dimensions = weight.dim() - 2
        if input.dim() != weight.dim():
            raise Unsupported("a convolution without a batch dimension")
        self.stride, self.dilation, self.groups = _spread(stride, dimensions), _spread(dilation, dimensions), groups
        self.output_padding: Sequence[int] = (0,) * dimensions
        if padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, weight.shape[2:], strict=True)]
            self.padding: Sequence[int] = tuple(total // 2 for total in totals)
            if any(total % 2 for total in totals):  # one more on the right
                input = F.pad(input, [pad for total in reversed(totals) for pad in (0, total % 2)])
        else:
            self.padding = _spread(0 if isinstance(padding, str) else padding, dimensions)
        super().__init__(autocast(input), weight=weight, bias=bias)

    def output(self, x: Tensor) -> Tensor:
        weight, bias = self.used_with(x)
        return torch.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups
        )

    def backward(
        self, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, PerSampleGradients]]:
        gx = None
        if needs_input_gradient:
            like = (
                x if g.shape[0] == x.shape[0] else torch.empty_like(x[:1].expand(len(g), *x.shape[1:]))
            )  # only its shape is read
            weight, _ = self.typed(g.dtype)
            gx = torch.ops.aten.convolution_backward.default(
                g,
                like.to(g.dtype),
                weight,
                None,
                self.stride,
                self.padding,
                self.dilation,
                self.transposed,
                self.output_padding,
                self.groups,
                (True, False, False),
            )[0]
        gradients = {"weight": self.weight_gradients(x, g)}
        if self.parameters["bias"] is not None:
            gradients["bias"] = Materialized(precise(g).flatten(2).sum(2), labels=len(g) // len(x))
        return gx, gradients

    def weight_gradients(self, x: Tensor, g: Tensor) -> PerSampleGradients:
        return correlation(x, g, self.kernel, self.stride, self.padding, self.dilation, self.groups, self.scratch)

    @property
    def kernel(self) -> Sequence[int]:
        return self.parameters["weight"].shape[2:]


class TransposedConvolution(Convolution):
    """``conv_transpose1d``, ``conv_transpose2d`` and ``conv_transpose3d``."""

    transposed = True

    def __init__(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        groups: int = 1,
        dilation: int | Sequence[int] = 1,
    ) -> None:
        super().__init__(input, weight, bias, stride, padding, dilation, groups)
        self.output_padding = _spread(output_padding, weight.dim() - 2)

    def weight_gradients(self, x: Tensor, g: Tensor) -> PerSampleGradients:
        positions = x if len(g) == len(x) else x.repeat_interleave(len(g) // len(x), 0)
        return correlation(
            g, positions, self.kernel, self.stride, self.padding, self.dilation, self.groups, self.scratch
        )
