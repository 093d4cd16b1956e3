"""Two ideas that every rule shares: a use of parameters, and gradients that need not be formed.

A network is a chain of *uses*: y = f(x; parameters), a convolution with its weight and bias, say. As long as no operation mixes
the samples of a batch, the derivative of the summed loss at sample n's slice of y is that sample's own derivative. So one batched
backward pass hands every use the pair (x, g), g = dL/dy, of all samples at once, and the pair says all there is to know about
the gradients of the use's parameters, sample by sample.

Shapes, here and in every rule: ``x`` is (N, ...), N samples; ``g`` is (M, ...), M = N·L, where L is the number of labels that the
backward pass carries, different losses of the same output: L = 1 unless every class is asked for. The L entries of a sample stand
together. The input of a layer is the same for all labels, so what depends on x alone is done once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

SCRATCH_BYTES = 3 << 19
"""Temporary memory that a rule uses at once, a thread: half of a processor core's own cache. Twice as much costs a convolution
10 % of its time, ten times as much half of it; with less, small layers spend their time on calls."""

LONG = 1 << 16
"""Numbers from which on a vector norm, which the library adds up without pairing, would lose a digit of float32: 1e-6 here."""


class SampleGradients:
    """The gradients of one parameter tensor, one a sample and label: (M, *shape), formed only if that is cheaper.

    A rule that knows nothing better implements `dense`; a rule that does overrides `squared_norms` or `moments`.
    """

    samples: int  # N
    labels: int  # L
    shape: tuple[int, ...]

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        """Form the gradients of samples first:last: ((last − first)·L, *shape)."""
        raise NotImplementedError

    def squared_norms(self) -> Tensor:
        """Squared L2 norms (M,)."""
        return joined([squared_sum(self.dense(*part)) for part in self._parts()])

    def condensed(self) -> Tensor | Formed:
        """Squared norms (M,), or short vectors (M, k) of the same norms: many layers' vectors can be squared and added up at once."""
        return self.squared_norms()

    def moments(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Inner products with ``reference`` (of the parameter's shape) and squared norms, each (M,)."""
        inner, squared = [], []
        for part in self._parts():
            gradients = self.dense(*part)
            gradients = gradients.reshape(len(gradients), -1)
            inner.append(gradients @ reference.flatten().to(gradients.dtype))
            squared.append(squared_sum(gradients))
        return joined(inner), joined(squared)

    def _parts(self) -> list[tuple[int, int]]:
        return parts(self.samples, self.labels * prod(self.shape), SCRATCH_BYTES // 4)


class Formed(SampleGradients):
    """Gradients that exist already, (M, *shape): biases, scales, sums over several uses."""

    def __init__(self, gradients: Tensor, labels: int = 1) -> None:
        self.gradients, self.labels = gradients, labels
        self.samples, self.shape = gradients.shape[0] // labels, gradients.shape[1:]

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        return precise(self.gradients[first * self.labels : None if last is None else last * self.labels])

    def squared_norms(self) -> Tensor:
        return squared_sum(precise(self.gradients))

    def condensed(self) -> Tensor | Formed:
        return self if self.gradients.dim() == 2 else self.squared_norms()


def squared_norms_of_vectors(vectors: Mapping[str, Formed]) -> dict[str, Tensor]:
    """Squared norms (M,) of many short vectors (M, k): those of one length in one go."""
    by_length: dict[int, list[str]] = {}
    for name, formed in vectors.items():
        by_length.setdefault(formed.shape[0], []).append(name)
    squared: dict[str, Tensor] = {}
    for names in by_length.values():
        stacked = Formed(torch.cat([vectors[name].gradients for name in names]))
        squared |= zip(names, stacked.squared_norms().chunk(len(names)), strict=True)
    return squared


class Alone(SampleGradients):
    """The ordinary gradient of one sample for one label, (*shape). Its answers are single numbers, without an axis of samples."""

    def __init__(self, gradient: Tensor) -> None:
        self.gradient = gradient

    def squared_norms(self) -> Tensor:
        vector = precise(self.gradient).reshape(-1)
        return torch.dot(vector, vector)

    def moments(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        vector = precise(self.gradient).reshape(-1)
        return torch.dot(vector, reference.flatten().to(vector.dtype)), torch.dot(vector, vector)


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
        self.scratch: dict = {}  # memory that a use may leave for the next; shared by the uses of a backward pass
        self.names: dict[str, str] = {}  # by role, of those that are asked about

    def typed(self, dtype: torch.dtype) -> list[Tensor | None]:
        """The parameters in the type that autocast computes in."""
        return [
            tensor if tensor is None or tensor.dtype == dtype else tensor.to(dtype)
            for tensor in self.parameters.values()
        ]

    def output(self, x: Tensor) -> Tensor:
        """y."""
        raise NotImplementedError

    def backward(
        self, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, SampleGradients]]:
        """dL/dx (M, ...), or None if nobody needs it, and the gradients of each parameter by role."""
        raise NotImplementedError


class Unsupported(Exception):
    """A rule cannot do these arguments; the parameters then take the exact fallback."""


# ------------------------------------------------------------------ arithmetic
def squared_sum(tensor: Tensor) -> Tensor:
    """Sum of squares over all but the first axis."""
    rows = tensor.shape[0]
    if rows == 1 and tensor.numel() <= LONG:
        vector = tensor.reshape(-1)
        return torch.dot(vector, vector).unsqueeze(0)
    return norm(tensor if tensor.dim() == 2 else tensor.reshape(rows, -1)).square()


def norm(tensor: Tensor) -> Tensor:
    """L2 norm over the last axis."""
    if tensor.shape[-1] > LONG:
        return tensor.square().sum(-1).sqrt()
    return torch.linalg.vector_norm(tensor, dim=-1)


def precise(tensor: Tensor) -> Tensor:
    """Half precision as float32: squares of numbers around 1e-5 are zero in float16 and have three digits in bfloat16."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def autocast(tensor: Tensor) -> Tensor:
    """The tensor in the type that autocast will compute in, so that what is kept for the backward pass is what was used."""
    if tensor.dtype == torch.float32 and torch.is_autocast_enabled(tensor.device.type):
        return tensor.to(torch.get_autocast_dtype(tensor.device.type))
    return tensor


# ------------------------------------------------------------------ working in parts
def scratch_numbers(like: Tensor) -> int:
    """How many numbers of this type fit the scratch memory. A GPU has no such cache to keep to, but its memory ends too."""
    size = SCRATCH_BYTES * torch.get_num_threads() if like.device.type == "cpu" else SCRATCH_BYTES << 8
    return size // like.element_size()


def parts(samples: int, numbers_per_sample: int, numbers: int) -> list[tuple[int, int]]:
    """Ranges of samples, as equal as can be, of at most so many numbers (but at least one sample).

    A product of a batch gives every thread whole samples, so a range holds a multiple of the number of threads.
    """
    threads = torch.get_num_threads()
    most = max(1, numbers // numbers_per_sample // threads * threads)
    pieces = -(-samples // most)
    step = -(-samples // pieces)
    if most >= threads:
        step = -(-step // threads) * threads
    return [(first, min(first + step, samples)) for first in range(0, samples, step)]


def joined(pieces: Sequence[Tensor], dim: int = 0) -> Tensor:
    return pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), dim)
