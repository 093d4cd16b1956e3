"""Which class an image shows, by the folder that it lies in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutorial_lib.data.registry import suggestion
from tutorial_lib.scoring.networks import Network
from tutorial_lib.scoring.sources import ImageSource

__all__ = ["folder_labels"]


def folder_labels(source: ImageSource, network: Network, classes: Sequence[str] | None = None) -> NDArray[np.int64]:
    """The class (N,) of each image by the folder that it lies in.

    Args:
        source: images in folders, one a class.
        network: its class names are looked for first; folders named 0, 1, ... are numbers of classes.
        classes: names of the network's classes in its order, where neither helps.

    Raises:
        ValueError: no folders, folders that are no classes of this network, or of two.
    """
    folders = source.folders()
    if folders is None:
        raise ValueError(f"{source.where} needs a folder for each class, with its images inside")
    names = tuple(classes or network.class_names)
    there = sorted(set(folders))
    if classes is None and all(name.isdecimal() for name in there) and not set(there) & set(names):
        names = tuple(map(str, range(network.classes)))
        folders, there = [str(int(name)) for name in folders], [str(int(name)) for name in there]
    if not names and len(there) == network.classes:
        names = tuple(there)  # torchvision's ImageFolder numbers them in this order
    if not names:
        raise ValueError(
            f"{source.where} has {len(there)} folders, the network {network.classes} classes without names; say "
            "--classes names.txt, one name in a line, in the network's order"
        )
    if len(names) != network.classes:
        raise ValueError(f"the network has {network.classes} classes, but {len(names)} names were given")
    twice = [name for name in there if names.count(name) > 1]  # ImageNet has two cranes
    if twice:
        raise ValueError(
            f"two of the network's classes are called {twice[0]!r}; say --classes names.txt, with a name of its own for each"
        )
    place = {name: number for number, name in enumerate(names)}
    strange = [name for name in there if name not in place]
    if strange:
        raise ValueError(f"the network has no class {strange[0]!r}{suggestion(strange[0], names[:50])}")
    return np.array([place[folder] for folder in folders])
