"""Where the samples stand in every tensor of a forward pass.

A layer's input of shape (8, 8, 64) does not say which of the eights counts samples, or whether any does: ``tokens(x)`` of eight
samples and eight words has the shape of ``positions(arange(8))``. How the tensor came about says it. So every tensor of the pass gets
a *mark*, which each operation hands on: the images have the samples on axis 0; a transposition moves the axis; a reshape may fold it
into another one; what is computed from parameters and constants alone has no such axis.

=====================  =====================================================================================
mark                    what is known
=====================  =====================================================================================
`Samples`               the samples stand on this axis
`CONSTANT`              computed from parameters, buffers and shapes alone: the same for every sample
`UNKNOWN`               depends on the samples, by an operation that is not in the table of `_operations`
`Mixed`                 one sample's entries depend on other samples
none                    came about out of our sight (a scripted function, NumPy)
=====================  =====================================================================================
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor


class Samples(NamedTuple):
    """The samples' axis, of size before · N · each: entry b, n, e belongs to sample n.

    Most often ``before`` and ``each`` are 1. ``each`` windows of one picture that count as samples of their own for a while, or
    ``before`` words that are folded in front, make them larger.
    """

    axis: int
    before: int = 1
    each: int = 1

    def first(self, tensor: Tensor, lead: int = 0) -> Tensor:
        """(..., before·N·each, ...) to (N, ..., before, each, ...); ``lead`` axes stay in front."""
        axis = lead + self.axis
        if self.before != 1 or self.each != 1:
            samples = tensor.shape[axis] // (self.before * self.each)
            tensor = tensor.unflatten(axis, (self.before, samples, self.each))
            axis += 1
        return tensor if axis == lead else tensor.movedim(axis, lead)

    def back(self, tensor: Tensor, lead: int = 0) -> Tensor:
        """The inverse of `first`."""
        axis = lead + self.axis
        if self.before == 1 and self.each == 1:
            return tensor if axis == lead else tensor.movedim(lead, axis)
        return tensor.movedim(lead, axis + 1).flatten(axis, axis + 2)


class OneSample(NamedTuple):
    """Nothing to look for: all entries belong to the one sample of the pass."""

    axis: int = 0
    each: int = 1

    def first(self, tensor: Tensor, lead: int = 0) -> Tensor:
        return tensor.unsqueeze(lead)

    def back(self, tensor: Tensor, lead: int = 0) -> Tensor:
        return tensor.squeeze(lead)


class Mixed(NamedTuple):
    """An operation has let samples meet each other."""

    how: str


class _Word:
    def __init__(self, word: str) -> None:
        self.word = word

    def __repr__(self) -> str:
        return self.word


CONSTANT = _Word("CONSTANT")
UNKNOWN = _Word("UNKNOWN")

Mark = Samples | Mixed | _Word


def tensors_in(values: Any) -> list[Tensor]:
    """Tensors among arguments, also in lists of them."""
    found = []
    for value in values if isinstance(values, list | tuple) else ():
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [inner for inner in value if isinstance(inner, Tensor)]
    return found
