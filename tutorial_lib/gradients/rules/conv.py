r"""Convolutions and transposed convolutions, in one, two and three dimensions, with stride, padding, dilation and groups.

With patches U (K × T: K = I·kh·kw numbers for each of T output positions) the layer is y = W U, so dW = G Uᵀ as for a linear
layer on sequences. The patches repeat every pixel kh·kw times, and the two forms below never build them.

*Direct form, by kernel rows.* Shift the padded input by each of the kw columns of the kernel (kw copies, not kh·kw). In that
buffer the patches of one kernel row are a contiguous window, so dW is kh matrix products on views. With stride s the rows of
the buffer are sorted by their phase, row mod s, and the windows are contiguous again.

*Gram form, from pixels.* (UᵀU)[t, s] = sum over kernel offsets d of ⟨x[t+d], x[s+d]⟩: the Gram of the *pixels*, XᵀX, added to
itself along kh·kw diagonal shifts, first the row shifts, then the column shifts. Zero padding only clips the shifts. That is
S²·I multiplications for S pixels, a factor kh·kw less than the Gram of patches.

*Groups* are separate convolutions: a batch of N samples and q groups is a batch of N·q ungrouped ones.

*Transposed convolutions* exchange the roles: patches come from g, positions from x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.gradients.rules.base import Formed, SampleGradients, Unsupported, Use, autocast, precise, squared_sum
from tutorial_lib.gradients.rules.cost import gram_is_cheaper
from tutorial_lib.gradients.rules.gram import gram_sum, redo_untrusted
from tutorial_lib.gradients.rules.linear import OuterProducts


class Axis(NamedTuple):
    """How the kernel walks along one spatial axis."""

    size: int  # of the input
    out: int  # of the output
    kernel: int
    stride: int
    padding: int
    dilation: int

    def clip(self, offset: int, out: int | None = None, step: int | None = None) -> tuple[slice, slice]:
        """Output positions whose pixel ``offset`` exists, and those pixels: zero padding as a pair of slices."""
        stride = step or self.stride
        start = offset - self.padding
        low = max(0, -(start // stride))
        high = max(low, min(out or self.out, (self.size - 1 - start) // stride + 1))
        return slice(low, high), slice(low * stride + start, max(0, (high - 1) * stride + start + 1), stride)


class Correlation(SampleGradients):
    """dW[o, i, d] = sum over positions t of g[o, t] x[i, stride·t + dilation·d − padding], in two dimensions.

    Args:
        x: (N, I, H, W).
        g: (L, N, O, h, w).
        rows, columns: how the kernel walks.
    """

    def __init__(self, x: Tensor, g: Tensor, rows: Axis, columns: Axis) -> None:
        self.x, self.g, self.rows, self.columns = precise(x), precise(g), rows, columns
        self.labels, self.samples, outputs = g.shape[:3]
        self.shape = (outputs, x.shape[1], rows.kernel, columns.kernel)

    # ------------------------------------------------------------------ direct form
    def _kernel_rows(self, first: int, last: int | None) -> Iterator[Tensor]:
        """dW of samples first:last, one kernel row at a time: (n, L·O, kw·I)."""
        x, g = self.x[first:last], self.g[:, first:last]
        n, inputs = x.shape[:2]
        rows, columns = self.rows, self.columns
        phases = min(rows.stride, rows.kernel) if rows.dilation == 1 else rows.stride
        reach = rows.out + (rows.dilation * (rows.kernel - 1)) // rows.stride
        buffer = x.new_zeros(n, phases, columns.kernel, inputs, reach, columns.out)
        for phase in range(phases):
            to_row, from_row = rows.clip(phase, out=reach)
            for j in range(columns.kernel):
                to_column, from_column = columns.clip(j * columns.dilation)
                buffer[:, phase, j, :, to_row, to_column] = x[:, :, from_row, from_column]
        buffer = buffer.view(n, phases, columns.kernel * inputs, reach * columns.out)
        G = g.transpose(0, 1).reshape(n, -1, rows.out * columns.out)
        for i in range(rows.kernel):
            skip, phase = divmod(i * rows.dilation, rows.stride)
            window = buffer[:, phase, :, skip * columns.out : (skip + rows.out) * columns.out]
            yield torch.bmm(G, window.mT)

    @property
    def _scratch(self) -> int:
        rows, columns = self.rows, self.columns
        buffer = rows.stride * (rows.out + rows.dilation * rows.kernel // rows.stride) * columns.kernel * columns.out
        return self.shape[1] * (buffer + columns.kernel * self.labels * self.shape[0])

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        outputs, inputs, kh, kw = self.shape
        stacked = torch.stack(list(self._kernel_rows(first, last)), dim=2)  # (n, L·O, kh, kw·I)
        return stacked.view(-1, self.labels, outputs, kh, kw, inputs).permute(1, 0, 2, 5, 3, 4)

    def _direct(self, first: int, last: int) -> Tensor:
        return sum(squared_sum(row.view(last - first, self.labels, -1), keep=2) for row in self._kernel_rows(first, last)).T

    def moments(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        outputs, inputs, kh, kw = self.shape
        by_row = reference.view(self.shape).to(self.x.dtype).permute(2, 0, 3, 1).reshape(kh, -1)  # each (O, kw, I)
        inner, squared = [], []
        for first, last in self._parts(self._scratch):
            gradients = [row.view(last - first, self.labels, -1) for row in self._kernel_rows(first, last)]
            inner.append(sum(row @ direction for row, direction in zip(gradients, by_row, strict=True)).T)
            squared.append(sum(squared_sum(row, keep=2) for row in gradients).T)
        return torch.cat(inner, dim=1), torch.cat(squared, dim=1)

    # ------------------------------------------------------------------ Gram form
    def _patch_gram(self, x: Tensor) -> Tensor:
        """UᵀU (N, T, T) from the Gram of the pixels."""
        rows, columns = self.rows, self.columns
        n = len(x)
        pixels = x.flatten(2)
        gram = torch.bmm(pixels.mT, pixels).view(n, rows.size, columns.size, rows.size, columns.size)
        shifted = gram.new_zeros(n, rows.out, columns.size, rows.out, columns.size)
        for i in range(rows.kernel):
            to, of = rows.clip(i * rows.dilation)
            shifted[:, to, :, to] += gram[:, of, :, of]
        patches = gram.new_zeros(n, rows.out, columns.out, rows.out, columns.out)
        for j in range(columns.kernel):
            to, of = columns.clip(j * columns.dilation)
            patches[:, :, to, :, to] += shifted[:, :, of, :, of]
        return patches.view(n, rows.out * columns.out, -1)

    def _gram(self, first: int, last: int) -> Tensor:
        x, g = self.x[first:last], self.g[:, first:last]
        G = g.flatten(3)
        squared = gram_sum(self._patch_gram(x), G.mT @ G)
        directly = lambda n: Correlation(x[n], g[:, n], self.rows, self.columns)._direct(0, len(n))  # noqa: E731
        return redo_untrusted(squared, x, g, terms=prod(self.shape[2:]), direct=directly)

    # ------------------------------------------------------------------ choice
    def squared_norms(self) -> Tensor:
        outputs, inputs, kh, kw = self.shape
        S, T = self.rows.size * self.columns.size, self.rows.out * self.columns.out
        K = inputs * kh * kw
        gram = gram_is_cheaper(
            direct=T * K * outputs + 24 * K * outputs, gram=S * S * inputs + T * T * outputs, elementwise=(kh + kw + 2) * T * T
        )
        if gram:
            numbers = S * S + (self.rows.out * self.columns.size) ** 2 + (1 + self.labels) * T * T
            return torch.cat([self._gram(*part) for part in self._parts(numbers)], dim=1)
        return torch.cat([self._direct(*part) for part in self._parts(self._scratch)], dim=1)


class Volume(SampleGradients):
    """A correlation in three dimensions, formed by the library: one image of N·I channels, convolved in N groups."""

    def __init__(self, x: Tensor, g: Tensor, weight_shape: Sequence[int], settings: tuple) -> None:
        self.x, self.g, self.settings = precise(x), precise(g), settings
        self.labels, self.samples = g.shape[:2]
        self.shape = tuple(weight_shape)

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        x = self.x[first:last]
        n, outputs = len(x), self.shape[0]
        stride, padding, dilation = self.settings
        template = x.new_empty(1).expand(n * outputs, *self.shape[1:])
        return torch.stack([
            torch.ops.aten.convolution_backward(
                g.reshape(1, -1, *g.shape[2:]), x.reshape(1, -1, *x.shape[2:]), template, None, stride, padding, dilation,
                False, [0] * len(stride), n, (False, True, False),
            )[1].view(n, *self.shape)
            for g in self.g[:, first:last]
        ])


def sample_correlation(x: Tensor, g: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
                       dilation: Sequence[int], groups: int) -> SampleGradients:
    """The gradients of a convolution's weight, whatever its dimensions; x is (N, I, ...), g is (L, N, O, ...)."""
    if groups > 1:
        return Grouped(x, g, kernel, stride, padding, dilation, groups)
    if len(kernel) == 3:
        return Volume(x, g, (g.shape[2], x.shape[1], *kernel), (stride, padding, dilation))
    if len(kernel) == 1:  # a picture of one row
        x, g = x.unsqueeze(2), g.unsqueeze(3)
        kernel, stride, padding, dilation = (1, *kernel), (1, *stride), (0, *padding), (1, *dilation)
    if tuple(kernel) == (1, 1) and not any(padding):
        g_rows, g_columns = g.shape[3:]
        return OuterProducts(x[:, :, :: stride[0], :: stride[1]][:, :, :g_rows, :g_columns].flatten(2), g.flatten(3))
    axes = (Axis(*numbers) for numbers in zip(x.shape[2:], g.shape[3:], kernel, stride, padding, dilation, strict=True))
    return Correlation(x, g, *axes)


class Grouped(SampleGradients):
    """Groups as more samples of an ungrouped convolution."""

    def __init__(self, x: Tensor, g: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
                 dilation: Sequence[int], groups: int) -> None:
        self.groups = groups
        self.labels, self.samples, outputs = g.shape[:3]
        self.shape = (outputs, x.shape[1] // groups, *kernel)
        x = x.reshape(self.samples * groups, -1, *x.shape[2:])
        g = g.reshape(self.labels, self.samples * groups, -1, *g.shape[3:])
        self.parts = sample_correlation(x, g, kernel, stride, padding, dilation, groups=1)

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        last = self.samples if last is None else last
        return self.parts.dense(first * self.groups, last * self.groups).reshape(self.labels, last - first, *self.shape)

    def squared_norms(self) -> Tensor:
        return self.parts.squared_norms().view(self.labels, self.samples, self.groups).sum(-1)


def _spread(value: int | Sequence[int], dimensions: int) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(value)
    return numbers * dimensions if len(numbers) == 1 else numbers


class Convolution(Use):
    """``conv1d``, ``conv2d`` and ``conv3d``."""

    transposed = False

    def __init__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1,
                 padding: int | str | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1) -> None:
        dimensions = weight.dim() - 2
        if input.dim() != weight.dim():
            raise Unsupported("a convolution without a batch dimension")
        self.stride, self.dilation, self.groups = _spread(stride, dimensions), _spread(dilation, dimensions), groups
        self.output_padding = [0] * dimensions
        if padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, weight.shape[2:], strict=True)]
            self.padding = [total // 2 for total in totals]
            if any(total % 2 for total in totals):  # one more on the right
                input = F.pad(input, [pad for total in reversed(totals) for pad in (0, total % 2)])
        else:
            self.padding = [0] * dimensions if padding == "valid" else _spread(padding, dimensions)
        super().__init__(autocast(input), weight=weight, bias=bias)

    def output(self, x: Tensor) -> Tensor:
        return torch.convolution(x, self["weight"], self["bias"], self.stride, self.padding, self.dilation, self.transposed,
                                 self.output_padding, self.groups)

    def backward(self, x: Tensor, g: Tensor, needs_input_gradient: bool) -> tuple[Tensor | None, dict[str, SampleGradients]]:
        gx = None
        weight = self["weight"].to(g.dtype)
        if needs_input_gradient:
            like = x if len(g) == 1 else x.new_empty(1).expand(len(g) * len(x), *x.shape[1:])  # only its shape is read
            gx = torch.ops.aten.convolution_backward(
                g.flatten(0, 1), like.to(g.dtype), weight, None, self.stride, self.padding, self.dilation, self.transposed,
                self.output_padding, self.groups, (True, False, False),
            )[0].view(len(g), *x.shape)
        gradients = {"weight": self.weight_gradients(x, g)}
        if "bias" in self.parameters:
            gradients["bias"] = Formed(precise(g).flatten(3).sum(-1))
        return gx, gradients

    def weight_gradients(self, x: Tensor, g: Tensor) -> SampleGradients:
        kernel = self["weight"].shape[2:]
        return sample_correlation(x, g, kernel, self.stride, self.padding, self.dilation, self.groups)


class TransposedConvolution(Convolution):
    """``conv_transpose1d``, ``conv_transpose2d`` and ``conv_transpose3d``."""

    transposed = True

    def __init__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1,
                 padding: int | Sequence[int] = 0, output_padding: int | Sequence[int] = 0, groups: int = 1,
                 dilation: int | Sequence[int] = 1) -> None:
        super().__init__(input, weight, bias, stride, padding, dilation, groups)
        self.output_padding = _spread(output_padding, weight.dim() - 2)

    def weight_gradients(self, x: Tensor, g: Tensor) -> SampleGradients:
        labels, samples = g.shape[:2]
        kernel = self["weight"].shape[2:]
        every = x.expand(labels, *x.shape).reshape(1, labels * samples, *x.shape[1:])
        flat = sample_correlation(g.flatten(0, 1), every, kernel, self.stride, self.padding, self.dilation, self.groups)
        return flat if labels == 1 else Folded(flat, labels)


class Folded(SampleGradients):
    """Labels that were written as samples, (1, L·N), read as (L, N) again."""

    def __init__(self, flat: SampleGradients, labels: int) -> None:
        self.flat, self.labels, self.samples, self.shape = flat, labels, flat.samples // labels, flat.shape

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        return self.flat.dense().view(self.labels, self.samples, *self.shape)[:, first:last]

    def squared_norms(self) -> Tensor:
        return self.flat.squared_norms().view(self.labels, self.samples)
