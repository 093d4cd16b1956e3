"""The gradients of one parameter tensor, one for each sample, in the forms in which rules leave them.

Shapes, here and in every rule: activations ``x`` are (N, ...), N samples; backprops ``g`` are (M, ...), M = N·L, where L is the number
of labels that the backward pass carries, different losses of the same output: L = 1 unless every class is asked for. The L entries of
a sample stand together. The input of a layer is the same for all labels, so what depends on x alone is done once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from tutorial_lib.gradients.rules import _arithmetic
from tutorial_lib.gradients.rules._arithmetic import joined, parts, precise, squared_sum


class PerSampleGradients:
    """Gradients of one parameter tensor, one for each sample and label: (M, *shape), formed only if that is cheaper.

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

    def condensed(self) -> Tensor | Materialized:
        """Squared norms (M,), or short vectors (M, k) of the same norms: many layers' vectors can be squared and added up at once."""
        return self.squared_norms()

    def moments(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Inner products with ``reference`` (of the parameter's shape) and squared norms, each (M,)."""
        inner, squared = [], []
        for part in self._parts():
            gradients = self.dense(*part)
            gradients = gradients.reshape(len(gradients), -1)  # (m, numbers)
            inner.append(gradients @ reference.flatten().to(gradients.dtype))
            squared.append(squared_sum(gradients))
        return joined(inner), joined(squared)

    def _parts(self) -> list[tuple[int, int]]:
        return parts(self.samples, self.labels * prod(self.shape), _arithmetic.SCRATCH_BYTES // 4)


class Materialized(PerSampleGradients):
    """Gradients that exist already, (M, *shape): biases, scales."""

    def __init__(self, gradients: Tensor, labels: int = 1) -> None:
        self.gradients, self.labels = gradients, labels
        self.samples, self.shape = gradients.shape[0] // labels, tuple(gradients.shape[1:])

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        return precise(self.gradients[first * self.labels : None if last is None else last * self.labels])

    def squared_norms(self) -> Tensor:
        return squared_sum(precise(self.gradients))

    def condensed(self) -> Tensor | Materialized:
        return self if self.gradients.dim() == 2 else self.squared_norms()


class Folded(PerSampleGradients):
    """Entries of a batch that several make one sample, such as the frames of a film: their gradients are added up.

    Args:
        entries: the gradients of N·k entries, the k of a sample one after the other.
        each: k.
    """

    def __init__(self, entries: PerSampleGradients, each: int) -> None:
        self.entries, self.each = entries, each
        self.samples, self.labels, self.shape = entries.samples // each, entries.labels, entries.shape

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        formed = self.entries.dense(first * self.each, None if last is None else last * self.each)
        return formed.unflatten(0, (-1, self.each, self.labels)).sum(1).flatten(0, 1)  # (n·L, *shape)


class Total(PerSampleGradients):
    """A parameter that is used several times: its gradient is the sum over the uses, and must be squared after adding."""

    def __init__(self, uses: Sequence[PerSampleGradients], shape: Sequence[int]) -> None:
        self.uses, self.shape = uses, tuple(shape)
        self.samples, self.labels = uses[0].samples, uses[0].labels

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        total = self.uses[0].dense(first, last)
        for use in self.uses[1:]:
            total = total.reshape(len(total), *self.shape) + use.dense(first, last).reshape(len(total), *self.shape)
        return total.reshape(len(total), *self.shape)


class SingleGradient(PerSampleGradients):
    """The ordinary gradient of one sample for one label, (*shape). Its norms are single numbers, without an axis of samples."""

    def __init__(self, gradient: Tensor) -> None:
        if gradient.layout != torch.strided:
            gradient = gradient.to_dense()  # an embedding's, sparse
        if gradient.is_complex():
            gradient = torch.view_as_real(gradient.resolve_conj())  # |g|² = Re² + Im²
        self.gradient = gradient

    def squared_norms(self) -> Tensor:
        return squared_sum(precise(self.gradient).reshape(1, -1)).squeeze(0)

    def moments(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        if reference.is_complex():
            reference = torch.view_as_real(reference.resolve_conj())
        vector = precise(self.gradient).reshape(-1)
        return torch.dot(vector, reference.flatten().to(vector.dtype)), self.squared_norms()


def squared_norms_of_vectors(vectors: Mapping[str, Materialized]) -> dict[str, Tensor]:
    """Squared norms (M,) of many short vectors (M, k): those of one length in one go."""
    by_length: dict[int, list[str]] = {}
    for name, formed in vectors.items():
        by_length.setdefault(formed.shape[0], []).append(name)
    squared: dict[str, Tensor] = {}
    for names in by_length.values():
        stacked = Materialized(torch.cat([vectors[name].gradients for name in names]))
        squared |= zip(names, stacked.squared_norms().chunk(len(names)), strict=True)
    return squared
