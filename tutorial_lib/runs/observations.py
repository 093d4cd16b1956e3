"""What detectors look at, looked at once for all cells that ask the same of the same images.

Most gradient detectors of a comparison differ only in what they do with the norms. What takes a backward pass is kept in the
content-addressed cache of `tutorial_lib.runs.cache`, for one network, one set of images and one quantity; what a forward
pass brings is cheaper to ask for again.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors import evidence, forward
from tutorial_lib.detectors.evidence import BackpropNorms, Evidence, GradientNorms, Quantity, observed
from tutorial_lib.models.inputs import dtype_of
from tutorial_lib.runs.cache import cached_arrays

__all__ = ["cached_observation", "weights_digest"]

BATCH = 256


def cached_observation(model: nn.Module, images: ImageSet, needs: Sequence[Quantity]) -> Evidence:
    """`tutorial_lib.detectors.observe`, with what takes a backward pass from the cache.

    Args:
        model: a file of the cache belongs to its weights, not to its name.
        images: a file belongs to their pixels.
        needs: quantities. Those of a label or a loss that is not a name are measured anew.
    """
    kept = [quantity for quantity in needs if _can_be_kept(quantity)]
    seen = observed(model, images, [quantity for quantity in needs if quantity not in kept], BATCH)
    for quantity in kept:
        request = {
            "quantity": repr(quantity),
            "images": _digest(images.images),
            "weights": weights_digest(model),
            "source": _source(),
        }
        compute = functools.partial(_measured, model, images, quantity)
        norms = cached_arrays(quantity.name, request, compute)
        seen.values[quantity] = torch.from_numpy(norms["log_norms"])
    return seen


def _can_be_kept(quantity: Quantity) -> bool:
    return (
        isinstance(quantity, GradientNorms | BackpropNorms)
        and isinstance(quantity.label, str)
        and isinstance(quantity.loss, str)
    )


def _measured(model: nn.Module, images: ImageSet, quantity: Quantity) -> dict[str, np.ndarray]:
    return {"log_norms": observed(model, images, [quantity], BATCH)[quantity].numpy()}


def _digest(images: torch.Tensor) -> str:
    return hashlib.sha256(str(tuple(images.shape)).encode() + images.contiguous().numpy().tobytes()).hexdigest()


def weights_digest(model: nn.Module) -> str:
    """A hash of all weights and buffers of a model."""
    content = hashlib.sha256(str(dtype_of(model)).encode())
    for name, value in model.state_dict().items():
        content.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()


@functools.cache
def _source() -> str:
    """Hash of the modules that measure; the cache's own hash stops below them."""
    files = (Path(str(module.__file__)) for module in (evidence, forward))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
