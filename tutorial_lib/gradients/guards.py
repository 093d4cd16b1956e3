"""What is refused at the door, and how a network is left as it was found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from tutorial_lib.data.images import as_float


@dataclass
class Network:
    """A module whose samples have gradients of their own, and what we need to know about it, from one walk over its parts."""

    module: nn.Module
    parameters: dict[str, nn.Parameter]
    buffers: list[Tensor]  # that a forward pass may change

    @classmethod
    def inspect(cls, module: nn.Module) -> Network:
        """The network, unless per-sample gradients of it do not exist or would be others each time."""
        if not isinstance(module, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(module).__name__}")
        parameters: dict[int, tuple[str, nn.Parameter]] = {}
        buffers: list[Tensor] = []
        seen: set[nn.Module] = set()
        todo = [("", module)]
        while todo:  # as `named_modules`, whose nested generators take longer than a small network's forward pass
            path, part = todo.pop()
            if part in seen:
                continue
            seen.add(part)
            prefix = f"{path}." if path else ""
            if part._modules:
                todo += [(prefix + name, child) for name, child in reversed(part._modules.items()) if child is not None]
            if part.training and isinstance(part, _DropoutNd) and part.p > 0:
                raise ValueError(
                    f"{path or 'the model'} ({type(part).__name__}) is active, so the gradient would be another one each time. "
                    "Call model.eval() first."
                )
            batch_norm = isinstance(part, _BatchNorm)
            if batch_norm and (part.training or part.running_mean is None):
                raise ValueError(
                    f"{path or 'the model'} ({type(part).__name__}) normalises by the statistics of the batch, which mixes its "
                    "samples: a sample has no gradient of its own. "
                    + ("Call model.eval() first." if part.training else "Build it with track_running_stats=True.")
                )
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    parameters.setdefault(id(parameter), (prefix + name, parameter))
            if part._buffers and not batch_norm:  # which leaves its own alone in evaluation mode
                buffers += [buffer for buffer in part._buffers.values() if buffer is not None]
        if not parameters:
            raise ValueError(f"{type(module).__name__} has no parameters, so there are no gradients to look at")
        return cls(module, dict(parameters.values()), buffers)

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    @property
    def dtype(self) -> torch.dtype:
        return next(iter(self.parameters.values())).dtype

    def names(self, wanted: Sequence[str] | None) -> tuple[str, ...]:
        """The parameters' names, or those that are wanted."""
        if wanted is None:
            return tuple(self.parameters)
        if isinstance(wanted, str) or not wanted:
            raise ValueError(f"parameters must be a list of names, got {wanted!r}")
        unknown = [name for name in wanted if name not in self.parameters]
        if unknown:
            raise ValueError(
                f"the model has no parameter {', '.join(map(repr, unknown))}; see model.named_parameters()"
            )
        return tuple(wanted)

    @contextmanager
    def trainable(self) -> Iterator[tuple[Callable[[Tensor], Any], dict[str, nn.Parameter]]]:
        """The network as a function, and its parameters, with stand-ins that require gradients for the frozen ones.

        A stand-in shares its parameter's memory and takes its place during a call; ``requires_grad`` itself is not touched.
        Buffers and random states come back as they were; a network that draws random numbers is refused.
        """
        stand_ins = {name: nn.Parameter(p.detach()) for name, p in self.parameters.items() if not p.requires_grad}
        devices = {p.device for p in self.parameters.values() if p.is_cuda} if torch.cuda.is_initialized() else set()
        states = _random_states(devices)
        buffers = [(buffer, buffer._version, buffer.clone()) for buffer in self.buffers]
        try:
            if stand_ins:
                yield (
                    lambda images: torch.func.functional_call(self.module, stand_ins, (images,)),
                    self.parameters | stand_ins,
                )
            else:
                yield self.module, self.parameters
        finally:
            with torch.no_grad():
                for buffer, version, value in buffers:
                    if buffer._version != version:
                        buffer.copy_(value)
            drawn = not all(map(torch.equal, states, _random_states(devices)))
            if drawn:
                torch.set_rng_state(states[0])
                for device, state in zip(devices, states[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
        if drawn:
            raise ValueError(
                "the network draws random numbers in its forward pass, so its gradient is another one each time; "
                "call model.eval(), or let it return the mean of what it samples"
            )


def _random_states(devices: set[torch.device]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


def checked_images(images: Tensor, network: Network) -> Tensor:
    """The images in the network's floating point type (token ids stay integers)."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}; convert with torch.as_tensor")
    if images.dim() < 2:
        raise ValueError(
            f"images must have the samples on their first axis, (N, ...), got the shape {tuple(images.shape)}"
        )
    if images.numel() == 0:
        raise ValueError(f"images are empty: their shape is {tuple(images.shape)}")
    if not images.is_floating_point() and images.dtype != torch.uint8:
        return images
    images = as_float(images, network.dtype)
    if not finite(images):
        first = int((~images.flatten(1).isfinite().all(1)).nonzero()[0])
        raise ValueError(f"images hold NaN or infinite values, first in image {first}")
    return images


def finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite. Their sum tells in one pass, unless it leaves the range itself."""
    return math.isfinite(tensor.detach().sum().item()) or bool(tensor.isfinite().all())


def run(network: Callable[[Tensor], Any], images: Tensor) -> tuple[Tensor, ...]:
    """The network's outputs as a tuple of tensors, each with the samples on its first axis."""
    try:
        outputs = network(images)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if "size" not in str(error) and "shape" not in str(error) and "channels" not in str(error):
            raise
        shape = ", ".join(map(str, images.shape[1:]))
        raise ValueError(f"the network cannot take images of the shape (N, {shape}): {error}") from error
    tensors = (outputs,) if isinstance(outputs, Tensor) else outputs
    if not isinstance(tensors, tuple | list) or not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise TypeError(f"the network must return a tensor or a tuple of tensors, got {type(outputs).__name__}")
    for tensor in tensors:
        if tensor.dim() == 0 or len(tensor) != len(images):
            raise ValueError(
                f"the network must return one output a sample, on the first axis; {len(images)} samples made the shape "
                f"{tuple(tensor.shape)}"
            )
        if not finite(tensor):
            raise ValueError("the network's output holds NaN or infinite values, so there is no gradient to look at")
    return tuple(tensors)
