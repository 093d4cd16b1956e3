"""A layer's call as one node of autograd's graph, which takes the parameters' part out of the backward pass."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tutorial_lib.gradients._marks import OneSample, Samples
from tutorial_lib.gradients.rules import LayerCall

try:  # to step out of vmap, which hides the labels' axis, and in again; the public way takes a tenth of a millisecond at every node
    from torch._C._functorch import _add_batch_dim, _unwrap_batched, maybe_current_level
    from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
except ImportError:
    HAS_PRIVATE_NAMES = False
else:
    HAS_PRIVATE_NAMES = True

PythonNode: Any = getattr(torch.autograd.function, "BackwardCFunction", None)


class GradientInForward(Exception):
    """The network takes a gradient in its forward pass."""


class Listener(Protocol):
    """Whoever wants to hear what arrives at the nodes: a `BatchPass`."""

    listening: bool
    labels: int  # L, carried by one backward pass


class Node(torch.autograd.Function):
    """y = f(x; parameters). The parameters are no inputs of the node, so their batch gradient is never computed."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, anchor: Tensor, call: LayerCall, place: Samples | OneSample, batch: Listener
    ) -> Tensor:
        if call.keeps_input:
            ctx.save_for_backward(x)
        else:
            ctx.x = x
        ctx.call, ctx.place, ctx.batch = call, place, batch
        y = call.output(x)
        if y._base is not None:  # autograd does not let views of a node's own be changed in place
            y = y.new_empty(0).set_(y)  # type: ignore[call-overload]
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        batch, place, call = ctx.batch, ctx.place, ctx.call
        if not batch.listening:
            raise GradientInForward
        x = ctx.saved_tensors[0] if call.keeps_input else ctx.x
        needs_input_gradient = ctx.needs_input_grad[0]
        if batch.labels == 1:
            if call.images:
                gx = batch.receive(call, place, x, g, needs_input_gradient)
            else:
                gx = batch.receive(call, place, place.first(x), place.first(g), needs_input_gradient)
                gx = None if gx is None else place.back(gx)
            return gx, None, None, None, None
        level: Any = maybe_current_level()
        g, axis = _unwrap_batched(g, level)
        with temporarily_pop_interpreter_stack():
            g = g.expand(batch.labels, *g.shape) if axis is None else g.movedim(axis, 0)  # (L, ...)
            if not call.images:
                x, g = place.first(x), place.first(g, 1)  # (N, ...), (L, N, ...)
            gx = batch.receive(call, place, x, g.movedim(0, 1).flatten(0, 1), needs_input_gradient)  # (M, ...)
            if gx is not None:
                gx = gx.unflatten(0, (-1, batch.labels)).movedim(1, 0)  # (L, N, ...)
                gx = gx if call.images else place.back(gx, 1)
        return (None if gx is None else _add_batch_dim(gx, 0, level)), None, None, None, None


@functools.cache
def labels_together() -> bool:
    """Whether the backward passes of many labels can run as one; if not, they follow each other, which is the public way.

    Older versions of torch (2.6 among them) cannot vmap the backward pass of group normalisation where channels stand last.
    """
    if not HAS_PRIVATE_NAMES:
        return False
    with torch.enable_grad():
        x = torch.zeros(2, 2, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
        y = torch.nn.functional.group_norm(x, 1)
    try:
        torch.autograd.grad(y, x, torch.zeros(3, *y.shape), is_grads_batched=True)
    except RuntimeError:
        return False
    return True


def look_back(tensors: Sequence[Tensor]) -> tuple[set[int], bool, bool]:
    """What a graph stands on: ids of its leaves; whether it has nodes of ours; and nodes written in Python by someone else, or sparse.

    The last may not know how to be vmapped, and may record gradients of their own in their backward pass. Reentrant checkpoints are
    refused: autograd does not see the parameters in them.
    """
    leaves = {id(tensor) for tensor in tensors if tensor.grad_fn is None}
    ours, foreign = False, PythonNode is None  # without the name we cannot tell, and expect them
    seen = {None, *(tensor.grad_fn for tensor in tensors)}
    todo: list[Any] = [*seen - {None}]
    while todo:
        node = todo.pop()
        parents = node.next_functions
        if type(node).__name__ == "CheckpointFunctionBackward":
            raise ValueError(
                "the network has parts in torch.utils.checkpoint(..., use_reentrant=True), which hides their parameters from "
                "gradients that are asked for by name; give it use_reentrant=False"
            )
        if not parents:
            leaves.add(id(getattr(node, "variable", None)))
        elif type(node).__name__ == "NodeBackward" and getattr(type(node), "_forward_cls", Node) is Node:
            ours = True
        elif (PythonNode is not None and isinstance(node, PythonNode)) or "Sparse" in type(node).__name__:
            foreign = True
        for parent, _ in parents:
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return leaves, ours, foreign
