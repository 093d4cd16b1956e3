"""GradCON as its authors' code goes about it: one model at a time, layer by layer, image by image.

Written from the description of the published code, to compare with: the library must give the same numbers, and faster.
The trainer and the detectors do not use it.

Kwon et al., "Backpropagated gradient representations for anomaly detection", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["RunningAverage", "published_scores", "published_step"]


class RunningAverage:
    """Sum and count of everything it was given."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count = 0

    @property
    def average(self) -> Tensor:
        return torch.as_tensor(self.total) / self.count

    def update(self, value: Tensor) -> None:
        self.total = self.total + value
        self.count += 1


def published_step(
    model: nn.Module,
    weights: Sequence[Tensor],
    images: Tensor,
    averages: Sequence[RunningAverage],
    optimizer: torch.optim.Optimizer,
    alpha: float,
) -> tuple[float, float]:
    """One step of training; returns reconstruction error and gradient loss.

    For every layer, a backward pass of its own finds that layer's gradient and keeps what is needed to differentiate it
    again.
    """
    error = F.mse_loss(model(images), images)
    gradient_loss: Tensor | float = 0.0
    if averages[0].count > 0:
        for weight, average in zip(weights, averages, strict=True):
            (gradient,) = torch.autograd.grad(error, weight, create_graph=True, retain_graph=True)
            gradient_loss = gradient_loss - F.cosine_similarity(gradient.flatten(), average.average.flatten(), dim=0)
        gradient_loss = gradient_loss / len(weights)
    optimizer.zero_grad()
    (error + alpha * gradient_loss).backward()
    for weight, average in zip(weights, averages, strict=True):
        assert weight.grad is not None
        average.update(weight.grad.clone())
    optimizer.step()
    return error.item(), torch.as_tensor(gradient_loss).item()


def published_scores(
    model: nn.Module, weights: Sequence[Tensor], images: Tensor, averages: Sequence[Tensor], beta: float
) -> list[tuple[float, float, float]]:
    """Reconstruction error, gradient loss and combined score of each image, larger = stranger.

    Every image goes through the model alone, with a backward pass for every layer.
    """
    scores = []
    for image in images.split(1):
        error = F.mse_loss(model(image), image)
        gradient_loss = 0.0
        for weight, average in zip(weights, averages, strict=True):
            (gradient,) = torch.autograd.grad(error, weight, retain_graph=True)
            gradient_loss -= F.cosine_similarity(gradient.flatten(), average.flatten(), dim=0).item() / len(weights)
        scores.append((error.item(), gradient_loss, error.item() + beta * gradient_loss))
    return scores
