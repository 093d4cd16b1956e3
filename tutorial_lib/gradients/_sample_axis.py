"""The marks of one forward pass: on which axis of every tensor the samples stand (see `_marks`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Size, Tensor

from tutorial_lib.gradients._marks import CONSTANT, UNKNOWN, Mark, Mixed, Samples, tensors_in
from tutorial_lib.gradients._operations import (
    READING,
    Operation,
    constant,
    elementwise,
    is_in_place,
    kind_of,
    written,
)

ATTRIBUTE = "_tutorial_lib_samples"


class SampleAxes:
    """The marks of one forward pass of N > 1 samples.

    Args:
        samples: N.
        constants: ids of the tensors that are there before the pass begins, parameters and buffers.
    """

    def __init__(self, samples: int, constants: set[int]) -> None:
        self.samples, self.constants = samples, constants
        self.strangers = False  # a tensor that came about out of sight has met the samples
        self.numbers_read = False  # numbers of theirs went where nobody watches, to a Python float or NumPy

    def of(self, tensor: Tensor) -> Mark | None:
        found = getattr(tensor, ATTRIBUTE, None)
        if found is not None and found[0] is self:
            return found[1]
        return CONSTANT if id(tensor) in self.constants else None

    def mark(self, tensor: Tensor, mark: Mark) -> None:
        setattr(tensor, ATTRIBUTE, (self, mark))

    def forget(self) -> None:
        """Marks keep this object alive, wherever a network may have stored its tensors; so it should be small."""
        self.constants = set()

    def hand_on(
        self, func: Callable, args: tuple, kwargs: dict, output: Any, operands: list[Tensor], marks: list[Mark | None]
    ) -> None:
        """Mark what an operation on these operands has returned, or what it has written to."""
        kind = kind_of(func)
        if kind is elementwise and isinstance(output, Tensor) and _agree(operands, marks):
            if marks[0] is not None:
                self.mark(output, marks[0])
            return
        outputs = [output] if isinstance(output, Tensor) else tensors_in(output)
        if kind is written:
            outputs = [args[0]]
        if (not outputs and func in READING) or kind is constant:
            values = marks if kind is not constant else marks[1:]
            self.numbers_read |= any(mark is not CONSTANT and mark is not None for mark in values)
        if not outputs:
            return
        found: Mark | Sequence[Mark | None] | None = None
        if kind is constant or all(mark is CONSTANT for mark in marks):
            found = CONSTANT
        elif any(isinstance(mark, Mixed) for mark in marks):
            found = next(mark for mark in marks if isinstance(mark, Mixed))
        elif UNKNOWN in marks:
            found = UNKNOWN
        elif any(isinstance(mark, Samples) for mark in marks):
            self.strangers |= None in marks
            found = (kind(Operation(self, func, args, kwargs, operands, marks, outputs)) if kind else None) or UNKNOWN
        if found is None:
            return  # strangers stay strangers
        several = found if isinstance(found, list) else [found] * len(outputs)
        for tensor, mark in zip(outputs, several, strict=True):
            if isinstance(mark, Samples) and tensor.shape[mark.axis] != mark.before * self.samples * mark.each:
                mark = UNKNOWN
            self.mark(tensor, mark)
        if kind is written or is_in_place(func):
            self._wrote(outputs[0])

    def _wrote(self, tensor: Tensor) -> None:
        """A view has been written to, and with it what it is a view of."""
        base, mark = tensor._base, self.of(tensor)
        if base is not None and mark is not CONSTANT and mark is not None:
            before = self.of(base)
            if not (isinstance(before, Samples) and isinstance(mark, Samples)) and not isinstance(before, Mixed):
                self.mark(base, mark if isinstance(mark, Mixed) else UNKNOWN)

    def rows_are_equal(self, constant: Tensor, axis: int, mark: Samples) -> bool:
        """Whether a tensor that no sample has a part in holds the same for each of them on the samples' axis."""
        if constant.stride(axis) == 0:
            return True
        rows = constant.detach().unflatten(axis, (mark.before, self.samples, mark.each))
        one = rows.narrow(axis + 1, 0, 1)
        if not rows.is_floating_point() or not rows.numel():
            return bool((rows == one).all())
        rounding = (
            64 * torch.finfo(rows.dtype).eps * rows.nan_to_num(0, 0, 0).abs().max()
        )  # as of rows in a matrix product
        return bool(((rows == one) | ((rows - one).abs() <= rounding)).all())

    def reshaped(self, shape: Size, mark: Samples, to: Size) -> Mark:
        """Where the samples stand after a reshape: the axis whose entries run through all of them."""
        before = prod(shape[: mark.axis]) * mark.before  # entries that change more slowly than the sample
        outer = 1
        for axis, size in enumerate(to):
            if before % outer == 0 and size % (before // outer * self.samples) == 0:
                here = before // outer
                return Samples(axis, here, size // (here * self.samples))
            outer *= size
        return UNKNOWN


def _agree(operands: list[Tensor], marks: list[Mark | None]) -> bool:
    """One operand, or two that look alike: the most frequent case, decided quickly."""
    if len(operands) == 1:
        return True
    if len(operands) == 2 and operands[0].dim() == operands[1].dim():
        first, second = marks
        return isinstance(first, Samples) and first == second
    return False
