"""DenseNet-BC for 32x32 images.

Huang et al., "Densely connected convolutional networks", CVPR 2017: every layer reads all earlier maps of its block;
"B" is a 1x1 bottleneck of four times the growth rate before each 3x3 convolution, "C" halves the maps between blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1, batch norm, ReLU, 3x3; its ``growth`` new maps join the old ones."""

    def __init__(self, in_width: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_width)
        self.conv1 = nn.Conv2d(in_width, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))
        return torch.cat([x, new], dim=1)


def densenet_backbone(channels: int, depth: int = 100, growth: int = 12) -> tuple[nn.Sequential, int]:
    """The backbone, and its feature width: normalised images (N, channels, H, W) to features (N, width)."""
    layers_per_block, rest = divmod(depth - 4, 6)
    if rest or layers_per_block < 1:
        raise ValueError(f"a DenseNet-BC of three blocks has depth 6n + 4 (10, 16, ..., 100), got {depth}")
    width = 2 * growth
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    for block in range(3):
        for _ in range(layers_per_block):
            layers.append(DenseLayer(width, growth))
            width += growth
        if block < 2:
            layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
    backbone = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return backbone, width
