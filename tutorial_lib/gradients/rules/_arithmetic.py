"""Arithmetic that the rules share: sums of squares that keep their digits, and work in parts that fit a cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

SCRATCH_BYTES = 3 << 19
"""Temporary memory that a rule uses at once, a thread: half of a processor core's own cache. Twice as much costs a convolution
10 % of its time, ten times as much half of it; with less, small layers spend their time on calls."""

LONG = 1 << 16
"""Numbers from which on a vector norm, which the library adds up without pairing, would lose a digit of float32: 1e-6 here."""


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
