r"""Two moons: what single-pass methods are usually shown on, and a version of it on which they can fail.

Two interleaved half circles, each a class, with noise of deviation 0.1: the data of most notebooks on DUQ, SNGP and DDU.
Far points are easy there for every method that measures a distance, whatever the network (`far_points`).

The **useless axis** is ours: a third coordinate, :math:`\mathcal N(0, 0.1^2)`, that no label depends on. Foreign points are
known ones moved along it (`moved`). Nothing in the loss keeps that direction, so a network may drop it: feature collapse,
in the smallest case that shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sklearn.datasets import make_moons
from torch import Tensor, nn

from tutorial_lib.reproducible import seeded

__all__ = ["Points", "PointsNetwork", "far_points", "fit_points", "moved", "plane", "two_moons"]

NOISE = 0.1


class Points(NamedTuple):
    """Points (n, 2) or (n, 3), float32, and their labels (n,), 0 or 1."""

    x: Tensor
    y: Tensor


def two_moons(n: int = 1500, seed: int = 0, useless_axis: bool = False) -> Points:
    """Two half circles of n / 2 points each, with noise; on demand with a third coordinate that carries no label.

    >>> two_moons(10, useless_axis=True).x.shape
    torch.Size([10, 3])
    """
    x, y = make_moons(n, noise=NOISE, random_state=seed)
    points = torch.from_numpy(x).float()
    if useless_axis:
        generator = torch.Generator().manual_seed(seed)
        points = torch.cat([points, NOISE * torch.randn(n, 1, generator=generator)], dim=1)
    return Points(points, torch.from_numpy(y))


def moved(points: Tensor, distance: float) -> Tensor:
    """The points (n, 3), all moved by ``distance`` along the useless axis."""
    return points + torch.tensor([0.0, 0.0, distance])


def far_points(kind: str, n: int = 500, seed: int = 0) -> Tensor:
    """Points (n, 2) far from both moons.

    Args:
        kind: ``"blob"``, a clump at (2.5, -1.75) with deviation 0.1, as in TensorFlow's SNGP tutorial, or ``"ring"``, a
            circle of radius 3.5 around the middle of the moons.
        n, seed: how many, and which.
    """
    generator = torch.Generator().manual_seed(seed)
    if kind == "blob":
        return torch.tensor([2.5, -1.75]) + NOISE * torch.randn(n, 2, generator=generator)
    if kind == "ring":
        angle = 2 * torch.pi * torch.rand(n, generator=generator)
        return torch.tensor([0.5, 0.25]) + 3.5 * torch.stack([angle.cos(), angle.sin()], dim=1)
    raise ValueError(f"kind must be 'blob' or 'ring', got {kind!r}")


class PointsNetwork(nn.Module):
    """A classifier of points: a first linear layer, ``depth`` hidden ones, and a linear head.

    Args:
        inputs: dimensions of a point.
        residual: does each hidden layer add to its input, x + relu(W x), or replace it, relu(W x)?
        width, depth: of the hidden layers.
        classes: K.
        seed: of the initial weights.
    """

    def __init__(
        self, inputs: int, residual: bool, width: int = 64, depth: int = 4, classes: int = 2, seed: int = 0
    ) -> None:
        super().__init__()
        self.residual = residual
        with seeded(seed):
            self.first = nn.Linear(inputs, width)
            self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
            self.head = nn.Linear(width, classes)

    def features(self, points: Tensor) -> Tensor:
        """Points (N, D) to (N, width)."""
        x = self.first(points)
        if not self.residual:
            x = F.relu(x)
        for layer in self.hidden:
            step = F.relu(layer(x))
            x = x + step if self.residual else step
        return x

    def forward(self, points: Tensor) -> Tensor:
        return self.head(self.features(points))


def fit_points(
    model: nn.Module,
    points: Points,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    after_step: Callable[[Tensor, Tensor], None] | None = None,
    epochs: int = 60,
    learning_rate: float = 3e-3,
    batch_size: int = 64,
    seed: int = 0,
) -> nn.Module:
    """Train a network on points with Adam, in place, and leave it in evaluation mode.

    Args:
        model: points to logits.
        points: to learn.
        loss: points and labels of a batch to a scalar; cross-entropy of the logits when left out.
        after_step: called with the same after every step.
        epochs, learning_rate, batch_size: of the training.
        seed: of the order of the points.
    """

    def cross_entropy(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(model(x), y)

    loss = loss or cross_entropy
    optimizer = torch.optim.Adam(model.parameters(), learning_rate)
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(epochs):
        for chosen in torch.randperm(len(points.x), generator=generator).split(batch_size):
            x, y = points.x[chosen], points.y[chosen]
            optimizer.zero_grad()
            loss(x, y).backward()
            optimizer.step()
            if after_step is not None:
                after_step(x, y)
    return model.eval()


def plane(side: int = 100) -> tuple[Tensor, int]:
    """Points (side², 2) of [-3, 4] x [-3.5, 3.5], row by row from below, and the side."""
    x, y = torch.linspace(-3, 4, side), torch.linspace(-3.5, 3.5, side)
    grid = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([grid[1].flatten(), grid[0].flatten()], dim=1), side
