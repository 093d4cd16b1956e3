"""Gradient norms measured once for all cells that ask the same of the same images.

Most gradient detectors of a comparison differ only in what they do with the norms. Here the norms of one network, label
and loss are measured for all images of a grid in one go, kept in the content-addressed cache of
`tutorial_lib.runs.cache`, and found again image by image, whatever batch an image comes in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutorial_lib.data.images import ImageSet, as_float
from tutorial_lib.detectors.base import dtype_of
from tutorial_lib.detectors.gradient_features import log_norms_from, measured_log_norms
from tutorial_lib.gradients.losses import Loss
from tutorial_lib.gradients.targets import Label
from tutorial_lib.models.predict import device_of, preserved
from tutorial_lib.runs.cache import cached_arrays

__all__ = ["shared_norms"]

BATCH = 256


@contextmanager
def shared_norms(model: nn.Module, sets: Callable[[], Sequence[ImageSet]]) -> Iterator[None]:
    """Inside the block gradient detectors of ``model`` take their features from the cache.

    Args:
        model: whose gradients; a file of the cache belongs to its weights, not to its name.
        sets: gives all image sets that will be met, each image once or several times. Called when the first norms are
            asked for. The norms of any other image are measured as usual, and so is what is asked with a label or loss
            that is not a name.
    """
    tables: dict[tuple[str, str], tuple[dict[bytes, int], Tensor]] = {}
    digests: list[bytes] = []
    images: list[Tensor] = []

    def table(label: str, loss: str) -> tuple[dict[bytes, int], Tensor]:
        if not digests:
            seen: dict[bytes, None] = {}
            for part in sets():
                as_input = as_float(part.images, dtype_of(model))
                fresh = []
                for i, digest in enumerate(_digests(as_input)):
                    if digest not in seen:
                        seen[digest] = None
                        fresh.append(i)
                images.append(part.images[fresh])
            digests.extend(seen)
        if (label, loss) not in tables:
            request: dict[str, Any] = {
                "label": label,
                "loss": loss,
                "images": hashlib.sha256(b"".join(digests)).hexdigest(),
                "weights": _weights(model),
            }
            compute = partial(_measured, model, images, label, loss)
            norms = cached_arrays("gradient_norms", request, lambda: {"log_norms": compute()})
            tables[label, loss] = {digest: i for i, digest in enumerate(digests)}, torch.from_numpy(norms["log_norms"])
        return tables[label, loss]

    def source(asked: nn.Module, batch: Tensor, label: Label, loss: Loss) -> Tensor:
        if asked is model and isinstance(label, str) and isinstance(loss, str):
            rows, norms = table(label, loss)
            found = [rows.get(digest) for digest in _digests(batch)]
            if None not in found:
                return norms[found].to(batch.device)
        return measured_log_norms(asked, batch, label, loss)

    with log_norms_from(source):
        yield


def _measured(model: nn.Module, images: Sequence[Tensor], label: str, loss: str) -> np.ndarray:
    """Log norms (N, P) of all images of all sets, one after the other."""
    device, dtype = device_of(model), dtype_of(model)
    with torch.inference_mode(False), preserved(model), torch.no_grad():
        return np.concatenate(
            [
                measured_log_norms(model, as_float(batch, dtype).to(device), label, loss).cpu().numpy()
                for part in images
                for batch in part.split(BATCH)
                if len(batch)
            ]
        )


def _digests(images: Tensor) -> list[bytes]:
    """Sixteen bytes for each image as the model sees it, floating point, that no other image has."""
    pixels = images.detach().cpu().contiguous().numpy()
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels]


def _weights(model: nn.Module) -> str:
    content = hashlib.sha256(str(dtype_of(model)).encode())
    for name, value in model.state_dict().items():
        content.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()
