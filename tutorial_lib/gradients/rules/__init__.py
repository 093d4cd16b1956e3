"""One rule a kind of layer: how to read a sample's gradient, or only its norm, off the layer's activations and backprops."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from tutorial_lib.gradients.rules import affine
from tutorial_lib.gradients.rules._arithmetic import joined
from tutorial_lib.gradients.rules.batchnorm import BatchNorm
from tutorial_lib.gradients.rules.conv import Convolution, TransposedConvolution
from tutorial_lib.gradients.rules.embedding import Embedding
from tutorial_lib.gradients.rules.layer_call import LayerCall, Unsupported
from tutorial_lib.gradients.rules.linear import Linear, RightProduct
from tutorial_lib.gradients.rules.per_sample import (
    Folded,
    Materialized,
    PerSampleGradients,
    SingleGradient,
    Total,
    squared_norms_of_vectors,
)
from tutorial_lib.gradients.rules.shared import Shared

__all__ = [
    "RULES",
    "Folded",
    "LayerCall",
    "Materialized",
    "PerSampleGradients",
    "Shared",
    "SingleGradient",
    "Total",
    "Unsupported",
    "joined",
    "squared_norms_of_vectors",
]

RULES: dict[Callable, Callable[..., LayerCall]] = {
    F.linear: Linear,
    F.conv1d: Convolution,
    F.conv2d: Convolution,
    F.conv3d: Convolution,
    F.conv_transpose1d: TransposedConvolution,
    F.conv_transpose2d: TransposedConvolution,
    F.conv_transpose3d: TransposedConvolution,
    F.batch_norm: BatchNorm,
    F.layer_norm: affine.layer_norm,
    F.group_norm: affine.group_norm,
    F.instance_norm: affine.instance_norm,
    F.rms_norm: affine.rms_norm,
    F.embedding: Embedding,
    torch.matmul: RightProduct,
    torch.Tensor.matmul: RightProduct,
    torch.Tensor.__matmul__: RightProduct,
}
"""The torch function that a rule stands for."""
