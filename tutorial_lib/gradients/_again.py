"""The network run again on other batches, for what one batch does not show: which axis of a tensor counts samples, and whether
samples meet.

One image alone shows which axis a batch has more, and that nobody else has a part in that image's numbers. The batch rolled on by one
shows that every other entry of the axis goes with its sample too: experts that sort the samples among them leave the last one in its
place often enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tutorial_lib.gradients._marks import Samples
from tutorial_lib.gradients._network import run
from tutorial_lib.gradients._watching import MADE_OF_LAYERS, bytes_of, in_the_open
from tutorial_lib.gradients.rules import RULES

CLOSE = {torch.float16: 1e-2, torch.bfloat16: 5e-2, torch.float32: 1e-4}
"""How far two ways of computing the same may differ, for their size; 1e-9 in float64."""


class _Recorder(TorchFunctionMode):
    """Writes down the layers' inputs, and how large tensors become."""

    def __init__(self, watched: set[int], note: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.watched, self.note = watched, note
        self.layers: list[tuple[Any, torch.Size, Any]] = []  # the layer, its input's shape, and a note of its numbers
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
                self.layers.append(((func, used), x.shape, self.note(x)))
        output = func(*args, **kwargs)
        if isinstance(output, Tensor):
            size = bytes_of(output)
            self.bytes += size
            self.largest = max(self.largest, size)
        return output


def fingerprint(tensor: Tensor) -> Tensor:
    """Two sums, whatever the shape: of the numbers, and of their absolute values."""
    tensor = tensor.detach()
    flat = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).double()
    return torch.stack([flat.sum(), flat.abs().sum()])


def fingerprints(tensor: Tensor) -> list[Tensor]:
    """For each axis of size S the fingerprints of its entries, (S, 2)."""
    tensor = tensor.detach()
    numbers = (torch.view_as_real(tensor) if tensor.is_complex() else tensor.unsqueeze(-1)).double()
    by_axis = [numbers.movedim(axis, 0).flatten(1) for axis in range(tensor.dim())]
    return [torch.stack([rows.sum(1), rows.abs().sum(1)], dim=1) for rows in by_axis]


class Again:
    """Another pass of the network, made when it is first asked about."""

    def __init__(
        self, network: Callable, images: Tensor, watched: set[int], note: Callable[[Tensor], Any] = fingerprint
    ) -> None:
        self.network, self.images, self.watched, self.note = network, images, watched, note

    @cached_property
    def _run(self) -> tuple[_Recorder, tuple[Tensor, ...]]:
        recorder = _Recorder(self.watched, self.note)
        with recorder, torch.enable_grad():
            outputs = run(self.network, self.images.clone())
        return recorder, tuple(output.detach() for output in outputs)

    @property
    def recorder(self) -> _Recorder:
        return self._run[0]

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self._run[1]

    def layer(self, number: int, key: Any) -> tuple[torch.Size, Any] | None:
        """Shape and note of the input of the so-and-so-many-th layer, if it is the one that is meant."""
        layers = self.recorder.layers
        return layers[number][1:] if number < len(layers) and layers[number][0] == key else None

    def agrees(self, outputs: Sequence[Tensor]) -> bool:
        """Whether this pass has made the same outputs."""
        return len(outputs) == len(self.outputs) and all(
            mine.shape == output.shape and close(output.detach(), mine, output.dtype)
            for output, mine in zip(outputs, self.outputs, strict=True)
        )


class Comparison:
    """A batch beside its last image alone, and beside itself rolled on by one."""

    def __init__(self, network: Callable, images: Tensor, watched: set[int]) -> None:
        self.network, self.images, self.watched = network, images, watched
        self.samples = len(images)
        self.last = Again(network, images[-1:], watched)
        self.rolled = Again(network, images.roll(1, 0), watched, fingerprints)

    def samples_axis(self, number: int, func: Callable, operands: tuple, x: Tensor) -> Samples | None:
        """The samples' axis in the input of a network's so-and-so-many-th layer: the one where a batch has N entries and one image
        one, if each entry then holds its own sample's numbers."""
        key = func, tuple(id(operand) for operand in operands if id(operand) in self.watched)
        alone = self.last.layer(number, key)
        if alone is None:
            return None
        shape, mine = alone
        changed = [axis for axis, (one, many) in enumerate(zip(shape, x.shape, strict=False)) if one != many]
        if len(shape) != x.dim() or len(changed) != 1 or shape[changed[0]] != 1 or x.shape[changed[0]] != self.samples:
            return None
        (axis,) = changed
        rows = fingerprints(x)[axis]
        if not close(rows[-1], mine, x.dtype):
            return None
        rolled = self.rolled.layer(number, key)
        if rolled is None or rolled[0] != x.shape or not close(rolled[1][axis], rows.roll(1, 0), x.dtype):
            return None
        return Samples(axis)

    def agrees(self, outputs: Sequence[Tensor], every: bool) -> bool:
        """Whether the network makes the same of its images in these other batches; ``every``: of each image alone."""
        others = range(self.samples - 1) if every else ()
        return (
            self.last.agrees([output[-1:] for output in outputs])
            and self.rolled.agrees([output.roll(1, 0) for output in outputs])
            and all(
                Again(self.network, self.images[n : n + 1], set()).agrees([output[n : n + 1] for output in outputs])
                for n in others
            )
        )


def close(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    tolerance = CLOSE.get(dtype, 1e-9)
    return bool(((one - other).abs().max() <= tolerance * (other.abs().max() + 1e-30)).item())
