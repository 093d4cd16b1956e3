"""The direct form of a convolution's gradient, as matrix products on views of a buffer (see `correlation`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tutorial_lib.gradients.rules._arithmetic import parts, scratch_numbers


class Sized(Protocol):
    """What the memory of a layer depends on: a `Correlation`."""

    x: Tensor  # (N, I, H, W)
    g: Tensor  # (M, O, h, w)
    shape: tuple[int, ...]  # (O, I, kh, kw)
    samples: int
    labels: int
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]


class KernelRows:
    """The direct form for layers of one shape: memory for some samples' patches and products, and the views of it that take part.

    Making these takes as long as using them where layers are small, and memory that was just written is still in the
    processor's cache. So a network's next layer of the same shape takes them over.
    """

    def __init__(self, layer: Sized) -> None:
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
