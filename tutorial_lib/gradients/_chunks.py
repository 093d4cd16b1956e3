"""How many samples to take at a time, so that what the network remembers for the backward pass fits a memory budget."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

FIRST_GUESS = 500
"""Bytes of activations for a byte of image, before a first chunk has shown how many there are."""

ENOUGH_LABELS = 16
"""How many labels should share a backward pass. What they share is then a small part of it, and more would only leave less room
for images."""


class ChunkSizes:
    """Ranges of samples whose activations fit the budget. The first is a cautious guess, the rest go by what it took.

    Args:
        images: (N, ...).
        budget: bytes of all activations.
        block: bytes of the largest of them, counted once a label if there are several; but at least one sample.
    """

    def __init__(self, images: Tensor, budget: int, block: int = 0) -> None:
        self.total, self.budget, self.block = len(images), budget, block
        self.fit = max(1, budget // (FIRST_GUESS * images.numel() // self.total * 4))

    def __iter__(self) -> Iterator[slice]:
        first = 0
        while first < self.total:
            left = self.total - first
            pieces = -(-left // self.fit)
            last = first + -(-left // pieces)  # pieces of equal size: a last one of two samples would waste a pass
            yield slice(first, last)
            first = last

    def measured(self, activation_bytes: int, samples: int, largest: int = 0, labels: int = 1) -> None:
        """Adjust to what some samples took: bytes of all activations, and of the largest."""
        fit = self.budget * samples // max(1, activation_bytes)
        if labels > 1:
            fit = min(fit, round(self.block * samples / max(1, largest * min(labels, ENOUGH_LABELS))))
        self.fit = max(1, fit)
