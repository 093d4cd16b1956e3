r"""Convolutions and transposed convolutions, in one, two and three dimensions, with stride, padding, dilation and groups.

With patches U (K × T: K = I·kh·kw numbers at each of T output positions) the layer is y = W U, so dW = G Uᵀ as for a linear
layer on sequences. The patches repeat every pixel kh·kw times, and the two forms below never build them.

*Direct form, by kernel rows.* Write the input with its channels last and, at each output column, the kw pixels under a kernel row
side by side (kw copies of the input, not kh·kw). In that buffer the patches of kernel row i, at all output positions, are one
contiguous window of rows, shifted by i: dW is kh matrix products on views. With stride s the rows are sorted by their phase,
row mod s, and the windows are contiguous again.

*Gram form, from pixels.* (UᵀU)[t, s] = sum over kernel offsets d of ⟨x[t+d], x[s+d]⟩: the Gram of the *pixels*, XᵀX, added to
itself along kh·kw diagonal shifts, first the row shifts, then the column shifts. Zero padding only clips the shifts. That is
S²·I multiplications for S pixels, a factor kh·kw less than the Gram of patches.

*Groups* are separate convolutions: N samples in q groups are N·q samples of one ungrouped convolution.

*Transposed convolutions* exchange the roles: patches come from g, positions from x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.gradients.rules.base import (
    Formed,
    SampleGradients,
    Unsupported,
    Use,
    autocast,
    parts,
    precise,
    scratch_numbers,
    squared_sum,
)
from tutorial_lib.gradients.rules.cost import gram_is_cheaper
from tutorial_lib.gradients.rules.gram import gram_norms
from tutorial_lib.gradients.rules.linear import OuterProducts


class Axis(NamedTuple):
    """How the kernel walks along one axis: output t and kernel entry k meet input stride·t + dilation·k − padding."""

    size: int  # of the input
    out: int  # of the output
    kernel: int
    stride: int
    padding: int
    dilation: int

    def meeting(self, k: int) -> tuple[slice, slice]:
        """Outputs that meet a pixel, not the padding, through kernel entry k, and those pixels."""
        start = k * self.dilation - self.padding
        low = max(0, -(start // self.stride))
        high = max(low, min(self.out, (self.size - 1 - start) // self.stride + 1))
        return slice(low, high), slice(low * self.stride + start, max(0, (high - 1) * self.stride + start + 1), self.stride)

    def phase(self, k: int) -> int:
        """Input mod stride, the same for all outputs."""
        return (k * self.dilation - self.padding) % self.stride


class Correlation(SampleGradients):
    """dW[o, i, d] = sum over positions t of g[o, t] x[i, stride·t + dilation·d − padding], in two dimensions.

    Args:
        x: (N, I, H, W).
        g: (N, L, O, h, w).
        rows, columns: how the kernel walks.
    """

    def __init__(self, x: Tensor, g: Tensor, rows: Axis, columns: Axis) -> None:
        self.x, self.g, self.rows, self.columns = precise(x), precise(g), rows, columns
        self.samples, self.labels, outputs = g.shape[:3]
        self.shape = (outputs, x.shape[1], rows.kernel, columns.kernel)

    def squared_norms(self) -> Tensor:
        outputs, inputs, kh, kw = self.shape
        S, T = self.rows.size * self.columns.size, self.rows.out * self.columns.out
        if gram_is_cheaper(
            direct=T * inputs * kh * kw * outputs, gram=S * S * inputs + T * T * outputs, elementwise=(kh + kw + 2) * T * T
        ):
            numbers = S * S + (self.rows.out * self.columns.size) ** 2 + (1 + self.labels) * T * T
            return torch.cat([self._gram(*part) for part in parts(self.samples, numbers, scratch_numbers(self.x))])
        squared = [rows.square_().view(kh, -1, self.labels, outputs * kw * inputs).sum(-1).sum(0) for rows in self._kernel_rows()]
        return torch.cat(squared)

    def moments(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        outputs, inputs, kh, kw = self.shape
        by_row = reference.view(self.shape).to(self.x.dtype).permute(2, 0, 3, 1).reshape(kh, -1, 1)
        inner, squared = [], []
        for rows in self._kernel_rows():
            rows = rows.view(kh, -1, outputs * kw * inputs)
            inner.append((rows @ by_row).sum(0).view(-1, self.labels))
            squared.append(rows.square_().sum(-1).sum(0).view(-1, self.labels))
        return torch.cat(inner), torch.cat(squared)

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        outputs, inputs, kh, kw = self.shape
        some = Correlation(self.x[first:last], self.g[first:last], self.rows, self.columns)
        return torch.cat([
            rows.view(kh, -1, self.labels, outputs, kw, inputs).permute(1, 2, 3, 5, 0, 4) for rows in some._kernel_rows()
        ])

    # ------------------------------------------------------------------ direct form
    def _kernel_rows(self) -> Iterator[Tensor]:
        """dW of some samples after the other: (kh, n, L·O, kw·I), in memory that the next ones overwrite."""
        outputs, inputs, kh, kw = self.shape
        rows, columns = self.rows, self.columns
        lines = -(-rows.size // rows.stride)  # of the input that share a phase
        buffer_numbers, product_numbers = lines * columns.out * kw * inputs, kh * self.labels * outputs * kw * inputs
        ranges = list(parts(self.samples, buffer_numbers + product_numbers, scratch_numbers(self.x)))
        most = ranges[0][1]
        buffer = self.x.new_zeros(most, lines, columns.out, kw, inputs)  # padding stays zero: nothing is written there
        products = self.x.new_empty(kh, most, self.labels * outputs, kw * inputs)
        channels_last = self.x.permute(0, 2, 3, 1)
        G = self.g.reshape(self.samples, self.labels * outputs, rows.out * columns.out)

        meetings = {j: columns.meeting(j) for j in range(kw)}
        whole = slice(0, columns.out), slice(0, columns.size, 1)  # a copy of the input; the other columns are cheaper copied from it
        order = sorted(range(kw), key=lambda j: meetings[j] != whole)
        phases = [(phase, list(entries)) for phase, entries in groupby(sorted(range(kh), key=rows.phase), key=rows.phase)]
        at = columns.out
        kernel_rows = [
            (i, slice(to.start * at, to.stop * at), slice(of.start // rows.stride * at, (of.start // rows.stride + to.stop - to.start) * at))
            for i, (to, of) in ((i, rows.meeting(i)) for i in range(kh))
        ]
        for first, last in ranges:
            n = last - first
            for phase, entries in phases:
                source = channels_last[first:last, phase :: rows.stride]
                window = buffer[:n, : source.shape[1]]
                for j in order:
                    to, of = meetings[j]
                    window[:, :, to, j] = source[:, :, of]
                    if meetings[j] == whole:
                        source = window[:, :, :, j]
                window = window.view(n, -1, kw * inputs)
                for i in entries:
                    _, positions, under = kernel_rows[i]
                    torch.bmm(G[first:last, :, positions], window[:, under], out=products[i, :n])
            yield products[:, :n]

    # ------------------------------------------------------------------ Gram form
    def _patch_gram(self, x: Tensor) -> Tensor:
        """UᵀU (n, T, T) from the Gram of the pixels."""
        rows, columns = self.rows, self.columns
        pixels = x.flatten(2)
        gram = torch.bmm(pixels.mT, pixels).view(-1, rows.size, columns.size, rows.size, columns.size)
        shifted = gram.new_zeros(len(x), rows.out, columns.size, rows.out, columns.size)
        for i in range(rows.kernel):
            to, of = rows.meeting(i)
            shifted[:, to, :, to] += gram[:, of, :, of]
        patches = gram.new_zeros(len(x), rows.out, columns.out, rows.out, columns.out)
        for j in range(columns.kernel):
            to, of = columns.meeting(j)
            patches[:, :, to, :, to] += shifted[:, :, of, :, of]
        return patches.flatten(3).flatten(1, 2)

    def _gram(self, first: int, last: int) -> Tensor:
        x, g = self.x[first:last], self.g[first:last]
        G = g.flatten(3)
        return gram_norms(
            self._patch_gram(x), G.mT @ G, lambda n: squared_sum(Correlation(x[n], g[n], self.rows, self.columns).dense(), keep=2)
        )


class Volume(SampleGradients):
    """A correlation in three dimensions, formed by the library: one image of N·I channels, convolved in N groups."""

    def __init__(self, x: Tensor, g: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
                 dilation: Sequence[int]) -> None:
        self.x, self.g, self.settings = precise(x), precise(g), (list(stride), list(padding), list(dilation))
        self.samples, self.labels, outputs = g.shape[:3]
        self.shape = (outputs, x.shape[1], *kernel)

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        x, g = self.x[first:last], self.g[first:last]
        n, outputs = len(x), self.labels * self.shape[0]
        template = x.new_empty(1).expand(n * outputs, *self.shape[1:])  # only its shape is read
        return torch.ops.aten.convolution_backward(
            g.reshape(1, n * outputs, *g.shape[3:]), x.reshape(1, -1, *x.shape[2:]), template, None, *self.settings,
            False, [0, 0, 0], n, (False, True, False),
        )[1].view(n, self.labels, *self.shape)


class Grouped(SampleGradients):
    """Groups as more samples of an ungrouped convolution."""

    def __init__(self, ungrouped: SampleGradients, groups: int) -> None:
        outputs, *rest = ungrouped.shape
        self.ungrouped, self.groups = ungrouped, groups
        self.samples, self.labels, self.shape = ungrouped.samples // groups, ungrouped.labels, (outputs * groups, *rest)

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        formed = self.ungrouped.dense(first * self.groups, None if last is None else last * self.groups)
        return formed.unflatten(0, (-1, self.groups)).transpose(1, 2).flatten(2, 3)

    def squared_norms(self) -> Tensor:
        return self.ungrouped.squared_norms().unflatten(0, (-1, self.groups)).sum(1)


class LabelsAsSamples(SampleGradients):
    """N·L samples of one label, read as N samples of L labels."""

    def __init__(self, flat: SampleGradients, labels: int) -> None:
        self.flat, self.samples, self.labels, self.shape = flat, flat.samples // labels, labels, flat.shape

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        formed = self.flat.dense(first * self.labels, None if last is None else last * self.labels)
        return formed.view(-1, self.labels, *self.shape)

    def squared_norms(self) -> Tensor:
        return self.flat.squared_norms().view(-1, self.labels)


def correlation(x: Tensor, g: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
                dilation: Sequence[int], groups: int) -> SampleGradients:
    """The gradients of a convolution's weight, whatever its dimensions; x is (N, I, ...), g is (N, L, O, ...)."""
    if groups > 1:
        x = x.reshape(len(x) * groups, -1, *x.shape[2:])
        g = g.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)
        return Grouped(correlation(x, g, kernel, stride, padding, dilation, 1), groups)
    if len(kernel) == 3:
        return Volume(x, g, kernel, stride, padding, dilation)
    if len(kernel) == 1:  # a picture of one row
        x, g = x.unsqueeze(2), g.unsqueeze(3)
        kernel, stride, padding, dilation = (1, *kernel), (1, *stride), (0, *padding), (1, *dilation)
    if tuple(kernel) == (1, 1) and not any(padding):
        if stride[0] > 1 or stride[1] > 1:
            x = x[:, :, :: stride[0], :: stride[1]]
        return OuterProducts(x.flatten(2), g.flatten(3))
    axes = (Axis(*numbers) for numbers in zip(x.shape[2:], g.shape[3:], kernel, stride, padding, dilation, strict=True))
    return Correlation(x, g, *axes)



def _spread(value: int | Sequence[int], dimensions: int) -> Sequence[int]:
    if isinstance(value, int):
        return (value,) * dimensions
    return tuple(value) * dimensions if len(value) == 1 else value


class Convolution(Use):
    """``conv1d``, ``conv2d`` and ``conv3d``."""

    transposed = False

    def __init__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1,
                 padding: int | str | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1) -> None:
        dimensions = weight.dim() - 2
        if input.dim() != weight.dim():
            raise Unsupported("a convolution without a batch dimension")
        self.stride, self.dilation, self.groups = _spread(stride, dimensions), _spread(dilation, dimensions), groups
        self.output_padding = (0,) * dimensions
        if padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, weight.shape[2:], strict=True)]
            self.padding = [total // 2 for total in totals]
            if any(total % 2 for total in totals):  # one more on the right
                input = F.pad(input, [pad for total in reversed(totals) for pad in (0, total % 2)])
        else:
            self.padding = _spread(0 if padding == "valid" else padding, dimensions)
        super().__init__(autocast(input), weight=weight, bias=bias)

    def output(self, x: Tensor) -> Tensor:
        return torch.convolution(
            x, self.parameters["weight"], self.parameters["bias"], self.stride, self.padding, self.dilation, self.transposed,
            self.output_padding, self.groups,
        )

    def backward(self, x: Tensor, g: Tensor, needs_input_gradient: bool) -> tuple[Tensor | None, dict[str, SampleGradients]]:
        gx = None
        if needs_input_gradient:
            labels = g.shape[1]
            like = x if labels == 1 else x.new_empty(1).expand(len(x) * labels, *x.shape[1:])  # only its shape is read
            gx = torch.ops.aten.convolution_backward(
                g.flatten(0, 1), like.to(g.dtype), self.parameters["weight"].to(g.dtype), None, self.stride, self.padding,
                self.dilation, self.transposed, self.output_padding, self.groups, (True, False, False),
            )[0].unflatten(0, (-1, labels))
        gradients = {"weight": self.weight_gradients(x, g)}
        if self.parameters["bias"] is not None:
            gradients["bias"] = Formed(precise(g).flatten(3).sum(-1))
        return gx, gradients

    @property
    def kernel(self) -> Sequence[int]:
        return self.parameters["weight"].shape[2:]

    def weight_gradients(self, x: Tensor, g: Tensor) -> SampleGradients:
        return correlation(x, g, self.kernel, self.stride, self.padding, self.dilation, self.groups)


class TransposedConvolution(Convolution):
    """``conv_transpose1d``, ``conv_transpose2d`` and ``conv_transpose3d``."""

    transposed = True

    def __init__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1,
                 padding: int | Sequence[int] = 0, output_padding: int | Sequence[int] = 0, groups: int = 1,
                 dilation: int | Sequence[int] = 1) -> None:
        super().__init__(input, weight, bias, stride, padding, dilation, groups)
        self.output_padding = _spread(output_padding, weight.dim() - 2)

    def weight_gradients(self, x: Tensor, g: Tensor) -> SampleGradients:
        labels = g.shape[1]
        positions = x.unsqueeze(1).expand(-1, labels, *x.shape[1:]).flatten(0, 1).unsqueeze(1)
        flat = correlation(g.flatten(0, 1), positions, self.kernel, self.stride, self.padding, self.dilation, self.groups)
        return flat if labels == 1 else LabelsAsSamples(flat, labels)
