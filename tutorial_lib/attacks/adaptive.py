"""Attacks that know the detector.

A detector that was only tested on attacks that do not know it has not been tested (Carlini et al., "On evaluating
adversarial robustness", 2019). Four ways to know it, from the least to the most:

* `LogitMatching`: look, in the logits, like a clean image of another class. Whatever is computed from the logits alone
  then sees a clean image, and so do the last layer's gradients together with the features.
* `FeatureMatching`: the same for the penultimate features.
* `SelectivePGD` and `OrthogonalPGD`: differentiate the detector, and take turns between fooling the classifier and
  quieting the detector.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.attacks.base import Attack, checked_logits, input_gradient, margin
from tutorial_lib.attacks.gradient_sign import Best, check_box, within
from tutorial_lib.data.images import as_float, check_images

__all__ = ["FeatureMatching", "LogitMatching", "OrthogonalPGD", "SelectivePGD"]

Score = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to one number each (N,), larger = stranger, differentiable by the images."""


@dataclass(frozen=True)
class LogitMatching(Attack):
    """Move the image until its logits are those of a clean image of another class.

    Tramer et al., "On adaptive attacks to adversarial example defenses", NeurIPS 2020, section on "The odds are odd":
    squared error to the logits of the target, 100 steps of size 2.5 epsilon / steps. Each image's target is the one of
    ``targets`` that the model gives another class and whose logits are nearest. The iterate nearest to its target among
    those that fool comes back.

    Args:
        targets: clean images (M, C, H, W) to look like, ``uint8`` or float in [0, 1]; not those to be attacked.
        epsilon: largest change of any value, in [0, 1] pixels.
        steps: how many.
        eight_bit: only images in whole 255ths are visited.
    """

    targets: Tensor = field(repr=False)
    epsilon: float = 8 / 255
    steps: int = 100
    eight_bit: bool = True

    def __post_init__(self) -> None:
        check_images(self.targets)
        check_box(self.epsilon, self.step, self.steps, self.eight_bit)

    @property
    def step(self) -> float:
        """Change of each value a step: 2.5 epsilon / steps, but at least one grey level where those are whole."""
        step = 2.5 * self.epsilon / self.steps
        return min(self.epsilon, max(step, 1 / 255)) if self.eight_bit else step

    def _change(self, model: nn.Module, clean: Tensor, labels: Tensor, logits: Tensor, seeds: list[int]) -> Tensor:
        with torch.no_grad():
            targets = as_float(self.targets, clean.dtype).to(clean.device)
            goals, answers = self._matched(model, targets), checked_logits(model, targets).argmax(1)
            here = self._matched(model, clean)
        apart = torch.cdist(here.double(), goals.double())
        apart[labels[:, None] == answers[None, :]] = torch.inf
        if bool(apart.isinf().all(dim=1).any()):
            raise ValueError("targets must hold, for every image, one that the model gives another class")
        goal = goals[apart.argmin(dim=1)]

        def objective(images: Tensor) -> tuple[Tensor, Tensor]:
            matched, found = self._matched_and_logits(model, images)
            return -(matched - goal).square().sum(dim=1), found

        best = Best(clean, torch.full_like(logits[:, 0], -torch.inf))
        images = clean
        for _ in range(self.steps):
            gradient, values, found = input_gradient(objective, images)
            best.offer(images, _fooling_first(values, found, labels))
            images = within(images + self.step * gradient.sign(), clean, self.epsilon, self.eight_bit)
        with torch.no_grad():
            values, found = objective(images)
        best.offer(images, _fooling_first(values, found, labels))
        return best.images

    def _matched(self, model: nn.Module, images: Tensor) -> Tensor:
        return self._matched_and_logits(model, images)[0]

    def _matched_and_logits(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """What is to look clean (N, D), and the logits (N, K)."""
        logits = model(images)
        return logits, logits


@dataclass(frozen=True)
class FeatureMatching(LogitMatching):
    """Move the image until its penultimate features are those of a clean image of another class.

    `LogitMatching` one layer earlier: the model needs ``features`` and ``head``, as `tutorial_lib.models.Classifier` has.
    Where it succeeds, every score of the features or the logits sees a clean image.

    Args:
        targets: clean images (M, C, H, W) to look like, ``uint8`` or float in [0, 1]; not those to be attacked.
        epsilon: largest change of any value, in [0, 1] pixels.
        steps: how many.
        eight_bit: only images in whole 255ths are visited.
    """

    def _matched_and_logits(self, model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        if not hasattr(model, "features") or not hasattr(model, "head"):
            raise TypeError(
                f"{type(model).__name__} has no features(images) and head; wrap it in tutorial_lib.models.Classifier"
            )
        parts: Any = model  # that it has them is known only now
        features = parts.features(images)
        return features, parts.head(features)


@dataclass(frozen=True)
class DetectorAware(Attack):
    """Base class of the attacks that differentiate the detector as well.

    Args:
        score: the detector: images (N, C, H, W) to numbers (N,), larger = stranger, differentiable by the images.
        epsilon: largest change of any value, in [0, 1] pixels.
        step: change of each value a step.
        steps: how many.
        margin: the classifier counts as fooled while its `margin` is at least this, in logits.
        eight_bit: only images in whole 255ths are visited.
    """

    score: Score = field(repr=False)
    epsilon: float = 8 / 255
    step: float = 1 / 255
    steps: int = 100
    margin: float = 0.05
    eight_bit: bool = True

    def __post_init__(self) -> None:
        if not callable(self.score):
            raise TypeError(f"score must be a function from images to numbers (N,), got {type(self.score).__name__}")
        check_box(self.epsilon, self.step, self.steps, self.eight_bit)

    def _change(self, model: nn.Module, clean: Tensor, labels: Tensor, logits: Tensor, seeds: list[int]) -> Tensor:
        def fooling(images: Tensor) -> tuple[Tensor, Tensor]:
            found = model(images)
            return F.cross_entropy(found, labels, reduction="none"), found

        def quiet(images: Tensor) -> tuple[Tensor, Tensor]:
            scores = self.score(images)
            if scores.shape != images.shape[:1]:
                raise ValueError(f"score gave {tuple(scores.shape)} for {len(images)} images, wanted one number each")
            return -scores, scores

        best = Best(clean, torch.full_like(logits[:, 0], -torch.inf))
        images = clean
        for _ in range(self.steps):
            up, _, found = input_gradient(fooling, images)
            down, quietness, _ = input_gradient(quiet, images)
            best.offer(images, _fooling_first(quietness.to(logits), found, labels))
            fooled = (margin(found, labels) >= self.margin).view(-1, 1, 1, 1)
            direction = self._direction(up, down, fooled)
            images = within(images + self.step * direction.sign(), clean, self.epsilon, self.eight_bit)
        with torch.no_grad():
            found = model(images)
        quietness = input_gradient(quiet, images)[1].to(logits)  # a score of gradients needs them to be on
        best.offer(images, _fooling_first(quietness, found, labels))
        return best.images

    @abstractmethod
    def _direction(self, up: Tensor, down: Tensor, fooled: Tensor) -> Tensor:
        """Where to go, from the two gradients (N, C, H, W): ``up`` fools the classifier, ``down`` quiets the detector."""


@dataclass(frozen=True)
class SelectivePGD(DetectorAware):
    """Until the classifier is fooled, its gradient; from then on, the detector's.

    Bryniarski et al., "Evading adversarial example detection defenses with orthogonal projected gradient descent", ICLR
    2022, section 4.1. Of all iterates that fool, the one of the smallest score comes back. Arguments as in
    `OrthogonalPGD`.
    """

    def _direction(self, up: Tensor, down: Tensor, fooled: Tensor) -> Tensor:
        return torch.where(fooled, down, up)


@dataclass(frozen=True)
class OrthogonalPGD(DetectorAware):
    """`SelectivePGD`, each gradient without its part along the other, so that no step undoes the last one's work.

    Bryniarski et al., "Evading adversarial example detection defenses with orthogonal projected gradient descent", ICLR
    2022, section 4.2.

    Args:
        score: the detector: images (N, C, H, W) to numbers (N,), larger = stranger, differentiable by the images.
        epsilon: largest change of any value, in [0, 1] pixels.
        step: change of each value a step.
        steps: how many.
        margin: the classifier counts as fooled while its `margin` is at least this, in logits.
        eight_bit: only images in whole 255ths are visited.
    """

    def _direction(self, up: Tensor, down: Tensor, fooled: Tensor) -> Tensor:
        return torch.where(fooled, without(down, up), without(up, down))


def without(vectors: Tensor, others: Tensor) -> Tensor:
    """Each vector (N, ...) without its part along the other one of its pair.

    >>> without(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.0]]))
    tensor([[3., 0.]])
    """
    along = (vectors * others).flatten(1).sum(1) / others.square().flatten(1).sum(1).clamp(min=1e-30)
    return vectors - along.view(-1, *[1] * (vectors.ndim - 1)) * others


def _fooling_first(score: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """An order of candidates: every one that fools before every one that does not, then by score.

    The map x / (1 + |x|) keeps the order and stays inside (-1, 1), in float64, so that 2 more decides.
    """
    score = score.double()
    fools = logits.argmax(dim=1) != labels
    return score / (1 + score.abs()) + 2 * fools
