"""What a watcher of torch's functions has to know: when to look, and what to look through."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_transforms_are_active: Any = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
_top_hooks: Any = getattr(getattr(torch._C, "_autograd", None), "_top_saved_tensors_default_hooks", lambda _: None)


def in_the_open() -> bool:
    """Whether a layer's call can become a node here and now.

    Gradients are recorded, no transformation of torch.func is at work, and no checkpoint that will run the call again, unwatched.
    """
    if not torch.is_grad_enabled() or _transforms_are_active():
        return False
    hooks = _top_hooks(True)
    return hooks is None or hooks[0].__module__ != "torch.utils.checkpoint"


def bytes_of(tensor: Tensor) -> int:
    return tensor.nbytes if tensor.layout is torch.strided else 0  # of a sparse tensor torch does not say


def seen_through(function: FunctionType) -> FunctionType:
    """The function without its own call to whoever watches: what it calls is watched instead."""
    twin = FunctionType(
        function.__code__,
        {**function.__globals__, "has_torch_function": lambda *_: False},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    twin.__kwdefaults__ = function.__kwdefaults__
    return twin


def _addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    product = mat1 @ mat2
    return (product if alpha == 1 else alpha * product) + (input if beta == 1 else beta * input)


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    if weight.dim() == 1 and weight.shape[0] > 1:
        weight = weight.reshape(-1, *[1] * (input.dim() - 2))  # channels stand on axis 1
    return torch.where(input > 0, input, weight * input)


def _product(input: Tensor, other: Tensor) -> Tensor:
    return input @ other


MADE_OF_LAYERS: dict[Callable, Callable] = {
    **dict.fromkeys((torch.mm, Tensor.mm, torch.mv, Tensor.mv), _product),
    torch.addmm: _addmm,
    Tensor.addmm: _addmm,
    F.prelu: _prelu,
    torch.prelu: _prelu,
    Tensor.prelu: _prelu,
}
"""What is watched from within: attention is two linear maps, and what is between them has no parameters."""

if "has_torch_function" in F.multi_head_attention_forward.__globals__:
    MADE_OF_LAYERS[F.multi_head_attention_forward] = seen_through(F.multi_head_attention_forward)  # type: ignore[arg-type]
