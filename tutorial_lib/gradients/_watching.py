"""What a watcher of torch's functions has to know: when to look, and what to look through."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F

_transforms_are_active: Any = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
_top_hooks: Any = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", lambda _: None)


def in_the_open() -> bool:
    """Whether a layer's call can become a node here and now.

    Gradients are recorded, no transformation of torch.func is at work, and no checkpoint that will run the call again, unwatched.
    """
    if not torch.is_grad_enabled() or _transforms_are_active():
        return False
    hooks = _top_hooks(True)
    return hooks is None or hooks[0].__module__ != "torch.utils.checkpoint"


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


MADE_OF_LAYERS = {F.multi_head_attention_forward: seen_through(F.multi_head_attention_forward)}  # type: ignore[arg-type]
"""Attention is two linear maps, and what is between them has no parameters."""
