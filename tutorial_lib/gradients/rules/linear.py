r"""Linear layers, on vectors and on sequences.

At every position t (one for vectors, T for sequences) the layer computes y_t = W x_t + b, so a sample's gradient is a sum of
outer products,

.. math:: \mathrm{d}W = \sum_t g_t x_t^\top = G X^\top, \qquad \mathrm{d}b = \sum_t g_t .

* T = 1: the product has rank one and :math:`|\mathrm{d}W|^2 = |g|^2 |x|^2` (Goodfellow, "Efficient per-example gradient
  computations", 2015).
* *Direct form*: multiply out G Xᵀ (T·I·O multiplications) and square.
* *Gram form*, or ghost norm: T²·(I + O) multiplications and nothing of the size of W, see `ghost_norm` (Li et al., "Large language
  models can be strong differentially private learners", 2022).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.gradients.rules._arithmetic import autocast, joined, parts, precise, scratch_numbers, squared_sum
from tutorial_lib.gradients.rules.cost import gram_is_cheaper
from tutorial_lib.gradients.rules.ghost_norm import gram_norms
from tutorial_lib.gradients.rules.layer_call import LayerCall, Unsupported
from tutorial_lib.gradients.rules.per_sample import Materialized, PerSampleGradients


class OuterProducts(PerSampleGradients):
    """dW = sum over t of g_t x_tᵀ.

    Args:
        x: (N, I, T).
        g: (M, O, T).
    """

    def __init__(self, x: Tensor, g: Tensor) -> None:
        self.x, self.g = precise(x), precise(g)
        self.samples, inputs, self.positions = x.shape
        self.labels = len(g) // len(x)
        self.shape = (g.shape[1], inputs)

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        x, g = self._some(first, last)
        G = g.reshape(len(x), -1, self.positions)  # (n, L·O, T)
        return torch.bmm(G, x.mT).view(-1, *self.shape)  # (n·L, O, I)

    def squared_norms(self) -> Tensor:
        outputs, inputs = self.shape
        T = self.positions
        if T == 1:
            squared = squared_sum(self.x)
            return squared_sum(self.g) * (squared if self.labels == 1 else squared.repeat_interleave(self.labels))
        if not gram_is_cheaper(
            samples=self.g.shape[0],
            direct=T * inputs * outputs,
            gram=T * T * (inputs + outputs),
            elementwise=2 * T * T,
        ):
            return super().squared_norms()
        ranges = parts(self.samples, (self.labels + 1) * T * T, scratch_numbers(self.x))
        return joined([self._gram(*self._some(*part)) for part in ranges])

    def moments(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        if self.positions > min(self.shape):
            return super().moments(reference)  # the gradients are small: form them once for both
        through = reference.reshape(self.shape).to(self.x.dtype) @ self.x  # the layer, with the reference as its weight
        products = self.g.reshape(self.samples, self.labels, -1) * through.reshape(self.samples, 1, -1)
        return products.sum(-1).flatten(), self.squared_norms()

    def _some(self, first: int, last: int | None) -> tuple[Tensor, Tensor]:
        return self.x[first:last], self.g[first * self.labels : None if last is None else last * self.labels]

    def _gram(self, x: Tensor, g: Tensor) -> Tensor:
        by_sample = g.unflatten(0, (len(x), -1))
        return gram_norms(
            torch.bmm(x.mT, x),
            torch.bmm(g.mT, g),
            lambda n: squared_sum(OuterProducts(x[n], by_sample[n].flatten(0, 1)).dense()),
        )


class Linear(LayerCall):
    """``torch.nn.functional.linear`` on (N, ..., I)."""

    def __init__(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        if weight.dim() != 2:
            raise Unsupported("a linear layer whose weight is a vector")
        super().__init__(autocast(input), weight=weight, bias=bias)
        self.free_axes = input.dim() - 1

    def output(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.used_with(x))

    def backward(
        self, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, PerSampleGradients]]:
        labels = len(g) // len(x)
        gx = g @ self.typed(g.dtype)[0] if needs_input_gradient else None
        X = x.flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)  # (N, T, I)
        G = g.flatten(1, -2) if g.dim() > 2 else g.unsqueeze(1)  # (M, T, O)
        gradients: dict[str, PerSampleGradients] = {"weight": OuterProducts(X.mT, G.mT)}
        if self.parameters["bias"] is not None:
            gradients["bias"] = Materialized(precise(G).sum(1), labels)
        return gx, gradients


class RightProduct(LayerCall):
    """``x @ W``, a linear layer whose weight W is the other way round, (I, O), or a vector (I,), as in attention with one query."""

    def __init__(self, input: Tensor, other: Tensor) -> None:
        if other.dim() not in (1, 2) or input.dim() < 2:
            raise Unsupported("a product that is no linear layer")
        super().__init__(autocast(input), weight=other)
        self.free_axes = input.dim() - 1

    def output(self, x: Tensor) -> Tensor:
        return x @ self.used_with(x)[0]

    def backward(
        self, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, PerSampleGradients]]:
        (other,) = self.typed(g.dtype)
        if other.dim() == 1:
            return self._vector(x, g, other, needs_input_gradient)
        gx = g @ other.mT if needs_input_gradient else None
        X = x.flatten(1, -2) if x.dim() > 2 else x.unsqueeze(1)  # (N, T, I)
        G = g.flatten(1, -2) if g.dim() > 2 else g.unsqueeze(1)  # (M, T, O)
        return gx, {"weight": Transposed(OuterProducts(X.mT, G.mT))}

    def _vector(
        self, x: Tensor, g: Tensor, other: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, PerSampleGradients]]:
        """dw = sum over t of g_t x_t, for g (M, ...)."""
        labels = len(g) // len(x)
        gx = g.unsqueeze(-1) * other if needs_input_gradient else None
        X, G = precise(x).reshape(len(x), -1, x.shape[-1]), precise(g).reshape(len(x), labels, -1)
        return gx, {"weight": Materialized(torch.bmm(G, X).flatten(0, 1), labels)}


class Transposed(PerSampleGradients):
    """The gradients of a transposed matrix."""

    def __init__(self, gradients: PerSampleGradients) -> None:
        self.gradients = gradients
        self.samples, self.labels, self.shape = gradients.samples, gradients.labels, gradients.shape[::-1]

    def dense(self, first: int = 0, last: int | None = None) -> Tensor:
        return self.gradients.dense(first, last).mT

    def squared_norms(self) -> Tensor:
        return self.gradients.squared_norms()

    def moments(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        return self.gradients.moments(reference.mT)
