"""Images of some classes, splits that have the same share of every class, and two sides that share no source and no image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch

from tutorial_lib.data.images import ImageSet

__all__ = ["of_classes", "pixel_digests", "split_each_class", "two_sides"]

BLOCK = 20
"""Length of a block of sources that stay together, in neighbourhoods (:attr:`ImageSet.neighbours`)."""


def of_classes(images: ImageSet, classes: Iterable[int]) -> ImageSet:
    """The images of some classes, in their order, with their labels."""
    return images.subset(torch.isin(images.labels, torch.tensor(list(classes))))


def split_each_class(images: ImageSet, shares: Sequence[float], classes: Iterable[int]) -> list[ImageSet]:
    """Parts with these shares of every class, drawn at random with a fixed seed; the last part is what is left.

    Each part keeps the order of the data set.

    Args:
        images: one image a source, or the parts may share sources.
        shares: of all parts but the last, in [0, 1]; numbers of images are rounded.
        classes: which ones; images of others are in no part.

    >>> from tutorial_lib.data.embedded import digits
    >>> [len(part) for part in split_each_class(digits(), (0.55, 0.15), range(8))]
    [794, 216, 433]
    """
    generator = torch.Generator().manual_seed(0)
    parts: list[list[torch.Tensor]] = [[] for _ in range(len(shares) + 1)]
    for label in classes:
        index = (images.labels == label).nonzero().flatten()
        index = index[torch.randperm(len(index), generator=generator)]
        counts = [round(share * len(index)) for share in shares]
        for part, chosen in zip(parts, index.split([*counts, len(index) - sum(counts)]), strict=True):
            part.append(chosen)
    return [images.subset(torch.cat(part).sort().values) for part in parts]


def two_sides(images: ImageSet, share: float) -> tuple[ImageSet, ImageSet]:
    """About ``share`` of the images to learn from, and the others to test on; nothing is on both sides.

    The side depends on the number of the source alone: an image and what was made of it are on the same side.
    Where neighbours may belong together (:attr:`ImageSet.neighbours`), contiguous blocks of sources are dealt out
    rather than single ones, and images to learn from that are neighbours of images to test on are left out. A set made
    from fewer than ten sources (patches of two photographs) is cut between them. Images to test on are each counted
    once, and are left out if there is the same one, pixel by pixel, to learn from.

    Args:
        images: any set.
        share: of the images to learn from, in (0, 1).

    Raises:
        ValueError: too few images for two sides.

    >>> from tutorial_lib.data.embedded import digits
    >>> learn, test = two_sides(digits(), 0.4)
    >>> len(learn), len(test)
    (719, 1078)
    """
    numbers, reach = images.source, images.neighbours
    sources = numbers.unique()
    if len(sources) < 10:
        learned = numbers < sources[max(1, round(share * len(sources)))]
    else:
        learned = _scattered(numbers // max(1, BLOCK * reach)) < share
    tested = ~learned
    if reach and tested.any():
        learned &= _distance(numbers, numbers[tested]) > reach
    if not (learned.any() and tested.any()):
        raise ValueError(f"{len(images)} images of {images.name} cannot be divided into two sides; take more of them")
    learn, test = images.subset(learned), images.subset(tested)
    seen = set(pixel_digests(learn))
    new = []
    for digest in pixel_digests(test):
        new.append(digest not in seen)
        seen.add(digest)
    return learn, test.subset(torch.tensor(new, dtype=torch.bool))


def _scattered(numbers: torch.Tensor) -> torch.Tensor:
    """A number in [0, 1) for each whole number, as if drawn at random, and always the same (Fibonacci hashing)."""
    return (numbers.double() * 0.6180339887498949) % 1.0


def _distance(numbers: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """From each number to the nearest of the others."""
    others = others.sort().values
    place = torch.searchsorted(others, numbers)
    after = others[place.clamp(max=len(others) - 1)]
    before = others[(place - 1).clamp(min=0)]
    return torch.minimum((numbers - before).abs(), (after - numbers).abs())


def pixel_digests(images: ImageSet) -> list[bytes]:
    """A hash of the pixels of each image: equal where, and only where, two images are the same."""
    return [hashlib.sha256(image.numpy().tobytes()).digest() for image in images.images]
