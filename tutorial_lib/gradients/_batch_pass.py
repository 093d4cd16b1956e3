"""One forward and one backward pass of a batch, watched layer by layer.

Inside ``with pass:`` every torch function that a rule stands for runs as one node of autograd's graph that knows the rule. When the
backward pass reaches the node, the node has the layer's activations x and its backprops g of all samples, takes the statistic of the
samples' gradients that is wanted, and passes dL/dx on. The parameters themselves are no part of the graph: their batch gradient, a
third of a training step, is never computed, and their ``.grad`` and ``requires_grad`` are not touched.

What no rule stands for runs as it always does. Its parameters then do appear in the graph, and a look at the graph before the
backward pass tells that their gradients must be had in another way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from tutorial_lib.gradients import _operations as operations
from tutorial_lib.gradients._again import Comparison
from tutorial_lib.gradients._computed import Computed, PulledBack
from tutorial_lib.gradients._marks import CONSTANT, UNKNOWN, Mixed, OneSample, Samples, tensors_in
from tutorial_lib.gradients._network import run
from tutorial_lib.gradients._node import GradientInForward, Node, labels_together, look_back
from tutorial_lib.gradients._sample_axis import SampleAxes
from tutorial_lib.gradients._watching import MADE_OF_LAYERS, bytes_of, in_the_open
from tutorial_lib.gradients.rules import (
    RULES,
    Folded,
    LayerCall,
    Materialized,
    PerSampleGradients,
    Shared,
    SingleGradient,
    Total,
    Unsupported,
    squared_norms_of_vectors,
)

Statistic = Callable[[str, PerSampleGradients], Tensor | Materialized]
"""What is wanted of a parameter's gradients, by the parameter's name: numbers (M,) or (M, k), M = N·L; or short vectors (M, k) whose
squared norms are wanted, which are taken for many parameters at once when the backward pass is through."""

Outputs = tuple[Tensor, ...]

_DIFFERENTIATE = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}
_SPECIAL = _DIFFERENTIATE | set(MADE_OF_LAYERS) | set(RULES)


class BatchPass(TorchFunctionMode):
    """One forward pass of a batch, and the backward passes that follow it.

    Args:
        parameters: those whose gradients are wanted, by name.
        constants: ids of all parameters and buffers of the network.
        samples: N.
        statistic: see `Statistic`.
        watched: names of parameters whose layers become nodes; all of them if left out. The gradients of the others are computed,
            and with a single sample they are its own.
        many_labels: whether a backward pass may carry more labels than one.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        constants: set[int],
        samples: int,
        statistic: Statistic,
        watched: Collection[str] = (),
        many_labels: bool = False,
    ) -> None:
        super().__init__()
        self.parameters, self.samples, self.statistic = parameters, samples, statistic
        self.many_labels = many_labels
        self.name_of = {id(parameter): name for name, parameter in parameters.items()}
        self.watched = {id(parameters[name]) for name in watched} if watched else set(self.name_of)
        self.axes: Any = SampleAxes(samples, constants) if samples > 1 else None  # one sample needs none
        self.anchor = torch.zeros((), requires_grad=True)  # gives every node a path, also where no input has a gradient
        self.labels_together = many_labels and labels_together()
        self.labels = 1  # carried by the backward pass that is going on
        self.listening = False
        self.calls: dict[str, int] = {}  # by parameter
        self.computed = Computed()
        self.weights: list[tuple[Tensor, int]] = []  # as layers have used them
        self.scratch: dict = {}
        self.bytes = self.largest = 0  # of what the operations return: all together, and the largest
        self.uncovered: set[str] = set()
        self.ordinary: dict[str, Tensor] = {}
        self.why_not = ""
        self._candidates = 0
        self._differentiates = False
        self._comparison: Comparison | None = None

    # ------------------------------------------------------------------ forward
    def forward(self, network: Callable, images: Tensor) -> Outputs:
        """The outputs. Afterwards ``why_not`` is a reason why the batched backward pass would be wrong, ``uncovered`` the
        parameters to which it applies."""
        images = images.clone()  # to put a mark on, and for the network to write to if it does
        self._network, self._images = network, images.clone()
        if self.axes is not None:
            self.axes.mark(images, Samples(0))

        def watched(images: Tensor) -> Any:
            with self, torch.enable_grad():
                return network(images)

        try:
            outputs = run(watched, images)
        except GradientInForward:
            self._differentiates = True
        if self._differentiates:
            self.why_not = "the network takes gradients in its forward pass"
            return ()
        self._judge(outputs)
        if self.axes is not None:
            self.axes.forget()
        del self._network, self._images
        self._comparison = None
        return outputs

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _SPECIAL:
            if func in _DIFFERENTIATE:
                self._differentiates = True  # should somebody catch the exception
                raise GradientInForward
            if func in MADE_OF_LAYERS:
                with self:
                    return MADE_OF_LAYERS[func](*args, **kwargs)
            output = self._layer(func, args, kwargs) if in_the_open() else None
            if output is not None:
                self._count(output)
                return output
        if self.axes is None:
            output = self._plain(func, args, kwargs)
        else:
            operands = tensors_in((*args, *kwargs.values()) if kwargs else args)
            marks = [self.axes.of(operand) for operand in operands]
            if len(operands) > 1 and CONSTANT in marks and operations.kind_of(func) in operations.BROADCASTING:
                handed_out = self._handed_out(func, args, kwargs, operands, marks)
                if handed_out is not None:
                    args, kwargs = handed_out
                    operands = tensors_in((*args, *kwargs.values()))
                    marks = [self.axes.of(operand) for operand in operands]
            if marks and marks[0] is CONSTANT and operations.is_in_place(func):
                operands[0] = operands[0].detach().clone()  # as it was before it is written to
            output = self._plain(func, args, kwargs)
            self.axes.hand_on(func, args, kwargs, output, operands, marks)
        if isinstance(output, Tensor):
            self._count(output)
        return output

    def _count(self, output: Tensor) -> None:
        size = bytes_of(output)
        self.bytes += size
        if size > self.largest:
            self.largest = size

    def _plain(self, func: Callable, args: tuple, kwargs: dict) -> Any:
        """The function itself. With many labels, vmap does some backward passes slowly, and torch.cdist's wrongly where memory is not
        contiguous, so that what is not known goes one label at a time."""
        if not self.many_labels:
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args, **kwargs)
        output = func(*args, **kwargs)
        if isinstance(output, Tensor) and output.requires_grad and operations.kind_of(func) is None:
            self.labels_together = False
        return output

    def _layer(self, func: Callable, args: tuple, kwargs: dict) -> Tensor | None:
        """The layer's call as a node, or None if it has no part in what is wanted, or no rule for it."""
        operands = (*args, *kwargs.values())
        watched = not self.watched.isdisjoint(map(id, operands))
        self._candidates += watched
        if not watched and not (self.axes is not None and any(map(self._is_computed, operands))):
            return None
        x = args[0] if args else kwargs["input"]
        if self.axes is None:
            place: Any = OneSample()
        else:
            place = self.axes.of(x)
            if place is CONSTANT:
                return None
            if (place is None or place is UNKNOWN) and watched:
                place = self._place_by_comparison(func, operands, x)
            if not isinstance(place, Samples):
                return None
        try:
            call = RULES[func](*args, **kwargs)
            output = self._node(call, place)
        except Unsupported:
            return None
        if self.axes is not None:
            self.axes.mark(output, place)
        return output

    def _is_computed(self, operand: Any) -> bool:
        return isinstance(operand, Tensor) and operand.grad_fn is not None and self.axes.of(operand) is CONSTANT

    def _node(self, call: LayerCall, place: Samples | OneSample) -> Tensor:
        names = {}
        for role, tensor in call.parameters.items():
            if tensor is not None:
                key = self._key(tensor)
                if key is not None:
                    names[role] = key
        x: Any = call.input
        call.input = None  # the node keeps it, so that autograd can watch over it
        if not names:
            raise Unsupported("no parameter whose gradient is wanted")
        if not x.numel():
            raise Unsupported("a layer on nothing, as an expert that got no part of the image")
        if x.is_complex() or any(tensor is not None and tensor.is_complex() for tensor in call.parameters.values()):
            raise Unsupported("complex numbers, whose rules would have to conjugate")
        if self.axes is None:
            if call.images:
                place = OneSample(each=len(x))
        elif isinstance(place, Samples) and (
            place.axis >= call.free_axes or (call.samples_first and (place.axis > 0 or place.before > 1))
        ):
            raise Unsupported("samples on an axis that the layer works along")
        call.names, call.scratch = names, self.scratch
        self.weights += [(w, w._version) for w in call.parameters.values() if w is not None and not w.is_inference()]
        for name in names.values():
            self.calls[name] = self.calls.get(name, 0) + 1
        return Node.apply(x, self.anchor, call, place, self)

    def _key(self, tensor: Tensor) -> str | None:
        """Under which name a parameter's gradient is wanted, or a key for a weight that is computed from such."""
        name = self.name_of.get(id(tensor))
        if name is not None:
            return name
        if not tensor.requires_grad:
            return None
        if tensor.grad_fn is None:
            return None  # a parameter that nobody asks about
        if self.axes is None or self.axes.of(tensor) is not CONSTANT:
            raise Unsupported("a weight that is computed from the samples, or out of sight")
        if id(tensor) in self.computed.keys:
            return self.computed.keys[id(tensor)]
        leaves, ours, foreign = look_back([tensor])
        if ours or foreign:
            raise Unsupported("a weight that is computed in ways of its own")
        names = {self.name_of[leaf] for leaf in leaves if leaf in self.name_of}
        return self.computed.add(tensor, names) if names else None

    def _handed_out(
        self, func: Callable, args: tuple, kwargs: dict, operands: list[Tensor], marks: list[Any]
    ) -> tuple[tuple, dict] | None:
        """The arguments, with parameters that meet the samples here handed out to each of them (see `rules.shared`)."""
        shared = [t for t, mark in zip(operands, marks, strict=True) if mark is CONSTANT and t.requires_grad]
        if (
            not shared
            or func in operations.NUMBERS_ONLY
            or not any(isinstance(mark, Samples) for mark in marks)
            or not in_the_open()
        ):
            return None
        operation = operations.Operation(self.axes, func, args, kwargs, operands, marks, [])
        place = operations.meeting_place(operation)
        if place is None:
            return None
        if operations.is_in_place(func) and any(args[0] is tensor for tensor in shared):
            return None
        swapped = {}
        for tensor in shared:
            if id(tensor) not in swapped:
                try:
                    swapped[id(tensor)] = self._shared(tensor, *place)
                except Unsupported:
                    pass

        def swap(value: Any) -> Any:
            if isinstance(value, list | tuple):
                return type(value)(map(swap, value)) if type(value) in (list, tuple) else value
            return swapped.get(id(value), value)

        return tuple(map(swap, args)), {name: swap(value) for name, value in kwargs.items()}

    def _shared(self, tensor: Tensor, from_right: int, place: Samples) -> Tensor:
        """A constant tensor with the samples' axis, that many axes from the right."""
        lead = max(0, from_right - tensor.dim())
        at = lead + tensor.dim() - from_right  # in the tensor with leading axes of size 1
        size = tensor.shape[at - lead] if lead == 0 else 1
        before, each = place.before, place.each
        if size != 1:  # an entry for each sample, all of them the same
            tensor = tensor.unflatten(at, (before, self.samples, each)).narrow(at + 1, 0, 1).squeeze(at + 1)
            self.axes.mark(tensor, CONSTANT)
        y = self._node(Shared(self._for_each, tensor), Samples(0))  # (N, *shape)
        y = y.reshape(self.samples, *[1] * lead, *tensor.shape)
        if size != 1:  # (N, ..., before, each, ...)
            y = y.movedim(0, at + 1)
        else:
            y = y.movedim(0, at).unsqueeze(at)  # (..., 1, N, 1, ...)
            y = y.expand(*y.shape[:at], before, self.samples, each, *y.shape[at + 3 :])
        y = y.flatten(at, at + 2)
        self.axes.mark(y, Samples(at, before, each))
        return y

    @property
    def _for_each(self) -> Tensor:
        return self._images.new_empty(self.samples) if self._images.is_floating_point() else torch.empty(self.samples)

    def _place_by_comparison(self, func: Callable, operands: tuple, x: Tensor) -> Samples | None:
        """Where the samples stand in an input that came about out of sight: the axis that one image alone has not."""
        if self.axes.numbers_read:
            return None  # and whatever has been decided by them
        place = self._other_runs.samples_axis(self._candidates - 1, func, operands, x)
        if place is not None:
            self.axes.mark(x, place)
        return place

    def _judge(self, outputs: Outputs) -> None:
        """Whether the batched backward pass is right, and for which parameters."""
        leaves, _, self.foreign = look_back([output for output in outputs if output.requires_grad])
        self.labels_together &= not self.foreign
        reached = {self.name_of[leaf]: self.parameters[self.name_of[leaf]] for leaf in leaves if leaf in self.name_of}
        if self.axes is None and not self.many_labels:
            self.uncovered = {name for name in reached if name in self.calls}
            self.ordinary = {name: parameter for name, parameter in reached.items() if name not in self.calls}
        else:
            self.uncovered = set(reached)
        if self.uncovered:
            self.why_not = "no rule covers how the network uses " + ", ".join(sorted(self.uncovered))
        if any(weight._version != version for weight, version in self.weights):
            self.why_not = "the network changes weights in place after it has used them"
        if self.axes is None:
            return
        known = not self.axes.strangers and not self.axes.numbers_read
        for output in outputs:
            mark = self.axes.of(output)
            if not output.requires_grad and not isinstance(mark, Mixed):
                mark = Samples(0)
            if isinstance(mark, Samples) and mark != Samples(0):
                raise ValueError(
                    f"the network must return one output a sample, on the first axis; they stand on axis {mark.axis} of the shape "
                    f"{tuple(output.shape)}"
                )
            if isinstance(mark, Mixed):
                self.why_not = f"the network mixes the samples of a batch ({mark.how})"
            known &= isinstance(mark, Samples)
        if not known and not self.why_not and not self._other_runs.agrees(outputs, every=self.axes.numbers_read):
            self.why_not = "the network's output for an image depends on the batch around it"

    @property
    def _other_runs(self) -> Comparison:
        if self._comparison is None:
            self._comparison = Comparison(self._network, self._images, self.watched)
        return self._comparison

    # ------------------------------------------------------------------ backward
    def backward(self, outputs: Outputs, direction: Sequence[Tensor], retain_graph: bool = False) -> Tensor:
        """The statistic (N, L, P) or (N, L, P, k) for the backward pass from ``direction``, one (N, L, ...) for each output.

        Zero where the outputs do not depend on a parameter.
        """
        samples, self.labels = direction[0].shape[:2]
        single = samples == self.labels == 1
        values: dict[str, Tensor] = {}
        vectors: dict[str, Materialized] = {}
        self._several: dict[str, list[PerSampleGradients]] = {}
        self._values, self._vectors = values, vectors
        starts = [(output, d) for output, d in zip(outputs, direction, strict=True) if output.requires_grad]
        reached = [output for output, _ in starts]
        leftover: dict[str, Tensor] = {}

        def carry(direction: Sequence[Tensor]) -> Tensor:
            found = torch.autograd.grad(
                reached,
                [self.anchor, *self.ordinary.values()],
                direction,
                retain_graph=retain_graph,
                allow_unused=True,
            )
            leftover.update((name, g) for name, g in zip(self.ordinary, found[1:], strict=True) if g is not None)
            return direction[0]  # vmap wants something back

        # without foreign nodes nothing in the pass can want a gradient of its own, and inference mode saves autograd's part in some
        # thousand calls, a millisecond
        mode = torch.no_grad() if self.foreign else torch.inference_mode()
        self.listening = True
        try:
            with mode, torch.autocast(direction[0].device.type, enabled=False):
                if reached:
                    if self.labels == 1:
                        carry([d.squeeze(1) for _, d in starts])
                    else:
                        torch.vmap(carry, in_dims=1)([d for _, d in starts])
                if self._several:
                    self._add_up()
                values |= squared_norms_of_vectors(vectors)
                if single:  # what is left over are ordinary gradients, all of them this sample's
                    values = {name: value.squeeze(0) for name, value in values.items()}
                    for name, gradient in leftover.items():
                        values[name] = self.statistic(name, SingleGradient(gradient))  # type: ignore[assignment]
        finally:
            self.listening = False
        if len(values) < len(self.parameters):
            zero = next(iter(values.values()), direction[0].new_zeros(() if single else samples * self.labels)) * 0
            values = {name: values.get(name, zero) for name in self.parameters}
        stacked = torch.stack([values[name] for name in self.parameters], dim=0 if single else 1)
        return stacked.view(samples, self.labels, *stacked.shape[1 - single :])

    def receive(
        self, call: LayerCall, place: Samples | OneSample, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> Tensor | None:
        """One node's turn in the backward pass: take the statistic of its parameters' gradients, return dL/dx (M, ...)."""
        gx, gradients = call.backward(x, g, needs_input_gradient)
        for role, name in call.names.items():
            mine = gradients[role]
            if call.images and place.each > 1:
                mine = Folded(mine, place.each)
            if self.calls[name] > 1 or name in self.computed.tensors or name in self.computed.parameters:
                self._several.setdefault(name, []).append(mine)
            else:
                self._take(name, mine)
        return gx

    def _add_up(self) -> None:
        """Parameters that are used several times, or by way of computed weights."""
        computed = {
            key: Total(self._several.pop(key), tensor.shape)
            for key, tensor in self.computed.tensors.items()
            if key in self._several
        }
        if computed:
            for name in self.computed.parameters:
                pulled = PulledBack(computed, self.computed.tensors, self.parameters[name])
                self._several.setdefault(name, []).append(pulled)
        for name, uses in self._several.items():
            self._take(name, uses[0] if len(uses) == 1 else Total(uses, self.parameters[name].shape))

    def _take(self, name: str, gradients: PerSampleGradients) -> None:
        value = self.statistic(name, gradients)
        if isinstance(value, Materialized):
            self._vectors[name] = value
        else:
            self._values[name] = value
