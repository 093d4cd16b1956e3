"""One batched forward and one batched backward pass; a statistic of every sample's gradients on the way.

The chain from images to numbers, in the order in which it runs:

1. images are split so that what the network remembers for the backward pass fits a memory budget (`_chunks`);
2. a chunk runs forward, watched layer by layer (`_batch_pass`), and every tensor knows on which axis the samples stand (`_sample_axis`);
3. the loss and the label say the output's gradient, sample by sample (`_start`, `losses`);
4. a backward pass carries it down; every layer's rule (`rules`) takes the statistic of its parameters' gradients;
5. where a batched pass would not be exact, the ordinary gradient is taken one sample at a time instead (`_loop`), and that is said.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
import torch.utils.checkpoint
from torch import Tensor

from tutorial_lib.gradients._again import Again
from tutorial_lib.gradients._batch_pass import BatchPass, Statistic
from tutorial_lib.gradients._chunks import ChunkSizes
from tutorial_lib.gradients._loop import one_by_one
from tutorial_lib.gradients._network import Network
from tutorial_lib.gradients._start import OutputGradient, Outputs, Result
from tutorial_lib.gradients.rules import joined

MEMORY_BUDGET = {"cpu": 256 << 20, "cuda": 2 << 30}
"""Bytes of activations that a chunk may keep, by kind of device."""

SMALL_BLOCKS = 10 << 20
"""Bytes that the largest tensor should have while all labels are asked for on a CPU: few enough images at a time that
many labels' backward passes run as one, and share what depends on the input alone. Much larger tensors are slower again, since the C
library gives them back to the system when they are freed, and every page of the next one is a fault."""

WORTH_AVOIDING = 1 << 20
"""Numbers in a parameter from which on the ordinary gradient of one sample for one label costs more than avoiding it."""


_Rewound: type[Exception] = getattr(torch.utils.checkpoint, "CheckpointError", NotImplementedError)


class FallbackWarning(UserWarning):
    """The network does something that no batched pass can follow, so its gradients take one backward pass a sample: exact, but slow."""


def per_sample(
    network: Network,
    images: Tensor,
    names: Sequence[str],
    statistic: Statistic,
    output_gradient: OutputGradient,
    memory_budget: int | None = None,
    many_labels: bool = False,
) -> Result:
    """A statistic of every sample's gradients of the named parameters.

    ``many_labels`` says that the output's gradient carries more than one label a sample: chunks are then so small that many
    labels' backward passes run as one.
    """
    parts: list[Result] = []
    why_not = ""
    device = network.device
    budget = memory_budget or MEMORY_BUDGET.get(device.type, MEMORY_BUDGET["cpu"])
    with torch.inference_mode(False), network.trainable() as (function, everything):
        parameters = {name: everything[name] for name in names}
        constants = {id(tensor) for tensor in (*everything.values(), *network.buffers, *network.statistics)}
        block = min(budget // 3, SMALL_BLOCKS) if device.type == "cpu" else budget // 3
        sizes = ChunkSizes(images, budget, block)
        if many_labels and len(images) > 1:
            first = Again(function, _chunk(images, slice(0, 1), device), set())
            labels = output_gradient(first.outputs, first.images, slice(0, 1)).scale.shape[1]
            sizes.measured(first.recorder.bytes, 1, first.recorder.largest, labels)
        for samples in sizes:
            chunk = _chunk(images, samples, device)
            one = len(chunk) == 1 and not many_labels
            watched = [name for name, p in parameters.items() if not one or p.numel() >= WORTH_AVOIDING]
            if watched and not why_not:
                batch = BatchPass(parameters, constants, len(chunk), statistic, watched, many_labels)
                part, why_not = together(batch, function, chunk, samples, output_gradient, block)
                if part is not None:
                    parts.append(part)
                    sizes.measured(batch.bytes, len(chunk), batch.largest, labels=part.scale.shape[1])
                    continue
            parts.append(one_by_one(function, chunk, samples, parameters, statistic, output_gradient))
    if why_not:
        warnings.warn(
            f"{why_not}; the gradients take one backward pass a sample: exact, but slow", FallbackWarning, stacklevel=3
        )
    return Result(joined([part.values for part in parts]), joined([part.scale for part in parts]))


def _chunk(images: Tensor, samples: slice, device: torch.device) -> Tensor:
    """Some of the images, on the network's device and on nobody's graph."""
    chunk = (images if samples == slice(0, len(images)) else images[samples]).detach().to(device)
    return chunk.clone() if chunk.is_inference() else chunk  # autograd does not take the other kind


def together(
    batch: BatchPass,
    network: Callable,
    images: Tensor,
    samples: slice,
    output_gradient: OutputGradient,
    block: int,
) -> tuple[Result | None, str]:
    """One forward pass of a chunk, and one backward pass for as many labels as make tensors of the size of a block.

    Or, in place of a result, the reason why there is none.
    """
    outputs: Outputs = batch.forward(network, images)
    if batch.why_not:
        return None, batch.why_not if len(images) > 1 else ""
    start = output_gradient(outputs, images, samples)
    labels = start.scale.shape[1]
    at_once = max(1, round(block / max(1, batch.largest))) if batch.labels_together else 1
    values = []
    try:
        for first in range(0, labels, at_once):
            part = slice(first, min(first + at_once, labels))
            direction = start.direction if at_once >= labels else [d[:, part] for d in start.direction]
            values.append(batch.backward(outputs, direction, retain_graph=part.stop < labels))
    except _Rewound:
        return None, "the network runs parts of itself again in the backward pass"
    return Result(joined(values, dim=1).double(), start.scale), ""
