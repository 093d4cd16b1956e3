"""Residual networks for 32x32 images.

He et al., "Deep residual learning for image recognition", CVPR 2016. Two families share one block:

* the CIFAR networks of section 4.2: depth 6n + 2, widths 16-32-64 (ResNet-20, 56, 110);
* ResNet-18 with a 3x3 stem and no first pooling, widths 64-128-256-512, as the field uses it on CIFAR.

Where a block changes shape its shortcut is a 1x1 convolution with batch normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, in_width: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_width, width, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_width != width:
            self.shortcut = nn.Sequential(nn.Conv2d(in_width, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet_backbone(channels: int, widths: Sequence[int], blocks: Sequence[int]) -> nn.Sequential:
    """Normalised images (N, channels, H, W) to features (N, widths[-1]).

    Args:
        channels: channels of the images.
        widths: channels of each stage; every stage but the first halves the resolution.
        blocks: residual blocks of each stage.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(channels, widths[0], 3, padding=1, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    in_width = widths[0]
    for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
        for position in range(count):
            layers.append(BasicBlock(in_width, width, stride=2 if stage and not position else 1))
            in_width = width
    backbone = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone


def cifar_resnet_backbone(channels: int, depth: int) -> nn.Sequential:
    """The 16-32-64 network of the given depth, 6n + 2."""
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"a CIFAR ResNet has depth 6n + 2 (8, 14, 20, ...), got {depth}")
    return resnet_backbone(channels, (16, 32, 64), ((depth - 2) // 6,) * 3)
