"""Watch a forward pass, and listen in on its backward pass.

Inside ``with Interception(...)`` every torch function that a rule stands for runs as one node of autograd's graph that knows the
rule. When the backward pass reaches the node, the node has the layer's input x and output gradient g of all samples, asks the
rule for the samples' gradients, and passes dL/dx on. The parameters themselves are no part of the graph: their batch gradient,
the most expensive third of a training step, is never computed, and their ``.grad`` and ``requires_grad`` are not touched.

What no rule stands for runs as it always does. Its parameters then do appear in the graph, and that is how the engine finds out
that it must ask for their gradients in another way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from tutorial_lib.gradients.rules import RULES, Formed, SampleGradients, Unsupported, Use

Question = Callable[[str, SampleGradients], Tensor]
"""What is asked of a parameter's gradients: (its name, its sample gradients) to numbers (L, N) or (L, N, k)."""


class Interception(TorchFunctionMode):
    """One forward pass of ``samples`` samples, and the backward passes that follow it.

    Args:
        parameters: those that are asked about, by name.
        samples: N.
        question: what is asked; see `Question`.
        batch_axes: for layers that treat several axes alike, a function that says on which of them the samples stand: from
            the number of the use and its input's shape to an axis, or None if there is no such axis.
    """

    def __init__(self, parameters: Mapping[str, Tensor], samples: int, question: Question,
                 batch_axes: Callable[[int, torch.Size], int | None]) -> None:
        super().__init__()
        self.parameters = dict(parameters)
        self.watched = {id(parameter): name for name, parameter in parameters.items()}
        self.samples, self.question, self.batch_axes = samples, question, batch_axes
        self.tap = torch.zeros((), requires_grad=True)  # gives every use a path, also where no input requires a gradient
        self.labels: int | None = None  # set while a backward pass carries several labels at once
        self.uses: Counter[str] = Counter()
        self.uncovered: set[str] = set()
        self.answers: dict[str, Tensor] = {}
        self.sums: dict[str, Tensor] = {}
        self.shapes: list[torch.Size] = []  # of the inputs of all uses, over the axes that may hold the samples
        self.bytes = self.largest = 0  # of what the operations return: all together, and the largest

    # ------------------------------------------------------------------ forward
    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        rule = RULES.get(func)
        output = None
        if rule is not None and any(id(value) in self.watched for value in chain(args, kwargs.values())):
            try:
                output = self._run(rule(*args, **kwargs))
            except Unsupported:
                pass
        if output is None:
            output = func(*args, **kwargs)
        if isinstance(output, Tensor):
            self.bytes += output.nbytes
            self.largest = max(self.largest, output.nbytes)
        return output

    def _run(self, use: Use) -> Tensor:
        if id(use.input) in self.watched or any(tensor.grad_fn is not None for tensor in use.parameters.values()):
            raise Unsupported("a parameter as input, or a weight that is computed from parameters")
        axis = self._axis(use)
        x, use.input = use.input.movedim(axis, 0), None  # the node keeps it, so that autograd can watch over it
        self.uses.update(self.watched[id(tensor)] for tensor in use.parameters.values() if id(tensor) in self.watched)
        return _Node.apply(x, self.tap, use, self).movedim(0, axis)

    def _axis(self, use: Use) -> int:
        shape = use.input.shape[: use.free_axes]
        self.shapes.append(shape)
        doubtful = any(size % self.samples == 0 for size in shape[1:])
        axis = self.batch_axes(len(self.shapes) - 1, shape) if doubtful and self.samples > 1 else 0
        if axis is None or shape[axis] != self.samples:
            raise Unsupported("samples that stand on no axis of their own")
        return axis

    # ------------------------------------------------------------------ backward
    def backward(self, outputs: tuple[Tensor, ...], direction: Sequence[Tensor], retain_graph: bool = False) -> Tensor:
        """Answers (L, N, P) or (L, N, P, k) for the backward pass from ``direction``, one (L, N, ...) for each output.

        Zero where the outputs do not depend on a parameter. Afterwards ``uncovered`` names those that they also depend
        on in ways that no rule stands for; the answers for these are wrong.
        """
        labels, samples = direction[0].shape[:2]
        self.labels = None if labels == 1 else labels

        def run(direction: Sequence[Tensor]) -> Tensor:
            _, *leftover = torch.autograd.grad(
                outputs, [self.tap, *self.parameters.values()], direction, retain_graph=retain_graph, allow_unused=True
            )
            self.uncovered = {name for name, gradient in zip(self.parameters, leftover, strict=True) if gradient is not None}
            return direction[0]

        with torch.no_grad(), torch.autocast(direction[0].device.type, enabled=False):
            if labels == 1:
                run([d[0] for d in direction])
            else:
                torch.vmap(run)(list(direction))
        for name, total in self.sums.items():
            self.answers[name] = self.question(name, Formed(total))
        zero = next(iter(self.answers.values()), torch.zeros(labels, samples, device=direction[0].device)) * 0
        answers = torch.stack([self.answers.get(name, zero) for name in self.parameters], dim=2)
        self.answers, self.sums = {}, {}
        return answers

    def receive(self, use: Use, x: Tensor, g: Tensor, needs_input_gradient: bool) -> Tensor | None:
        """One node's turn in the backward pass: answer the question for its parameters, return dL/dx."""
        gx, gradients = use.backward(x, g, needs_input_gradient)
        for role, sample_gradients in gradients.items():
            parameter = use.parameters[role]
            name = self.watched.get(id(parameter))
            if name is None:
                continue
            if self.uses[name] == 1:
                self.answers[name] = self.question(name, sample_gradients)
            else:  # the gradient is the sum over the uses, and it must be squared after adding
                formed = sample_gradients.dense().reshape(*g.shape[:2], *parameter.shape)
                self.sums[name] = self.sums[name] + formed if name in self.sums else formed
        return gx


class _Node(torch.autograd.Function):
    """A use of parameters as a node of autograd's graph."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tap: Tensor, use: Use, interception: Interception) -> Tensor:
        ctx.save_for_backward(x)
        ctx.use, ctx.interception = use, interception
        return use.output(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple:
        (x,) = ctx.saved_tensors
        needs_input_gradient = ctx.needs_input_grad[0]
        if ctx.interception.labels is None:
            gx = ctx.interception.receive(ctx.use, x, g.unsqueeze(0), needs_input_gradient)
            return (None if gx is None else gx.squeeze(0)), None, None, None

        def receive(g: Tensor) -> Tensor:
            gx = ctx.interception.receive(ctx.use, x, g, needs_input_gradient)
            return g.new_zeros(len(g)) if gx is None else gx

        gx = _AllLabels.apply(g, receive, ctx.interception.labels)
        return (gx if needs_input_gradient else None), None, None, None


class _AllLabels(torch.autograd.Function):
    """Inside a vmapped backward pass, step out of vmap: g with its label axis in front, as an ordinary tensor."""

    @staticmethod
    def forward(g: Tensor, receive: Callable[[Tensor], Tensor], labels: int) -> Tensor:
        return receive(g.expand(labels, *g.shape))[0]  # vmap found the same g for every label

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple, g: Tensor, receive: Callable[[Tensor], Tensor], labels: int) -> tuple[Tensor, int]:
        return receive(g.movedim(in_dims[0], 0)), 0


def foreign_nodes(outputs: Sequence[Tensor]) -> bool:
    """Whether the graph holds autograd functions written in Python by someone else: they may not know how to be vmapped."""
    todo, done = [output.grad_fn for output in outputs], set()
    while todo:
        node = todo.pop()
        if node is None or node in done:
            continue
        done.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction) and not isinstance(node, _Node._backward_cls):
            return True
        todo.extend(parent for parent, _ in node.next_functions)
    return False
