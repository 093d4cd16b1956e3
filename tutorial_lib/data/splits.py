"""Images of some classes, and splits that have the same share of every class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from tutorial_lib.data.images import ImageSet

__all__ = ["of_classes", "split_each_class"]


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
