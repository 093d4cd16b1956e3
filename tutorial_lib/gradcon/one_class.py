"""One class is normal, all others are strange: the splits of the published protocol.

Kwon et al., "Backpropagated gradient representations for anomaly detection", ECCV 2020, and their code: official
training images of the normal class, a tenth of them to validate; all its test images, and as many strangers drawn from
the test images of the other classes. CIFAR-10 is brought to 28x28, so that one network serves all sets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from tutorial_lib.data import load_images
from tutorial_lib.data.embedded import digits
from tutorial_lib.data.images import ImageSet
from tutorial_lib.data.resize import fit
from tutorial_lib.data.splits import split_each_class

__all__ = ["ONE_CLASS_SETS", "SIDE", "OneClassSplit", "class_names", "everything", "one_class_split"]

#: Data sets that can be split.
ONE_CLASS_SETS = ("digits", "mnist", "cifar10")

#: Side of the images that the published autoencoder takes.
SIDE = 28

VALIDATION = 0.1
TEST_OF_DIGITS = 0.3


@dataclass(frozen=True)
class OneClassSplit:
    """Normal images to learn from and to choose an epoch by; normal and strange images to test on."""

    train: ImageSet
    validation: ImageSet
    normal: ImageSet
    strange: ImageSet


def one_class_split(name: str, normal: int, seed: int = 0) -> OneClassSplit:
    """Images of one class as the normal ones.

    Args:
        name: ``"digits"`` (of each class 30 % to test, drawn at random with a fixed seed; 8x8), ``"mnist"`` or
            ``"cifar10"`` (resized to 28x28; official test images).
        normal: index of the normal class.
        seed: of the draw of validation images and strangers.

    Raises:
        ValueError: unknown set or class.
        DataUnavailable: the data are not on this machine.

    >>> split = one_class_split("digits", normal=3)
    >>> len(split.train), len(split.validation), len(split.normal), len(split.strange)
    (115, 13, 55, 55)
    """
    train, test = everything(name)
    if normal not in range(len(train.class_names)):
        raise ValueError(f"{name} has the classes 0 to {len(train.class_names) - 1}, got {normal!r}")
    generator = torch.Generator().manual_seed(seed)
    learn = (train.labels == normal).nonzero().flatten()
    learn = learn[torch.randperm(len(learn), generator=generator)]
    held_out = round(VALIDATION * len(learn))
    others = (test.labels != normal).nonzero().flatten()
    known = test.subset(test.labels == normal)
    drawn = others[torch.randperm(len(others), generator=generator)[: len(known)]]
    title = f"{name}_{normal}"
    return OneClassSplit(
        train=replace(train.subset(learn[held_out:].sort().values), name=title),
        validation=replace(train.subset(learn[:held_out].sort().values), name=title),
        normal=known,
        strange=test.subset(drawn.sort().values),
    )


@lru_cache(maxsize=1)
def everything(name: str) -> tuple[ImageSet, ImageSet]:
    """Training and test images of all classes, in the size that the autoencoder takes."""
    if name not in ONE_CLASS_SETS:
        raise ValueError(f"name must be one of {', '.join(ONE_CLASS_SETS)}, got {name!r}")
    if name == "digits":
        images = digits()
        test, train = split_each_class(images, (TEST_OF_DIGITS,), range(len(images.class_names)))
        return train, test
    parts = [load_images(name, split, complete=True) for split in ("train", "test")]
    train, published_test = (fit(part, (part.image_shape[0], SIDE, SIDE)) for part in parts)
    return train, published_test


def class_names(name: str) -> tuple[str, ...]:
    """Names of the classes, without reading the images."""
    from tutorial_lib.data import DATASETS

    return tuple(DATASETS[name].class_names)
