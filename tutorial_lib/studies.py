"""A study: in-distribution data, the classifier trained on them, and the strangers it will meet.

A chapter names its study once, ``study = load_study()``, and runs unchanged on any of them.

======== ============================= ======== ======================================================================
study    in-distribution               network  shifts, besides photographs, rotated, inverted and noise
======== ============================= ======== ======================================================================
digits   scikit-learn's digits 0 to 7  lenet    unseen_classes
mnist    MNIST                         lenet    fashion_mnist, notmnist, cifar10, tiny_imagenet, textures
cifar10  CIFAR-10                      resnet20 svhn, tiny_imagenet, lsun, textures, mnist, fashion_mnist, notmnist
svhn     SVHN                          resnet20 cifar10, tiny_imagenet, lsun, textures, mnist, fashion_mnist, notmnist
======== ============================= ======== ======================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from tutorial_lib.data import DATASETS, ImageSet, load_images
from tutorial_lib.data.embedded import digits, photographs
from tutorial_lib.data.registry import suggestion
from tutorial_lib.data.resize import fit
from tutorial_lib.data.splits import of_classes, split_each_class

if TYPE_CHECKING:
    from tutorial_lib.models import Classifier

__all__ = ["STUDIES", "Shift", "Study", "load_study"]

Splits = tuple[ImageSet, ImageSet, ImageSet]


@dataclass(frozen=True)
class Shift:
    """One way in which images can differ from what the classifier was trained on.

    Attributes:
        name: as in ``study.shift(name)``.
        kind: ``"far"`` (another subject altogether), ``"near"`` (a subject like the known ones, but none of them) or
            ``"covariate"`` (the known subjects, seen differently: the labels still hold).
        description: what it shows, for a reader.
        load: makes the images in the shape of the study.
        data_set: the data set it needs besides the study's own; ``None`` if it needs none.
    """

    name: str
    kind: str
    description: str
    load: Callable[[Study], ImageSet] = field(repr=False)
    data_set: str | None = None


@dataclass(eq=False, repr=False)
class Study:
    """In-distribution images, split by source image, and named shifts of the same shape. Made by :func:`load_study`.

    Nothing is read before it is asked for, and everything is read once.

    Attributes:
        name: as in ``load_study(name)``.
        title: what is in distribution, for a reader.
        class_names: names of the K known classes.
        image_shape: (C, H, W) of every image, shifts included.
        network: name of the architecture that :meth:`classifier` trains when none is named.
        splits: makes train, validation and test set.
        shifts: every shift by name.
        recipes: arguments of :class:`tutorial_lib.training.classifier.TrainingConfig` by network; ``""`` for any other network.
        normalisation: mean and standard deviation of the pixels, channel by channel, as the field uses them; measured
            on the training images where it has no convention.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    network: str
    splits: Callable[[], Splits]
    shifts: Mapping[str, Shift]
    recipes: Mapping[str, Mapping[str, Any]]
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = field(default=None, repr=False)
    _loaded: dict[str, ImageSet] = field(default_factory=dict, init=False)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        return f"Study({self.name!r}: {self.title}; {self.num_classes} classes, images {shape}, {self.network})"

    @property
    def num_classes(self) -> int:
        """K, the number of known classes."""
        return len(self.class_names)

    @property
    def train(self) -> ImageSet:
        """What the classifier is trained on."""
        return self._split("train")

    @property
    def validation(self) -> ImageSet:
        """In-distribution images for every choice that is not a weight: temperatures, thresholds, early stopping."""
        return self._split("validation")

    @property
    def test(self) -> ImageSet:
        """In-distribution images for the final figures, and for nothing else."""
        return self._split("test")

    def _split(self, name: str) -> ImageSet:
        if name not in self._loaded:
            self._loaded |= zip(("train", "validation", "test"), self.splits(), strict=True)
        return self._loaded[name]

    @property
    def shift_names(self) -> tuple[str, ...]:
        """Every shift of this study, whether its data are on this machine or not."""
        return tuple(self.shifts)

    def available_shifts(self) -> tuple[str, ...]:
        """The shifts whose data are on this machine, whole or in part."""
        there = [s for s in self.shifts.values() if s.data_set is None or DATASETS[s.data_set].there()]
        return tuple(shift.name for shift in there)

    def shift(self, name: str) -> ImageSet:
        """Images of one shift in the shape of the study; the same ones at every call.

        Its ``note`` says which part of the data set they are and how they were brought into shape. Labels and
        class names are those of the data set that the images come from.

        Raises:
            ValueError: this study has no such shift.
            DataUnavailable: its data are not on this machine; says what is missing and how to get it.
        """
        if name not in self.shifts:
            raise ValueError(f"{self.name} has no shift {name!r}{suggestion(name, self.shifts)}")
        key = f"shift {name}"
        if key not in self._loaded:
            images = self.shifts[name].load(self)
            if images.image_shape != self.image_shape:
                raise RuntimeError(
                    f"{self.name}: shift {name} has the shape {images.image_shape}, not {self.image_shape}"
                )
            self._loaded[key] = images
        return self._loaded[key]

    def classifier(
        self, network: str | None = None, seed: int = 0, progress: bool = False, device: torch.device | str = "cpu"
    ) -> Classifier:
        """A network trained on :attr:`train`, in evaluation mode.

        Taken from the weights that come with the library if it has them, else from the cache folder
        (``TUTORIAL_CACHE``, default ``~/.cache/tutorial_lib``), else trained now and kept there. What is cached
        belongs to its settings, its training images and the source of the models and the trainer: change one
        and it is trained again.

        Args:
            network: one of ``tutorial_lib.models.NETWORKS``; the study's own when left out.
            seed: of initial weights, order and augmentation.
            progress: show a bar while training.
            device: where the returned model lies. It is trained on a CUDA device if there is one.

        Raises:
            ValueError: no such network, or a seed that is not a whole number from 0 on.
            DataUnavailable: it would have to be trained, and the training images are not on this machine.
        """
        from tutorial_lib.training.trained import trained_classifier  # models come after studies

        return trained_classifier(self, network or self.network, seed, progress).to(device)


# ----------------------------------------------------------------------------------------------------------------------
# Splits

KNOWN_DIGITS = 8
VALIDATION = 5_000


def _split_digits() -> Splits:
    """Digits 0 to 7: of each class, drawn at random with a fixed seed, 55 % train, 15 % validation, 30 % test.

    The writers are not known, so each may have digits in all three. Every image is its own source.
    """
    everything = digits()
    train_set, validation_set, test_set = split_each_class(everything, (0.55, 0.15), range(KNOWN_DIGITS))
    names = everything.class_names[:KNOWN_DIGITS]
    return (
        replace(train_set, class_names=names),
        replace(validation_set, class_names=names),
        replace(test_set, class_names=names),
    )


def _official_splits(name: str) -> Splits:
    """Test split as published; the last 5,000 images of the published training split to validate, the others to train.

    In MNIST neighbours are often by one writer and in SVHN of one house, so a cut between them separates more
    than a draw. CIFAR-10 is published in random order.
    """
    everything, test = load_images(name, "train", complete=True), load_images(name, "test", complete=True)
    train = len(everything) - VALIDATION
    return everything.subset(torch.arange(train)), everything.subset(torch.arange(train, len(everything))), test


# ----------------------------------------------------------------------------------------------------------------------
# Shifts


def _photographs(study: Study) -> ImageSet:
    channels, size, _ = study.image_shape
    return photographs(size, channels)


def _unseen_classes(study: Study) -> ImageSet:
    everything = digits()
    unseen = range(KNOWN_DIGITS, len(everything.class_names))
    return replace(of_classes(everything, unseen), name="unseen_classes")


def _rotated(study: Study) -> ImageSet:
    # a quarter turn moves pixels without computing new ones: no trace of interpolation
    return replace(study.test, name="rotated", images=study.test.images.rot90(1, (2, 3)).contiguous())


def _inverted(study: Study) -> ImageSet:
    return replace(study.test, name="inverted", images=255 - study.test.images)


def _noise(study: Study) -> ImageSet:
    count = len(study.test)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, *study.image_shape), dtype=torch.uint8, generator=generator)
    return ImageSet("noise", pixels, torch.zeros(count, dtype=torch.int64), ("noise",), torch.arange(count))


def _data_set(name: str, study: Study) -> ImageSet:
    return fit(load_images(name), study.image_shape)


def _shifts(*shifts: Shift) -> Mapping[str, Shift]:
    common = (
        Shift("photographs", "far", "patches of two photographs", _photographs),
        Shift("rotated", "covariate", "the test images, a quarter turn to the left", _rotated),
        Shift("inverted", "covariate", "the test images, light and dark exchanged", _inverted),
        Shift("noise", "far", "independent uniform pixels, as many images as in the test set", _noise),
    )
    photographs_first, *others = common
    return MappingProxyType({shift.name: shift for shift in (photographs_first, *shifts, *others)})


def _of(name: str, kind: str, description: str) -> Shift:
    return Shift(name, kind, description, partial(_data_set, name), data_set=name)


HOUSE_NUMBERS = _of("svhn", "far", "digits of house numbers (SVHN)")
DIGITS = _of("mnist", "far", "handwritten digits (MNIST)")
OTHER_DIGITS = _of("mnist", "near", "handwritten digits (MNIST), the same ten classes in another hand")
LETTERS = _of("notmnist", "near", "letters A to J (notMNIST)")
CIFAR10 = _of("cifar10", "far", "animals and vehicles (CIFAR-10)")
FASHION = _of("fashion_mnist", "far", "clothes (Fashion-MNIST)")
TEXTURES = _of("textures", "far", "textures (DTD)")
THINGS = _of("tiny_imagenet", "far", "200 kinds of things (Tiny ImageNet)")
SCENES = _of("lsun", "far", "rooms and buildings (LSUN), in the copy that ODIN's authors resized")
THINGS_LIKE_CIFAR10 = _of(
    "tiny_imagenet",
    "near",
    "200 kinds of things (Tiny ImageNet), some of them also in CIFAR-10: cats, dogs, frogs, trucks …",
)

# ----------------------------------------------------------------------------------------------------------------------
# The studies

_ADAM = {"optimizer": "adam", "learning_rate": 3e-3, "weight_decay": 0.0}  # for networks without batch norm
# over in seconds: float32 everywhere, rather than another network where the processor has bfloat16 units
_SMALL = {"epochs": 30, "batch_size": 64, "shift": 1, "flip": False, "precision": "float32"}

# Jordan, "94 % on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498, for images summed over a batch there and
# averaged here: learning rate 11.5 / (1 + 1 / (1 - momentum)), decay .0153 / 11.5. Not as published: sixteen epochs for its
# 9.9, since 45,000 images for 50,000 and one view for the mean of six at test time cost about a point; and no label smoothing
# (published: .2), since ensembles of these networks are asked how sure they are.
_AIRBENCH = {
    "epochs": 16,
    "batch_size": 1024,
    "learning_rate": 1.5,
    "momentum": 0.85,
    "weight_decay": 0.0153 / 11.5,
    "schedule": "triangular",
    "shift": 2,
    "border": "mirror",
    "flip": "alternating",
    "norm_bias_factor": 64.0,
    "whitening_epochs": 3,
    "lookahead": True,
}

_STUDIES = (
    Study(
        name="digits",
        title="Handwritten digits 0 to 7",
        class_names=DATASETS["digits"].class_names[:KNOWN_DIGITS],
        image_shape=(1, 8, 8),
        network="lenet",
        splits=_split_digits,
        shifts=_shifts(Shift("unseen_classes", "near", "the digits 8 and 9, never trained on", _unseen_classes)),
        recipes={
            "lenet": {**_SMALL, **_ADAM, "learning_rate": 1e-2},
            "": {**_SMALL},
        },
    ),
    Study(
        name="mnist",
        title="Handwritten digits (MNIST)",
        class_names=DATASETS["mnist"].class_names,
        image_shape=(1, 28, 28),
        network="lenet",
        splits=partial(_official_splits, "mnist"),
        shifts=_shifts(FASHION, LETTERS, CIFAR10, THINGS, TEXTURES),
        recipes={
            "lenet": {"epochs": 6, "shift": 2, "flip": False, **_ADAM},
            "": {"epochs": 3, "shift": 2, "flip": False},  # of 55,000 images; a ResNet-20 takes minutes a core for each
        },
    ),
    Study(
        name="cifar10",
        title="Animals and vehicles (CIFAR-10)",
        class_names=DATASETS["cifar10"].class_names,
        image_shape=(3, 32, 32),
        network="resnet20",
        splits=partial(_official_splits, "cifar10"),
        shifts=_shifts(HOUSE_NUMBERS, THINGS_LIKE_CIFAR10, SCENES, TEXTURES, DIGITS, FASHION, LETTERS),
        recipes={
            "lenet": {"epochs": 20, **_ADAM},
            "airbench": _AIRBENCH,
            "": {},
        },
        normalisation=((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ),
    Study(
        name="svhn",
        title="Digits of house numbers (SVHN)",
        class_names=DATASETS["svhn"].class_names,
        image_shape=(3, 32, 32),
        network="resnet20",
        splits=partial(_official_splits, "svhn"),
        shifts=_shifts(CIFAR10, THINGS, SCENES, TEXTURES, OTHER_DIGITS, FASHION, LETTERS),
        recipes={
            "lenet": {"epochs": 10, "flip": False, **_ADAM},
            "": {"epochs": 20, "flip": False},
        },
    ),
)

#: Names of the studies.
STUDIES: tuple[str, ...] = tuple(study.name for study in _STUDIES)


def load_study(name: str | None = None) -> Study:
    """A study by name: ``"digits"``, ``"mnist"``, ``"cifar10"`` or ``"svhn"``.

    Args:
        name: which one; left out, the one in the environment variable ``TUTORIAL_STUDY``, else ``"digits"``.

    Raises:
        ValueError: no such study. (Data that are not on this machine are an error only once they are asked for.)

    >>> study = load_study("digits")
    >>> study
    Study('digits': Handwritten digits 0 to 7; 8 classes, images 1x8x8, lenet)
    >>> len(study.train), len(study.validation), len(study.test)
    (794, 216, 433)
    >>> study.shift("unseen_classes")
    ImageSet('unseen_classes': 354 images of 1x8x8, 10 classes)
    """
    asked = name or os.environ.get("TUTORIAL_STUDY") or STUDIES[0]
    for study in _STUDIES:
        if study.name == asked:
            return replace(study)  # with nothing loaded: what one reader asked for does not stay in memory for all
    where = "" if name else " (from the environment variable TUTORIAL_STUDY)"
    raise ValueError(f"there is no study {asked!r}{where}{suggestion(asked, STUDIES)}")
