r"""Embeddings: y_t = W[id_t].

The gradient of row v is the sum of g_t over the positions that hold token v,

.. math:: \mathrm{d}W_v = \sum_{t:\, id_t = v} g_t .

Rows that no token names are zero and need no memory. Equal tokens of one sample must be added before squaring.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.gradients.rules._arithmetic import precise, squared_sum
from tutorial_lib.gradients.rules.layer_call import LayerCall, Unsupported
from tutorial_lib.gradients.rules.per_sample import PerSampleGradients


class Rows(PerSampleGradients):
    """Sums of g (M, T, D) over equal tokens (N, T), in a table of V rows."""

    def __init__(self, tokens: Tensor, g: Tensor, rows: int) -> None:
        self.samples, self.labels = len(tokens), len(g) // len(tokens)
        self.tokens = tokens if self.labels == 1 else tokens.repeat_interleave(self.labels, 0)
        self.g = precise(g)
        self.shape = (rows, g.shape[-1])

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        some = slice(first * self.labels, None if last is None else last * self.labels)
        tokens = self.tokens[some]
        return _sums(tokens + self.shape[0] * _numbers(tokens), self.g[some], len(tokens) * self.shape[0]).view(
            -1, *self.shape
        )

    def squared_norms(self) -> Tensor:
        used, row = torch.unique(self.tokens + self.shape[0] * _numbers(self.tokens), return_inverse=True)
        squared = squared_sum(_sums(row, self.g, len(used)))
        return squared.new_zeros(len(self.g)).index_add_(0, used.div(self.shape[0], rounding_mode="floor"), squared)


def _sums(row: Tensor, g: Tensor, rows: int) -> Tensor:
    """g added up by row: (rows, D)."""
    return g.new_zeros(rows, g.shape[-1]).index_add_(0, row.flatten(), g.flatten(0, 1))


def _numbers(tokens: Tensor) -> Tensor:
    return torch.arange(len(tokens), device=tokens.device).unsqueeze(1)


class Embedding(LayerCall):
    """``torch.nn.functional.embedding`` on tokens (N, ...)."""

    def __init__(
        self,
        input: Tensor,
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> None:
        if max_norm is not None or scale_grad_by_freq:
            raise Unsupported("an embedding that rescales its rows or gradients")
        super().__init__(input, weight=weight)
        self.free_axes = input.dim()
        self.padding = None if padding_idx is None else padding_idx % len(weight)

    def output(self, x: Tensor) -> Tensor:
        return F.embedding(x, self.parameters["weight"])

    def backward(
        self, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, PerSampleGradients]]:
        tokens = x.reshape(len(x), -1)
        g = g.reshape(len(g), -1, g.shape[-1])
        if self.padding is not None:  # the row of the padding token is constant
            g = (g.unflatten(0, (len(tokens), -1)) * (tokens != self.padding)[:, None, :, None]).flatten(0, 1)
        return None, {"weight": Rows(tokens, g, len(self.parameters["weight"]))}
