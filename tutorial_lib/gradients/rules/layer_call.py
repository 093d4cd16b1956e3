"""A call of a layer: what a rule is told about it, and what it must answer.

A network is a chain of calls y = f(x; parameters), a convolution with its weight and bias, say. As long as no operation mixes the
samples of a batch, the derivative of the summed loss at sample n's slice of y is that sample's own derivative. So one batched backward
pass hands every call its activations x and its backprops g = dL/dy, of all samples at once, and the pair says all there is to know
about the gradients of the call's parameters, sample by sample.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tutorial_lib.gradients.rules.per_sample import PerSampleGradients


class LayerCall:
    """One call of a layer in a forward pass, y = f(x; parameters).

    A rule is a subclass. Its constructor takes the arguments of the torch function that it stands for, hands the input and the
    parameters to this one, and raises `Unsupported` for the arguments that it cannot do. The methods run outside autograd.
    """

    free_axes = 1
    """How many leading axes of the input the layer treats alike: the samples stand on one of them."""

    samples_first = False
    """Whether the samples must stand on the first axis, as before channels."""

    images = False
    """Whether the input is (N, C, ...) and nothing else: it cannot have an axis more, to take a sample's entries apart."""

    keeps_input = True
    """Whether the backward pass needs the activations."""

    def __init__(self, input: Tensor, **parameters: Tensor | None) -> None:
        self.input: Tensor | None = input
        self.parameters: dict[str, Any] = parameters  # tensors by role, or None where the layer has none
        self.scratch: dict = {}  # memory that a call may leave for the next; shared by the calls of a pass
        self.names: dict[str, str] = {}  # by role, of those whose gradients are wanted

    def typed(self, dtype: torch.dtype) -> list[Any]:
        """The parameters in the type that autocast computes in."""
        return [
            tensor if tensor is None or tensor.dtype == dtype else tensor.to(dtype)
            for tensor in self.parameters.values()
        ]

    def used_with(self, x: Tensor) -> list[Any]:
        """The parameters as torch would use them with these activations: in their own type, unless autocast says otherwise."""
        return self.typed(x.dtype) if torch.is_autocast_enabled(x.device.type) else [*self.parameters.values()]

    def output(self, x: Tensor) -> Tensor:
        """y, for activations as the network has them."""
        raise NotImplementedError

    def backward(
        self, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, PerSampleGradients]]:
        """dL/dx (M, ...), or None if nobody needs it, and the gradients of each parameter by role; for x (N, ...) and g (M, ...)."""
        raise NotImplementedError


class Unsupported(Exception):
    """A rule cannot do these arguments; the parameters then take the exact fallback."""
