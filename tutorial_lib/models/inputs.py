"""What goes into a model and what comes out of it, looked at once.

Images reach the library as tensors, as `ImageSet`, as pairs (images, labels), as loaders of such pairs or as torch data
sets; `batches` makes all of them the same. Models answer with a tensor, or with one inside an object of torchvision's or
HuggingFace's; `logits_of` finds it, or says what came instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from tutorial_lib.data.images import ImageSet, as_float

__all__ = ["Batch", "Images", "batches", "check_labels", "dtype_of", "logits_of", "read_images"]

Images = Tensor | ImageSet | tuple[Tensor, Tensor] | list[Tensor] | Iterable[Any] | Dataset[Any]
"""Images: a tensor (N, C, H, W), an `ImageSet`, a pair (images, labels), a loader of such pairs, a torch ``Dataset``, or
a list of these."""

UNNAMED = "unnamed"

_IMAGE_KEYS = ("pixel_values", "images", "image", "img")
_LABEL_KEYS = ("labels", "label")


class Batch(NamedTuple):
    """Some images, their labels if there are any, and the name of the set that they come from."""

    images: Tensor
    labels: Tensor | None
    name: str


def batches(data: Images, name: str = "images", size: int | None = None) -> Iterator[Batch]:
    """The images of anything that `Images` describes, some at a time; a loader is read as one goes.

    Args:
        data: images, with labels or without.
        name: what an error calls them.
        size: images in a batch at most; by default as they come.

    Raises:
        TypeError, ValueError: what ``data`` is instead, and what to do.

    >>> pairs = [(torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 1])), (torch.ones(2, 1, 8, 8), torch.tensor([1, 0]))]
    >>> [len(batch.images) for batch in batches(pairs, size=2)]
    [2, 1, 2]
    """
    for batch in _as_they_come(data, name):
        if size is None or len(batch.images) <= size:
            yield batch
            continue
        labels = [None] * len(batch.images) if batch.labels is None else batch.labels.split(size)
        for images, part in zip(batch.images.split(size), labels, strict=False):
            yield Batch(images, part, batch.name)


def read_images(data: Images, name: str = "images") -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """All of `batches` at once: images (N, C, H, W), labels (N,) or None, and the names of the sets."""
    parts = list(batches(data, name))
    if len(parts) == 1:
        return parts[0].images, parts[0].labels, (parts[0].name,)
    one_type = len({part.images.dtype for part in parts}) == 1  # cat would read uint8's 255 as 255.0
    images = torch.cat([(part.images if one_type else as_float(part.images)).cpu() for part in parts])
    labels = [part.labels for part in parts if part.labels is not None]
    names = tuple(dict.fromkeys(part.name for part in parts))
    return images, torch.cat(labels) if len(labels) == len(parts) else None, names


def check_labels(labels: Any, count: int, name: str = "labels") -> Tensor:
    """Labels (N,) as int64 on the CPU, from whole numbers of any type or booleans; else one error."""
    labels = torch.as_tensor(labels)
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{name}: labels must be integers, got {labels.dtype}")
    if labels.ndim == 2 and labels.shape == (count, 1):
        labels = labels[:, 0]
    if labels.shape != (count,):
        hint = "; one-hot labels need .argmax(1)" if labels.ndim == 2 and len(labels) == count else ""
        raise ValueError(f"{name}: {count} images, but labels of shape {tuple(labels.shape)}{hint}")
    return labels.cpu().long()


def _as_they_come(data: Any, name: str) -> Iterator[Batch]:
    if isinstance(data, Batch):
        yield data
    elif isinstance(data, ImageSet):
        yield Batch(data.images, data.labels, data.name)
    elif isinstance(data, Tensor):
        yield Batch(data, None, UNNAMED)
    elif isinstance(data, Mapping):
        yield _from_mapping(data, name)
    elif _is_pair(data):
        yield Batch(data[0], check_labels(data[1], len(data[0]), name), UNNAMED)
    elif isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        yield from _as_they_come(DataLoader(data, batch_size=256, collate_fn=_collate), name)
    elif isinstance(data, Iterable) and not isinstance(data, str | bytes | np.ndarray):
        empty = True
        for part in data:
            empty = False
            yield from _as_they_come(part, name)
        if empty:
            raise ValueError(f"{name} is empty")
    else:
        hint = "; convert with torch.as_tensor" if isinstance(data, np.ndarray) else ""
        raise TypeError(
            f"{name} must be images (a torch.Tensor), an ImageSet, (images, labels), a loader of such pairs or a "
            f"Dataset, got {type(data).__name__}{hint}"
        )


def _is_pair(data: Any) -> bool:
    """(images, labels), also as the list that a ``DataLoader`` makes of it; not a list of two batches of images."""
    if not isinstance(data, tuple | list) or len(data) != 2 or not isinstance(data[0], Tensor) or data[0].ndim < 3:
        return False
    return (
        is_whole_numbers(data[1])
        or isinstance(data[1], np.ndarray)
        or (isinstance(data[1], Tensor) and data[1].ndim <= 2)
    )


def is_whole_numbers(values: Any) -> bool:
    """Labels as a list of them."""
    return isinstance(values, tuple | list) and len(values) > 0 and all(isinstance(value, Integral) for value in values)


def _from_mapping(data: Mapping[str, Any], name: str) -> Batch:
    """A batch of HuggingFace's loaders."""
    key = next((key for key in _IMAGE_KEYS if key in data), None)
    if key is None:
        raise TypeError(f"{name}: a dictionary needs its images under one of {_IMAGE_KEYS}, got {tuple(data)}")
    labels = next((data[key] for key in _LABEL_KEYS if key in data), None)
    images = data[key]
    return Batch(images, None if labels is None else check_labels(labels, len(images), name), UNNAMED)


def _collate(items: list[Any]) -> Any:
    try:
        return torch.utils.data.default_collate(items)
    except TypeError as error:
        raise TypeError(
            "the items of a Dataset must be tensors or (tensor, label); with torchvision, pass "
            f"transform=torchvision.transforms.PILToTensor(). {error}"
        ) from error


def dtype_of(model: nn.Module) -> torch.dtype:
    """Floating point type of the model's first parameter; float32 for a model without any."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def logits_of(output: Any, count: int, model: nn.Module | None = None) -> Tensor:
    """The logits (N, K), K at least 2, in what a model returned for N images.

    A tensor, or what holds one under the name ``logits``: HuggingFace's outputs, GoogLeNet's and Inception's in training
    mode, a dictionary.

    Raises:
        TypeError: something else, by name.
        ValueError: another shape; for networks of one logit, with what to do.
    """
    who = "the model" if model is None else type(model).__name__
    logits = output
    if not isinstance(output, Tensor):
        logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        kind = type(output).__name__
        if isinstance(output, Mapping):
            kind += f" with {', '.join(map(str, output))}"
        elif isinstance(output, tuple | list):
            kind += f" of {len(output)}"
        raise TypeError(
            f"{who} must return logits (N, K), as a tensor or under the name `logits`; it returned a {kind}. "
            "Wrap it in a module whose forward returns the logits alone"
        )
    shape = tuple(logits.shape)
    if shape in ((count,), (count, 1)):
        raise ValueError(
            f"{who} returned one logit for each image, shape {shape}; a softmax needs one for each class. For a "
            "two-class network z, return torch.nn.functional.pad(z.view(-1, 1), (1, 0)): logits 0 and z"
        )
    if logits.ndim != 2 or shape[0] != count:
        hint = "; one answer for each pixel is not one for each image" if logits.ndim == 4 else ""
        raise ValueError(f"{who} must return logits ({count}, K) for {count} images, got the shape {shape}{hint}")
    if not logits.is_floating_point():
        raise TypeError(f"{who} must return floating point logits, got {logits.dtype}")
    return logits
