"""Steps along the sign of the gradient, inside a box around the image: FGSM, BIM, PGD and IterLL.

Distances are the largest change of any value (L-infinity), in [0, 1] pixels; 8/255 is eight grey levels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.attacks.base import Attack, checked_logits, input_gradient, margin, rounded, uniform

__all__ = ["BIM", "FGSM", "PGD", "IterLL"]


@dataclass(frozen=True)
class BoxAttack(Attack):
    """Base class: ``steps`` steps of size ``step`` along the sign of a gradient, never farther than ``epsilon``.

    Args:
        epsilon: largest change of any value, in (0, 1]; 1 is no bound at all.
        step: change of each value a step.
        steps: how many.
        eight_bit: only images in whole 255ths are visited. The box then ends at a whole grey level, too.
    """

    epsilon: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10
    eight_bit: bool = True

    def __post_init__(self) -> None:
        check_box(self.epsilon, self.step, self.steps, self.eight_bit)

    @abstractmethod
    def _objective(self, model: nn.Module, labels: Tensor, logits: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """What is to grow: a function from images to one number each (N,) and their logits (N, K).

        Args:
            model: see `Attack`.
            labels: true classes.
            logits: of the clean images.
        """

    def _change(self, model: nn.Module, clean: Tensor, labels: Tensor, logits: Tensor, seeds: list[int]) -> Tensor:
        objective = self._objective(model, labels, logits)
        images = clean
        for _ in range(self.steps):
            gradient, _, _ = input_gradient(objective, images)
            images = self._within(images + self.step * gradient.sign(), clean)
        return images

    def _within(self, images: Tensor, clean: Tensor) -> Tensor:
        return within(images, clean, self.epsilon, self.eight_bit)


def check_box(epsilon: float, step: float, steps: int, eight_bit: bool) -> None:
    """Say which setting of an L-infinity attack makes no sense."""
    for name, value in (("epsilon", epsilon), ("step", step)):
        if not 0 < value <= 1:
            hint = "; it is in [0, 1] pixels, so write 8/255 for eight grey levels" if value > 1 else ""
            raise ValueError(f"{name} must lie in (0, 1], got {value:g}{hint}")
        if eight_bit and value * 255 < 1 - 1e-6:
            raise ValueError(
                f"{name} = {value:g} is less than one grey level, 1/255, and is lost when the result is rounded; "
                "take at least 1/255, or eight_bit=False"
            )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a whole number from 1 on, got {steps!r}")


def within(images: Tensor, clean: Tensor, epsilon: float, eight_bit: bool) -> Tensor:
    """The nearest images that are no farther than ``epsilon`` from the clean ones in any value, and in [0, 1].

    >>> within(torch.tensor([0.9, -0.2, 0.55]), torch.tensor([0.6, 0.1, 0.5]), epsilon=0.2, eight_bit=False)
    tensor([0.8000, 0.0000, 0.5500])
    """
    if eight_bit:  # a box that ends between two grey levels ends at the nearer of them
        epsilon = int(epsilon * 255 + 1e-6) / 255
    change = (images - clean).clamp(-epsilon, epsilon)
    moved = (clean + change).clamp(0, 1)
    return rounded(moved) if eight_bit else moved


@dataclass(frozen=True)
class FGSM(Attack):
    r"""Fast gradient sign method: one step, :math:`x + \varepsilon \, \mathrm{sign} \, \nabla_x \mathrm{CE}(f(x), y)`.

    Goodfellow et al., "Explaining and harnessing adversarial examples", ICLR 2015, eq. for :math:`\eta` in section 4.

    Args:
        epsilon: size of the step, in [0, 1] pixels.
        eight_bit: round the result to whole 255ths.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = nn.init.eye_(model[1].weight)
    >>> image, label = torch.tensor([[[[0.6, 0.4]]]]), torch.tensor([0])
    >>> attacked = FGSM(0.2)(model, image, label)
    >>> attacked.images, attacked.fooled
    (tensor([[[[0.4000, 0.6000]]]]), tensor([True]))
    """

    epsilon: float = 8 / 255
    eight_bit: bool = True

    def __post_init__(self) -> None:
        check_box(self.epsilon, self.epsilon, 1, self.eight_bit)

    def _change(self, model: nn.Module, clean: Tensor, labels: Tensor, logits: Tensor, seeds: list[int]) -> Tensor:
        gradient, _, _ = input_gradient(cross_entropy(model, labels), clean)
        return within(clean + self.epsilon * gradient.sign(), clean, self.epsilon, self.eight_bit)


@dataclass(frozen=True)
class BIM(BoxAttack):
    """Basic iterative method: FGSM in small steps, from the image itself; the last iterate comes back.

    Kurakin et al., "Adversarial examples in the physical world", ICLR workshop 2017, section 2.2. It is PGD without the
    random start: a table that counts both counts one attack twice (Carlini et al. 2019).

    Args:
        epsilon: largest change of any value, in [0, 1] pixels.
        step: change of each value a step.
        steps: how many.
        eight_bit: only images in whole 255ths are visited.
    """

    def _objective(self, model: nn.Module, labels: Tensor, logits: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        return cross_entropy(model, labels)


@dataclass(frozen=True)
class PGD(BoxAttack):
    """Projected gradient descent: BIM from a random point of the box; the worst iterate comes back.

    Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018. The worst of all iterates
    and restarts is the one with the largest `margin`; the common libraries return the last.

    Args:
        epsilon: largest change of any value, in [0, 1] pixels.
        step: change of each value a step.
        steps: how many.
        eight_bit: only images in whole 255ths are visited.
        restarts: random starts.
        random_start: False starts at the image itself and needs no generator.
    """

    restarts: int = 1
    random_start: bool = True

    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts < 1 or (self.restarts > 1 and not self.random_start):
            raise ValueError(
                f"restarts must be at least 1, and 1 without a random start (all would be the same); got {self.restarts}"
            )

    def _seeds(self, generator: torch.Generator | None, count: int) -> list[int]:
        return super()._seeds(generator, count) if self.random_start else [0] * count

    def _objective(self, model: nn.Module, labels: Tensor, logits: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        return cross_entropy(model, labels)

    def _change(self, model: nn.Module, clean: Tensor, labels: Tensor, logits: Tensor, seeds: list[int]) -> Tensor:
        objective = self._objective(model, labels, logits)
        best = Best(clean, margin(logits, labels))
        for restart in range(self.restarts):
            images = clean
            if self.random_start:
                start = uniform([(seed + restart) % 2**63 for seed in seeds], clean)
                images = self._within(clean + self.epsilon * start, clean)
            for _ in range(self.steps):
                gradient, _, found = input_gradient(objective, images)
                best.offer(images, margin(found, labels))
                images = self._within(images + self.step * gradient.sign(), clean)
            best.offer(images, margin(checked_logits(model, images), labels))
        return best.images


@dataclass(frozen=True)
class IterLL(BoxAttack):
    """Iterative least-likely class: small steps towards the class that the model holds least likely on the *clean* image.

    Kurakin et al., "Adversarial examples in the physical world", ICLR workshop 2017, section 2.3. The target is fixed
    before the first step; the last iterate comes back.

    Args:
        epsilon: largest change of any value, in [0, 1] pixels.
        step: change of each value a step.
        steps: how many.
        eight_bit: only images in whole 255ths are visited.
    """

    step: float = 1 / 255

    def _objective(self, model: nn.Module, labels: Tensor, logits: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        towards = cross_entropy(model, logits.argmin(dim=1))

        def objective(images: Tensor) -> tuple[Tensor, Tensor]:
            loss, found = towards(images)
            return -loss, found

        return objective


def cross_entropy(model: nn.Module, labels: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The function from images to their cross-entropy with the labels, one number an image, and their logits."""

    def objective(images: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(images)
        return F.cross_entropy(logits, labels, reduction="none"), logits

    return objective


class Best:
    """For each image the best candidate so far: that of the largest score.

    >>> best = Best(torch.zeros(2, 1, 1, 1), torch.tensor([0.0, 0.0]))
    >>> best.offer(torch.ones(2, 1, 1, 1), torch.tensor([1.0, -1.0]))
    >>> best.images.flatten()
    tensor([1., 0.])
    """

    def __init__(self, images: Tensor, score: Tensor) -> None:
        self.images, self.score = images.clone(), score.clone()

    def offer(self, images: Tensor, score: Tensor) -> None:
        better = score > self.score
        self.images = torch.where(better.view(-1, 1, 1, 1), images, self.images)
        self.score = torch.where(better, score, self.score)
