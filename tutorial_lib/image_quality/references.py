"""Photographs that may be used freely and are there already: inside scikit-image and scikit-learn.

scikit-image is not needed by the library and is imported nowhere in it; only its folder of pictures is looked for. That
comes with ``pip install scikit-image`` (or the ``dev`` extra). What ``skimage.data`` would download is not used.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tutorial_lib.data.errors import DataUnavailable
from tutorial_lib.data.registry import suggestion

__all__ = ["REFERENCES", "Reference", "reference_images"]


@dataclass(frozen=True)
class Reference:
    """One photograph.

    Attributes:
        name: short.
        package: ``"skimage"`` or ``"sklearn"``, whose wheel holds it.
        path: inside the package.
        licence: as stated by the package.
        credit: who made it.
    """

    name: str
    package: str
    path: str
    licence: str
    credit: str


REFERENCES: dict[str, Reference] = {
    reference.name: reference
    for reference in (
        Reference("china", "sklearn", "datasets/images/china.jpg", "CC BY 2.0", "danielbuechele, flickr"),
        Reference("flower", "sklearn", "datasets/images/flower.jpg", "CC BY 2.0", "vultilion, flickr"),
        Reference("astronaut", "skimage", "data/astronaut.png", "public domain", "NASA"),
        Reference("chelsea", "skimage", "data/chelsea.png", "CC0", "Stefan van der Walt"),
        Reference("coffee", "skimage", "data/coffee.png", "CC0", "Pikolo Espresso Bar, Rachel Michetti"),
        Reference("rocket", "skimage", "data/rocket.jpg", "public domain", "SpaceX"),
        Reference("hubble", "skimage", "data/hubble_deep_field.jpg", "public domain", "NASA, Hubble Heritage Team"),
        Reference("retina", "skimage", "data/retina.jpg", "CC0", "Mikael Häggström"),
        Reference("ihc", "skimage", "data/ihc.png", "no known restriction", "Human Protein Atlas, via scikit-image"),
    )
}
"""Nine colour photographs, by name; the first two need no scikit-image."""

_PIP_NAMES = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


def reference_images(names: Sequence[str] | None = None, size: int = 256) -> Tensor:
    """The photographs as squares of one size.

    Args:
        names: of `REFERENCES`, in the order wanted; all by default.
        size: the largest square in the middle, resampled (Lanczos, antialiased) to so many pixels.

    Returns:
        ``uint8`` (N, 3, size, size).

    Raises:
        DataUnavailable: scikit-image is not installed; the message says how to get it.
        ValueError: an unknown name.

    >>> reference_images(["china", "flower"], size=64).shape
    torch.Size([2, 3, 64, 64])
    """
    from tutorial_lib.data.formats import centre_square

    chosen = list(REFERENCES) if names is None else list(names)
    if not chosen or size < 1:
        raise ValueError(f"give at least one name and a positive size, got {chosen} and {size}")
    images = []
    for name in chosen:
        if name not in REFERENCES:
            raise ValueError(f"there is no reference image {name!r}{suggestion(name, REFERENCES)}")
        with Image.open(_file(REFERENCES[name])) as image:
            images.append(np.asarray(centre_square(image.convert("RGB"), size)))
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def _file(reference: Reference) -> Path:
    package = _PIP_NAMES[reference.package]
    found = importlib.util.find_spec(reference.package)  # without running the package
    if found is None or found.origin is None:
        raise DataUnavailable(
            f"the reference image {reference.name!r} comes inside {package}, which is not installed; "
            f"`pip install {package}`, or take the references china and flower"
        )
    path = Path(found.origin).parent / reference.path
    if not path.is_file():
        raise DataUnavailable(
            f"this installation of {package} has no {reference.path}; `pip install --force-reinstall {package}`, "
            "or leave that reference out"
        )
    return path
