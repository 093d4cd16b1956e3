"""The two data sets that come with scikit-learn: nothing to download, nothing to unpack.

``digits``
    1,797 handwritten digits, 8x8 grey: the test part of the UCI "Optical Recognition of Handwritten Digits"
    data (Alpaydin and Kaynak, 1998), written by 13 people. scikit-learn does not say who wrote which digit, so
    a split by digit still shares writers between its parts.
``photographs``
    Patches of scikit-learn's two sample photographs, a building in China (``china.jpg``) and a flower (``flower.jpg``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tutorial_lib.data.images import ImageSet

__all__ = ["digits", "photographs"]

PHOTOGRAPHS = ("china", "flower")


def digits() -> ImageSet:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey.

    The files hold counts 0..16 (how many of 4x4 finer pixels are inked); they become ``uint8`` by rounding
    count·255/16.

    >>> digits()
    ImageSet('digits': 1,797 images of 1x8x8, 10 classes)
    """
    import torch  # it and scikit-learn take longer to import than everything else here
    from sklearn.datasets import load_digits

    from tutorial_lib.data.images import ImageSet

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return ImageSet(
        name="digits",
        images=torch.from_numpy(pixels).unsqueeze(1),
        labels=torch.from_numpy(bunch.target.astype(np.int64)),
        class_names=tuple("0123456789"),
        source=torch.arange(len(pixels)),
    )


def photographs(size: int = 8, channels: int = 1, patch: int | None = None) -> ImageSet:
    """Natural images: non-overlapping square patches of two photographs (427x640 pixels each), made smaller by
    averaging areas.

    Averaging ``patch/size`` x ``patch/size`` blocks is an antialiasing filter, so that no resampling artefact
    gives the patches away. The labels, like ``source``, say which photograph: split by it, never by patch.

    Args:
        size: height and width of the result.
        channels: 1 for grey (Rec. 601 luma) or 3 for RGB.
        patch: height and width of the patch in the photograph, a multiple of ``size``; by default the multiple
            nearest to 32, at least ``size``.

    >>> photographs()
    ImageSet('photographs': 520 images of 1x8x8, 2 classes)
    """
    import torch
    from sklearn.datasets import load_sample_image
    from torch.nn.functional import avg_pool2d

    from tutorial_lib.data.images import ImageSet
    from tutorial_lib.data.resize import LUMA

    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, got {channels}")
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    if patch is None:
        patch = size * max(1, round(32 / size))
    if patch % size or not size <= patch <= 427:
        raise ValueError(f"patch must be a multiple of size {size} and at most 427 pixels, got {patch}")
    patches, labels = [], []
    for label, name in enumerate(PHOTOGRAPHS):
        photograph = (
            torch.from_numpy(np.array(load_sample_image(f"{name}.jpg"))).permute(2, 0, 1).double()
        )  # (3, 427, 640)
        if channels == 1:
            photograph = (photograph * torch.tensor(LUMA, dtype=torch.float64)[:, None, None]).sum(0, keepdim=True)
        tiles = photograph.unfold(1, patch, patch).unfold(2, patch, patch)  # (C, rows, columns, patch, patch)
        tiles = tiles.flatten(1, 2).transpose(0, 1)  # (N, C, patch, patch)
        patches.append(avg_pool2d(tiles, patch // size).round().clamp(0, 255).to(torch.uint8))
        labels.append(torch.full((len(tiles),), label))
    source = torch.cat(labels)
    return ImageSet("photographs", torch.cat(patches), source, PHOTOGRAPHS, source.clone())
