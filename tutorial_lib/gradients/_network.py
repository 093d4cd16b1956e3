"""What is refused at the door, and how a network is left as it was found."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
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
    holders: list[nn.Module]  # of buffers that a forward pass may change
    statistics: list[Tensor]  # that it leaves alone
    rescaled: list[Tensor]  # weights that a forward pass may change: tables of embeddings with ``max_norm``

    @classmethod
    def inspect(cls, module: nn.Module) -> Network:
        """The network, unless per-sample gradients of it do not exist or would be others each time."""
        if not isinstance(module, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(module).__name__}")
        parameters: dict[int, tuple[str, nn.Parameter]] = {}
        holders: list[nn.Module] = []
        statistics: list[Tensor] = []
        rescaled: list[Tensor] = []
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
            if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None:
                rescaled.append(part.weight)
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
            if batch_norm:  # which leaves its buffers alone in evaluation mode
                statistics.extend(b for b in part._buffers.values() if b is not None)
            elif part._buffers:
                holders.append(part)
        if not parameters:
            raise ValueError(f"{type(module).__name__} has no parameters, so there are no gradients to look at")
        if any(parameter.is_inference() for _, parameter in parameters.values()):
            raise ValueError(
                "the model was made under torch.inference_mode(), where autograd may not follow its parameters; make or load it outside"
            )
        return cls(module, dict(parameters.values()), holders, statistics, rescaled)

    @property
    def buffers(self) -> list[Tensor]:
        return [b for holder in self.holders for b in holder._buffers.values() if b is not None]

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the images: that of the first parameter of real numbers."""
        dtypes = [p.dtype for p in self.parameters.values()]
        return next((dtype for dtype in dtypes if dtype.is_floating_point), dtypes[0].to_real())

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
        Every call finds the buffers as they were, and so do random states and buffers when all is done. A network that draws random
        numbers, or whose answer changes with what a forward pass leaves in its buffers, is refused.
        """
        stand_ins: dict[str, Any] = {
            name: nn.Parameter(p.detach()) for name, p in self.parameters.items() if not p.requires_grad
        }
        devices = {p.device for p in self.parameters.values() if p.is_cuda} if torch.cuda.is_initialized() else set()
        states = _random_states(devices)
        remembered = Remembered(self.holders)
        tables = [(table, table.detach().clone()) for table in self.rescaled]
        last: list[Tensor] = []

        def plain(images: Tensor) -> Any:
            if stand_ins:
                return torch.func.functional_call(self.module, stand_ins, (images,))
            return self.module(images)

        def function(images: Tensor) -> Any:
            last[:] = [images[:1].clone()]
            remembered.restore()
            return plain(images)

        done = False
        try:
            with uncompiled():
                yield (function if self.holders else plain if stand_ins else self.module), self.parameters | stand_ins
            done = True
        finally:
            drawn = not all(map(torch.equal, states, _random_states(devices)))
            matters = done and not drawn and remembered.changed() and _differs(plain, last[0], remembered)
            remembered.restore()
            with torch.no_grad():
                for table, value in tables:
                    table.copy_(value)
            if drawn:
                torch.set_rng_state(states[0])
                for device, state in zip(devices, states[1:], strict=True):
                    torch.cuda.set_rng_state(state, device)
        if drawn:
            raise ValueError(
                "the network draws random numbers in its forward pass, so its gradient is another one each time; "
                "call model.eval(), or let it return the mean of what it samples"
            )
        if matters:
            raise ValueError(
                "the network's forward pass changes its buffers, and its answer with them, so its gradient is another one each time; "
                "call model.eval()"
            )


def uncompiled() -> AbstractContextManager[Any]:
    """Where what ``torch.compile`` has made runs as it was written: its operations cannot be watched."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


class Remembered:
    """Buffers as they are now: which tensor stands under which name, and what it holds."""

    def __init__(self, holders: Sequence[nn.Module]) -> None:
        self.names = [(holder._buffers, dict(holder._buffers)) for holder in holders]
        tensors = [buffer for _, named in self.names for buffer in named.values() if buffer is not None]
        self.buffers = [(buffer, buffer._version, buffer.clone()) for buffer in tensors]

    def _renamed(self) -> bool:
        """Whether a network has put other tensors in their places, as ``self.count = self.count + 1`` does."""
        pairs = ((now, name, buffer) for now, named in self.names for name, buffer in named.items())
        return any(name not in now or now[name] is not buffer for now, name, buffer in pairs)

    def changed(self) -> bool:
        return self._renamed() or any(buffer._version != version for buffer, version, _ in self.buffers)

    def restore(self) -> None:
        if self._renamed():
            for now, named in self.names:
                for name, buffer in named.items():  # TorchScript's have no update and no get
                    now[name] = buffer
        with torch.no_grad():
            for number, (buffer, version, value) in enumerate(self.buffers):
                if buffer._version != version:
                    buffer.copy_(value)
                    self.buffers[number] = (buffer, buffer._version, value)


def _differs(network: Callable[[Tensor], Any], image: Tensor, remembered: Remembered) -> bool:
    """Whether the network's answer depends on what it has left in its buffers."""
    with torch.no_grad():
        changed = run(network, image.clone())
        remembered.restore()
        first = run(network, image)
    return not all(
        torch.allclose(one, other, rtol=100 * torch.finfo(one.dtype).eps if one.is_floating_point() else 0, atol=0)
        for one, other in zip(first, changed, strict=True)
    )


def _random_states(devices: set[torch.device]) -> list[Tensor]:
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state(device) for device in devices)]


def checked_images(images: Tensor, network: Network) -> Tensor:
    """The images in the network's floating point type (token ids stay integers)."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a torch.Tensor, got {type(images).__name__}; convert with torch.as_tensor")
    if images.layout != torch.strided or images.is_nested:
        raise TypeError(f"images must be one dense tensor, got a {'nested' if images.is_nested else 'sparse'} one")
    if type(images) not in (Tensor, nn.Parameter):
        images = images.as_subclass(Tensor)  # a library's image, with functions of its own
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
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return math.isfinite(tensor.sum().item()) or bool(tensor.isfinite().all())


def run(network: Callable[[Tensor], Any], images: Tensor) -> tuple[Tensor, ...]:
    """The network's outputs as a tuple of tensors, each with the samples on its first axis."""
    try:
        outputs = network(images)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if "not implemented for" in str(error) or " type" in str(error) or "dtype" in str(error):
            raise ValueError(f"the network cannot take images of the type {images.dtype}: {error}") from error
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
