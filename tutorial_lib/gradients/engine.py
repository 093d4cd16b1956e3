"""One batched forward and one batched backward pass; questions about every sample's gradient on the way.

The chain from images to numbers, in the order in which it runs:

1. images are split so that what the network remembers for the backward pass fits a memory budget (`ChunkSizes`);
2. a chunk runs forward under `Interception`;
3. the loss and the label say the output's gradient, sample by sample (`OutputGradient`);
4. a backward pass carries it down; every layer's rule answers the question for its parameters;
5. parameters that no rule covers are asked again, one sample at a time, with the ordinary gradient (`one_by_one`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from tutorial_lib.gradients.guards import Network, run
from tutorial_lib.gradients.interception import Interception, Question, foreign_nodes
from tutorial_lib.gradients.rules import Alone, joined

MEMORY_BUDGET = {"cpu": 256 << 20, "cuda": 2 << 30}
"""Bytes of activations that a chunk may keep, by kind of device."""

FIRST_GUESS = 500
"""Bytes of activations for a byte of image, before a first chunk has shown how many there are."""

SMALL_BLOCKS = 10 << 20
"""Bytes that the largest tensor should have while all labels are asked for on a CPU: few enough images at a time that
many labels' backward passes run as one, and share what depends on the input alone. Much larger tensors are slower again, since the C
library gives them back to the system when they are freed, and every page of the next one is a fault."""

ENOUGH_LABELS = 16
"""How many labels should share a backward pass. What they share is then a small part of it, and more would only leave less room
for images."""

WORTH_AVOIDING = 1 << 20
"""Numbers in a parameter from which on the ordinary gradient of one sample for one label costs more than avoiding it."""

Outputs = tuple[Tensor, ...]


class FallbackWarning(UserWarning):
    """Some parameters have no rule, so their gradients take one backward pass a sample: exact, but slow."""


class Cotangent(NamedTuple):
    """Where a backward pass starts: dL/d(output) = scale · direction, sample by sample.

    Gradients are linear in the output's gradient. The pass runs on the direction, whose largest entry is 1, and the answer is
    scaled at the end in float64: the squared norms of a confident network would otherwise leave the range of float32.
    """

    direction: Outputs  # one for each output tensor, (N, L, ...)
    scale: Tensor  # (N, L, 1), float64


OutputGradient = Callable[[Outputs, Tensor, slice], Cotangent]
"""From outputs, the images they belong to and which of all samples these are, to the start of the backward pass."""


class Answers(NamedTuple):
    """Answers for a backward pass from the *direction*, and the scale that it stands for (see `Cotangent`)."""

    values: Tensor  # (N, L, P) or (N, L, P, k), float64
    scale: Tensor  # (N, L, 1), float64


def ask(
    network: Network,
    images: Tensor,
    names: Sequence[str],
    question: Question,
    output_gradient: OutputGradient,
    memory_budget: int | None = None,
    many_labels: bool = False,
) -> Answers:
    """Ask a question of every sample's gradient of the named parameters.

    ``many_labels`` says that the output's gradient carries more than one label a sample: chunks are then so small that many
    labels' backward passes run as one.
    """
    parts: list[Answers] = []
    uncovered: set[str] = set()
    device = network.device
    budget = memory_budget or MEMORY_BUDGET.get(device.type, MEMORY_BUDGET["cpu"])
    with torch.inference_mode(False), network.trainable() as (function, parameters):
        parameters = {name: parameters[name] for name in names}
        one_image = OneImage(function, images, parameters)
        block = min(budget // 3, SMALL_BLOCKS) if device.type == "cpu" else budget // 3
        sizes = ChunkSizes(images, budget, block)
        if many_labels and len(images) > 1:
            labels = output_gradient(one_image.outputs, one_image.image, slice(0, 1)).scale.shape[1]
            sizes.measured(one_image.watch.bytes, 1, one_image.watch.largest, labels)
        for samples in sizes:
            chunk = (images if samples == slice(0, len(images)) else images[samples]).to(device)
            if chunk.is_inference():
                chunk = chunk.clone()  # autograd does not take the other kind
            one = len(chunk) == 1 and not many_labels
            watched = {name for name, p in parameters.items() if not one or p.numel() >= WORTH_AVOIDING}
            if not watched:
                parts.append(one_by_one(function, chunk, samples, parameters, question, output_gradient))
                continue
            watch = Interception(parameters, len(chunk), question, one_image.samples_axis, watched)
            parts.append(together(watch, function, chunk, samples, output_gradient, block))
            missing = {name: parameters[name] for name in parameters if name in watch.uncovered}
            if missing:
                alone = one_by_one(function, chunk, samples, missing, question, output_gradient)
                columns = [list(parameters).index(name) for name in missing]
                parts[-1].values[:, :, columns] = alone.values
                uncovered |= missing.keys()
            sizes.measured(watch.bytes, len(chunk), watch.largest, labels=parts[-1].scale.shape[1])
    if uncovered:
        warnings.warn(
            f"no rule covers how the network uses {', '.join(sorted(uncovered))}; "
            "their gradients take one backward pass a sample: exact, but slow",
            FallbackWarning,
            stacklevel=3,
        )
    return Answers(joined([part.values for part in parts]), joined([part.scale for part in parts]))


def together(
    watch: Interception, network: Callable, images: Tensor, samples: slice, output_gradient: OutputGradient, block: int
) -> Answers:
    """One forward pass of a chunk, and one backward pass for as many labels as make tensors of the size of a block."""
    with watch, torch.enable_grad():
        outputs = run(network, images)
    start = output_gradient(outputs, images, samples)
    labels = start.scale.shape[1]
    foreign = foreign_nodes(outputs)
    at_once = 1 if foreign else max(1, round(block / max(1, watch.largest)))
    values = []
    for first in range(0, labels, at_once):
        part = slice(first, min(first + at_once, labels))
        direction = start.direction if at_once >= labels else [d[:, part] for d in start.direction]
        values.append(watch.backward(outputs, direction, retain_graph=part.stop < labels, foreign=foreign))
    return Answers(joined(values, dim=1).double(), start.scale)


def one_by_one(
    network: Callable,
    images: Tensor,
    samples: slice,
    parameters: dict[str, Tensor],
    question: Question,
    output_gradient: OutputGradient,
) -> Answers:
    """The ordinary gradient of one sample after the other: what the papers do, and always right."""
    rows = []
    for n, image in enumerate(images.split(1) if len(images) > 1 else [images], samples.start):
        with torch.enable_grad():
            outputs = run(network, image)
        start = output_gradient(outputs, image, slice(n, n + 1))
        answers = []
        labels = start.scale.shape[1]
        for label in range(labels):
            gradients = torch.autograd.grad(
                outputs,
                list(parameters.values()),
                [d.select(1, label) for d in start.direction],
                retain_graph=label + 1 < labels,
                allow_unused=True,
            )
            answers += [
                question(name, Alone(torch.zeros_like(parameter) if gradient is None else gradient))
                for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
            ]
        stacked = torch.stack(answers)
        rows.append(Answers(stacked.view(1, labels, -1, *stacked.shape[1:]).double(), start.scale))
    return Answers(joined([row.values for row in rows]), joined([row.scale for row in rows]))


class ChunkSizes:
    """Ranges of samples whose activations fit the budget. The first is a cautious guess, the rest go by what it took.

    Args:
        images: (N, ...).
        budget: bytes of all activations.
        block: bytes of the largest of them, counted once a label if there are several; but at least one sample.
    """

    def __init__(self, images: Tensor, budget: int, block: int = 0) -> None:
        self.total, self.budget, self.block = len(images), budget, block
        self.fit = max(1, budget // (FIRST_GUESS * images.numel() // self.total * 4))

    def __iter__(self) -> Iterator[slice]:
        first = 0
        while first < self.total:
            left = self.total - first
            pieces = -(-left // self.fit)
            last = first + -(-left // pieces)  # pieces of equal size: a last one of two samples would waste a pass
            yield slice(first, last)
            first = last

    def measured(self, activation_bytes: int, samples: int, largest: int = 0, labels: int = 1) -> None:
        """Adjust to what some samples took: bytes of all activations, and of the largest."""
        fit = self.budget * samples // max(1, activation_bytes)
        if labels > 1:
            fit = min(fit, round(self.block * samples / max(1, largest * min(labels, ENOUGH_LABELS))))
        self.fit = max(1, fit)


class OneImage:
    """One image through the network, for what a batch does not show. Only on demand, and then once.

    A linear layer on (8, 8, 8, 64) does not say which of the eights counts samples: the axis whose size changes does.
    """

    def __init__(self, network: Callable, images: Tensor, parameters: dict[str, Tensor]) -> None:
        self.network, self.images, self.parameters = network, images, parameters

    @cached_property
    def image(self) -> Tensor:
        return self.images[:1].to(next(iter(self.parameters.values())).device)

    @cached_property
    def _run(self) -> tuple[Interception, Outputs]:
        watch = Interception(self.parameters, 1, question=None, batch_axes=None)
        with watch, torch.no_grad():
            return watch, run(self.network, self.image)

    @property
    def watch(self) -> Interception:
        return self._run[0]

    @property
    def outputs(self) -> Outputs:
        return self._run[1]

    def samples_axis(self, number: int, shape: torch.Size) -> int | None:
        """The axis of the samples in the input, of this shape in a batch, of a network's so-and-so-many-th use of parameters."""
        shapes = self.watch.shapes
        alone = shapes[number] if number < len(shapes) else ()
        changed = [axis for axis, (one, many) in enumerate(zip(alone, shape, strict=False)) if one != many]
        if len(alone) == len(shape) and len(changed) == 1 and alone[changed[0]] == 1:
            return changed[0]
        return None
