"""What every attack has in common: its door, its result, and the rules that both keep.

An attack takes images (N, C, H, W) in [0, 1] and their true labels, and changes the images so that the model's answer is
wrong. Three rules hold for all of them:

* **whole grey levels.** What comes back is rounded to whole 255ths, as a file would hold it, and whether the model is
  fooled is asked *after* rounding. A float image is known by its decimals, which no camera delivers.
* **a failure is no attack.** An image counts as attacked only if the model was right about the clean image and is wrong
  about the changed one: `Attacked.fooled`. Images that the model gets wrong to begin with are returned as they were.
* **no neighbours.** What becomes of an image depends on the image, its label and its place in the order (which decides
  its random numbers), not on the images around it or on how they are cut into batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tutorial_lib.data.images import as_float, check_images
from tutorial_lib.models.predict import device_of, preserved

__all__ = ["Attack", "Attacked", "noise_of_the_same_size"]

BATCH = 128  # bounds memory; results do not depend on it


@dataclass(frozen=True)
class Attacked:
    """What an attack made of N images.

    Attributes:
        clean: the images that it was given, floating point (N, C, H, W) in [0, 1].
        images: the changed ones, same shape, type and device; an image that the model got wrong to begin with is
            returned unchanged.
        labels: int64 (N,), the true classes.
        clean_answers: int64 (N,), the model's class for each clean image.
        answers: int64 (N,), the model's class for each changed image, as it is returned.
    """

    clean: Tensor
    images: Tensor
    labels: Tensor
    clean_answers: Tensor
    answers: Tensor

    @property
    def attackable(self) -> Tensor:
        """bool (N,): was the model right about the clean image?"""
        return self.clean_answers == self.labels

    @property
    def fooled(self) -> Tensor:
        """bool (N,): right before and wrong now. Only these count as attacked."""
        return self.attackable & (self.answers != self.labels)

    @property
    def success_rate(self) -> float:
        """Share of the images that the model was right about and is now wrong about; in [0, 1].

        Raises:
            ValueError: the model was right about none.
        """
        count = int(self.attackable.sum())
        if count == 0:
            raise ValueError("the model was wrong about every clean image: there was nothing to attack")
        return int(self.fooled.sum()) / count

    def distance(self, norm: str = "linf") -> Tensor:
        """How far each image was moved, float64 (N,): ``"linf"``, the largest change of a value, or ``"l2"``."""
        change = (self.images.double() - self.clean.double()).flatten(1)
        if norm == "linf":
            return change.abs().amax(dim=1)
        if norm == "l2":
            return change.square().sum(dim=1).sqrt()
        raise ValueError(f"norm must be 'linf' or 'l2', got {norm!r}")


class Attack(ABC):
    """Base class: subclasses say what becomes of one batch in `_change`.

    ``attack(model, images, labels, generator)`` returns an `Attacked`. The model answers in evaluation mode and is left
    as it was: weights, ``.grad``, ``requires_grad``, mode, random state.
    """

    random: ClassVar[bool] = False
    """Does it draw random numbers?"""

    eight_bit: bool = True
    """Round what comes back to whole 255ths?"""

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        generator: torch.Generator | None = None,
        batch_size: int = BATCH,
    ) -> Attacked:
        """Attack images.

        Args:
            model: images (N, C, H, W) in [0, 1] to logits (N, K).
            images: ``uint8`` or floating point in [0, 1]; they are not changed.
            labels: int64 (N,), the true classes, 0 to K - 1.
            generator: source of the randomness, for attacks that have some; on any device.
            batch_size: images that go through the model together.

        Raises:
            TypeError: images, labels, model or generator of the wrong kind.
            ValueError: images outside [0, 1], labels that are no classes of the model, logits that are not (N, K) or
                not finite, a model whose answer does not depend on the image in a way that can be differentiated, no
                generator where one is needed.
        """
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        check_images(images)
        _check_labels(images, labels)
        seeds = self._seeds(generator, len(images))
        clean = as_float(images, images.dtype if images.is_floating_point() else torch.float32).detach()
        where, device = clean.device, device_of(model)
        parts = []
        with torch.inference_mode(False), preserved(model):
            model.requires_grad_(False)  # no gradient is computed for weights; `preserved` puts it back
            layout = _fastest_layout(model, clean[:2].to(device))
            for start in range(0, len(images), batch_size):
                here = slice(start, start + batch_size)
                batch = clean[here].to(device, memory_format=layout, copy=True)
                targets = labels[here].to(device)
                parts.append(self._attack(model, batch, targets, seeds[here]))
        changed, before, after = (torch.cat(part).to(where) for part in zip(*parts, strict=True))
        return Attacked(clean, changed.contiguous(), labels.to(where), before, after)

    def _attack(
        self, model: nn.Module, clean: Tensor, labels: Tensor, seeds: list[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Changed images, answers before and answers after, of one batch on the model's device."""
        logits = checked_logits(model, clean)
        if int(labels.max()) >= logits.shape[1]:
            raise ValueError(f"labels run up to {int(labels.max())}, but the model has {logits.shape[1]} classes")
        before = logits.argmax(dim=1)
        right = before == labels
        changed = clean.clone()
        if bool(right.any()):
            chosen = [seed for seed, taken in zip(seeds, right.tolist(), strict=True) if taken]
            images = clean if bool(right.all()) else laid_out_as(clean, clean[right])
            found = self._change(model, images, labels[right], logits[right], chosen)
            changed[right] = rounded(found) if self.eight_bit else found
        return changed, before, checked_logits(model, changed).argmax(dim=1)

    @abstractmethod
    def _change(self, model: nn.Module, clean: Tensor, labels: Tensor, logits: Tensor, seeds: list[int]) -> Tensor:
        """Changed images (M, C, H, W) in [0, 1].

        Args:
            model: in evaluation mode, without gradients of its own.
            clean: images (M, C, H, W) that the model gets right.
            labels: their classes (M,).
            logits: the model's answer to them (M, K).
            seeds: one whole number an image; zeros for attacks that draw nothing.
        """

    def _seeds(self, generator: torch.Generator | None, count: int) -> list[int]:
        if not self.random:
            return [0] * count
        how = "pass generator=torch.Generator().manual_seed(0), say"
        if generator is None:
            raise ValueError(f"{type(self).__name__} draws random numbers; {how}")
        if not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator, got {generator!r}; {how}")
        return torch.randint(2**63 - 1, (count,), generator=generator, device=generator.device).tolist()


def _fastest_layout(model: nn.Module, images: Tensor) -> torch.memory_format:
    """Channels last, in which convolutions are computed, unless the model cannot take it.

    ResNet-20's pass and the gradient of its images take 0.8 of the time so, on a CPU (torch 2.14). A model that calls
    ``view`` on what a convolution gives, as many do, fails then and gets the usual layout.
    """
    try:
        with torch.no_grad():
            model(images.contiguous(memory_format=torch.channels_last))
    except RuntimeError:
        return torch.contiguous_format
    return torch.channels_last


def laid_out_as(like: Tensor, images: Tensor) -> Tensor:
    """Images in the memory layout of others: picking some of a batch loses it."""
    last = like.is_contiguous(memory_format=torch.channels_last)
    return images.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _check_labels(images: Tensor, labels: Tensor) -> None:
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels must be an int64 tensor with one true class for each image, got {kind}")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{len(images)} images, but labels of shape {tuple(labels.shape)}")
    if int(labels.min()) < 0:
        raise ValueError(f"labels must be classes from 0 on, got {int(labels.min())}")


def checked_logits(model: nn.Module, images: Tensor) -> Tensor:
    """Logits (N, K) without gradients, looked at once: their shape, and that they are finite."""
    with torch.no_grad():
        logits = model(images)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images) or logits.shape[1] < 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"the model must give logits of shape (N, K), K at least 2; for {len(images)} images: {found}")
    if not bool(logits.isfinite().all()):
        raise ValueError("the model's logits hold NaN or infinite values")
    return logits


def input_gradient(
    objective: Callable[[Tensor], tuple[Tensor, Tensor]], images: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of each image's objective, the objectives (N,), and what came with them.

    Args:
        objective: images (N, C, H, W) to one number each (N,) and a companion tensor (the logits, say).
        images: detached.

    Raises:
        ValueError: the objective does not depend on the images in a way that can be differentiated.
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        values, companion = objective(images)
        gradient = None
        if values.requires_grad:
            (gradient,) = torch.autograd.grad(values.sum(), images, allow_unused=True)
    if gradient is None:
        raise ValueError(
            "the model's answer cannot be differentiated by the image: it is detached, rounded, or computed outside of "
            "torch; attack a differentiable stand-in of it and test the images on the model itself"
        )
    return gradient, values.detach(), companion.detach()


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest other logit minus the true class's (N,): positive where the model is fooled.

    >>> margin(torch.tensor([[-3.0, -1.0], [5.0, 1.0]]), torch.tensor([0, 0]))
    tensor([ 2., -4.])
    """
    true = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)  # not 0: all logits may be negative
    return others.amax(dim=1) - true


def rounded(images: Tensor) -> Tensor:
    """Images in whole 255ths, to the nearest."""
    return (images * 255).round() / 255


def uniform(seeds: list[int], like: Tensor) -> Tensor:
    """Numbers in [-1, 1) of the shape of ``like``, each image's from a stream of its own, drawn on the CPU."""
    shape = like.shape[1:]
    drawn = torch.stack([torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
    return (2 * drawn - 1).to(like)


def noise_of_the_same_size(attacked: Attacked, generator: torch.Generator) -> Tensor:
    """The control of every attack: the clean images, each moved as far, in the mean square, as the attack moved it, but in
    a random direction (every value up or down by the same amount), in whole 255ths.

    >>> clean = torch.full((1, 1, 2, 2), 0.2)
    >>> moved = clean + 0.2
    >>> label = torch.tensor([0])
    >>> control = noise_of_the_same_size(Attacked(clean, moved, label, label, label), torch.Generator().manual_seed(0))
    >>> (control - clean).abs()
    tensor([[[[0.2000, 0.2000],
              [0.2000, 0.2000]]]])
    """
    size = attacked.distance("l2") / attacked.clean[0].numel() ** 0.5
    signs = torch.randint(0, 2, attacked.clean.shape, generator=generator, device=generator.device).to(attacked.clean)
    step = size.view(-1, 1, 1, 1).to(attacked.clean) * (2 * signs - 1)
    return rounded((attacked.clean + step).clamp(0, 1))
