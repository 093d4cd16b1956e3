"""Two ideas that every rule shares: a use of parameters, and gradients that need not be formed.

A network is a chain of *uses*: y = f(x; parameters), a convolution with its weight and bias, say. As long as no operation mixes
the samples of a batch, the derivative of the summed loss at sample n's slice of y is that sample's own derivative. So one batched
backward pass hands every use the pair (x, g), g = dL/dy, of all samples at once, and the pair says all there is to know about
the gradients of the use's parameters, sample by sample.

Shapes, here and in every rule: N samples, L labels (different losses of the same output; 1 unless every class is asked for).
``x`` is (N, ...) and ``g`` is (N, L, ...): the input of a layer is the same for all labels and is looked at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import torch
from torch import Tensor

SCRATCH_BYTES = 1 << 20
"""Temporary memory that a rule uses at once, a thread: half of a processor core's own cache. Twice as much costs 10 % of a
convolution's time, ten times as much a half; with less, small layers spend their time on calls."""


def scratch_numbers(like: Tensor) -> int:
    """How many numbers of this type fit the scratch memory. A GPU has no such limit, but its memory has."""
    size = SCRATCH_BYTES * torch.get_num_threads() if like.device.type == "cpu" else SCRATCH_BYTES << 8
    return size // like.element_size()


def precise(tensor: Tensor) -> Tensor:
    """Half precision as float32: squares of numbers around 1e-5 are zero in float16 and have three digits in bfloat16."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def squared_sum(tensor: Tensor, keep: int) -> Tensor:
    """Sum of squares over all but the first ``keep`` axes. (A vector norm in float32 loses digits on long vectors.)"""
    return tensor.flatten(keep).square().sum(-1) if tensor.dim() > keep else tensor.square()


def autocast(tensor: Tensor) -> Tensor:
    """The tensor in the type that autocast will compute in, so that what is kept for the backward pass is what was used."""
    kind = tensor.device.type
    if tensor.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return tensor.to(torch.get_autocast_dtype(kind))
    return tensor


class SampleGradients:
    """The gradients of one parameter tensor, one a sample and label: (N, L, *shape), formed only if that is cheaper.

    A rule that knows nothing better implements `dense`; a rule that does overrides `squared_norms` or `moments`.
    """

    samples: int
    labels: int
    shape: tuple[int, ...]

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        """Form the gradients of samples first:last: (last − first, L, *shape)."""
        raise NotImplementedError

    def squared_norms(self) -> Tensor:
        """Squared L2 norms (N, L)."""
        return torch.cat([squared_sum(self.dense(*part), keep=2) for part in self._parts()])

    def moments(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Inner products with ``reference`` (of the parameter's shape) and squared norms, each (N, L)."""
        inner, squared = [], []
        for part in self._parts():
            gradients = self.dense(*part).flatten(2)
            inner.append(gradients @ reference.flatten().to(gradients.dtype))
            squared.append(gradients.square().sum(-1))
        return torch.cat(inner), torch.cat(squared)

    def _parts(self) -> Iterator[tuple[int, int]]:
        """Ranges of samples whose formed gradients fit the scratch memory."""
        return parts(self.samples, self.labels * prod(self.shape), SCRATCH_BYTES // 4)


def parts(samples: int, numbers_per_sample: int, numbers: int) -> Iterator[tuple[int, int]]:
    """Ranges of samples, as equal as can be, of at most so many numbers (but at least one sample)."""
    pieces = -(-samples * numbers_per_sample // numbers) if numbers_per_sample <= numbers else samples
    step = -(-samples // pieces)
    return ((first, min(first + step, samples)) for first in range(0, samples, step))


class Formed(SampleGradients):
    """Gradients that exist already, (N, L, *shape): biases, scales, sums over several uses."""

    def __init__(self, gradients: Tensor) -> None:
        self.gradients = precise(gradients)
        self.samples, self.labels, *shape = gradients.shape
        self.shape = tuple(shape)

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        return self.gradients[first:last]

    def squared_norms(self) -> Tensor:
        return squared_sum(self.gradients, keep=2)


class Use:
    """One use of parameters in a forward pass, y = f(x; parameters).

    A rule is a subclass. Its constructor takes the arguments of the torch function that it stands for, hands the input and the
    parameters to this one, and raises `Unsupported` for the arguments that it cannot do. The methods run outside autograd.
    """

    free_axes = 1
    """How many leading axes of the input the layer treats alike: the samples stand on one of them."""

    def __init__(self, input: Tensor, **parameters: Tensor | None) -> None:
        self.input: Tensor | None = input
        self.parameters = parameters
        self.names: dict[str, str] = {}  # by role, of those that are asked about

    def output(self, x: Tensor) -> Tensor:
        """y."""
        raise NotImplementedError

    def backward(self, x: Tensor, g: Tensor, needs_input_gradient: bool) -> tuple[Tensor | None, dict[str, SampleGradients]]:
        """dL/dx (N, L, ...), or None if nobody needs it, and the gradients of each parameter by role."""
        raise NotImplementedError


class Unsupported(Exception):
    """A rule cannot do these arguments; the parameters then take the exact fallback."""
