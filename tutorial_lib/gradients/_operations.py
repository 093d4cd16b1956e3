"""How torch's functions hand on the samples' axis: one function a kind of operation, and a table of names at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Size, Tensor

from tutorial_lib.gradients._marks import CONSTANT, UNKNOWN, Mark, Mixed, Samples, tensors_in


class Axes(Protocol):
    """What an operation asks of the marks of its forward pass; `tutorial_lib.gradients._sample_axis.SampleAxes`."""

    samples: int
    numbers_read: bool

    def of(self, tensor: Tensor) -> Mark | None: ...

    def reshaped(self, before: Size, mark: Samples, after: Size) -> Mark | None: ...

    def rows_are_equal(self, constant: Tensor, axis: int, mark: Samples) -> bool: ...


class Operation(NamedTuple):
    """One call of a torch function, with at least one operand whose samples' axis is known and none that is mixed."""

    axes: Axes
    func: Callable
    args: tuple
    kwargs: dict
    operands: list[Tensor]
    marks: list[Mark | None]
    outputs: list[Tensor]

    @property
    def input(self) -> tuple[Tensor, Samples] | None:
        """The first operand, if the samples' axis of it is known and no other operand's is."""
        known = [mark for mark in self.marks if isinstance(mark, Samples)]
        return (self.operands[0], known[0]) if len(known) == 1 and known[0] is self.marks[0] else None

    def argument(self, position: int, names: Sequence[str], default: Any) -> Any:
        for name in names:
            if name in self.kwargs:
                return self.kwargs[name]
        return self.args[position] if len(self.args) > position else default

    def dimensions(self, position: int, default: Any, rank: int) -> set[int] | None:
        """The ``dim`` argument as a set of axes; None if it is left out and means all of them."""
        dim = self.argument(position, ("dim", "dims", "axis"), default)
        if isinstance(dim, int) and not isinstance(dim, bool) and len(self.args) > position + 1:
            several = self.args[position:]
            if all(type(d) is int for d in several) and self.func.__name__ in ("flip", "sum", "mean"):
                dim = several
        if dim is None or isinstance(dim, bool) or dim == () or dim == []:
            return None
        return {d % rank for d in ((dim,) if isinstance(dim, int) else dim)}


# ------------------------------------------------------------------ kinds of operations
Found = Mark | list[Mark | None] | None
Kind = Callable[[Operation], Found]


def aligned(operation: Operation, tensors: Sequence[Tensor] | None = None) -> tuple[int, Samples] | Mark:
    """Where broadcasting puts the samples, counted from the last axis, if all operands agree."""
    place: tuple[int, Samples] | None = None
    for operand, mark in zip(operation.operands, operation.marks, strict=True):
        if isinstance(mark, Samples):
            here = (operand.dim() - mark.axis, mark)
            if place is not None and (place[0] != here[0] or place[1][1:] != mark[1:]):
                return Mixed("samples meet other samples")
            place = here
    assert place is not None
    from_right, mark = place
    for operand, other in zip(operation.operands, operation.marks, strict=True):
        if other is CONSTANT and operand.dim() >= from_right and operand.shape[-from_right] != 1:
            axis = operand.dim() - from_right
            if operand.shape[axis] == mark.before * operation.axes.samples * mark.each:
                if not operation.axes.rows_are_equal(operand, axis, mark):
                    return Mixed("a sample's entry depends on its place in the batch")
            else:
                return UNKNOWN
    return place


def elementwise(operation: Operation) -> Mark | None:
    place = aligned(operation)
    if not isinstance(place, tuple) or isinstance(place, Samples | Mixed):
        return place
    from_right, mark = place
    axis = operation.outputs[0].dim() - from_right
    return mark._replace(axis=axis) if axis >= 0 and len(operation.outputs) == 1 else UNKNOWN


def _like_the_first(operation: Operation) -> Mark | None:
    """Takes only a type from the others."""
    return operation.marks[0]


def _chosen(operation: Operation) -> Mark | None:
    """``torch.where``, which with one operand returns indices."""
    return elementwise(operation) if len(operation.args) > 1 else picked_from_all(operation)


def picked_from_all(operation: Operation) -> Mark:
    """What is found somewhere in the batch, such as the places that are not zero: how much there is depends on all samples."""
    return Mixed(f"{operation.func.__name__} over the samples")


def _batched_product(operation: Operation) -> Mark | None:
    """matmul: samples on a leading axis of either side, or on the rows of one side."""
    (left, right), (first, second) = operation.operands, operation.marks
    if operation.func.__name__ == "__rmatmul__":
        (left, right), (first, second) = (right, left), (second, first)
    out = operation.outputs[0]
    for one, other, mark, other_mark, rows in ((left, right, first, second, 2), (right, left, second, first, 1)):
        if not isinstance(mark, Samples):
            continue
        from_right = one.dim() - mark.axis
        if one.dim() == 1 or from_right == 3 - rows:  # the axis that is summed over
            return Mixed("a product sums over the samples")
        if from_right == rows:
            if isinstance(other_mark, Samples):
                return Mixed("a product compares samples with each other")
            return mark._replace(axis=out.dim() - (1 if other.dim() == 1 else rows))
        if other.dim() == 1:
            return mark if rows == 2 or mark.axis < out.dim() else UNKNOWN
    return elementwise(operation)


def _attention(operation: Operation) -> Mark | None:
    place = aligned(operation)
    if not isinstance(place, tuple) or isinstance(place, Samples | Mixed):
        return place
    return Mixed("attention from one sample to another") if place[0] < 3 else elementwise(operation)


def within(axes: int) -> Kind:
    """Works within the last so many axes of the first operand and keeps the others."""

    def kind(operation: Operation) -> Mark | None:
        if operation.input is None:
            return UNKNOWN
        operand, mark = operation.input
        return mark if mark.axis < operand.dim() - axes else Mixed(f"{operation.func.__name__} along the samples")

    return kind


def _images(operation: Operation) -> Mark | None:
    """A layer for images: the samples stand first, the channels after them."""
    if operation.input is None:
        return UNKNOWN
    _, mark = operation.input
    return mark if mark.axis == 0 and mark.before == 1 else UNKNOWN


def _unfolded(operation: Operation) -> Found:
    if operation.func is torch.nn.functional.unfold:
        return _images(operation)
    return along(1, None)(operation)  # Tensor.unfold(dimension, size, step): windows on a new last axis


def _convolution(operation: Operation) -> Mark | None:
    weight = operation.argument(1, ("weight",), None)
    return _images(operation) if weight is not None and weight.dim() == operation.operands[0].dim() else UNKNOWN


def _batch_norm(operation: Operation) -> Mark | None:
    if operation.argument(5, ("training",), False):
        return Mixed("batch statistics")
    return _images(operation)


def _layer_norm(operation: Operation) -> Found:
    return within(len(operation.argument(1, ("normalized_shape",), ())))(operation)


def _padded(operation: Operation) -> Found:
    return within(len(operation.argument(1, ("pad",), ())) // 2)(operation)


def along(position: int, default: Any) -> Kind:
    """Works along axes that an argument names and keeps all of them."""

    def kind(operation: Operation) -> Mark | None:
        if operation.input is None:
            return UNKNOWN
        operand, mark = operation.input
        dimensions = operation.dimensions(position, default, operand.dim())
        if dimensions is None or mark.axis in dimensions:
            return Mixed(f"{operation.func.__name__} along the samples")
        return mark

    return kind


def _reduction(operation: Operation) -> Mark | None:
    """Sums and the like over axes that an argument names."""
    if operation.input is None:
        return elementwise(operation)  # max(x, y) of two tensors
    operand, mark = operation.input
    if len(operation.operands) > 1:
        return elementwise(operation)
    position = 2 if operation.func.__name__ in ("norm", "kthvalue", "linalg_vector_norm", "linalg_norm") else 1
    dimensions = operation.dimensions(position, None, operand.dim())
    if dimensions is None or mark.axis in dimensions:
        return Mixed(f"{operation.func.__name__} over the samples")
    gone = 0 if operation.outputs[0].dim() == operand.dim() else sum(d < mark.axis for d in dimensions)
    return mark._replace(axis=mark.axis - gone)


def _reshape(operation: Operation) -> Mark | None:
    operand, mark = operation.operands[0], operation.marks[0]
    if not isinstance(mark, Samples):
        return mark  # view_as
    if operand.numel() != operation.outputs[0].numel():
        return UNKNOWN
    return operation.axes.reshaped(operand.shape, mark, operation.outputs[0].shape)


def _view(operation: Operation) -> list[Mark | None] | Mark | None:
    """Permutations, slices and the like: done to a shadow that has a stride on the samples' axis only."""
    operand, mark = operation.operands[0], operation.marks[0]
    if not isinstance(mark, Samples):
        return mark  # expand_as
    name = operation.func.__name__
    if name.endswith("diagonal"):
        usual = (-2, -1) if name.startswith("linalg") else (0, 1)
        pair = [operation.argument(2 + i, (f"dim{i + 1}",), usual[i]) % operand.dim() for i in (0, 1)]
        if mark.axis in pair:
            return Mixed("a diagonal through the samples")
    size = operand.shape[mark.axis]
    strides = [0] * operand.dim()
    strides[mark.axis] = 1
    shadow = torch.empty(size, dtype=torch.bool).as_strided(operand.shape, strides)
    if operation.args and operation.args[0] is operand:
        seen = operation.func(shadow, *operation.args[1:], **operation.kwargs)
    else:
        return UNKNOWN
    marks: list[Mark | None] = []
    for view in [seen] if isinstance(seen, Tensor) else tensors_in(seen):
        if view.untyped_storage().data_ptr() != shadow.untyped_storage().data_ptr():
            return UNKNOWN
        axes = [axis for axis, stride in enumerate(view.stride()) if stride == 1 and view.shape[axis] == size]
        moving = [axis for axis, stride in enumerate(view.stride()) if stride != 0 and view.shape[axis] > 1]
        alone = len(axes) == 1 and moving == axes
        marks.append(mark._replace(axis=axes[0]) if alone else Mixed("a part of the batch is taken out"))
    return marks


def _index(operation: Operation) -> list[Mark | None] | Mark | None:
    index = operation.args[1]
    whole = index if isinstance(index, tuple) else (index,)
    ends = [end for i in whole if isinstance(i, slice) for end in (i.start, i.stop, i.step) if isinstance(end, Tensor)]
    operation.axes.numbers_read |= any(operation.axes.of(end) is not CONSTANT for end in ends)
    if all(i is None or i is Ellipsis or isinstance(i, int | slice) for i in whole):
        return _view(operation)
    mark = operation.marks[0]
    if isinstance(mark, Samples) and _chooses_samples(operation.axes, whole, operation.operands[0].dim(), mark.axis):
        return Mixed("samples are picked by their numbers")
    # entries picked by a tensor: the samples' axis stays where it is if all of it is taken and only what follows is picked from
    if isinstance(mark, Samples) and all(i == slice(None) for i in whole[: mark.axis + 1] if isinstance(i, slice)):
        head = whole[: mark.axis + 1]
        tails = [i for i in whole[mark.axis + 1 :] if isinstance(i, Tensor | list)]
        if len(head) == mark.axis + 1 and all(isinstance(i, slice) for i in head) and len(tails) == 1:
            constant = not isinstance(tails[0], Tensor) or operation.axes.of(tails[0]) is CONSTANT
            return mark if constant else UNKNOWN
    return UNKNOWN


def _chooses_samples(axes: Axes, whole: tuple, rank: int, axis: int) -> bool:
    """Whether an index (or a mask) that depends on the samples stands at their axis: x[order], x[gate > 0]."""
    taken = [
        0 if i is None else i.dim() if isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) else 1
        for i in whole
    ]
    at = 0
    for i, width in zip(whole, taken, strict=True):
        if i is Ellipsis:
            width = rank - sum(taken) + 1
        elif isinstance(i, Tensor) and at <= axis < at + width:
            return axes.of(i) is not CONSTANT
        at += width
    return False


def written(operation: Operation) -> Mark | None:
    """``x[index] = value``."""
    target, index = operation.args[0], operation.args[1]
    mark = operation.axes.of(target)
    whole = index if isinstance(index, tuple) else (index,)
    if not isinstance(mark, Samples) or not all(isinstance(i, int | slice) or i is Ellipsis for i in whole):
        return UNKNOWN
    there = target.detach()[index]
    view = _view(
        operation._replace(func=torch.Tensor.__getitem__, args=(target, index), operands=[target], marks=[mark])
    )
    if not isinstance(view, list) or not isinstance(view[0], Samples):
        return UNKNOWN
    value = operation.args[2]
    if isinstance(value, Tensor):
        other = operation.axes.of(value)
        if isinstance(other, Samples):
            same = value.dim() - other.axis == there.dim() - view[0].axis and other[1:] == view[0][1:]
            return mark if same else UNKNOWN
        if value.dim() >= there.dim() - view[0].axis and value.shape[view[0].axis - there.dim()] != 1:
            return UNKNOWN
    return mark


def _joined(operation: Operation) -> Mark | None:
    """cat: along another axis than the samples'."""
    place = aligned(operation)
    if not isinstance(place, tuple) or isinstance(place, Samples | Mixed):
        return place
    from_right, mark = place
    rank = operation.outputs[0].dim()
    dim = operation.argument(1, ("dim", "axis"), 0) % rank
    if dim == rank - from_right:
        return Mixed("more samples are joined on")
    return mark._replace(axis=rank - from_right)


def _stacked(operation: Operation) -> Mark | None:
    place = aligned(operation)
    if not isinstance(place, tuple) or isinstance(place, Samples | Mixed):
        return place
    from_right, mark = place
    rank = operation.outputs[0].dim()
    dim = operation.argument(1, ("dim", "axis"), 0) % rank
    axis = rank - 1 - from_right
    return mark._replace(axis=axis + (dim <= axis))


def _repeated(operation: Operation) -> Mark | None:
    operand, mark = operation.operands[0], operation.marks[0]
    if not isinstance(mark, Samples):
        return UNKNOWN
    axis = mark.axis + operation.outputs[0].dim() - operand.dim()
    whole = operation.outputs[0].shape[axis] == operand.shape[mark.axis]
    return mark._replace(axis=axis) if whole else UNKNOWN


def _interleaved(operation: Operation) -> Mark | None:
    repeats, dim = operation.argument(1, ("repeats",), None), operation.argument(2, ("dim",), None)
    if operation.input is None or dim is None or not isinstance(repeats, int):
        return UNKNOWN
    operand, mark = operation.input
    return mark._replace(each=mark.each * repeats) if dim % operand.dim() == mark.axis else mark


def _picked(operation: Operation) -> Mark | None:
    """gather, index_select: along another axis than the samples'."""
    operand, mark = operation.operands[0], operation.marks[0]
    dim = operation.argument(1, ("dim",), None)
    others = operation.marks[1:]
    if not isinstance(mark, Samples) or not isinstance(dim, int):
        return UNKNOWN
    if dim % operand.dim() == mark.axis:
        return UNKNOWN if all(other is CONSTANT for other in others) else Mixed("samples are picked by their numbers")
    by_samples = "select" not in operation.func.__name__
    same = all(other == mark if by_samples and isinstance(other, Samples) else other is CONSTANT for other in others)
    if not same:
        return UNKNOWN
    for index, other in zip(operation.operands[1:], others, strict=True):
        if by_samples and other is CONSTANT and index.shape[mark.axis] == operand.shape[mark.axis]:
            if not operation.axes.rows_are_equal(index, mark.axis, mark):
                return Mixed("a sample's entry depends on its place in the batch")
    return mark


def _looked_up(operation: Operation) -> Mark | None:
    """embedding, one_hot: one more axis at the end."""
    tokens, *table = operation.marks
    if any(isinstance(mark, Samples) for mark in table):
        return Mixed("samples are looked up in a table of samples")
    return tokens if isinstance(tokens, Samples) and all(mark is CONSTANT for mark in table) else UNKNOWN


def _einsum(operation: Operation) -> Mark | None:
    equation = operation.args[0]
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return UNKNOWN
    inputs, _, output = equation.replace(" ", "").partition("->")
    letters = set()
    mark = Samples(0)
    for letter, operand_mark in zip(inputs.split(","), operation.marks, strict=True):
        if isinstance(operand_mark, Samples):
            letters.add(letter[operand_mark.axis])
            mark = operand_mark
    if len(letters) != 1:
        return Mixed("samples meet other samples")
    (letter,) = letters
    for subscripts, operand, operand_mark in zip(inputs.split(","), operation.operands, operation.marks, strict=True):
        if operand_mark is CONSTANT and letter in subscripts and operand.shape[subscripts.index(letter)] != 1:
            if not operation.axes.rows_are_equal(operand, subscripts.index(letter), mark):
                return Mixed("a sample's entry depends on its place in the batch")
    return mark._replace(axis=output.index(letter)) if letter in output else Mixed("einsum over the samples")


def constant(operation: Operation) -> Mark:
    """Takes a shape or a type from its operand, and no value."""
    return CONSTANT


def _table(kinds: dict[Kind, str]) -> dict[str, Kind]:
    return {name: kind for kind, names in kinds.items() for name in names.split()}


BY_NAME: dict[str, Kind] = _table({
    elementwise: """add sub rsub mul div truediv true_divide divide multiply subtract pow rpow square sqrt rsqrt exp exp2 expm1 log log2
        log10 log1p logaddexp abs absolute neg negative pos sign sgn sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh
        sigmoid logsigmoid logit erf erfc erfinv lgamma digamma reciprocal floor ceil round trunc frac fmod remainder clamp clip clamp_min
        clamp_max hardtanh relu relu6 leaky_relu elu selu celu gelu silu mish softplus softsign softshrink hardshrink tanhshrink threshold
        hardsigmoid hardswish lerp addcmul addcdiv maximum minimum fmax fmin masked_fill copy eq ne lt le gt ge equal
        logical_and logical_or logical_not logical_xor bitwise_and bitwise_or bitwise_not bitwise_xor and or xor invert isnan isinf
        isfinite nan_to_num dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout contiguous clone
        detach float double half bfloat16 long int short byte bool cpu cuda requires_grad_ data real conj resolve_conj
        resolve_neg positive floor_divide floordiv sinc xlogy heaviside hypot fill zero lerp alias identity nan_to_num float_power""",
    _like_the_first: "to type type_as",
    _chosen: "where",
    _batched_product: "matmul bmm rmatmul",
    _attention: "scaled_dot_product_attention baddbmm",
    _einsum: "einsum",
    _unfolded: "unfold",
    _convolution: "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d",
    _batch_norm: "batch_norm",
    _layer_norm: "layer_norm rms_norm",
    _images: """group_norm instance_norm local_response_norm interpolate upsample upsample_nearest upsample_bilinear fold
        pixel_shuffle pixel_unshuffle channel_shuffle""",
    _padded: "pad",
    within(1): """linear max_pool1d avg_pool1d adaptive_avg_pool1d adaptive_max_pool1d lp_pool1d max_pool1d_with_indices hardmax
        view_as_complex view_as_real""",
    within(2): """max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d lp_pool2d max_pool2d_with_indices max_unpool2d tril
        triu fractional_max_pool2d""",
    within(3): "max_pool3d avg_pool3d adaptive_avg_pool3d adaptive_max_pool3d max_pool3d_with_indices",
    along(1, None): "softmax log_softmax softmin cumsum cumprod cummax cummin logcumsumexp flip",
    along(1, -1): "glu sort argsort",
    along(2, None): "roll",
    along(2, 1): "normalize",
    along(2, -1): "topk fft ifft rfft irfft hfft",
    along(2, (-2, -1)): "fft2 ifft2 rfft2 irfft2",
    _reduction: """sum nansum mean nanmean amax amin max min aminmax std var std_mean var_mean norm vector_norm logsumexp prod argmax argmin
        any all median nanmedian mode kthvalue count_nonzero""",
    _reshape: "view reshape flatten unflatten view_as reshape_as _unsafe_view squeeze unsqueeze",
    _view: """permute transpose swapaxes swapdims movedim moveaxis T mT H mH t expand expand_as broadcast_to select narrow chunk split
        split_with_sizes tensor_split unbind diagonal unsafe_chunk unsafe_split""",
    _index: "getitem",
    written: "setitem",
    _joined: "cat concat concatenate",
    _stacked: "stack",
    _repeated: "repeat tile",
    _interleaved: "repeat_interleave",
    _picked: "gather index_select take_along_dim",
    picked_from_all: "nonzero argwhere masked_select unique unique_consecutive msort bincount histc take",
    _looked_up: "embedding one_hot",
    constant: "zeros_like ones_like full_like empty_like rand_like randn_like new_zeros new_ones new_full new_empty new_tensor",
})  # fmt: skip
"""How torch's functions hand on the samples' axis, by name, whether called as a function, a method, in place, or as an operator."""

NUMBERS_ONLY = {Tensor.masked_fill, Tensor.masked_fill_, torch.masked_fill, Tensor.fill_, torch.fill, torch.fill_}
"""Take a tensor without axes for a number, and none with axes."""

READING: set[Callable] = {
    *(torch.equal, torch.allclose, torch.is_nonzero, Tensor.equal, Tensor.allclose, Tensor.is_nonzero),
    *(Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__dlpack__, Tensor.__contains__),
    *(Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.__complex__),
}
"""Take numbers out of a tensor to where nobody watches what becomes of them."""

BROADCASTING: set[Kind | None] = {elementwise, _chosen, _batched_product, _attention, _joined, _stacked}


def meeting_place(operation: Operation) -> tuple[int, Samples] | None:
    """Where, counted from the last axis, operands that do not depend on the samples can be handed out to them."""
    place = aligned(operation)
    if not isinstance(place, tuple) or isinstance(place, Samples | Mixed):
        return None
    from_right, mark = place
    kind = kind_of(operation.func)
    if kind in (_batched_product, _attention) and from_right < 3:
        return None  # not among the axes that are broadcast
    if kind is _batched_product and any(operand.dim() == 1 for operand in operation.operands):
        return None  # a vector stays one
    if kind is _joined:
        rank = max(operand.dim() for operand in operation.operands)
        if operation.argument(1, ("dim", "axis"), 0) % rank == rank - from_right:
            return None
    return from_right, mark


def is_in_place(func: Callable) -> bool:
    name = getattr(func, "__name__", "")
    if name.startswith("__"):
        return name.startswith("__i") and name.strip("_") not in ("invert", "index", "int", "iter", "init")
    return name.endswith("_")


_KINDS: dict[Callable, Kind | None] = {}


def kind_of(func: Callable) -> Kind | None:
    try:
        return _KINDS[func]
    except KeyError:
        name = getattr(func, "__name__", "")
        if name == "__get__":  # a property, such as x.T
            name = getattr(getattr(func, "__self__", None), "__name__", "")
        for prefix in ("linalg_", "special_", "fft_"):
            name = name.removeprefix(prefix)
        if name.startswith("__"):
            name = name.strip("_")
            if name not in BY_NAME and name[:1] in "ir" and name[1:] in BY_NAME:  # x += y, 1 - x
                name = name[1:]
        found = BY_NAME.get(name) or BY_NAME.get(name.rstrip("_"))
        return _KINDS.setdefault(func, found)
