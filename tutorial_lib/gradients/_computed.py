"""Weights that are computed from parameters: weight normalisation, a table that a small network makes, a scaled embedding.

A layer's rule finds the per-sample gradients of the weight that it sees. The way from there to the parameters is the same for all
samples, c = c(θ), and has no axis of theirs; so the gradients are pulled back along it one sample's after the other's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

import torch
from torch import Tensor

from tutorial_lib.gradients.rules import PerSampleGradients, Total


class Computed:
    """What of a pass's weights are computed, each under a key of its own, and the parameters behind them."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.keys: dict[int, str] = {}
        self.parameters: set[str] = set()

    def add(self, tensor: Tensor, names: set[str]) -> str:
        key = self.keys[id(tensor)] = f"computed weight {len(self.keys)}"
        self.tensors[key] = tensor  # which also keeps its id from being given to another
        self.parameters |= names
        return key


class PulledBack(PerSampleGradients):
    """A parameter's part of the gradients of computed weights.

    Args:
        gradients: per-sample gradients of some weights, by key.
        tensors: the weights, with their graphs.
        parameter: θ.
    """

    def __init__(
        self, gradients: Mapping[str, PerSampleGradients], tensors: Mapping[str, Tensor], parameter: Tensor
    ) -> None:
        self.gradients = [Total([gradients[key]], tensors[key].shape) for key in gradients]
        self.tensors = [tensors[key] for key in gradients]
        self.parameter, self.shape = parameter, tuple(parameter.shape)
        self.samples, self.labels = self.gradients[0].samples, self.gradients[0].labels
        self.numbers = max(prod(self.shape), *(tensor.numel() for tensor in self.tensors))

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        formed = [
            gradients.dense(first, last).to(tensor.dtype)
            for gradients, tensor in zip(self.gradients, self.tensors, strict=True)
        ]
        try:
            pulled = self._pull(formed, batched=True)
        except RuntimeError:  # an operation that vmap cannot do
            rows = [self._pull([one[n] for one in formed], batched=False) for n in range(len(formed[0]))]
            pulled = torch.stack(rows)
        return pulled

    def _pull(self, directions: Sequence[Tensor], batched: bool) -> Tensor:
        (found,) = torch.autograd.grad(
            self.tensors, [self.parameter], directions, retain_graph=True, allow_unused=True, is_grads_batched=batched
        )
        if found is None:
            return self.parameter.new_zeros((len(directions[0]), *self.shape) if batched else self.shape)
        return found if found.layout == torch.strided else found.to_dense()

    def _parts(self) -> list[tuple[int, int]]:
        from tutorial_lib.gradients.rules._arithmetic import SCRATCH_BYTES, parts

        return parts(self.samples, self.labels * self.numbers, SCRATCH_BYTES)
