"""Ask a model, and leave it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def device_of(model: nn.Module) -> torch.device:
    """Device of the model's first parameter or buffer; the CPU for a model that has neither."""
    tensor = next(model.parameters(), next(model.buffers(), None))
    return torch.device("cpu") if tensor is None else tensor.device


@contextmanager
def preserved(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode inside the block; afterwards exactly as it was, also after an exception.

    Restores the mode of every submodule, ``requires_grad`` and ``.grad`` of every parameter, the value of every buffer,
    and torch's random states. Weights are not copied: nothing that runs inside may change them.
    """
    modes = [(module, module.training) for module in model.modules()]
    parameters = [(p, p.requires_grad, p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
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
                    grad.copy_(value)
                parameter.grad = grad
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)


def _in_batches(function: Callable[[Tensor], Tensor], model: nn.Module, images: Tensor, batch_size: int) -> Tensor:
    from tutorial_lib.data.images import as_float

    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    device = device_of(model)
    with preserved(model), torch.no_grad():
        return torch.cat([function(as_float(part).to(device)).float().cpu() for part in images.split(batch_size)])


def predict_logits(model: nn.Module, images: Tensor, batch_size: int = 512) -> Tensor:
    """Logits (N, K), float32 on the CPU, of images (N, C, H, W), ``uint8`` or float in [0, 1].

    The model answers in evaluation mode, on its own device, and is left as it was found.
    """
    return _in_batches(model, model, images, batch_size)


def predict_probabilities(model: nn.Module, images: Tensor, batch_size: int = 512) -> Tensor:
    """Softmax of `predict_logits`, computed in float64 and returned as float64 (N, K)."""
    return predict_logits(model, images, batch_size).double().softmax(dim=1)


def predict_features(model: nn.Module, images: Tensor, batch_size: int = 512) -> Tensor:
    """Penultimate features (N, D), float32 on the CPU; the model needs a ``features`` method (see `Classifier`)."""
    if not hasattr(model, "features"):
        raise TypeError(f"{type(model).__name__} has no features method; wrap it in tutorial_lib.models.Classifier")
    return _in_batches(model.features, model, images, batch_size)
