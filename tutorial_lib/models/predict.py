"""Ask a model, and leave it as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from tutorial_lib.data.images import as_float, check_images
from tutorial_lib.models.inputs import Images, batches, dtype_of, logits_of

_LOCKS: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_LOCKS_LOCK = threading.Lock()


def device_of(model: nn.Module) -> torch.device:
    """Device of the model's first parameter or buffer; the CPU for a model that has neither."""
    tensor = next(model.parameters(), next(model.buffers(), None))
    return torch.device("cpu") if tensor is None else tensor.device


@contextmanager
def preserved(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode inside the block; afterwards exactly as it was, also after an exception.

    Restores the mode of every submodule, ``requires_grad`` and ``.grad`` of every parameter, the value of every buffer,
    and torch's random states. Weights are not copied: nothing that runs inside may change them.

    One thread at a time: another that asks the same model waits, since mode and hooks belong to the model and not to the
    thread. (Two models that share layers do not know of each other.)
    """
    with _LOCKS_LOCK:
        lock = _LOCKS.setdefault(model, threading.RLock())
    with lock:
        modes = [(module, module.training) for module in model.modules()]
        parameters = [
            (p, p.requires_grad, p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()
        ]
        buffers = [(b, b.clone()) for b in model.buffers()]
        devices = [device_of(model)] if device_of(model).type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            try:
                yield model.eval()
            finally:
                for module, training in modes:
                    module.training = training
                for parameter, requires_grad, grad, value in parameters:
                    parameter.requires_grad_(requires_grad)
                    if grad is not None:
                        grad.copy_(value)  # type: ignore[arg-type]  # there is one where there is a grad
                    parameter.grad = grad
                with torch.no_grad():
                    for buffer, value in buffers:
                        buffer.copy_(value)


def channels_of(model: nn.Module) -> int | None:
    """How many channels the model takes, by its ``image_shape`` or its first layer, a `Normalize`; None if neither tells."""
    shape = getattr(model, "image_shape", None)
    if shape:
        return int(shape[0])
    mean = getattr(getattr(model, "normalize", None), "mean", None)
    return mean.numel() if isinstance(mean, Tensor) else None


def _in_batches(function: Callable[[Tensor], Tensor], model: nn.Module, inputs: Iterable[Tensor]) -> Tensor:
    """``function`` of each batch, as the model takes it, together as float32 on the CPU."""
    device, dtype = device_of(model), dtype_of(model)
    with preserved(model), torch.no_grad():
        return torch.cat([function(as_float(part, dtype).to(device)).float().cpu() for part in inputs])


def _checked(model: nn.Module, images: Images, batch_size: int) -> Iterator[Tensor]:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    channels = channels_of(model)
    return (check_images(batch.images, channels) for batch in batches(images, "images", batch_size))


def predict_logits(model: nn.Module, images: Images, batch_size: int = 512, mirrored: bool = False) -> Tensor:
    """Logits (N, K), float32 on the CPU, of images (N, C, H, W), ``uint8`` or float in [0, 1].

    The model answers in evaluation mode, on its own device, and is left as it was found. Images may also come as an
    `ImageSet`, a loader or a torch ``Dataset``, see `Images`; labels are passed over. With ``mirrored``, each image is
    asked twice, the second time left for right, and the logits are averaged: what some accuracies are published with.

    Raises:
        TypeError, ValueError: no images, images outside [0, 1], or a model that does not return logits (N, K), K >= 2.
    """
    inputs = _checked(model, images, batch_size)
    if not mirrored:
        return logits_in_batches(model, inputs)

    def both(batch: Tensor) -> Tensor:
        return (logits_of(model(batch), len(batch), model) + logits_of(model(batch.flip(-1)), len(batch), model)) / 2

    return _in_batches(both, model, inputs)


def logits_in_batches(model: nn.Module, inputs: Iterable[Tensor]) -> Tensor:
    """`predict_logits` of batches that may be anything the model takes, such as features; only its answer is checked."""
    return _in_batches(lambda batch: logits_of(model(batch), len(batch), model), model, inputs)


def predict_probabilities(model: nn.Module, images: Images, batch_size: int = 512) -> Tensor:
    """Softmax of `predict_logits`, computed in float64 and returned as float64 (N, K)."""
    return predict_logits(model, images, batch_size).double().softmax(dim=1)


def predict_features(model: nn.Module, images: Images, batch_size: int = 512) -> Tensor:
    """Penultimate features (N, D), float32 on the CPU; the model needs a ``features`` method (see `Classifier`)."""
    return _in_batches(lambda batch: penultimate(model, batch), model, _checked(model, images, batch_size))


def penultimate(model: nn.Module, images: Tensor) -> Tensor:
    """Features (N, D) that the last linear layer sees, of images as the model takes them."""
    if not callable(getattr(model, "features", None)):
        raise TypeError(
            f"{type(model).__name__} has no features method, features(images) to (N, D); "
            "give it one, or see tutorial_lib.models.as_classifier"
        )
    features = model.features(images)  # type: ignore[operator]
    if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(images):
        got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"features must have the shape (N, D), got {got}; pool and flatten them")
    return features


def check_head(model: nn.Module, images: Tensor, tolerance: float = 1e-3) -> None:
    """Is ``head(features(x))`` what the model answers? Detectors that look at features and logits take it to be so.

    Args:
        model: with ``features(images)`` and a module ``head``.
        images: a few, (N, C, H, W), as `predict_logits` takes them.
        tolerance: largest difference, as a part of the largest logit.

    Raises:
        ValueError: the two differ.
    """
    logits = predict_logits(model, images)
    head = getattr(model, "head", None)
    if not callable(head):
        raise TypeError(f"{type(model).__name__} has no last layer `head`; see tutorial_lib.models.as_classifier")
    again = _in_batches(lambda batch: head(penultimate(model, batch)), model, _checked(model, images, 512))
    if again.shape != logits.shape or (again - logits).abs().max() > tolerance * logits.abs().max().clamp(min=1e-6):
        raise ValueError(
            f"head(features(images)) of {type(model).__name__} is not what the model answers: features must be what "
            "the last layer gets, and nothing may come after it"
        )
