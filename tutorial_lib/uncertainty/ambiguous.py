"""Images that are ambiguous by construction: half one class, half another.

After the Ambiguous-MNIST of Mukhoti et al., "Deep Deterministic Uncertainty", CVPR 2023, in its simplest form: the mean of
two images of different classes, labelled with either of the two by the toss of a coin. A network that has been trained on
such images knows them and still cannot say what they are: uncertainty that lies in the data.
"""

from __future__ import annotations

import torch

from tutorial_lib.data.images import ImageSet

__all__ = ["blends", "with_blends"]


def blends(images: ImageSet, count: int, seed: int = 0) -> ImageSet:
    """Means of pairs of images of different classes, each labelled with the class of one of the two.

    Args:
        images: what to draw from.
        count: how many blends.
        seed: of pairs and labels.

    Returns:
        :class:`ImageSet` of ``count`` images; ``sources`` are those of the image that gave the label.
    """
    if len(images.labels.unique()) < 2:
        raise ValueError(f"{images.name} has one class; a blend needs images of two")
    generator = torch.Generator().manual_seed(seed)
    first: list[int] = []
    second: list[int] = []
    while len(first) < count:
        a, b = torch.randint(0, len(images), (2, count), generator=generator)
        differ = images.labels[a] != images.labels[b]
        first += a[differ].tolist()
        second += b[differ].tolist()
    one, other = torch.tensor(first[:count]), torch.tensor(second[:count])
    mean = (images.images[one].short() + images.images[other].short() + 1) // 2
    return ImageSet(
        f"{images.name}_blends", mean.to(torch.uint8), images.labels[one], images.class_names, images.source[one]
    )


def with_blends(images: ImageSet, count: int, seed: int = 0) -> ImageSet:
    """The images and, after them, ``count`` of their `blends`."""
    mixed = blends(images, count, seed)
    return ImageSet(
        f"{images.name}_and_blends",
        torch.cat([images.images, mixed.images]),
        torch.cat([images.labels, mixed.labels]),
        images.class_names,
        torch.cat([images.source, mixed.source]),
    )
