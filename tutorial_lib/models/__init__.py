"""Classifiers of the course, by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from tutorial_lib.data.registry import suggestion
from tutorial_lib.models.airbench import airbench_backbone
from tutorial_lib.models.base import Classifier, Normalize
from tutorial_lib.models.densenet import densenet_backbone
from tutorial_lib.models.lenet import FEATURE_WIDTH as LENET_WIDTH
from tutorial_lib.models.lenet import lenet_backbone
from tutorial_lib.models.own import OwnNetwork, as_classifier
from tutorial_lib.models.resnet import cifar_resnet_backbone, resnet_backbone

__all__ = ["NETWORKS", "Classifier", "Normalize", "OwnNetwork", "as_classifier", "build"]

NETWORKS = ("lenet", "resnet20", "resnet56", "resnet110", "resnet18", "densenet_bc_100_12", "airbench")


def build(
    name: str,
    num_classes: int,
    image_shape: tuple[int, int, int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """A new classifier with random weights (from torch's global random state).

    Args:
        name: one of `NETWORKS`.
        num_classes: K.
        image_shape: (C, H, W) of the images.
        mean, std: normalisation, C numbers each in the units of [0, 1] images; 0.5 and 0.25 when left out.

    Returns:
        `Classifier`: images (N, C, H, W) in [0, 1] to logits (N, K).

    Raises:
        ValueError: unknown name, or a shape the network cannot take.

    >>> import torch
    >>> build("lenet", 10, (1, 8, 8)).features(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 84])
    """
    channels, height, width = image_shape
    normalize = Normalize([0.5] * channels if mean is None else mean, [0.25] * channels if std is None else std)
    if normalize.mean.numel() != channels:
        raise ValueError(f"images have {channels} channels, mean and std have {normalize.mean.numel()}")
    backbone: nn.Module
    if name == "lenet":
        backbone, feature_width = lenet_backbone(channels, height, width), LENET_WIDTH
    elif name in ("resnet20", "resnet56", "resnet110"):
        backbone, feature_width = cifar_resnet_backbone(channels, int(name.removeprefix("resnet"))), 64
    elif name == "resnet18":
        backbone, feature_width = resnet_backbone(channels, (64, 128, 256, 512), (2, 2, 2, 2)), 512
    elif name == "densenet_bc_100_12":
        backbone, feature_width = densenet_backbone(channels, depth=100, growth=12)
    elif name == "airbench":
        backbone = airbench_backbone(channels, height, width)
        return Classifier(normalize, backbone, num_classes=num_classes, head=nn.Linear(256, num_classes, bias=False))
    else:
        raise ValueError(f"there is no network {name!r}{suggestion(name, NETWORKS)}")
    return Classifier(normalize, backbone, feature_width, num_classes)
