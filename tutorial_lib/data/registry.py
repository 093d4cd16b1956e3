"""Data sets by name: which parts exist, in which files, and what to say when they are not there.

A data set lists every form in which one of its parts may lie on disk, best first: the published files in
torchvision's layout, then smaller copies. The first whose files are all there is taken. A smaller copy says in
:attr:`ImageSet.note` which part of the original it is, a damaged file is an error (the next form is *not*
tried), and no data set ever stands in for another.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tutorial_lib.data.errors import DataDamaged, DataUnavailable
from tutorial_lib.data.files import DataFile, data_folder_said

if TYPE_CHECKING:
    from tutorial_lib.data.images import ImageSet

__all__ = ["Content", "DataSet", "Part", "load_part", "suggestion", "unavailable"]

#: Which part stands for "images of this data set that nobody trained on" when no split is named, in this order.
UNSEEN_FIRST = ("test", "all", "validation", "train")


class Content(NamedTuple):
    """What a reader returns.

    Attributes:
        images: ``uint8`` (N, H, W) or (N, H, W, 3).
        labels: (N,).
        source: which image of the split each one is; 0..N-1 when left out.
        class_names: where they come from the files; those of the data set when left out.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    source: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Part:
    """One form of one split of a data set.

    Attributes:
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"`` (published without a split).
        files: everything it needs, relative to the data folder.
        read: makes the content from the paths of ``files``, in their order.
        count: how many images there must be.
        complete: whether this is the whole split as published.
        note: what a reader must know; empty for the original.
        first: number of this split's first image in the whole data set, so that no two splits share a ``source``.
    """

    split: str
    files: tuple[DataFile, ...]
    read: Callable[[list[Path]], Content]
    count: int
    complete: bool = True
    note: str = ""
    first: int = 0

    def there(self) -> bool:
        return all(file.exists() for file in self.files)

    def verified(self) -> tuple[list[Path], str]:
        """Paths of the files and the note, after checking every file with a published sum (:class:`DataDamaged`)."""
        checked = [file.verified() for file in self.files]
        notes = [self.note, *(note for _, note in checked)]
        return [path for path, _ in checked], "; ".join(dict.fromkeys(note for note in notes if note))


@dataclass(frozen=True)
class DataSet:
    """A public data set.

    Attributes:
        name: as in ``load_images(name)``.
        title: what it shows, in a few words.
        class_names: one a label; empty where they come from the files.
        parts: every form of every split, best first within a split.
        how_to_get: what to do, with access to the internet, where no form is there.
        terms: licence or terms of use, as far as stated by the authors.
        download: fetches the published files into a folder (needs the internet); ``None`` where that must be
            done by hand.
        neighbours: see :attr:`ImageSet.neighbours`.
    """

    name: str
    title: str
    class_names: tuple[str, ...]
    parts: tuple[Part, ...]
    how_to_get: str = ""
    terms: str = ""
    download: Callable[[Path], Any] | None = None
    neighbours: int = 0

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits as published or packed, in the order of ``parts``."""
        return tuple(dict.fromkeys(part.split for part in self.parts))

    @property
    def embedded(self) -> bool:
        """Whether it comes with scikit-learn, so that no file is needed."""
        return any(not part.files for part in self.parts)

    def there(self) -> bool:
        """Whether any part of it is on this machine."""
        return any(part.there() for part in self.parts)

    def found(self, split: str, complete: bool = False) -> Part | None:
        """The best form of ``split`` whose files are all there; with ``complete``, only whole splits count."""
        return next(
            (part for part in self.parts if part.split == split and part.there() and (part.complete or not complete)),
            None,
        )


def unavailable(data_set: DataSet, split: str | None, complete: bool = False) -> DataUnavailable:
    """The one error for a data set that is not there: what, where looked, what is there instead, how to get it."""
    wanted = [p for p in data_set.parts if split in (None, p.split) and (p.complete or not complete)]
    what = data_set.name if split is None else f"the {'complete ' if complete else ''}{split} split of {data_set.name}"
    lines = [f"{what} is not on this machine.", f"Looked in {data_folder_said()} for:"]
    for part in wanted:
        missing = [file.path for file in part.files if not file.exists()]
        what_it_is = "original" if part.complete else part.note
        lines.append(f"  {', '.join(missing)} ({what_it_is}, {part.split}, {part.count:,} images)")
    instead = [part for part in data_set.parts if part not in wanted and part.there()]
    for part in instead:
        lines.append(f"There is {', '.join(file.path for file in part.files)}, but that is {part.note or part.split}.")
    if data_set.how_to_get:
        lines.append(
            f"To get it: set TUTORIAL_DATA to a folder that has it, or, with the internet, {data_set.how_to_get}"
        )
    return DataUnavailable("\n".join(lines))


def load_part(data_set: DataSet, split: str | None = None, complete: bool = False) -> ImageSet:
    """Images of one split; see :func:`tutorial_lib.data.load_images`, which this does the work of."""
    import torch  # only here: what is on this machine can be said without it

    from tutorial_lib.data.images import ImageSet

    if split is not None and split not in data_set.splits:
        raise ValueError(f"{data_set.name} has no split {split!r}{suggestion(split, data_set.splits)}")
    candidates = UNSEEN_FIRST if split is None else (split,)
    part = next((part for name in candidates if (part := data_set.found(name, complete)) is not None), None)
    if part is None:
        raise unavailable(data_set, split, complete)
    paths, note = part.verified()
    try:
        content = part.read(paths)
    except (DataDamaged, MemoryError):
        raise
    except Exception as error:  # a file that nobody published a sum of: damage shows in many ways
        raise DataDamaged(
            f"{', '.join(map(str, paths))} cannot be read as {data_set.name}: {error}; get it again"
        ) from error
    if len(content.images) != part.count:
        files = ", ".join(map(str, paths))
        raise DataDamaged(f"{files} hold {len(content.images):,} images, not {part.count:,}; get {data_set.name} again")
    images = torch.from_numpy(content.images)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
    source = torch.arange(len(images)) if content.source is None else torch.from_numpy(content.source.astype(np.int64))
    source = source + part.first
    return ImageSet(
        data_set.name,
        images,
        torch.from_numpy(content.labels),
        content.class_names or data_set.class_names,
        source,
        note,
        data_set.neighbours,
    )


def suggestion(name: str, known: Iterable[str] | Mapping[str, object]) -> str:
    """The end of a sentence about an unknown ``name``: the nearest of the ``known`` ones, or all of them.

    >>> suggestion("cifr10", ["digits", "cifar10"])
    "; did you mean 'cifar10'?"
    >>> suggestion("frogs", ["digits", "cifar10"])
    '; there are digits, cifar10'
    """
    names = list(known)
    close = difflib.get_close_matches(str(name).lower(), names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there {'are' if len(names) > 1 else 'is'} {', '.join(names)}"
