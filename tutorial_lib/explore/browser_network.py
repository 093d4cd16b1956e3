"""A small network as numbers that a browser can run: layers as JSON, weights in half precision.

The page needs no Python then. Half precision moves a probability by about a thousandth, and halves the page.
"""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from torch import Tensor, nn

from tutorial_lib.models import Classifier

LARGEST = 150_000
"""Weights of a network that a page can carry: 300 kB, 400 kB as text."""


def for_browser(model: Classifier) -> dict[str, Any]:
    """Layers and weights of a classifier, as ``digit_pad.js`` reads them.

    Args:
        model: its backbone is a sequence of convolutions, ReLU, poolings, flattening and linear layers, like LeNet.

    Returns:
        ``layers``: list of layers in order, with their shapes; ``weights``: base64 of all weights as little-endian
        float16, in the order of the layers, weight before bias.
    """
    if not isinstance(model, Classifier) or not isinstance(model.backbone, nn.Sequential):
        raise TypeError(
            f"a browser can run a Classifier with a sequential backbone (lenet), not {type(model).__name__}"
        )
    numbers: list[np.ndarray] = []
    layers = [_normalization(model.normalize)]
    for layer in [*model.backbone, model.head]:
        layers.extend(_described(layer, numbers))
    count = sum(array.size for array in numbers)
    if count > LARGEST:
        raise ValueError(f"this network has {count:,} weights; a page can carry {LARGEST:,}: use a smaller one (lenet)")
    with np.errstate(over="ignore"):  # what overflows is refused below
        weights = np.concatenate([array.ravel() for array in numbers]).astype("<f2")
    if not np.isfinite(weights).all():
        raise ValueError("a weight is too large for half precision; train with weight decay, or normalise the inputs")
    return {"layers": layers, "weights": base64.b64encode(weights.tobytes()).decode("ascii")}


def _normalization(layer: nn.Module) -> dict[str, Any]:
    mean, std = (getattr(layer, name, None) for name in ("mean", "std"))
    if isinstance(layer, nn.Identity):
        return {"kind": "normalize", "mean": [0.0], "std": [1.0]}
    if not isinstance(mean, Tensor) or not isinstance(std, Tensor):
        raise TypeError(f"a browser can run Normalize in front of the network, not {type(layer).__name__}")
    return {"kind": "normalize", "mean": mean.flatten().tolist(), "std": std.flatten().tolist()}


def _described(layer: nn.Module, numbers: list[np.ndarray]) -> list[dict[str, Any]]:
    if isinstance(layer, nn.Conv2d):
        plain = layer.groups == 1 and _one(layer.dilation) == 1 and layer.padding_mode == "zeros"
        if not plain or isinstance(layer.padding, str):
            raise TypeError("a browser can run convolutions without groups or dilation, padded with zeros by a number")
        _keep(layer, numbers)
        shape = {"inputs": layer.in_channels, "outputs": layer.out_channels, "size": _one(layer.kernel_size)}
        return [{"kind": "conv", **shape, "stride": _one(layer.stride), "padding": _one(layer.padding)}]
    if isinstance(layer, nn.Linear):
        _keep(layer, numbers)
        return [{"kind": "linear", "inputs": layer.in_features, "outputs": layer.out_features}]
    if isinstance(layer, nn.MaxPool2d) and _one(layer.stride) == _one(layer.kernel_size) and not _one(layer.padding):
        return [{"kind": "maxpool", "size": _one(layer.kernel_size)}]
    if isinstance(layer, nn.ReLU):
        return [{"kind": "relu"}]
    if isinstance(layer, (nn.Flatten, nn.Dropout, nn.Identity)):
        return []  # the browser keeps one flat array anyway, and only predicts
    raise TypeError(f"a browser cannot run {layer}; it knows Conv2d, ReLU, MaxPool2d, Flatten and Linear")


def _keep(layer: nn.Conv2d | nn.Linear, numbers: list[np.ndarray]) -> None:
    weight = layer.weight.detach().cpu().double().numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().cpu().double().numpy()
    numbers.extend([weight, bias])


def _one(value: Any) -> int:
    """The one number of a size that is the same in both directions."""
    values = set(value) if isinstance(value, tuple) else {value}
    if len(values) != 1:
        raise TypeError(f"a browser can run layers that are as high as wide, got {value}")
    return int(values.pop())
