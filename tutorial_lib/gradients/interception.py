"""Watch a forward pass, and listen in on its backward pass.

Inside ``with Interception(...)`` every torch function that a rule stands for runs as one node of autograd's graph that knows the
rule. When the backward pass reaches the node, the node has the layer's input x and output gradient g of all samples, asks the
rule for the samples' gradients, and passes dL/dx on. The parameters themselves are no part of the graph: their batch gradient,
a third of a training step, is never computed, and their ``.grad`` and ``requires_grad`` are not touched.

What no rule stands for runs as it always does. Its parameters then do appear in the graph, and that is how the engine finds out
that it must ask for their gradients in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import _add_batch_dim, _unwrap_batched, maybe_current_level
from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from tutorial_lib.gradients.rules import (
    RULES,
    Alone,
    Formed,
    SampleGradients,
    Unsupported,
    Use,
    squared_norms_of_vectors,
)

Question = Callable[[str, SampleGradients], Tensor | Formed]
"""What is asked of a parameter's gradients, by the parameter's name: numbers (M,) or (M, k), M = N·L; or short vectors (M, k) whose
squared norms are the answer, which are taken for many parameters at once when the backward pass is through."""


class Interception(TorchFunctionMode):
    """One forward pass of ``samples`` samples, and the backward passes that follow it.

    Args:
        parameters: those that are asked about, by name.
        samples: N.
        question: what is asked; see `Question`.
        batch_axes: for layers that treat several axes alike, a function that says on which of them the samples stand: from
            the number of the use and its input's shape to an axis, or None if there is no such axis.
        watched: names of parameters whose uses are watched; all of them if left out. The gradients of the others are computed, and
            with a single sample they are its own.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        samples: int,
        question: Question | None,
        batch_axes: Callable[[int, torch.Size], int | None] | None,
        watched: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.parameters = parameters
        self.name_of = {id(parameter): name for name, parameter in parameters.items()}
        self.watched = {id(parameters[name]) for name in watched} if watched else self.name_of.keys()
        self.samples, self.question, self.batch_axes = samples, question, batch_axes
        self.tap = torch.zeros(
            (), requires_grad=True
        )  # gives every use a path, also where no input requires a gradient
        self.labels = 1  # carried by the backward pass that is going on
        self.uses: dict[str, int] = {}
        self.uncovered: set[str] = set()
        self.answers: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self.vectors: dict[str, Formed] = {}
        self.scratch: dict = {}
        self.shapes: list[torch.Size] = []  # of inputs whose samples may stand on several axes, over those axes
        self.bytes = self.largest = 0  # of what the operations return: all together, and the largest

    # ------------------------------------------------------------------ forward
    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        output = None
        if func in RULES and not self.watched.isdisjoint(map(id, (*args, *kwargs.values()))):
            try:
                output = self._run(RULES[func](*args, **kwargs))
            except Unsupported:
                pass
        if output is None:
            output = func(*args, **kwargs)
        if isinstance(output, Tensor):
            size = output.nbytes
            self.bytes += size
            if size > self.largest:
                self.largest = size
        return output

    def _run(self, use: Use) -> Tensor:
        names = {}
        for role, tensor in use.parameters.items():
            if tensor is not None:
                if id(tensor) in self.name_of:
                    names[role] = self.name_of[id(tensor)]
                elif tensor.grad_fn is not None:
                    raise Unsupported("a weight that is computed from parameters")
        x, use.input = use.input, None  # the node keeps it, so that autograd can watch over it
        if id(x) in self.name_of:
            raise Unsupported("a parameter as input")
        axis = self._axis(x.shape[: use.free_axes])
        use.names, use.scratch = names, self.scratch
        for name in names.values():
            self.uses[name] = self.uses.get(name, 0) + 1
        if axis == 0:
            return _Node.apply(x, self.tap, use, self)
        return _Node.apply(x.movedim(axis, 0), self.tap, use, self).movedim(0, axis)

    def _axis(self, shape: torch.Size) -> int:
        """On which of these axes the samples stand."""
        axis: int | None = 0
        if len(shape) > 1:
            self.shapes.append(shape)
            if self.samples > 1 and any(size % self.samples == 0 for size in shape[1:]):
                axis = self.batch_axes(len(self.shapes) - 1, shape)
        if axis is None or shape[axis] != self.samples:
            raise Unsupported("samples that stand on no axis of their own")
        return axis

    # ------------------------------------------------------------------ backward
    def backward(
        self, outputs: tuple[Tensor, ...], direction: Sequence[Tensor], retain_graph: bool = False, foreign: bool = True
    ) -> Tensor:
        """Answers (N, L, P) or (N, L, P, k) for the backward pass from ``direction``, one (N, L, ...) for each output.

        ``foreign`` is what `foreign_nodes` said. Without any, nothing in the pass can want a gradient of its own, and inference
        mode saves autograd's part in some thousand calls, a millisecond.

        Zero where the outputs do not depend on a parameter. Afterwards ``uncovered`` names those that they also depend
        on in ways that no rule stands for; the answers for these are wrong.
        """
        samples, self.labels = direction[0].shape[:2]
        alone = samples == self.labels == 1
        leftover: dict[str, Tensor] = {}

        def run(direction: Sequence[Tensor]) -> Tensor:
            _, *gradients = torch.autograd.grad(
                outputs, [self.tap, *self.parameters.values()], direction, retain_graph=retain_graph, allow_unused=True
            )
            leftover.update((name, g) for name, g in zip(self.parameters, gradients, strict=True) if g is not None)
            return direction[0]  # vmap wants something back

        mode = torch.no_grad() if foreign else torch.inference_mode()
        with mode, torch.autocast(direction[0].device.type, enabled=False):
            if self.labels == 1:
                run([d.squeeze(1) for d in direction])
            else:
                torch.vmap(run, in_dims=1)(list(direction))
            for name, total in self.sums.items():
                self._ask(name, Formed(total, self.labels))
            self.answers |= squared_norms_of_vectors(self.vectors)
            if alone:  # what is left over are ordinary gradients, all of them this sample's
                self.answers = {name: answer.squeeze(0) for name, answer in self.answers.items()}
                for name in [name for name in leftover if name not in self.uses]:
                    self.answers[name] = self.question(name, Alone(leftover.pop(name)))
        self.uncovered = set(leftover)
        answers, self.answers, self.sums, self.vectors = self.answers, {}, {}, {}
        if len(answers) < len(self.parameters):
            zero = next(iter(answers.values()), direction[0].new_zeros(() if alone else samples * self.labels)) * 0
            answers = {name: answers.get(name, zero) for name in self.parameters}
        stacked = torch.stack([answers[name] for name in self.parameters], dim=0 if alone else 1)
        return stacked.view(samples, self.labels, *stacked.shape[1 - alone :])

    def receive(self, use: Use, x: Tensor, g: Tensor, needs_input_gradient: bool) -> Tensor | None:
        """One node's turn in the backward pass: answer the question for its parameters, return dL/dx (M, ...)."""
        gx, gradients = use.backward(x, g, needs_input_gradient)
        for role, name in use.names.items():
            mine = gradients[role]
            if self.uses[name] > 1:  # the gradient is the sum over the uses, and it must be squared after adding
                formed = mine.dense().reshape(len(g), *use.parameters[role].shape)
                self.sums[name] = self.sums[name] + formed if name in self.sums else formed
            else:
                self._ask(name, mine)
        return gx

    def _ask(self, name: str, gradients: SampleGradients) -> None:
        answer = self.question(name, gradients)
        (self.vectors if isinstance(answer, Formed) else self.answers)[name] = answer


class _Node(torch.autograd.Function):
    """A use of parameters as a node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tap: Tensor, use: Use, interception: Interception) -> Tensor:
        ctx.save_for_backward(x)
        ctx.use, ctx.interception = use, interception
        return use.output(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, None, None, None]:
        (x,) = ctx.saved_tensors
        watch, needs_input_gradient = ctx.interception, ctx.needs_input_grad[0]
        if watch.labels == 1:
            return watch.receive(ctx.use, x, g, needs_input_gradient), None, None, None
        # Step out of vmap, which hides the label axis, and in again. The public way, an autograd function with a vmap rule
        # that is called here, does the same through a tenth of a millisecond of Python at every node.
        level = maybe_current_level()
        g, axis = _unwrap_batched(g, level)
        with temporarily_pop_interpreter_stack():
            g = g.unsqueeze(1).expand(-1, watch.labels, *g.shape[1:]) if axis is None else g.movedim(axis, 1)
            gx = watch.receive(ctx.use, x, g.flatten(0, 1), needs_input_gradient)
            if gx is not None:
                gx = gx.unflatten(0, g.shape[:2])
        return (None if gx is None else _add_batch_dim(gx, 1, level)), None, None, None


def foreign_nodes(outputs: Sequence[Tensor]) -> bool:
    """Whether the graph holds autograd functions written in Python by someone else.

    They may not know how to be vmapped, and may record gradients of their own in their backward pass.
    """
    seen = {None, *(output.grad_fn for output in outputs)}
    todo = [*seen - {None}]
    while todo:
        node = todo.pop()
        if isinstance(node, BackwardCFunction) and not isinstance(node, _Node._backward_cls):
            return True
        for parent, _ in node.next_functions:
            if parent not in seen:
                seen.add(parent)
                todo.append(parent)
    return False
