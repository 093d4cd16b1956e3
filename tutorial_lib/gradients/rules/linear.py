r"""Linear layers, on vectors and on sequences.

At every position t (one for vectors, T for sequences) the layer computes y_t = W x_t + b, so a sample's gradient is a sum of
outer products,

.. math:: \mathrm{d}W = \sum_t g_t x_t^\top = G X^\top, \qquad \mathrm{d}b = \sum_t g_t .

* T = 1: the product has rank one and :math:`|\mathrm{d}W|^2 = |g|^2 |x|^2` (Goodfellow, "Efficient per-example gradient
  computations", 2015).
* *Direct form*: multiply out G Xᵀ (T·I·O multiplications) and square.
* *Gram form*: T²·(I + O) multiplications and nothing of the size of W, see `gram` (Li et al., "Large language models can be strong
  differentially private learners", 2022).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.gradients.rules.base import (
    Formed,
    SampleGradients,
    Use,
    autocast,
    parts,
    precise,
    scratch_numbers,
    squared_sum,
)
from tutorial_lib.gradients.rules.cost import gram_is_cheaper
from tutorial_lib.gradients.rules.gram import gram_norms


class OuterProducts(SampleGradients):
    """dW = sum over t of g_t x_tᵀ.

    Args:
        x: (N, I, T).
        g: (N, L, O, T).
    """

    def __init__(self, x: Tensor, g: Tensor) -> None:
        self.x, self.g = precise(x), precise(g)
        self.samples, self.labels, outputs, self.positions = g.shape
        self.shape = (outputs, x.shape[1])

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        return self.g[first:last] @ self.x[first:last].mT.unsqueeze(1)

    def squared_norms(self) -> Tensor:
        outputs, inputs = self.shape
        T = self.positions
        if T == 1:
            return squared_sum(self.g, keep=2) * squared_sum(self.x, keep=1).unsqueeze(1)
        if not gram_is_cheaper(direct=T * inputs * outputs, gram=T * T * (inputs + outputs), elementwise=2 * T * T):
            return super().squared_norms()
        return torch.cat([
            self._gram(*part) for part in parts(self.samples, (self.labels + 1) * T * T, scratch_numbers(self.x))
        ])

    def moments(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        if self.positions > min(self.shape):
            return super().moments(reference)  # the gradients are small: form them once for both
        through = reference.view(self.shape).to(self.x.dtype) @ self.x  # the layer, with the reference as its weight
        return (self.g * through.unsqueeze(1)).flatten(2).sum(-1), self.squared_norms()

    def _gram(self, first: int, last: int) -> Tensor:
        x, g = self.x[first:last], self.g[first:last]
        return gram_norms(x.mT @ x, g.mT @ g, lambda n: squared_sum(g[n] @ x[n].mT.unsqueeze(1), keep=2))


class Linear(Use):
    """``torch.nn.functional.linear`` on (N, ..., I)."""

    def __init__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(autocast(input), weight=weight, bias=bias)
        self.free_axes = input.dim() - 1

    def output(self, x: Tensor) -> Tensor:
        return F.linear(x, self.parameters["weight"], self.parameters["bias"])

    def backward(self, x: Tensor, g: Tensor, needs_input_gradient: bool) -> tuple[Tensor | None, dict[str, SampleGradients]]:
        gx = g @ self.parameters["weight"].to(g.dtype) if needs_input_gradient else None
        X = x.flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)  # (N, T, I)
        G = g.flatten(2, -2) if g.dim() > 3 else g.unsqueeze(2)  # (N, L, T, O)
        gradients: dict[str, SampleGradients] = {"weight": OuterProducts(X.mT, G.mT)}
        if self.parameters["bias"] is not None:
            gradients["bias"] = Formed(precise(G).sum(2))
        return gx, gradients
