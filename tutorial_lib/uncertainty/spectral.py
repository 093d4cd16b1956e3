r"""Bounds on how much a layer can stretch, by its spectral norm at the size at which it works.

Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018 (power iteration); Gouk et al.,
"Regularisation of neural networks by enforcing Lipschitz continuity", Machine Learning 2021 (through convolutions at
their true size, and batch normalisation). Used by SNGP and DDU.

`torch.nn.utils.spectral_norm` flattens a kernel to a matrix, whose norm is not that of the convolution (PyTorch issues
99149 and 180167). Here the power iteration goes through the convolution and its adjoint. The bound is soft: a layer is
divided by :math:`\max(1, \sigma / c)`, so one that stretches by less than c stays as it is.

Bounding every layer by c does not bound a network by c: a chain of L layers is bounded by :math:`c^L`, a chain of
residual blocks by :math:`(1 + c)^L`. `stretches` lists the norms that the layers have.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_input
from torch.nn.utils import parametrize

from tutorial_lib.models.predict import preserved

__all__ = ["bound_spectral_norms", "spectral_norm", "stretches"]

BatchNorm = (nn.BatchNorm1d, nn.BatchNorm2d)


def spectral_norm(layer: nn.Module, shape: tuple[int, ...] = (), iterations: int = 100, seed: int = 0) -> float:
    """Largest singular value of a linear layer, a convolution on inputs of this size, or a batch normalisation.

    Args:
        layer: `torch.nn.Linear`, `torch.nn.Conv2d`, or a batch normalisation as it is in evaluation mode.
        shape: (C, H, W) of a convolution's inputs.
        iterations: of the power method.
        seed: of its first vector.
    """
    if isinstance(layer, BatchNorm):
        return float((_gain(layer) * _per_deviation(layer)).abs().max())
    there, back, size = _maps(layer, shape)
    weight: Tensor = layer.weight.detach()  # type: ignore[assignment, operator]
    right = torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(weight)
    sigma = torch.zeros(())
    for _ in range(iterations):
        left = there(weight, right / right.norm())
        sigma, right = left.norm(), back(weight, left)
        if not sigma > 0:
            break
    return float(sigma)


def bound_spectral_norms(model: nn.Module, example: Tensor, bound: float, batch_norm: bool = True) -> nn.Module:
    """Keep every linear layer, convolution and batch normalisation of a network from stretching by more than ``bound``.

    In place; one step of the power method before each use in training mode, none in evaluation mode. Leave the last
    layer out by giving only the backbone.

    Args:
        model: the network to be trained.
        example: one input (1, ...), from which the sizes of the convolutions' inputs are learned.
        bound: c > 0; 3 in DDU, 6 for images and .9 to .95 for points in SNGP's code.
        batch_norm: bound its gains, too, which would otherwise undo what is done to the layer before.

    Returns:
        ``model``.
    """
    if bound <= 0:
        raise ValueError(f"bound must be positive, got {bound}")
    for layer, shape in _input_shapes(model, example).items():
        if isinstance(layer, BatchNorm):
            if batch_norm and layer.affine:
                parametrize.register_parametrization(layer, "weight", _BoundedGain(layer, bound))
        else:
            parametrize.register_parametrization(layer, "weight", _Bounded(layer, shape, bound))
    return model


def stretches(model: nn.Module, example: Tensor) -> dict[str, float]:
    """Spectral norm of every linear layer, convolution and batch normalisation, by name, in evaluation mode."""
    names = {module: name for name, module in model.named_modules()}
    with preserved(model):
        shapes = _input_shapes(model, example)
        return {names[layer]: spectral_norm(layer, shape) for layer, shape in shapes.items()}


class _Bounded(nn.Module):
    """Parametrisation of a weight: divided by its spectral norm over the bound, where that is above 1."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...], bound: float) -> None:
        super().__init__()
        self.bound = bound
        self.there, self.back, size = _maps(layer, shape)
        weight: Tensor = layer.weight.detach()  # type: ignore[assignment, operator]
        right = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(weight)
        for _ in range(10):  # near the largest singular vector from the start
            left = self.there(weight, right / right.norm())
            right = self.back(weight, left)
        self.left: Tensor
        self.right: Tensor
        self.register_buffer("left", left / left.norm())
        self.register_buffer("right", right / right.norm())

    def forward(self, weight: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                right = self.back(weight, self.left)
                self.right.copy_(right / right.norm().clamp_min(1e-12))
                left = self.there(weight, self.right)
                self.left.copy_(left / left.norm().clamp_min(1e-12))
        # copies: autograd remembers the vectors, and the next step overwrites them
        sigma = (self.left.clone() * self.there(weight, self.right.clone())).sum()
        return weight / (sigma / self.bound).clamp_min(1)


class _BoundedGain(nn.Module):
    """Parametrisation of a batch normalisation's gains, by the running deviations."""

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d, bound: float) -> None:
        super().__init__()
        self.bound = bound
        self._layer = [layer]  # in a list, so that it is no submodule of itself

    def forward(self, gain: Tensor) -> Tensor:
        largest = (gain.detach() * _per_deviation(self._layer[0])).abs().max()
        return gain / (largest / self.bound).clamp_min(1)


def _maps(
    layer: nn.Module, shape: tuple[int, ...]
) -> tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor], tuple[int, ...]]:
    """A layer's linear map and its adjoint, as functions of weight and input, and the size of its input."""
    if isinstance(layer, nn.Linear):
        return (lambda w, x: w @ x), (lambda w, y: w.T @ y), (layer.in_features,)
    if isinstance(layer, nn.Conv2d):
        if len(shape) != 3:
            raise ValueError(f"a convolution's norm depends on the size of its input; give (C, H, W), got {shape}")
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ValueError("only convolutions padded with a number of zeros have a bound here")
        options = (layer.stride, layer.padding, layer.dilation, layer.groups)
        size = (1, *shape)

        def back(weight: Tensor, output: Tensor) -> Tensor:  # exact at any stride
            return conv2d_input(size, weight, output, *options)

        return (lambda w, x: F.conv2d(x, w, None, *options)), back, size
    raise TypeError(f"{type(layer).__name__} has no spectral norm here; there are Linear, Conv2d and batch norm")


def _input_shapes(model: nn.Module, example: Tensor) -> dict[nn.Module, tuple[int, ...]]:
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    kinds = (nn.Linear, nn.Conv2d, *BatchNorm)
    handles = [
        module.register_forward_pre_hook(partial(_note, shapes))
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    try:
        with preserved(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return shapes


def _gain(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    return layer.weight.detach() if layer.affine else torch.ones_like(layer.running_var)  # type: ignore[arg-type]


def _per_deviation(layer: nn.BatchNorm1d | nn.BatchNorm2d) -> Tensor:
    if layer.running_var is None:
        raise ValueError("a batch normalisation without running statistics has no norm of its own")
    return (layer.running_var + layer.eps).rsqrt()


def _note(shapes: dict[nn.Module, tuple[int, ...]], module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    shapes.setdefault(module, tuple(inputs[0].shape[1:]))
