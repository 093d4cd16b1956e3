r"""The weight's gradients of a convolution: a correlation of activations and backprops.

With patches U (K × T: K = I·kh·kw numbers at each of T output positions) the layer is y = W U, so dW = G Uᵀ as for a linear
layer on sequences. The patches repeat every pixel kh·kw times, and the two forms below never build them.

*Direct form, by kernel rows.* Write the padded input with its channels last. Then the kw pixels under one row of the kernel, at all
output columns, are a strided view of it; copied out (kw times the input, not kh·kw times), the patches of kernel row i at all
output positions are one contiguous window, i lines further down. So dW is kh matrix products on views. With stride s, the
lines are taken by their phase, line mod s, and the windows are contiguous again.

*Gram form, from pixels.* (UᵀU)[t, s] = sum over kernel offsets d of ⟨x[t+d], x[s+d]⟩: the Gram of the *pixels*, XᵀX, added to
itself along kh·kw diagonal shifts, first the row shifts, then the column shifts. Zero padding only clips the shifts. That is
S²·I multiplications for S pixels, a factor kh·kw less than the Gram of patches.

*Groups* are separate convolutions: N samples in q groups are N·q samples of one ungrouped convolution. With one channel in each (a
depthwise layer) the library forms them all at once, as the weight's gradient of one image of N·q channels: the 17 layers of
MobileNetV2 take 7 ms that way and 16 the other. Where an output has one position, U and G have one column, and the product has rank one.

*Transposed convolutions* exchange the roles: patches come from g, positions from x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.gradients.rules._arithmetic import joined, norm, parts, precise, scratch_numbers, squared_sum
from tutorial_lib.gradients.rules.cost import gram_is_cheaper
from tutorial_lib.gradients.rules.ghost_norm import gram_norms
from tutorial_lib.gradients.rules.kernel_rows import KernelRows
from tutorial_lib.gradients.rules.linear import OuterProducts
from tutorial_lib.gradients.rules.per_sample import Materialized, PerSampleGradients


class Correlation(PerSampleGradients):
    """dW[o, i, d] = sum over positions t of g[o, t] x[i, stride·t + dilation·d − padding], in two dimensions.

    Args:
        x: (N, I, H, W).
        g: (M, O, h, w).
        kernel, stride, padding, dilation: one number for rows and one for columns each.
        scratch: memory that layers hand on, see `KernelRows`.
    """

    def __init__(
        self,
        x: Tensor,
        g: Tensor,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        scratch: dict[object, KernelRows] | None = None,
    ) -> None:
        self.x, self.g = precise(x), precise(g)
        self.scratch = {} if scratch is None else scratch
        self.samples, inputs = x.shape[:2]
        self.labels = g.shape[0] // self.samples
        self.shape = (g.shape[1], inputs, *kernel)
        self.stride, self.padding, self.dilation = stride, padding, dilation

    def squared_norms(self) -> Tensor:
        if self._prefers_gram():
            (H, W), (h, w) = self.x.shape[2:], self.g.shape[2:]
            numbers = (H * W) ** 2 + (h * W) ** 2 + (1 + self.labels) * (h * w) ** 2
            ranges = parts(self.samples, numbers, scratch_numbers(self.x))
            return joined([self._gram(first, last) for first, last in ranges])
        return self._norms_of_kernel_rows().squared_norms()

    def condensed(self) -> Tensor | Materialized:
        return self.squared_norms() if self._prefers_gram() else self._norms_of_kernel_rows()

    def moments(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        reference = reference.view(self.shape).to(self.x.dtype)
        if self._prefers_gram():  # <dW, V> = <g, V * x>: the layer, with the reference as its weight
            through = F.conv2d(self.x, reference, None, self.stride, self.padding, self.dilation)
            through = through[:, :, : self.g.shape[2], : self.g.shape[3]].reshape(self.samples, 1, -1)
            return (self.g.view(self.samples, self.labels, -1) * through).sum(-1).flatten(), self.squared_norms()
        kh = self.shape[2]
        by_row = reference.permute(2, 0, 3, 1).reshape(kh, -1, 1)
        inner, squared = [], []
        for rows in self._kernel_rows():
            rows = rows.view(kh, -1, by_row.shape[1])
            inner.append(torch.bmm(rows, by_row).sum(0).squeeze(1))
            squared.append(squared_sum(rows.flatten(0, 1)).view(kh, -1).sum(0))
        return joined(inner), joined(squared)

    def _prefers_gram(self) -> bool:
        outputs, inputs, kh, kw = self.shape
        S, T = prod(self.x.shape[2:]), prod(self.g.shape[2:])
        return gram_is_cheaper(
            samples=self.g.shape[0],
            direct=T * inputs * kh * kw * outputs,
            gram=S * S * inputs + T * T * outputs,
            elementwise=(kh + kw + 2) * T * T,
        )

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        outputs, inputs, kh, kw = self.shape
        some = self[slice(first, self.samples if last is None else last)]
        return joined(
            [rows.view(kh, -1, outputs, kw, inputs).permute(1, 2, 4, 0, 3).clone() for rows in some._kernel_rows()]
        )

    def __getitem__(self, samples: slice | Tensor) -> Correlation:
        """The same for some of the samples."""
        g = self.g.unflatten(0, (self.samples, self.labels))[samples].flatten(0, 1)
        return Correlation(self.x[samples], g, self.shape[2:], self.stride, self.padding, self.dilation)

    # ------------------------------------------------------------------ direct form
    def _norms_of_kernel_rows(self) -> Materialized:
        kh = self.shape[2]
        numbers = prod(self.shape) // kh
        norms = [norm(rows.view(kh, -1, numbers)) for rows in self._kernel_rows()]
        return Materialized(joined(norms, dim=1).mT, self.labels)

    def _kernel_rows(self) -> Iterator[Tensor]:
        """dW of some samples after the other: (kh, n, L·O, kw·I), in memory that the next ones overwrite."""
        numbers = self.x.dtype, self.x.device  # a network may have parts on several devices
        settings = (self.x.shape, self.g.shape, self.shape, self.stride, self.padding, self.dilation, *numbers)
        rows = self.scratch.get(settings)
        if rows is None:
            self.scratch.clear()
            rows = self.scratch[settings] = KernelRows(self)
        g = self.g.reshape(self.samples, -1, self.g.shape[2] * self.g.shape[3])
        if rows.samples == self.samples:
            yield rows(self.x, g)
        else:
            yield from map(rows, self.x.split(rows.samples), g.split(rows.samples))

    # ------------------------------------------------------------------ Gram form
    def _gram(self, first: int, last: int) -> Tensor:
        some = self if last - first == self.samples else self[first:last]
        G = some.g.flatten(2)
        return gram_norms(some._patch_gram(), torch.bmm(G.mT, G), lambda n: squared_sum(some[n].dense()))

    def _patch_gram(self) -> Tensor:
        """UᵀU (N, T, T) from the Gram of the pixels."""
        (H, W), (h, w) = self.x.shape[2:], self.g.shape[2:]
        pixels = self.x.flatten(2)
        gram = torch.bmm(pixels.mT, pixels).view(-1, H, W, H, W)
        gram = self._shifted_sum(gram, axis=0)  # the first is not needed any more, and should not stay
        return self._shifted_sum(gram, axis=1).view(self.samples, h * w, h * w)

    def _shifted_sum(self, gram: Tensor, axis: int) -> Tensor:
        """The Gram (N, rows, columns, rows, columns) added to itself along the kernel's shifts of rows or columns."""
        before = (slice(None),) * (1 + axis)
        shape = list(gram.shape)
        shape[1 + axis] = shape[3 + axis] = self.g.shape[2 + axis]
        total: Tensor | None = None
        for to, of in sorted(self._shifts(axis), key=lambda shift: shift[0].start - shift[0].stop):
            part = gram[*before, of, :, of]
            if total is None and to == slice(0, shape[1 + axis]):  # all outputs, as the middle of a padded kernel
                total = part.clone(memory_format=torch.contiguous_format)
                continue
            if total is None:
                total = gram.new_zeros(shape)
            total[*before, to, :, to] += part
        return gram.new_zeros(shape) if total is None else total

    def _shifts(self, axis: int) -> Iterator[tuple[slice, slice]]:
        """For each kernel entry along an axis: the outputs that meet pixels (not padding) through it, and those pixels."""
        size, out, stride = self.x.shape[2 + axis], self.g.shape[2 + axis], self.stride[axis]
        for k in range(self.shape[2 + axis]):
            start = k * self.dilation[axis] - self.padding[axis]
            low = max(0, -(start // stride))
            high = min(out, (size - 1 - start) // stride + 1)
            if low < high:
                yield slice(low, high), slice(low * stride + start, (high - 1) * stride + start + 1, stride)


class ByLibrary(PerSampleGradients):
    """A correlation in any dimensions, formed by the library: one image of N·I channels, convolved in N groups."""

    def __init__(self, x: Tensor, g: Tensor, kernel: Sequence[int], *settings: Sequence[int]) -> None:
        self.x, self.g, self.settings = precise(x), precise(g), settings
        self.samples, inputs = x.shape[:2]
        self.labels = len(g) // len(x)
        self.shape = (g.shape[1], inputs, *kernel)

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        x, g = self.x[first:last], self.g[first * self.labels : None if last is None else last * self.labels]
        template = x.new_empty(1).expand(len(g) * self.shape[0], *self.shape[1:])  # only its shape is read
        return torch.ops.aten.convolution_backward(
            g.reshape(1, -1, *g.shape[2:]),
            x.reshape(1, -1, *x.shape[2:]),
            template,
            None,
            *self.settings,
            False,
            (0,) * len(self.settings[0]),
            len(x),
            (False, True, False),
        )[1].view(-1, *self.shape)


class Grouped(PerSampleGradients):
    """Groups as more samples of an ungrouped convolution."""

    def __init__(self, ungrouped: PerSampleGradients, groups: int) -> None:
        outputs, *rest = ungrouped.shape
        self.ungrouped, self.groups = ungrouped, groups
        self.samples, self.labels, self.shape = ungrouped.samples // groups, ungrouped.labels, (outputs * groups, *rest)

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        formed = self.ungrouped.dense(first * self.groups, None if last is None else last * self.groups)
        return self._by_sample(formed).reshape(-1, *self.shape)

    def squared_norms(self) -> Tensor:
        return self._by_sample(self.ungrouped.squared_norms()).sum(2).flatten()

    def _by_sample(self, values: Tensor) -> Tensor:
        """(N·groups·L, ...) as (N, L, groups, ...)."""
        return values.unflatten(0, (-1, self.groups, self.labels)).transpose(1, 2)


def correlation(
    x: Tensor,
    g: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    scratch: dict[object, KernelRows] | None = None,
) -> PerSampleGradients:
    """The gradients of a convolution's weight, whatever its dimensions; x is (N, I, ...), g is (M, O, ...)."""
    if groups > 1:
        labels = len(g) // len(x)
        x = x.reshape(len(x) * groups, -1, *x.shape[2:])
        g = g.view(-1, labels, groups, g.shape[1] // groups, *g.shape[2:]).transpose(1, 2).flatten(0, 2)
        one_channel_each = x.shape[1] == 1  # a depthwise layer, which processor libraries have a kernel for
        return Grouped(_ungrouped(x, g, kernel, stride, padding, dilation, scratch, one_channel_each), groups)
    return _ungrouped(x, g, kernel, stride, padding, dilation, scratch)


def _ungrouped(
    x: Tensor,
    g: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    scratch: dict[object, KernelRows] | None,
    one_channel_each: bool = False,
) -> PerSampleGradients:
    if prod(g.shape[2:]) == 1:  # one position: G Xᵀ is an outer product
        return OuterProducts(_window(x, kernel, padding, dilation), g.flatten(2))
    if len(kernel) == 3 or one_channel_each:
        return ByLibrary(x, g, kernel, stride, padding, dilation)
    if len(kernel) == 1:  # a picture of one line
        x, g = x.unsqueeze(2), g.unsqueeze(2)
        kernel, stride, padding, dilation = (1, *kernel), (1, *stride), (0, *padding), (1, *dilation)
    if tuple(kernel) == (1, 1) and not any(padding):
        (h, w), (down, across) = g.shape[2:], stride
        if max(stride) > 1:
            x = x[:, :, : h * down : down, : w * across : across]
        return OuterProducts(x.flatten(2), g.flatten(2))
    return Correlation(x, g, kernel, stride, padding, dilation, scratch)


def _window(x: Tensor, kernel: Sequence[int], padding: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """What the kernel lies on at the first position, (N, I·kernel, 1)."""
    if any(padding):
        x = F.pad(x, [pad for pad in reversed(padding) for _ in (0, 1)])
    inside = [slice(0, (k - 1) * apart + 1, apart) for k, apart in zip(kernel, dilation, strict=True)]
    return x[:, :, *inside].flatten(1).unsqueeze(2)
