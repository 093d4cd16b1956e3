"""A LeNet-5-like network for small grey images.

LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 1998: two convolutions, two
poolings, two hidden linear layers. Ours pads both convolutions, pools by maximum and uses ReLU, so that it also fits
8x8 digits.
"""

from __future__ import annotations

from torch import nn

FEATURE_WIDTH = 84


def lenet_backbone(channels: int, height: int, width: int) -> nn.Sequential:
    """Normalised images (N, channels, height, width), sides at least 4, to features (N, 84)."""
    if min(height, width) < 4:
        raise ValueError(f"LeNet pools twice and needs images of at least 4x4 pixels, got {height}x{width}")
    return nn.Sequential(
        nn.Conv2d(channels, 6, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, kernel_size=5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * (height // 4) * (width // 4), 120),
        nn.ReLU(),
        nn.Linear(120, FEATURE_WIDTH),
        nn.ReLU(),
    )
