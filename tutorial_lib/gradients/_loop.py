"""The ordinary gradient of one sample after the other: what the papers do, and always right."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tutorial_lib.gradients._network import run
from tutorial_lib.gradients._node import look_back
from tutorial_lib.gradients._start import OutputGradient, Result
from tutorial_lib.gradients.rules import SingleGradient, joined


def one_by_one(
    network: Callable,
    images: Tensor,
    samples: slice,
    parameters: Mapping[str, Tensor],
    statistic: Callable,
    output_gradient: OutputGradient,
) -> Result:
    """The statistic of each sample's gradients, from a forward pass each and a backward pass for each of its labels."""
    rows = []
    for n, image in enumerate(images.split(1) if len(images) > 1 else [images], samples.start):
        with torch.enable_grad():
            outputs = run(network, image.clone())  # which the network may write to
        if n == samples.start:
            look_back([output for output in outputs if output.requires_grad])  # for what hides parameters
        start = output_gradient(outputs, image, slice(n, n + 1))
        values = []
        labels = start.scale.shape[1]
        reached = [output for output in outputs if output.requires_grad]
        for label in range(labels):
            directions = [
                d.select(1, label) for output, d in zip(outputs, start.direction, strict=True) if output.requires_grad
            ]
            wanted = list(parameters.values())
            gradients = (
                torch.autograd.grad(reached, wanted, directions, retain_graph=label + 1 < labels, allow_unused=True)
                if reached
                else [None] * len(wanted)
            )
            values += [
                statistic(name, SingleGradient(torch.zeros_like(parameter) if gradient is None else gradient))
                for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
            ]
        stacked = torch.stack(values)
        rows.append(Result(stacked.view(1, labels, -1, *stacked.shape[1:]).double(), start.scale))
    return Result(joined([row.values for row in rows]), joined([row.scale for row in rows]))
