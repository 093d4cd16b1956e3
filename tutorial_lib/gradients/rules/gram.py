r"""The Gram form of a squared norm, and when not to believe it.

If a gradient is a product A B, with A of G's rows and B of the input's patches, then

.. math:: |A B^\top|^2 = \sum_{t,s} (A^\top A)_{ts} \, (B^\top B)_{ts} ,

and the product need never be formed. The price is conditioning: the sum cancels like the square of the product. In float32 its
error is about 1e-9 times R = (sum of the terms' sizes) / (the norm), so samples with a large R are done again, directly. R is
bounded without looking at the terms: :math:`|A B^\top|^2 \le |A|^2 |B|^2`, and |A|², |B|² are the traces.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tutorial_lib.gradients.rules.base import squared_sum

TRUST = 2.4e-3
"""A Gram sum is believed while R < TRUST / machine epsilon: 2e4 in float32, an error of about 2e-5 of the norm."""


def gram_sum(input_gram: Tensor, output_gram: Tensor) -> Tensor:
    """Sum over t, s of the product of Grams (N, T, T) and (L, N, T, T): (L, N)."""
    return output_gram.mul_(input_gram).flatten(2).sum(-1)


def redo_untrusted(squared: Tensor, x: Tensor, g: Tensor, terms: int, direct: Callable[[Tensor], Tensor]) -> Tensor:
    """Replace the samples whose Gram sum cancelled.

    Args:
        squared: Gram sums (L, N).
        x, g: (N, ...) and (L, N, ...); |x|²·|g|²·terms bounds the sum of the sizes of the terms.
        terms: how many times a number of x occurs in the patches.
        direct: squared norms (L, n) of the samples with these indices, by forming the gradients.
    """
    bound = terms * squared_sum(x, keep=1) * squared_sum(g, keep=2)
    untrusted = (bound > TRUST / torch.finfo(squared.dtype).eps * squared.clamp_min(0)).any(0)
    if untrusted.any():
        index = untrusted.nonzero().squeeze(1)
        squared = squared.index_copy(1, index, direct(index))
    return squared
