"""Watch a forward pass, and listen in on its backward pass.

Inside ``with Interception(...)`` every torch function that a rule stands for runs as one node of autograd's graph that knows the
rule. When the backward pass reaches the node, the node has the layer's input x and output gradient g of all samples, asks the
rule for the samples' gradients, and passes dL/dx on. The parameters themselves are no part of the graph: their batch gradient,
a third of a training step, is never computed, and their ``.grad`` and ``requires_grad`` are not touched.

What no rule stands for runs as it always does. Its parameters then do appear in the graph, and that is how the engine finds out
that it must ask for their gradients in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.overrides import TorchFunctionMode

from tutorial_lib.gradients.rules import RULES, Formed, SampleGradients, Unsupported, Use


class Question:
    """What is asked of parameters' gradients: numbers (M,) or (M, k) for each parameter, M = N·L."""

    def __call__(self, name: str, gradients: SampleGradients) -> Tensor:
        """The answer for one parameter."""
        raise NotImplementedError

    def of_vectors(self, vectors: Mapping[str, Formed]) -> dict[str, Tensor]:
        """The answers for scales and shifts (M, C), of which a network has many small ones; asked at the end of a backward pass."""
        return {name: self(name, gradients) for name, gradients in vectors.items()}


class Interception(TorchFunctionMode):
    """One forward pass of ``samples`` samples, and the backward passes that follow it.

    Args:
        parameters: those that are asked about, by name.
        samples: N.
        question: what is asked; see `Question`.
        batch_axes: for layers that treat several axes alike, a function that says on which of them the samples stand: from
            the number of the use and its input's shape to an axis, or None if there is no such axis.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        samples: int,
        question: Question | None,
        batch_axes: Callable[[int, torch.Size], int | None] | None,
    ) -> None:
        super().__init__()
        self.parameters = parameters
        self.name_of = {id(parameter): name for name, parameter in parameters.items()}
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
        if func in RULES and not self.name_of.keys().isdisjoint(map(id, (*args, *kwargs.values()))):
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

        def run(direction: Sequence[Tensor]) -> Tensor:
            _, *leftover = torch.autograd.grad(
                outputs, [self.tap, *self.parameters.values()], direction, retain_graph=retain_graph, allow_unused=True
            )
            self.uncovered = {
                name for name, gradient in zip(self.parameters, leftover, strict=True) if gradient is not None
            }
            return direction[0]  # vmap wants something back

        mode = torch.no_grad() if foreign else torch.inference_mode()
        with mode, torch.autocast(direction[0].device.type, enabled=False):
            if self.labels == 1:
                run([d.squeeze(1) for d in direction])
            else:
                torch.vmap(run, in_dims=1)(list(direction))
            for name, total in self.sums.items():
                self.answers[name] = self.question(name, Formed(total, self.labels))
            self.answers |= self.question.of_vectors(self.vectors)
        answers, self.answers, self.sums, self.vectors = self.answers, {}, {}, {}
        if len(answers) < len(self.parameters):
            zero = next(iter(answers.values()), direction[0].new_zeros(samples * self.labels)) * 0
            answers = {name: answers.get(name, zero) for name in self.parameters}
        return torch.stack([answers[name] for name in self.parameters], dim=1).unflatten(0, (samples, self.labels))

    def receive(self, use: Use, x: Tensor, g: Tensor, needs_input_gradient: bool) -> Tensor | None:
        """One node's turn in the backward pass: answer the question for its parameters, return dL/dx (M, ...)."""
        gx, gradients = use.backward(x, g, needs_input_gradient)
        for role, name in use.names.items():
            mine = gradients[role]
            if self.uses[name] > 1:  # the gradient is the sum over the uses, and it must be squared after adding
                formed = mine.dense().reshape(len(g), *use.parameters[role].shape)
                self.sums[name] = self.sums[name] + formed if name in self.sums else formed
            elif isinstance(mine, Formed) and mine.gradients.dim() == 2:
                self.vectors[name] = mine
            else:
                self.answers[name] = self.question(name, mine)
        return gx


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

        def receive(g: Tensor) -> Tensor:
            gx = watch.receive(ctx.use, x, g.flatten(0, 1), needs_input_gradient)
            return g.new_zeros(1, watch.labels) if gx is None else gx.unflatten(0, g.shape[:2])

        gx = _AllLabels.apply(g, receive, watch.labels)
        return (gx if needs_input_gradient else None), None, None, None


class _AllLabels(torch.autograd.Function):
    """Inside a vmapped backward pass, step out of vmap: g with its label axis second, (N, L, ...), as an ordinary tensor."""

    @staticmethod
    def forward(g: Tensor, receive: Callable[[Tensor], Tensor], labels: int) -> Tensor:
        return receive(g.unsqueeze(1).expand(-1, labels, *g.shape[1:]))[:, 0]  # vmap found the same g for every label

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, g: Tensor, receive: Callable[[Tensor], Tensor], labels: int
    ) -> tuple[Tensor, int]:
        return receive(g.movedim(in_dims[0], 1)), 1


def foreign_nodes(outputs: Sequence[Tensor]) -> bool:
    """Whether the graph holds autograd functions written in Python by someone else.

    They may not know how to be vmapped, and may record gradients of their own in their backward pass.
    """
    todo, done = [output.grad_fn for output in outputs], set()
    while todo:
        node = todo.pop()
        if node is None or node in done:
            continue
        done.add(node)
        if isinstance(node, BackwardCFunction) and not isinstance(node, _Node._backward_cls):
            return True
        todo.extend(parent for parent, _ in node.next_functions)
    return False
