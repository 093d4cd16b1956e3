"""Twenty points of a cubic: the example on which deep ensembles were introduced.

Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS 2017, figure
1: y = x³ + noise of deviation 3, twenty x in [-4, 4], shown on [-6, 6] with three standard deviations. One hidden layer of
100 ReLU, a head for the mean and one for the variance. Forty epochs of the paper's recipe underfit (so its readers found);
here every step takes all points, and there are thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tutorial_lib.uncertainty.ensembles import gaussian_nll

__all__ = ["Cubic", "cubic_points", "train_cubic"]

VARIANCE_FLOOR = 1e-6  # the paper's, in the units of the standardised target


class Cubic(NamedTuple):
    """Points x and y, (n, 1) each."""

    x: Tensor
    y: Tensor


def cubic_points(n: int = 20, seed: int = 0) -> Cubic:
    """The points: x uniform in [-4, 4], y = x³ + N(0, 3²)."""
    generator = torch.Generator().manual_seed(seed)
    x = 8 * torch.rand(n, 1, generator=generator) - 4
    return Cubic(x, x**3 + 3 * torch.randn(n, 1, generator=generator))


def train_cubic(
    points: Cubic,
    inputs: Tensor,
    seeds: Sequence[int] = range(5),
    loss: str = "nll",
    adversarial_step: float = 0.0,
    steps: int = 1500,
    hidden: int = 100,
) -> tuple[Tensor, Tensor]:
    """Train one network a seed, side by side, and ask all of them.

    Args:
        points: to learn; both coordinates are standardised inside.
        inputs: (N, 1), where to ask.
        seeds: one a member.
        loss: ``"nll"``, Gaussian likelihood with two heads, or ``"mse"``, squared error of the mean alone.
        adversarial_step: epsilon in units of the range of x, the paper's is 0.01; 0 for none.
        steps: of Adam at a rate of 0.01, on all points.
        hidden: ReLU units.

    Returns:
        means and variances (M, N) in the units of y; with ``"mse"`` the variances are zero.
    """
    if loss not in ("nll", "mse"):
        raise ValueError(f"loss must be 'nll' or 'mse', got {loss!r}")
    x_mean, x_std = points.x.mean(), points.x.std()
    y_mean, y_std = points.y.mean(), points.y.std()
    x, y = (points.x - x_mean) / x_std, ((points.y - y_mean) / y_std)[:, 0]
    epsilon = adversarial_step * (x.max() - x.min())
    weights = [part.requires_grad_() for part in _initial(seeds, hidden)]
    optimizer = torch.optim.Adam(weights, 1e-2)

    def ask(at: Tensor) -> tuple[Tensor, Tensor]:
        activity = F.relu(torch.baddbmm(weights[1], at.expand(len(seeds), -1, -1), weights[0]))
        mean, raw = torch.baddbmm(weights[3], activity, weights[2]).unbind(-1)
        return mean, F.softplus(raw) + VARIANCE_FLOOR

    def losses(at: Tensor) -> Tensor:
        mean, variance = ask(at)
        return (gaussian_nll(mean, variance, y) if loss == "nll" else (mean - y).square()).mean(1).sum()

    for _ in range(steps):
        optimizer.zero_grad()
        if adversarial_step:
            at = x.expand(len(seeds), -1, -1).clone().requires_grad_()
            here = losses(at)
            (slope,) = torch.autograd.grad(here, at, retain_graph=True)
            (here + losses((at + epsilon * slope.sign()).detach())).backward()
        else:
            losses(x).backward()
        optimizer.step()
    with torch.no_grad():
        means, variances = ask((inputs - x_mean) / x_std)
    return y_std * means + y_mean, (y_std**2 * variances if loss == "nll" else torch.zeros_like(variances))


def _initial(seeds: Sequence[int], hidden: int) -> list[Tensor]:
    """Weights and biases of both layers, stacked over the members, each drawn from its seed as PyTorch draws them."""
    parts = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            first, second = torch.nn.Linear(1, hidden), torch.nn.Linear(hidden, 2)
        parts.append([first.weight.T, first.bias[None], second.weight.T, second.bias[None]])
    return [torch.stack([part[i].detach() for part in parts]) for i in range(4)]
