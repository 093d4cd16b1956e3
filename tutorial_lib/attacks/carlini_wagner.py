"""The smallest change that fools: the attack of Carlini and Wagner in L2.

Carlini and Wagner, "Towards evaluating the robustness of neural networks", IEEE S&P 2017, sections V and VI.A.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutorial_lib.attacks.base import Attack, input_gradient, margin, rounded

__all__ = ["CarliniWagner"]


@dataclass(frozen=True)
class CarliniWagner(Attack):
    r"""Minimise :math:`\lVert \delta \rVert_2^2 + c \, \max(-m(x + \delta), -\kappa)` with Adam, and search for c.

    :math:`m` is the `margin`, the largest other logit minus the true one: the second term ends once the model is fooled
    with a margin of :math:`\kappa`. A small c asks for a small change and may not fool; so c is divided where the
    attack succeeds and grows where it fails, each image's for itself. Of all iterates that fool, the nearest to the
    image comes back; of an image that none fools, the iterate of the largest margin, which is marked as a failure.

    Three places where common implementations go wrong: the largest *other* logit is taken with the true one at minus
    infinity (at 0, negative logits lose to nothing); no image stops because its neighbours have converged; and pixels
    of exactly 0 or 1 can move: the box is kept by projection (their method 1) and not by a tanh, whose slope is 0 there.

    Args:
        kappa: margin to reach, in logits.
        c: weight of the second term at first.
        searches: values of c tried for each image.
        steps: steps of Adam for each.
        learning_rate: of Adam, in [0, 1] pixels.
        eight_bit: the model is shown what rounding would leave, so that the attack survives being stored.
    """

    kappa: float = 0.0
    c: float = 1.0
    searches: int = 5
    steps: int = 100
    learning_rate: float = 0.01
    eight_bit: bool = True

    def __post_init__(self) -> None:
        if self.kappa < 0:
            raise ValueError(f"kappa must not be negative, got {self.kappa}")
        for name in ("c", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("searches", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def _change(self, model: nn.Module, clean: Tensor, labels: Tensor, logits: Tensor, seeds: list[int]) -> Tensor:
        # the distance can always be differentiated: ask once whether the answer can, too
        input_gradient(lambda images: (margin(model(images), labels), labels), clean)
        c = torch.full((len(clean),), self.c, dtype=clean.dtype, device=clean.device)
        low, high = torch.zeros_like(c), torch.full_like(c, torch.inf)
        state = _Nearest(clean, margin(logits, labels), self.kappa)
        for _ in range(self.searches):
            fooled = self._minimise(model, clean, labels, c, state)
            high = torch.where(fooled, torch.minimum(high, c), high)
            low = torch.where(fooled, low, torch.maximum(low, c))
            c = torch.where(high.isinf(), c * 10, (low + high) / 2)
        return state.images

    def _minimise(self, model: nn.Module, clean: Tensor, labels: Tensor, c: Tensor, state: _Nearest) -> Tensor:
        """One descent for each image's c; whether each was fooled on the way (N,)."""

        def objective(images: Tensor) -> tuple[Tensor, Tensor]:
            # straight through: the model sees whole grey levels, the gradient passes as if it had not
            shown = images + (rounded(images.detach()) - images.detach()) if self.eight_bit else images
            found = margin(model(shown), labels)
            return (images - clean).square().flatten(1).sum(1) + c * (-found).clamp(min=-self.kappa), found

        images = clean.clone()
        mean, square = torch.zeros_like(clean), torch.zeros_like(clean)
        fooled = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        for t in range(1, self.steps + 1):
            gradient, _, found = input_gradient(objective, images)
            shown = rounded(images) if self.eight_bit else images
            fooled |= state.offer(shown, found)
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient.square()
            step = (mean / (1 - 0.9**t)) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
            images = (images - self.learning_rate * step).clamp(0, 1)
        shown = rounded(images) if self.eight_bit else images
        with torch.no_grad():
            fooled |= state.offer(shown, margin(model(shown), labels))
        return fooled


class _Nearest:
    """For each image the nearest candidate that fools, or the one of the largest margin while none does."""

    def __init__(self, clean: Tensor, found: Tensor, kappa: float) -> None:
        self.clean, self.images, self.kappa = clean, clean.clone(), kappa
        self.margin = found.clone()
        self.distance = torch.full_like(found, torch.inf)

    def offer(self, images: Tensor, found: Tensor) -> Tensor:
        """Look at one candidate of each image; returns which of them fool (N,)."""
        # with kappa 0 a tie is no success: argmax may still give the true class
        fools = (found >= self.kappa) & (found > 0)
        distance = (images - self.clean).square().flatten(1).sum(1)
        nearer = fools & (distance < self.distance)
        stronger = ~fools & self.distance.isinf() & (found > self.margin)
        better = nearer | stronger
        self.images = torch.where(better.view(-1, 1, 1, 1), images, self.images)
        self.distance = torch.where(nearer, distance, self.distance)
        self.margin = torch.where(better, found, self.margin)
        return fools
