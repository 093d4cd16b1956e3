"""One image through the network, for what a batch does not show: which axes a batch has more, and whether it mixes its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tutorial_lib.gradients._marks import Samples
from tutorial_lib.gradients._network import run
from tutorial_lib.gradients._watching import MADE_OF_LAYERS, in_the_open
from tutorial_lib.gradients.rules import RULES

CLOSE = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float32: 1e-4}
"""How far two ways of computing the same may differ, for their size; 1e-9 in float64."""


class _Recorder(TorchFunctionMode):
    """Writes down the layers' inputs, and how large tensors become."""

    def __init__(self, watched: set[int]) -> None:
        super().__init__()
        self.watched = watched
        self.layers: list[tuple[Any, torch.Size, Tensor]] = []
        self.bytes = self.largest = 0

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in MADE_OF_LAYERS:
            with self:
                return MADE_OF_LAYERS[func](*args, **kwargs)
        if func in RULES and in_the_open():
            operands = (*args, *kwargs.values())
            used = tuple(id(operand) for operand in operands if id(operand) in self.watched)
            if used:
                x = args[0] if args else kwargs["input"]
                self.layers.append(((func, used), x.shape, fingerprint(x)))
        output = func(*args, **kwargs)
        if isinstance(output, Tensor):
            self.bytes += output.nbytes
            self.largest = max(self.largest, output.nbytes)
        return output


def fingerprint(tensor: Tensor) -> Tensor:
    """Two sums, whatever the shape: of the numbers, and of their absolute values."""
    tensor = tensor.detach()
    flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double()
    return torch.stack([flat.sum(), flat.abs().sum()])


class OneImage:
    """The network's pass for one image, made when it is first asked about."""

    def __init__(self, network: Callable, image: Tensor, watched: set[int]) -> None:
        self.network, self.image, self.watched = network, image, watched

    @cached_property
    def _run(self) -> tuple[_Recorder, tuple[Tensor, ...]]:
        recorder = _Recorder(self.watched)
        with recorder, torch.enable_grad():
            outputs = run(self.network, self.image.clone())
        return recorder, tuple(output.detach() for output in outputs)

    @property
    def recorder(self) -> _Recorder:
        return self._run[0]

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self._run[1]

    def samples_axis(
        self, number: int, key: tuple[Callable, set[int]], operands: tuple, x: Tensor, samples: int
    ) -> Samples | None:
        """The samples' axis in the input of a network's so-and-so-many-th layer: the one where a batch has N entries and one image
        one, if it then holds the image's own numbers."""
        layers = self.recorder.layers
        func, watched = key
        used = tuple(id(operand) for operand in operands if id(operand) in watched)
        if number >= len(layers) or layers[number][0] != (func, used):
            return None
        _, shape, mine = layers[number]
        changed = [axis for axis, (one, many) in enumerate(zip(shape, x.shape, strict=False)) if one != many]
        if len(shape) != x.dim() or len(changed) != 1 or shape[changed[0]] != 1 or x.shape[changed[0]] != samples:
            return None
        return Samples(changed[0]) if close(fingerprint(x.select(changed[0], -1)), mine, x.dtype) else None

    def agrees(self, outputs: Sequence[Tensor]) -> bool:
        """Whether the image's outputs in a batch (1, ...) are the same as alone."""
        return len(outputs) == len(self.outputs) and all(
            alone.shape == output.shape and close(output.detach(), alone, output.dtype)
            for output, alone in zip(outputs, self.outputs, strict=True)
        )


def close(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    tolerance = CLOSE.get(dtype, 1e-9)
    return bool(((one - other).abs().max() <= tolerance * (other.abs().max() + 1e-30)).item())
