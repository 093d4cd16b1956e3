r"""The Gram form of a squared norm, the field's "ghost norm", and when not to believe it.

If a gradient is a product G Uᵀ of the output's gradients and the input's patches, at T positions each, then

.. math:: |G U^\top|^2 = \sum_{t,s} (G^\top G)_{ts} \, (U^\top U)_{ts} ,

and the product need never be formed. The price is conditioning: the sum cancels like the *square* of the product. In float32 its
error is about 1e-9 times R = |G|² |U|² / |G Uᵀ|² (the traces of the two Grams over the norm), so samples with a large R are
done again, directly.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TRUST = 2.4e-3
"""A Gram sum is believed while R < TRUST / machine epsilon: 2e4 in float32, an error of about 2e-5 of the norm."""


def gram_norms(input_gram: Tensor, output_gram: Tensor, direct: Callable[[Tensor], Tensor]) -> Tensor:
    """Squared norms (M,) from the Grams UᵀU (N, T, T) and GᵀG (M, T, T), which is overwritten.

    ``direct`` makes the squared norms (n·L,) of the samples with given indices by forming the gradients.
    """
    samples, positions = input_gram.shape[:2]
    output_gram = output_gram.view(samples, -1, positions, positions)
    traces = output_gram.diagonal(dim1=2, dim2=3).sum(-1) * input_gram.diagonal(dim1=1, dim2=2).sum(-1, keepdim=True)
    squared = output_gram.mul_(input_gram.unsqueeze(1)).flatten(2).sum(-1)  # (N, L)
    doubtful = traces > TRUST / torch.finfo(squared.dtype).eps * squared
    if doubtful.any():
        again = doubtful.any(1).nonzero().squeeze(1)
        squared[again] = direct(again).view(len(again), -1)
    return squared.flatten()
