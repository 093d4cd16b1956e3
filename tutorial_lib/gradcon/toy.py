"""Autoencoders in the plane: the manifold is a curve that can be drawn, and two weights make a gradient an arrow.

Chapters 5 and 6 look at anomaly detection here before they look at images. On an arc, a straight line and a curved
autoencoder are two ways to constrain what a reconstruction can be. Along a line, an autoencoder whose decoder has two
weights shows what a gradient constraint does: the gradient of each point is an arrow in the plane of these weights.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Points(NamedTuple):
    """``normal`` (n, 2) to train on, ``held_out`` (n, 2) from the same process, ``strange`` (m, 2) from others."""

    normal: Tensor
    held_out: Tensor
    strange: dict[str, Tensor]


def arc(n: int = 200, noise: float = 0.05, seed: int = 0) -> Points:
    """Points near a half circle of radius 1, and three ways to be strange.

    Args:
        n: normal points, and as many held out; at least 2.
        noise: standard deviation of a point's distance from the arc, in each direction.
        seed: of a generator of its own.

    Returns:
        Normal and held-out points, and strangers ``"inside"`` (near the centre of the arc), ``"outside"`` (beyond it)
        and ``"beyond"`` (where the arc would go on if it went on straight).

    >>> arc().normal.shape
    torch.Size([200, 2])
    """
    _at_least(n, 2)
    generator = torch.Generator().manual_seed(seed)

    def drawn() -> Tensor:
        angle = math.pi * torch.rand(n, generator=generator)
        on_arc = torch.stack([angle.cos(), angle.sin()], dim=1)
        return on_arc + noise * torch.randn(n, 2, generator=generator)

    few = 12
    spread = torch.linspace(-1, 1, few)[:, None]
    inside = torch.tensor([0.0, 0.35]) + spread * torch.tensor([0.35, 0.0])
    outside = torch.tensor([0.0, 1.45]) + spread * torch.tensor([0.5, 0.0])
    beyond = torch.tensor([1.0, -0.6]) + spread * torch.tensor([0.0, 0.3])
    return Points(drawn(), drawn(), {"inside": inside, "outside": outside, "beyond": beyond})


def stretch(n: int = 100, noise: float = 0.05, seed: int = 0) -> Points:
    """Points near a stretch of a line through the origin, and two ways to be strange.

    Args:
        n: normal points, and as many held out; at least 2.
        noise: standard deviation of a point's distance from the line.
        seed: of a generator of its own.

    Returns:
        Normal and held-out points, and strangers ``"off the line"`` (turned away from it by 20 to 50 degrees on either
        side, at the same distance from the origin) and ``"further along"`` (on the line, beyond the stretch).

    >>> sorted(stretch().strange)
    ['further along', 'off the line']
    """
    _at_least(n, 2)
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, generator=generator)

    def turned(length: Tensor, degrees: Tensor) -> Tensor:
        angle = torch.deg2rad(LINE_DEGREES + degrees)
        return length[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)

    def drawn() -> Tensor:
        length = uniform(0.7, 1.3)
        return turned(length, torch.rad2deg(noise * torch.randn(n, generator=generator) / length))

    side = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0)
    off = turned(uniform(0.7, 1.3), side * uniform(20, 50))
    along = turned(uniform(1.5, 1.9), torch.rad2deg(noise * torch.randn(n, generator=generator) / 1.7))
    return Points(drawn(), drawn(), {"off the line": off, "further along": along})


LINE_DEGREES = 35.0
"""Direction of the line of `stretch`."""


class Curve(nn.Module):
    """Autoencoder 2 → 1 → 2 with hidden layers: what it can reconstruct is a curve.

    Attributes:
        encoder: points (N, 2) to codes (N, 1).
        decoder: codes (N, 1) to points (N, 2).
    """

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))
        self.decoder = nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, points: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(self.encoder(points))
        return reconstruction


class TwoWeights(nn.Module):
    """Autoencoder 2 → 1 → 2 whose decoder is two weights: a point is reconstructed as its code times w.

    Attributes:
        encoder: points (N, 2) to codes (N, 1), with a hidden layer.
        decoder: linear without a bias; its weight w has the shape (2, 1).
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 1))
        self.decoder = nn.Linear(1, 2, bias=False)

    def forward(self, points: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(self.encoder(points))
        return reconstruction

    def gradients(self, points: Tensor) -> Tensor:
        r"""Gradient of each point's mean squared error with respect to w, (N, 2): :math:`-(x - z w)\, z`.

        In closed form, and differentiable, so that a constraint on it can be trained.
        """
        z = self.encoder(points)
        return -(points - self.decoder(z)) * z


class Constrained(NamedTuple):
    """A trained :class:`TwoWeights` and the running mean (2,) of the gradients of its training loss."""

    model: TwoWeights
    reference: Tensor

    def cosines(self, points: Tensor) -> Tensor:
        """Cosine of each point's gradient with the mean of the training, (N,) in [-1, 1]."""
        with torch.no_grad():
            return torch.cosine_similarity(self.model.gradients(points), self.reference[None], dim=1)


def train_curve(points: Tensor, steps: int = 600, seed: int = 0) -> Curve:
    """Fit a :class:`Curve` to points (n, 2) by Adam on the mean squared error, all points at once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Curve()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            (model(points) - points).square().mean().backward()
            optimizer.step()
    return model.eval()


def train_two_weights(points: Tensor, alpha: float, steps: int = 500, seed: int = 0) -> Constrained:
    r"""Fit :class:`TwoWeights` to points (n, 2) under a gradient constraint, from w = (0.5, 0), in batches of eight.

    The loss is the mean squared error minus ``alpha`` times the cosine between its gradient with respect to w and the
    mean of the loss's gradients of all steps before (Kwon et al., "Backpropagated gradient representations for anomaly
    detection", ECCV 2020).

    Args:
        points: (n, 2).
        alpha: weight of the constraint, at least 0; the paper uses 0.03.
        steps: of Adam; learning rate 0.01, brought to zero along a cosine, so that the last batches do not decide where
            the training ends.
        seed: of the encoder's initial weights and of the batches.
    """
    if alpha < 0:
        raise ValueError(f"alpha must not be negative, got {alpha}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TwoWeights()
    with torch.no_grad():  # every training starts on the same side of the line, with codes that are positive
        model.decoder.weight.copy_(torch.tensor([[0.5], [0.0]]))
        model.encoder[-1].bias.fill_(1.0)  # type: ignore[operator,union-attr]
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    reference = torch.zeros(2)
    with torch.enable_grad():
        for step in range(steps):
            batch = points[torch.randint(len(points), (8,), generator=generator)]
            loss = (model(batch) - batch).square().mean()
            if step and alpha:
                gradient = model.gradients(batch).mean(0)
                loss = loss - alpha * torch.cosine_similarity(gradient, reference, dim=0)
            optimizer.zero_grad()
            loss.backward()
            assert model.decoder.weight.grad is not None
            reference += (model.decoder.weight.grad[:, 0] - reference) / (step + 1)
            optimizer.step()
            schedule.step()
    return Constrained(model.eval(), reference)


def _at_least(n: int, least: int) -> None:
    if n < least:
        raise ValueError(f"at least {least} points are needed, got n = {n}")
