"""What every classifier of the course has in common."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalize(nn.Module):
    """Subtract a mean and divide by a standard deviation, channel by channel.

    It is the first layer of every model here, so that images stay in [0, 1] everywhere else: attacks, corruptions and
    plots never meet a normalised pixel. ``uint8`` images are divided by 255 first.

    Args:
        mean: C channel means, in the units of [0, 1] images.
        std: C channel standard deviations, positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"mean has {len(mean)} channels, std has {len(std)}; give one number a channel in each")
        if min(std) <= 0:
            raise ValueError(f"std must be positive, got {tuple(std)}")
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.to(self.mean.dtype) / 255
        return (images - self.mean) / self.std

    def extra_repr(self) -> str:
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


class Classifier(nn.Module):
    """Images to logits, in two steps that can be used apart: ``features`` and ``head``.

    Args:
        normalize: first layer, see `Normalize`.
        backbone: normalised images (N, C, H, W) to features (N, D); D is the penultimate width.
        feature_width: D.
        num_classes: K, at least 2.
        head: features (N, D) to logits (N, K), for a network that has been trained elsewhere; left out, a new linear
            layer, whose D and K then have to be given. A network that is not to be taken apart: see `as_classifier`.

    ``forward`` takes images (N, C, H, W), ``uint8`` or float in [0, 1], and returns logits (N, K).
    """

    def __init__(
        self,
        normalize: nn.Module,
        backbone: nn.Module,
        feature_width: int | None = None,
        num_classes: int | None = None,
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, got {num_classes}")
        if head is None:
            if feature_width is None or num_classes is None:
                raise ValueError("give the head that the network was trained with, or feature_width and num_classes")
            head = nn.Linear(feature_width, num_classes)
        self.normalize = normalize
        self.backbone = backbone
        self.head = head

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (N, D): what the last linear layer sees."""
        return self.backbone(self.normalize(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))
