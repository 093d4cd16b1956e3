"""CURE-TSR: traffic signs under twelve challenging conditions at five levels, for those who have it.

Temel et al., "CURE-TSR: Challenging unreal and real environments for traffic sign recognition", NeurIPS Workshop 2017.
The authors give access on request. Nothing but the name of a file says what it shows::

    sequenceType_signType_challengeType_level_index        01_04_12_05_0027.bmp

a real (01) sign of type 4 in haze (12) at level 5. Files without a challenge have challenge and level 00. They are
sought in ``CURE-TSR/Real_Train`` and ``CURE-TSR/Real_Test`` in the data folder, in whatever sub-folders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tutorial_lib.data.errors import DataUnavailable
from tutorial_lib.data.files import data_folder, data_folder_said
from tutorial_lib.data.formats import read_image_files
from tutorial_lib.data.images import ImageSet
from tutorial_lib.data.registry import suggestion

__all__ = ["CHALLENGES", "CureName", "load_cure_tsr", "parse_name"]

#: Number of each challenge in the files' names. The eight that `tutorial_lib.data.corruptions` has, too, are called the
#: same.
CHALLENGES: Mapping[str, int] = {
    "decolor": 1,
    "lens_blur": 2,
    "codec_error": 3,
    "darkening": 4,
    "dirty_lens": 5,
    "exposure": 6,
    "gaussian_blur": 7,
    "noise": 8,
    "rain": 9,
    "shadow": 10,
    "snow": 11,
    "haze": 12,
}

SIGNS = 14
"""Sign types, numbered from 1 in the names and from 0 in the labels."""

_NAME = re.compile(r"(\d\d)_(\d\d)_(\d\d)_(\d\d)_(\d+)")
_SPLITS = {"train": "Real_Train", "test": "Real_Test"}


class CureName(NamedTuple):
    """What a file's name says."""

    sequence: int
    sign: int
    challenge: int
    level: int
    number: int


def parse_name(stem: str) -> CureName | None:
    """The parts of a file's name without its ending; None if it is not in the data set's form.

    >>> parse_name("01_04_12_05_0027")
    CureName(sequence=1, sign=4, challenge=12, level=5, number=27)
    """
    found = _NAME.fullmatch(stem)
    return CureName(*map(int, found.groups())) if found else None


def load_cure_tsr(
    split: str = "test", challenge: str | None = None, level: int = 0, side: int = 28, folder: Path | str | None = None
) -> ImageSet:
    """Real traffic signs under one condition, every image resized to a square.

    Args:
        split: ``"train"`` or ``"test"``.
        challenge: one of `CHALLENGES`, or None for images without any.
        level: 1 (mild) to 5 (severe); 0 without a challenge.
        side: height and width in pixels; bicubic, with a low-pass filter.
        folder: that of the data set; ``CURE-TSR`` in the data folder when left out.

    Returns:
        ``uint8`` (N, 3, side, side) in the order of signs and indices; ``source`` is the same for an image and its
        corrupted copies.

    Raises:
        ValueError: unknown split, challenge or level.
        DataUnavailable: no such image on this machine.
    """
    from PIL import Image

    if split not in _SPLITS:
        raise ValueError(f"split must be train or test, got {split!r}")
    if challenge is not None and challenge not in CHALLENGES:
        raise ValueError(f"CURE-TSR has no challenge {challenge!r}{suggestion(challenge, CHALLENGES)}")
    if level not in (range(1, 6) if challenge else (0,)):
        raise ValueError(f"level must be {'1 to 5' if challenge else '0 without a challenge'}, got {level!r}")
    where = (data_folder() / "CURE-TSR" if folder is None else Path(folder)) / _SPLITS[split]
    wanted = (CHALLENGES[challenge] if challenge else 0, level)
    found = sorted((name, path) for name, path in _files(where) if (name.challenge, name.level) == wanted)
    if not found:
        said = data_folder_said() if folder is None else str(folder)
        raise DataUnavailable(
            f"there is no image of CURE-TSR's {split} part under {challenge or 'no challenge'}"
            f"{f', level {level}' if level else ''} on this machine.\n"
            f"Looked for files like 01_04_{wanted[0]:02d}_{wanted[1]:02d}_0001.bmp below {where}; "
            f"the data folder is {said}.\n"
            "To get it: ask its authors, https://github.com/olivesgatech/CURE-TSR, "
            "and unpack Real_Train and Real_Test there."
        )
    pixels, labels = read_image_files(
        [path for _, path in found],
        [name.sign - 1 for name, _ in found],
        prepare=lambda image: image.resize((side, side), Image.Resampling.BICUBIC),
    )
    return ImageSet(
        name="cure_tsr" if challenge is None else f"cure_tsr_{challenge}_{level}",
        images=torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))),
        labels=torch.from_numpy(labels),
        class_names=tuple(f"sign {number}" for number in range(1, SIGNS + 1)),
        source=torch.tensor([100_000 * name.sign + name.number for name, _ in found]),
        note=f"resized to {side}x{side} (bicubic, antialiased)",
    )


def _files(folder: Path) -> Iterator[tuple[CureName, Path]]:
    for path in folder.rglob("*"):
        name = parse_name(path.stem)
        if name is not None and path.suffix.lower() in (".bmp", ".png", ".jpg"):
            yield name, path
