"""CIFAR-10-C's own files, for those who have them.

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR 2019;
https://zenodo.org/records/2535967. Nineteen arrays ``NAME.npy`` of 50,000 x 32 x 32 x 3 bytes, the 10,000 test images of
CIFAR-10 at levels 1 to 5 one after the other, and ``labels.npy``.

They were made without a seed and *cut off* to bytes instead of rounded, whatever the corruption, except for JPEG and
pixelation: chapter 10 looks at what that does to a detector. Two levels of one file are the same 10,000 photographs, so
that a split by position puts a photograph on both sides; split by ``source``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tutorial_lib.data.corruptions.base import LEVELS
from tutorial_lib.data.corruptions.cifar10_c import CIFAR10_C
from tutorial_lib.data.errors import DataDamaged, DataUnavailable
from tutorial_lib.data.files import data_folder, data_folder_said
from tutorial_lib.data.images import ImageSet
from tutorial_lib.data.registry import suggestion

__all__ = ["load_cifar10_c"]

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def load_cifar10_c(name: str, level: int, folder: Path | str | None = None) -> ImageSet:
    """The published images of one corruption at one level.

    Args:
        name: one of `CIFAR10_C`.
        level: 1 (mild) to 5 (severe).
        folder: that of the files; ``CIFAR-10-C`` in the data folder when left out.

    Returns:
        ``uint8`` (10,000, 3, 32, 32) in the order of CIFAR-10's test set; ``source`` is the place there.

    Raises:
        ValueError: unknown name or level.
        DataUnavailable: the files are not on this machine.
        DataDamaged: a file does not hold five equal parts of 32x32 RGB images with a label each.
    """
    if name not in CIFAR10_C:
        raise ValueError(f"CIFAR-10-C has no corruption {name!r}{suggestion(name, CIFAR10_C)}")
    if isinstance(level, bool) or level not in LEVELS:
        raise ValueError(f"level must be a whole number from 1 to 5, got {level!r}")
    where = data_folder() / "CIFAR-10-C" if folder is None else Path(folder)
    images_file, labels_file = where / f"{name}.npy", where / "labels.npy"
    missing = [file.name for file in (images_file, labels_file) if not file.is_file()]
    if missing:
        said = data_folder_said() if folder is None else str(folder)
        raise DataUnavailable(
            f"CIFAR-10-C's {' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} not on this machine.\n"
            f"Looked in {where}; the data folder is {said}.\n"
            "To get it: download CIFAR-10-C.tar from https://zenodo.org/records/2535967 and unpack it there, or make "
            "corrupted images of your own: corrupt(images, name, level, generator, family='cifar10_c')."
        )
    pixels = np.load(images_file, mmap_mode="r", allow_pickle=False)
    labels = np.load(labels_file, allow_pickle=False)
    count = len(pixels) // len(LEVELS)
    if pixels.shape != (count * len(LEVELS), 32, 32, 3) or pixels.dtype != np.uint8 or len(labels) != len(pixels):
        raise DataDamaged(
            f"{images_file} holds {pixels.dtype} {pixels.shape} and {len(labels):,} labels, not five equal parts of "
            "32x32 RGB bytes with a label each; get it again"
        )
    part = slice((level - 1) * count, level * count)
    return ImageSet(
        name=f"cifar10_c_{name}_{level}",
        images=torch.from_numpy(np.ascontiguousarray(pixels[part].transpose(0, 3, 1, 2))),
        labels=torch.from_numpy(labels[part].astype(np.int64)),
        class_names=CLASSES,
        source=torch.arange(count),
        note="as published: cut off to bytes, not rounded",
    )
