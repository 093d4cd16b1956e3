"""What is refused at the door, and how a model is left as it was found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib.data.images import as_float


def checked_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters by name, if per-sample gradients of it exist."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameters, so there are no gradients to look at")
    for name, module in model.named_modules():
        where = f"{name or 'the model'} ({type(module).__name__})"
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
            raise ValueError(
                f"{where} normalises by the statistics of the batch, which mixes its samples: a sample has no gradient of its own. "
                + ("Call model.eval() first." if module.training else "Give it track_running_stats=True.")
            )
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.training and module.p > 0:
            raise ValueError(f"{where} is active: the gradient would be another one each time. Call model.eval() first.")
    return parameters


def checked_images(model: nn.Module, images: Tensor) -> Tensor:
    """The images in the model's floating point type (token ids stay integers)."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}; convert with torch.as_tensor")
    if images.dim() < 2:
        raise ValueError(f"images must have the samples on their first axis, (N, ...), got the shape {tuple(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"images are empty: their shape is {tuple(images.shape)}")
    if not images.is_floating_point() and images.dtype != torch.uint8:
        return images
    images = as_float(images, next(model.parameters()).dtype)
    finite = images.flatten(1).isfinite().all(1)
    if not finite.all():
        raise ValueError(f"images hold NaN or infinite values, first in image {int((~finite).nonzero()[0])}")
    return images.clone() if images.is_inference() else images


def checked_outputs(outputs: Any, samples: int) -> tuple[Tensor, ...]:
    """The network's outputs as a tuple of tensors, each with the samples on its first axis."""
    tensors = (outputs,) if isinstance(outputs, Tensor) else outputs
    if not isinstance(tensors, tuple | list) or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise TypeError(f"the network must return a tensor or a tuple of tensors, got {type(outputs).__name__}")
    for tensor in tensors:
        if tensor.dim() == 0 or len(tensor) != samples:
            raise ValueError(
                f"the network must return one output a sample on the first axis; from {samples} samples it made a tensor of shape {tuple(tensor.shape)}"
            )
        if not tensor.isfinite().all():
            bad = int((~tensor.detach().flatten(1).isfinite().all(1)).nonzero()[0])
            raise ValueError(f"the network's output holds NaN or infinite values, first for image {bad} of a chunk")
    return tuple(tensors)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Restore what a forward pass may change, buffers and random states, and refuse a network that draws random numbers."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    cuda = {t.device for t in model.parameters() if t.device.type == "cuda"}
    before = _random_states(cuda)
    with torch.random.fork_rng(devices=list(cuda)):
        try:
            yield
            drawn = any(not torch.equal(a, b) for a, b in zip(before, _random_states(cuda), strict=True))
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
    if drawn:
        raise ValueError(
            "the network draws random numbers in its forward pass, so its gradient is another one each time; "
            "call model.eval(), or make it return the mean of what it samples"
        )


def _random_states(cuda: set[torch.device]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in cuda)]


@contextmanager
def all_trainable(model: nn.Module) -> Iterator[tuple[Callable[[Tensor], Any], dict[str, nn.Parameter]]]:
    """The network and its parameters, with stand-ins that require gradients for the frozen ones.

    A stand-in shares its parameter's memory and takes its place during a call; the model's own ``requires_grad`` stays as it is.
    """
    parameters = dict(model.named_parameters())
    stand_ins = {name: nn.Parameter(p.detach()) for name, p in parameters.items() if not p.requires_grad}
    if not stand_ins:
        yield model, parameters
    else:
        yield lambda images: torch.func.functional_call(model, stand_ins, (images,)), parameters | stand_ins
