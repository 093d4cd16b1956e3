"""The databases of opinion scores, read from the files that their authors give out, and the LIVE crops.

TID2013 (Ponomarenko et al., "Image database TID2013", Signal Processing: Image Communication 30, 2015) and MULTI-LIVE
(Jayaraman, Mittal, Moorthy and Bovik, "Objective quality assessment of multiply distorted images", Asilomar 2012) must
be asked for at their authors' pages, unpacked as they come, and named here by their folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from tutorial_lib.data.errors import DataDamaged, DataUnavailable
from tutorial_lib.data.files import data_folder, data_folder_said
from tutorial_lib.image_quality.pairs import Quality

__all__ = ["LiveCrops", "OpinionDatabase", "load_live_crops", "load_multi_live", "load_tid2013"]

LIVE_CROPS = "subsets/live_iqa_crops192.npz"


@dataclass(frozen=True, eq=False)
class OpinionDatabase:
    """Distorted images, their references, and what people said. Images are read when they are needed.

    Attributes:
        name: of the database.
        references, distorted: N files each.
        distortion: N names.
        opinions: (N,), float64.
        deviations: (N,), standard deviation of the opinions about each image.
        higher_is_better: True for mean opinion scores, False for differences to the reference (DMOS).
    """

    name: str
    references: tuple[Path, ...]
    distorted: tuple[Path, ...]
    distortion: tuple[str, ...]
    opinions: NDArray[np.float64]
    deviations: NDArray[np.float64]
    higher_is_better: bool

    def __len__(self) -> int:
        return len(self.distorted)

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Reference and distorted image of each row, ``uint8`` (1, 3, H, W)."""
        for reference, distorted in zip(self.references, self.distorted, strict=True):
            yield _read(reference), _read(distorted)

    def quality(self, measure: Quality, progress: bool = True) -> NDArray[np.float64]:
        """What a measure says of every image (N,)."""
        from tqdm.auto import tqdm

        rows = tqdm(self.pairs(), total=len(self), desc=self.name, disable=not progress)
        return np.array([float(measure(reference, distorted)[0]) for reference, distorted in rows])


def load_tid2013(folder: Path | str) -> OpinionDatabase:
    """TID2013 from its folder: 25 references, 24 distortions, 5 levels; MOS from 0 to 9, larger = better.

    Reads ``mos_with_names.txt`` (score and file name in each line), ``mos_std.txt`` (one number a line, same order),
    ``distorted_images`` and ``reference_images``. Names of files differ between copies in capitals; that is allowed for.

    Raises:
        DataUnavailable: a file is missing; the message names it.
        DataDamaged: the lists do not fit each other.
    """
    folder = Path(folder)
    lines = [line.split() for line in _text(folder / "mos_with_names.txt").splitlines() if line.strip()]
    deviations = _text(folder / "mos_std.txt").split()
    if not lines or any(len(line) != 2 for line in lines) or len(lines) != len(deviations):
        raise DataDamaged(
            f"{folder}: mos_with_names.txt must have lines of score and name, and mos_std.txt as many numbers; "
            f"got {len(lines)} and {len(deviations)}"
        )
    references, distorted = _by_name(folder / "reference_images"), _by_name(folder / "distorted_images")
    names = [name.lower() for _, name in lines]
    try:
        return OpinionDatabase(
            "TID2013",
            tuple(references[f"{name.split('_')[0]}.bmp"] for name in names),
            tuple(distorted[name] for name in names),
            tuple(f"distortion_{name.split('_')[1]}" for name in names),
            np.array([float(score) for score, _ in lines]),
            np.array([float(value) for value in deviations]),
            higher_is_better=True,
        )
    except KeyError as error:
        raise DataUnavailable(
            f"{folder} lacks the image {error}, which mos_with_names.txt lists; unpack it again"
        ) from None
    except (ValueError, IndexError) as error:
        raise DataDamaged(f"{folder}: mos_with_names.txt or mos_std.txt cannot be read ({error})") from error


def load_multi_live(folder: Path | str) -> OpinionDatabase:
    """MULTI-LIVE from its folder: 15 references; 225 images blurred, then JPEG, and 225 blurred, then noisy; DMOS.

    Reads ``Part 1/Imagelists.mat`` (``distimgs``, ``refimgs``, ``ref4dist``, counted from 1), ``Part 1/Scores.mat``
    (``DMOSscores``; ``dist_diffscores``, observers x images, for the deviations), images in ``Part 1/blurjpeg``; the same
    in ``Part 2`` with ``blurnoise``.

    Raises:
        DataUnavailable: a file is missing; the message names it.
        DataDamaged: a file cannot be read, or the lists do not fit each other.
    """
    folder = Path(folder)
    references: list[Path] = []
    distorted: list[Path] = []
    kinds: list[str] = []
    opinions, deviations = [], []
    for part, kind in (("Part 1", "blurjpeg"), ("Part 2", "blurnoise")):
        lists, scores = _mat(folder / part / "Imagelists.mat"), _mat(folder / part / "Scores.mat")
        images = _by_name(folder / part / kind)
        try:
            listed = [_inner(name).lower() for name in np.ravel(lists["distimgs"])]
            originals = [_inner(name).lower() for name in np.ravel(lists["refimgs"])]
            original = np.ravel(lists["ref4dist"]).astype(int) - 1
            score = np.ravel(scores["DMOSscores"]).astype(np.float64)
            spread = np.asarray(scores["dist_diffscores"], dtype=np.float64).std(axis=0, ddof=1)
            if not len(listed) == len(original) == len(score) == len(spread) or original.min() < 0:
                raise ValueError("lists of different lengths")
            names = [originals[i] for i in original]
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise DataDamaged(
                f"{folder / part}: Imagelists.mat and Scores.mat do not fit each other ({error})"
            ) from error
        missing = [name for name in [*listed, *names] if name not in images]
        if missing:
            raise DataUnavailable(
                f"{folder / part / kind} lacks {missing[0]} and {len(missing) - 1} more; unpack it again"
            )
        distorted += [images[name] for name in listed]
        references += [images[name] for name in names]
        kinds += [kind] * len(listed)
        opinions.append(score)
        deviations.append(spread)
    return OpinionDatabase(
        "MULTI-LIVE",
        tuple(references),
        tuple(distorted),
        tuple(kinds),
        np.concatenate(opinions),
        np.concatenate(deviations),
        higher_is_better=False,
    )


@dataclass(frozen=True, eq=False)
class LiveCrops:
    """Centre crops of a part of LIVE release 2: four references, Gaussian blur, JPEG, white noise. No opinion scores.

    Attributes:
        references: ``uint8`` (4, 3, 192, 192).
        distorted: ``uint8`` (52, 3, 192, 192).
        reference: (52,) index into ``references``.
        distortion: ``"gblur"``, ``"jpeg"`` or ``"wnoise"``, for each.
        reference_names: four names.
        psnr_full, ssim_full: what the source of the crops computed on the whole images (52,), settings not stated.
    """

    references: Tensor
    distorted: Tensor
    reference: NDArray[np.int64]
    distortion: tuple[str, ...]
    reference_names: tuple[str, ...]
    psnr_full: NDArray[np.float64]
    ssim_full: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.distorted)

    def quality(self, measure: Quality) -> NDArray[np.float64]:
        """What a measure says of every crop (N,)."""
        return measure(self.references[torch.from_numpy(self.reference)], self.distorted)


def load_live_crops(path: Path | str | None = None) -> LiveCrops:
    """The crops, from ``subsets/live_iqa_crops192.npz`` in the data folder, or from ``path``.

    LIVE's notice allows use and distribution if it is kept with the images: ``LIVE_COPYRIGHT.txt`` beside the file.

    Raises:
        DataUnavailable: the file is not there.
        DataDamaged: it is not what it should be.
    """
    file = data_folder() / LIVE_CROPS if path is None else Path(path)
    if not file.is_file():
        where = f"in {data_folder_said()}" if path is None else "there"
        raise DataUnavailable(
            f"the LIVE crops are not {where}: no file {file}. They come with the course's shared data; set TUTORIAL_DATA "
            "to the folder that holds subsets/"
        )
    try:
        with np.load(file, allow_pickle=False) as archive:
            images = torch.from_numpy(archive["images"]).permute(0, 3, 1, 2).contiguous()
            labels, original = archive["labels"], archive["ref"].astype(np.int64)
            classes, names = archive["classes"].tolist(), archive["ref_names"].tolist()
            psnr_full, ssim_full = archive["psnr_full"], archive["ssim_full"]
        clean = labels == classes.index("reference")
        count = int(clean.sum())
        if not clean[:count].all() or original[:count].tolist() != list(range(count)) or original.max() >= count:
            raise ValueError("references must come first, in order")
        return LiveCrops(
            images[:count],
            images[count:],
            original[count:],
            tuple(classes[label] for label in labels[count:]),
            tuple(names),
            psnr_full[count:],
            ssim_full[count:],
        )
    except Exception as error:  # zip, header, names and shapes each have their own
        raise DataDamaged(f"{file} does not hold the LIVE crops ({error}); get it again") from error


def _read(path: Path) -> Tensor:
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise DataDamaged(f"{path} is not a readable image; unpack the database again ({error})") from error
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None]


def _text(path: Path) -> str:
    _there(path)
    return path.read_text(encoding="utf-8", errors="replace")


def _mat(path: Path) -> dict[str, NDArray[np.generic]]:
    from scipy.io import loadmat

    _there(path)
    try:
        return loadmat(path)
    except Exception as error:  # scipy's own errors, and whatever a broken file provokes
        raise DataDamaged(f"{path} is not a readable MATLAB file ({error}); unpack the database again") from error


def _by_name(folder: Path) -> dict[str, Path]:
    """Files of a folder by their name in small letters."""
    _there(folder)
    return {path.name.lower(): path for path in sorted(folder.iterdir())}


def _there(path: Path) -> None:
    if not path.exists():
        raise DataUnavailable(
            f"{path} is missing. The database must be asked for at its authors' page and unpacked as it comes, into "
            "tid2013 or multi_live of the data folder (TUTORIAL_DATA)"
        )


def _inner(cell: object) -> str:
    """The text in a MATLAB cell, however deep."""
    while isinstance(cell, np.ndarray):
        cell = cell.ravel()[0]
    return str(cell)
