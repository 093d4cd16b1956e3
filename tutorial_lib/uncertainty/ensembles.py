r"""Deep ensembles: the same network, trained several times from different seeds on the same data.

Lakshminarayanan, Pritzel & Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
NeurIPS 2017. Their recipe: a proper scoring rule as the loss (cross-entropy; Gaussian negative log-likelihood with a
head for the mean and one for the variance), M = 5 members from random initialisation, each on the whole training set
in its own order (section 2.4: bagging made it worse). Their third, optional ingredient, adversarial training, is left
out here.

The regression members are trained side by side in one batched network. No number passes from one member to another, so
each ends where it would have ended alone; only the waiting is shared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.models.predict import predict_logits

STD_FLOOR = 1e-5  # added to the softplus of the noise head, as in the original of the 1-D example


def member_probabilities(members: Sequence[nn.Module], images: Tensor, batch_size: int = 512) -> Tensor:
    """Softmax outputs of every member for the same images.

    Args:
        members: M classifiers of the same K classes, images (N, C, H, W) in [0, 1] to logits (N, K). Left as they were
            found.
        images: (N, C, H, W), ``uint8`` or float in [0, 1].
        batch_size: images in one forward pass; does not change the result.

    Returns:
        Probabilities (M, N, K), float64 on the CPU.
    """
    if len(members) == 0:
        raise ValueError("an ensemble needs members; got none")
    logits = [predict_logits(member, images, batch_size) for member in members]
    widths = sorted({part.shape[1] for part in logits})
    if len(widths) > 1:
        raise ValueError(f"the members do not agree on the number of classes: {widths}")
    return torch.stack(logits).double().softmax(-1)


def gaussian_nll(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    r"""Negative log-likelihood of a Gaussian, per element, without the constant :math:`\frac12 \log 2\pi`.

    :math:`\frac12\left(\log\sigma^2 + (y - \mu)^2 / \sigma^2\right)`, Lakshminarayanan et al. 2017, eq. 1. Minimal,
    for a fixed error, where the variance equals the squared error: the network has to say how wrong it expects to be.

    Args:
        mean, variance, target: tensors of one shape (or broadcastable); variance positive.
    """
    return 0.5 * (variance.log() + (target - mean) ** 2 / variance)


@dataclass(frozen=True)
class RegressionConfig:
    """Network and training of one member of a 1-D regression ensemble.

    Width, slope of the leaky ReLU, noise floor, optimiser, learning rate, its decay and the L2 penalty are those of
    the original of the example (see :mod:`tutorial_lib.uncertainty.toy`). Ours are the first layer, the start of the
    noise head, and few steps on all points where the original takes many on ten at a time.

    Args:
        first_layer: ``"sine"``: random waves, so that members differ wherever no data hold them. ``"leaky_relu"``: as
            the original has it; such a network goes on in a straight line where the data end.
        frequency: standard deviation of the angular frequencies of the sine layer.
        hidden: units in each of the two hidden layers.
        initial_std: standard deviation of the noise that an untrained network states.
        steps: optimiser steps.
        learning_rate: of Adam; halved over the run.
        l2: penalty on the weights (not biases) of the two hidden layers, added to the mean loss.
    """

    first_layer: str = "sine"
    frequency: float = 6.0
    hidden: int = 200
    initial_std: float = 0.2
    steps: int = 300
    learning_rate: float = 1e-3
    l2: float = 1e-3

    def __post_init__(self) -> None:
        if self.first_layer not in ("sine", "leaky_relu"):
            raise ValueError(f"first_layer must be 'sine' or 'leaky_relu', got {self.first_layer!r}")
        for name in ("frequency", "hidden", "steps", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.initial_std <= STD_FLOOR:
            raise ValueError(f"initial_std must be above {STD_FLOOR}, got {self.initial_std}")
        if self.l2 < 0:
            raise ValueError(f"l2 must not be negative, got {self.l2}")


class MeanVarianceEnsemble(nn.Module):
    """M networks, each from x to a mean and a variance, evaluated together.

    Every weight has a leading dimension M, so a layer is one batched matrix product. Member m is initialised from
    ``seeds[m]`` alone: the same seed gives the same member, whatever company it is in.

    Args:
        seeds: one integer a member, all different.
        config: see :class:`RegressionConfig`.

    ``forward`` takes x, (N, 1) for all members or (M, N, 1) for each its own, and returns means and variances, both
    (M, N).
    """

    slope = 0.2

    def __init__(self, seeds: Sequence[int], config: RegressionConfig | None = None) -> None:
        super().__init__()
        self.seeds = tuple(int(seed) for seed in seeds)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"give one seed a member, all different (equal seeds make equal members); got {self.seeds}"
            )
        self.config = config or RegressionConfig()
        members = [_initial_parameters(seed, self.config) for seed in self.seeds]
        self.weights = nn.ParameterList(torch.stack([m[0][layer] for m in members]) for layer in range(3))
        self.biases = nn.ParameterList(torch.stack([m[1][layer] for m in members]) for layer in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.dim() not in (2, 3) or x.shape[-1] != 1:
            raise ValueError(f"x must be (N, 1) or (members, N, 1), got {tuple(x.shape)}")
        x = x.expand(len(self.seeds), -1, -1)  # (M, N, 1)
        hidden = torch.baddbmm(self.biases[0], x, self.weights[0])  # (M, N, hidden)
        if self.config.first_layer == "sine":
            hidden = math.sqrt(2) * torch.sin(hidden)  # variance 1 over random phases
        else:
            hidden = F.leaky_relu(hidden, self.slope)
        hidden = F.leaky_relu(torch.baddbmm(self.biases[1], hidden, self.weights[1]), self.slope)
        mean, raw = torch.baddbmm(self.biases[2], hidden, self.weights[2]).unbind(-1)
        return mean, (F.softplus(raw) + STD_FLOOR) ** 2


def train_regression_ensemble(
    x: Tensor, y: Tensor, seeds: Sequence[int] = range(5), config: RegressionConfig | None = None
) -> MeanVarianceEnsemble:
    """Train one network a seed on the same points, side by side.

    Every step uses all points, so the seed of a member decides its initial weights and nothing else. Torch's global
    random state is neither read nor changed.

    Args:
        x, y: inputs and targets (n, 1), on the device to train on.
        seeds: one integer a member; one seed gives a single network.
        config: see :class:`RegressionConfig`.

    Returns:
        :class:`MeanVarianceEnsemble`, without gradients, in evaluation mode.

    Raises:
        ValueError: shapes that do not belong together, or values that are not finite.
        RuntimeError: the loss diverged.
    """
    config = config or RegressionConfig()
    if x.shape != y.shape or x.dim() != 2 or x.shape[1] != 1 or len(x) == 0:
        raise ValueError(f"x and y must both be (n, 1) with n >= 1, got {tuple(x.shape)} and {tuple(y.shape)}")
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise ValueError("x or y holds values that are not finite")
    ensemble = MeanVarianceEnsemble(seeds, config).to(x.device)
    fused = x.device.type in ("cpu", "cuda")  # one pass over all weights of all members
    optimizer = torch.optim.Adam(ensemble.parameters(), lr=config.learning_rate, fused=fused)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5 ** (1 / config.steps))
    for step in range(config.steps):
        mean, variance = ensemble(x)  # (M, n) each
        loss = gaussian_nll(mean, variance, y.squeeze(-1)).mean(1)
        penalty = sum(weight.square().sum((1, 2)) for weight in list(ensemble.weights)[:2])
        optimizer.zero_grad()
        # A sum over members: the gradient of one member's weights is that of its own loss.
        (loss + config.l2 * penalty).sum().backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99 and not torch.isfinite(loss).all():
            break
    if not torch.isfinite(loss).all():
        lost = [seed for seed, value in zip(ensemble.seeds, loss.tolist(), strict=True) if not math.isfinite(value)]
        raise RuntimeError(f"training diverged for seeds {lost}; lower the learning rate ({config.learning_rate})")
    return ensemble.requires_grad_(False).eval()


def _initial_parameters(seed: int, config: RegressionConfig) -> tuple[list[Tensor], list[Tensor]]:
    """Weights (in, out) and biases (1, out) of the three layers of one member, on the CPU."""
    generator = torch.Generator().manual_seed(seed)

    def normal(rows: int, columns: int, std: float) -> Tensor:
        return std * torch.randn(rows, columns, generator=generator)

    def uniform(columns: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(1, columns, generator=generator)

    width = config.hidden
    if config.first_layer == "sine":
        first = normal(1, width, config.frequency), uniform(width, 0, 2 * math.pi)
    else:
        first = uniform(width, -1, 1), uniform(width, -1, 1)  # PyTorch's own start of a linear layer with one input
    gain = math.sqrt(2 / (1 + MeanVarianceEnsemble.slope**2))  # He et al. 2015, eq. 15
    second = normal(width, width, gain / math.sqrt(width)), normal(1, width, 0.1)
    heads = normal(width, 2, 1 / math.sqrt(width))
    heads[:, 1] *= 0.1  # the noise head starts almost flat, so what it says later comes from the data
    start = math.log(math.expm1(config.initial_std - STD_FLOOR))  # inverse of softplus
    return [first[0], second[0], heads], [first[1], second[1], torch.tensor([[0.0, start]])]
