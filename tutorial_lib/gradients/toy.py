"""Two dimensions, three classes: small enough to see every weight move.

Points lie on three arcs of a ring, one class an arc. The ring leaves two kinds of empty places, its hole and everything
outside, which are equally strange and look very different to a gradient (chapter 4). After the toy manifold by which
the tutorial behind this course introduces contrast classes.
"""

from __future__ import annotations

import copy
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ToyData(NamedTuple):
    """``points`` (n, 2), float32, and their ``classes`` (n,), 0 to 2."""

    points: Tensor
    classes: Tensor


def three_arcs(n: int = 300, noise: float = 0.12, seed: int = 0) -> ToyData:
    """Draw ``n`` points, a third from each of three arcs of the circle of radius 1.2.

    Args:
        n: number of points, at least 3.
        noise: standard deviation of a point's distance from its place on the arc, in each direction.
        seed: of a generator of its own.

    >>> points, classes = three_arcs()
    >>> points.shape, classes.bincount()
    (torch.Size([300, 2]), tensor([100, 100, 100]))
    """
    if n < 3:
        raise ValueError(f"three arcs need at least three points, got n = {n}")
    generator = torch.Generator().manual_seed(seed)
    classes = torch.arange(n) * 3 // n
    angle = 2 * math.pi / 3 * classes + 1.5 * torch.rand(n, generator=generator)
    ring = 1.2 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return ToyData(ring + noise * torch.randn(n, 2, generator=generator), classes)


def train_toy(
    data: ToyData, activation: type[nn.Module] = nn.ReLU, width: int = 32, steps: int = 200, seed: int = 0
) -> nn.Sequential:
    """A network 2 → width → width → 3, trained by cross-entropy on all points at once (Adam, learning rate 0.01)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(2, width), activation(), nn.Linear(width, width), activation(), nn.Linear(width, 3)
        )
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(data.points), data.classes).backward()
        optimizer.step()
    return net.eval()


def introduced(net: nn.Module, point: Tensor, label: int, rate: float) -> nn.Module:
    """A copy of the network after one step of gradient descent towards ``label`` at one point (2,)."""
    moved = copy.deepcopy(net)
    with torch.enable_grad():
        loss = F.cross_entropy(moved(point[None]), torch.tensor([label]))
        gradients = torch.autograd.grad(loss, list(moved.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(moved.parameters(), gradients, strict=True):
            parameter.sub_(rate * gradient)
    return moved


def plane(extent: float = 4.0, steps: int = 121) -> tuple[Tensor, Tensor]:
    """A square grid centred on the ring: ticks (steps,) and points (steps², 2), the first coordinate fastest."""
    ticks = torch.linspace(-extent, extent, steps)
    return ticks, torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), dim=-1).reshape(-1, 2)
