r"""Convolutions and transposed convolutions, in one, two and three dimensions, with stride, padding, dilation and groups.

With patches U (K × T: K = I·kh·kw numbers at each of T output positions) the layer is y = W U, so dW = G Uᵀ as for a linear
layer on sequences. The patches repeat every pixel kh·kw times, and the two forms below never build them.

*Direct form, by kernel rows.* Write the padded input with its channels last. Then the kw pixels under one row of the kernel, at all
output columns, are a strided view of it; copied out (kw times the input, not kh·kw times), the patches of kernel row i at all
output positions are one contiguous window, i lines further down. So dW is kh matrix products on views. With stride s, the
lines are taken by their phase, line mod s, and the windows are contiguous again.

*Gram form, from pixels.* (UᵀU)[t, s] = sum over kernel offsets d of ⟨x[t+d], x[s+d]⟩: the Gram of the *pixels*, XᵀX, added to
itself along kh·kw diagonal shifts, first the row shifts, then the column shifts. Zero padding only clips the shifts. That is
S²·I multiplications for S pixels, a factor kh·kw less than the Gram of patches.

*Groups* are separate convolutions: N samples in q groups are N·q samples of one ungrouped convolution.

*Transposed convolutions* exchange the roles: patches come from g, positions from x.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.gradients.rules.base import (
    Formed,
    SampleGradients,
    Unsupported,
    Use,
    autocast,
    joined,
    norm,
    parts,
    precise,
    scratch_numbers,
    squared_sum,
)
from tutorial_lib.gradients.rules.cost import gram_is_cheaper
from tutorial_lib.gradients.rules.gram import gram_norms
from tutorial_lib.gradients.rules.linear import OuterProducts

Pair = tuple[int, int]


class Correlation(SampleGradients):
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
        kernel: Pair,
        stride: Pair,
        padding: Pair,
        dilation: Pair,
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

    def condensed(self) -> Tensor | Formed:
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
    def _norms_of_kernel_rows(self) -> Formed:
        kh = self.shape[2]
        numbers = prod(self.shape) // kh
        norms = [norm(rows.view(kh, -1, numbers)) for rows in self._kernel_rows()]
        return Formed(joined(norms, dim=1).mT, self.labels)

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


class KernelRows:
    """The direct form for layers of one shape: memory for some samples' patches and products, and the views of it that take part.

    Making these takes as long as using them where layers are small, and memory that was just written is still in the
    processor's cache. So a network's next layer of the same shape takes them over.
    """

    def __init__(self, layer: Correlation) -> None:
        outputs, inputs, self.kh, self.kw = layer.shape
        (self.H, self.W), (self.h, self.w) = layer.x.shape[2:], layer.g.shape[2:]
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
        height, width = (size + 2 * pad for size, pad in zip((self.H, self.W), self.padding, strict=True))
        lines = (self.kh - 1) * self.dilation[0] // self.stride[0] + self.h
        row = self.kw * inputs
        numbers = height * width * inputs + lines * self.w * row + self.kh * layer.labels * outputs * row
        self.samples = parts(layer.samples, numbers, scratch_numbers(layer.x))[0][1]
        self.padded = layer.x.new_zeros(self.samples, height, width, inputs)
        self.patches = layer.x.new_empty(self.samples, lines, self.w, self.kw, inputs)
        self.products = layer.x.new_empty(self.samples * self.kh * layer.labels * outputs * row)
        self.views: dict[int, tuple] = {}

    def __call__(self, x: Tensor, g: Tensor) -> Tensor:
        """dW (kh, n, L·O, kw·I) from x (n, I, H, W) and g (n, L·O, h·w)."""
        n = x.shape[0]
        inside, phases, products = self.views.get(n) or self._views_of(n)
        inside.copy_(x.permute(0, 2, 3, 1))
        for patches, under_kernel, factors in phases:
            patches.copy_(under_kernel)
            for window, product in factors:
                torch.bmm(g, window, out=product)
        return products

    def _views_of(self, n: int) -> tuple:
        (down, across), (above, left), (apart, aside) = self.stride, self.padding, self.dilation
        height, width, inputs = self.padded.shape[1:]
        lines = self.patches.shape[1]
        windows = self.patches[:n].view(n, lines * self.w, -1)
        products = self.products[: self.products.numel() // self.samples * n].view(self.kh, n, -1, windows.shape[2])
        phases = []
        # kernel row i meets lines down·t + apart·i of the padded input: phase + down·(skip + t)
        for phase in sorted({apart * i % down for i in range(self.kh)}):
            found = min(lines, -(-(height - phase) // down))
            under_kernel = self.padded.as_strided(
                (n, found, self.w, self.kw, inputs),
                (height * width * inputs, down * width * inputs, across * inputs, aside * inputs, 1),
                phase * width * inputs,
            )
            rows = [i for i in range(self.kh) if apart * i % down == phase]
            skips = [apart * i // down * self.w for i in rows]
            factors = [
                (windows[:, skip : skip + self.h * self.w], products[i]) for i, skip in zip(rows, skips, strict=True)
            ]
            phases.append((self.patches[:n, :found], under_kernel, factors))
        inside = self.padded[:n, above : above + self.H, left : left + self.W]
        self.views[n] = inside, phases, products
        return self.views[n]


class Volume(SampleGradients):
    """A correlation in three dimensions, formed by the library: one image of N·I channels, convolved in N groups."""

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
            (0, 0, 0),
            len(x),
            (False, True, False),
        )[1].view(-1, *self.shape)


class Grouped(SampleGradients):
    """Groups as more samples of an ungrouped convolution."""

    def __init__(self, ungrouped: SampleGradients, groups: int) -> None:
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
) -> SampleGradients:
    """The gradients of a convolution's weight, whatever its dimensions; x is (N, I, ...), g is (M, O, ...)."""
    if groups > 1:
        labels = len(g) // len(x)
        x = x.reshape(len(x) * groups, -1, *x.shape[2:])
        g = g.view(-1, labels, groups, g.shape[1] // groups, *g.shape[2:]).transpose(1, 2).flatten(0, 2)
        return Grouped(correlation(x, g, kernel, stride, padding, dilation, 1, scratch), groups)
    if len(kernel) == 3:
        return Volume(x, g, kernel, stride, padding, dilation)
    if len(kernel) == 1:  # a picture of one line
        x, g = x.unsqueeze(2), g.unsqueeze(2)
        kernel, stride, padding, dilation = (1, *kernel), (1, *stride), (0, *padding), (1, *dilation)
    if tuple(kernel) == (1, 1) and not any(padding):
        (h, w), (down, across) = g.shape[2:], stride
        if max(stride) > 1:
            x = x[:, :, : h * down : down, : w * across : across]
        return OuterProducts(x.flatten(2), g.flatten(2))
    return Correlation(x, g, kernel, stride, padding, dilation, scratch)


def _spread(value: int | Sequence[int], dimensions: int) -> Sequence[int]:
    if isinstance(value, int):
        return (value,) * dimensions
    return tuple(value) * dimensions if len(value) == 1 else tuple(value)


class Convolution(Use):
    """``conv1d``, ``conv2d`` and ``conv3d``."""

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
            self.padding = _spread(0 if padding == "valid" else padding, dimensions)
        super().__init__(autocast(input), weight=weight, bias=bias)

    def output(self, x: Tensor) -> Tensor:
        weight, bias = self.typed(x.dtype)
        return torch.convolution(
            x, weight, bias, self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups
        )

    def backward(
        self, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, SampleGradients]]:
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
            gradients["bias"] = Formed(precise(g).flatten(2).sum(2), labels=len(g) // len(x))
        return gx, gradients

    def weight_gradients(self, x: Tensor, g: Tensor) -> SampleGradients:
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

    def weight_gradients(self, x: Tensor, g: Tensor) -> SampleGradients:
        positions = x if len(g) == len(x) else x.repeat_interleave(len(g) // len(x), 0)
        return correlation(
            g, positions, self.kernel, self.stride, self.padding, self.dilation, self.groups, self.scratch
        )
