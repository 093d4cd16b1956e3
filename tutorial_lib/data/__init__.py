"""Image data: one loader for every data set of the course, and what happens to images in the field.

>>> from tutorial_lib.data import load_images
>>> load_images("digits")
ImageSet('digits': 1,797 images of 1x8x8, 10 classes)

``python -m tutorial_lib data`` lists the data sets and says which of them are on this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tutorial_lib.data.catalogue import DATASETS
from tutorial_lib.data.errors import DataDamaged, DataUnavailable
from tutorial_lib.data.registry import DataSet, load_part, suggestion

if TYPE_CHECKING:
    from tutorial_lib.data.images import ImageSet, as_float, check_images

__all__ = [
    "DATASETS",
    "DataDamaged",
    "DataSet",
    "DataUnavailable",
    "ImageSet",
    "as_float",
    "check_images",
    "load_images",
]


def __getattr__(name: str) -> Any:
    """What needs PyTorch is imported when it is asked for: a list of data sets should not take seconds."""
    if name in ("ImageSet", "as_float", "check_images"):
        from tutorial_lib.data import images

        return getattr(images, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_images(name: str, split: str | None = None, complete: bool = False) -> ImageSet:
    """Images of a data set in their own size and colours.

    Read from the folder ``TUTORIAL_DATA``: from the published files in torchvision's layout if they are there,
    else from a smaller copy, whose ``note`` says which part of the original it is. Every file with a published
    checksum is checked against it.

    Args:
        name: one of ``DATASETS``.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``, as the data set is published. Left out:
            images to be used as strangers, that is the test split, or else what there is (``"all"``,
            validation, train, in this order).
        complete: refuse a smaller copy.

    Raises:
        ValueError: no such data set or split.
        DataUnavailable: not on this machine; says what is missing, where it was looked for and how to get it.
        DataDamaged: a file is there but is not what was published.
    """
    if name not in DATASETS:
        raise ValueError(f"there is no data set {name!r}{suggestion(name, DATASETS)}")
    return load_part(DATASETS[name], split, complete)
