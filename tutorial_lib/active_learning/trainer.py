"""From the same start, by the same number of steps: a training in which only the labels differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tutorial_lib.data.images import as_float, check_images
from tutorial_lib.reproducible import one_thread, seeded

__all__ = ["FixedSteps"]


@dataclass(frozen=True)
class FixedSteps:
    """Train a new network by a fixed number of optimiser steps (Adam, cross-entropy, no augmentation).

    Training "for 50 epochs" or "until 99 % are right" gives more steps to whoever has more, or harder, labels, and a
    strategy that asks hard questions is then paid in steps for it. Here each training costs the same. Batches run
    through the labelled images in a shuffled order and start anew when these are used up. Training runs on one thread,
    so that a seed is a network.

    Args:
        build: makes the network with random weights, from torch's global random numbers.
        steps: optimiser steps, >= 1.
        batch_size: images in a step; all of them when there are fewer.
        learning_rate, weight_decay: of Adam.
        device: where to train; the network is returned there.

    Called with images (N, C, H, W), labels (N,) and a seed, it returns the trained network in evaluation mode. The seed
    draws the initial weights and the batches; same seed, same initial weights, whatever the images are.
    """

    build: Callable[[], nn.Module]
    steps: int = 200
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1:
            raise ValueError(f"steps and batch_size must be positive, got {self.steps} and {self.batch_size}")

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> nn.Module:
        check_images(images)
        if labels.shape != images.shape[:1]:
            raise ValueError(f"labels must be ({len(images)},), got {tuple(labels.shape)}")
        if int(labels.min()) < 0:
            raise ValueError(f"labels must be whole numbers from 0 on, got {int(labels.min())}")
        small = torch.device(self.device).type == "cpu"
        with seeded(seed), one_thread(small):
            model = self.build().to(self.device).train()
            optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
            order, place = torch.empty(0, dtype=torch.int64), 0
            size = min(self.batch_size, len(images))
            for _ in range(self.steps):
                if place + size > len(order):
                    order, place = torch.randperm(len(images)), 0
                batch = order[place : place + size]
                place += size
                logits = model(as_float(images[batch]).to(self.device))
                if int(labels.max()) >= logits.shape[1]:
                    raise ValueError(f"the network has {logits.shape[1]} classes, but a label is {int(labels.max())}")
                loss = F.cross_entropy(logits, labels[batch].to(self.device))
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()} after {self.steps} steps; try a smaller learning_rate")
        return model.eval()
