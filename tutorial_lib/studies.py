"""A study: in-distribution data, the classifier trained on them, and the strangers it will meet.

A chapter names its study once, ``study = load_study()``, and runs unchanged on any of them.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from tutorial_lib.data.embedded import digits, photographs
from tutorial_lib.data.images import ImageSet

__all__ = ["Shift", "Study", "load_study"]


@dataclass(frozen=True)
class Shift:
    """One way in which the data can differ from what the classifier was trained on.

    Attributes:
        name: as in ``study.shift(name)``.
        kind: ``"far"`` (another subject altogether), ``"near"`` (a subject like the known ones, but none of them) or ``"covariate"``
            (the known subjects, seen differently).
        description: one sentence for a reader.
        load: makes the images; called once, when they are asked for.
    """

    name: str
    kind: str
    description: str
    load: Callable[[Study], ImageSet] = field(repr=False)


class Study:
    """In-distribution images, split by source image, and named shifts of the same shape.

    Made by :func:`load_study`. Nothing is read before it is asked for, and everything is read once.
    """

    def __init__(
        self, name: str, title: str, network: str, splits: Callable[[], tuple[ImageSet, ImageSet, ImageSet]], shifts: tuple[Shift, ...]
    ) -> None:
        self.name = name
        self.title = title
        self.network = network
        self._load_splits = splits
        self.shifts: Mapping[str, Shift] = {shift.name: shift for shift in shifts}
        self._loaded: dict[str, ImageSet] = {}

    @cached_property
    def _splits(self) -> tuple[ImageSet, ImageSet, ImageSet]:
        return self._load_splits()

    @property
    def train(self) -> ImageSet:
        return self._splits[0]

    @property
    def validation(self) -> ImageSet:
        return self._splits[1]

    @property
    def test(self) -> ImageSet:
        return self._splits[2]

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.test.class_names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.test.image_shape

    @property
    def shift_names(self) -> tuple[str, ...]:
        return tuple(self.shifts)

    def shift(self, name: str) -> ImageSet:
        """Images of the named shift, of the same channels and size as the in-distribution ones."""
        if name not in self.shifts:
            raise ValueError(f"{self.name} has no shift {name!r}{_suggestion(name, self.shifts)}")
        if name not in self._loaded:
            self._loaded[name] = self.shifts[name].load(self)
        return self._loaded[name]

    def classifier(self, network: str | None = None, seed: int = 0, progress: bool = False) -> torch.nn.Module:
        """A network trained on ``train``, in evaluation mode."""
        from tutorial_lib.models import build
        from tutorial_lib.training import TrainingConfig, train_classifier

        pixels = self.train.float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build(
                network or self.network, self.num_classes, self.image_shape,
                pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).tolist(),
            )  # fmt: skip
            config = TrainingConfig(epochs=30, batch_size=32, learning_rate=3e-3, optimizer="adam", shift=1, flip=False, seed=seed)
            train_classifier(model, self.train, self.validation, config, progress=progress)
        return model


KNOWN_DIGITS = 8
SPLIT_SEED = 0


def _known_digits() -> tuple[ImageSet, ImageSet, ImageSet]:
    everything = digits()
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    parts: tuple[list[torch.Tensor], ...] = ([], [], [])
    for label in range(KNOWN_DIGITS):
        index = (everything.labels == label).nonzero().flatten()
        index = index[torch.randperm(len(index), generator=generator)]
        train, validation = round(0.55 * len(index)), round(0.15 * len(index))
        for part, chosen in zip(parts, index.split([train, validation, len(index) - train - validation]), strict=True):
            part.append(chosen)
    known = replace(everything, class_names=everything.class_names[:KNOWN_DIGITS], labels=everything.labels.clamp(max=KNOWN_DIGITS - 1))
    train_set, validation_set, test_set = (known.subset(torch.cat(part).sort().values) for part in parts)
    return train_set, validation_set, test_set


def _photographs(study: Study) -> ImageSet:
    channels, size, _ = study.image_shape
    return photographs(size, channels)


def _unseen_classes(study: Study) -> ImageSet:
    everything = digits()
    return replace(everything.subset(everything.labels >= KNOWN_DIGITS), name="unseen_classes")


def _rotated(study: Study) -> ImageSet:
    return replace(study.test, name="rotated", images=study.test.images.rot90(1, (2, 3)).contiguous())


def _inverted(study: Study) -> ImageSet:
    return replace(study.test, name="inverted", images=255 - study.test.images)


def _noise(study: Study) -> ImageSet:
    shape = study.test.images.shape
    pixels = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(SPLIT_SEED)).to(torch.uint8)
    return ImageSet("noise", pixels, torch.zeros(shape[0], dtype=torch.int64), ("noise",), torch.arange(shape[0]))


def load_study(name: str | None = None) -> Study:
    """The study called ``name``; without a name the one in the environment variable ``TUTORIAL_STUDY``, else ``"digits"``."""
    name = name or os.environ.get("TUTORIAL_STUDY") or "digits"
    if name != "digits":
        raise ValueError(f"there is no study {name!r}{_suggestion(name, ['digits'])}")
    return Study(
        "digits",
        "Handwritten digits 0 to 7",
        "lenet",
        _known_digits,
        (
            Shift("photographs", "far", "patches of two photographs", _photographs),
            Shift("unseen_classes", "near", "the digits 8 and 9, never trained on", _unseen_classes),
            Shift("rotated", "covariate", "the test digits, a quarter turn to the left", _rotated),
            Shift("inverted", "covariate", "the test digits, black and white exchanged", _inverted),
            Shift("noise", "far", "independent uniform pixels", _noise),
        ),
    )


def _suggestion(name: str, known: Mapping[str, object] | list[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
