"""OLIVES: retinal scans with biomarkers, and the healthy scans that a severity is measured from.

Prabhushankar et al., "OLIVES dataset: Ophthalmic Labels for Investigating Visual Eye Semantics", NeurIPS Datasets and
Benchmarks 2022: OCT scans of eyes under treatment, 9,408 of them with biomarkers. They are not in the registry of
`tutorial_lib.data.load_images`, because a scan has several labels. Nothing is downloaded. Whoever has the published
files puts them into the folder ``TUTORIAL_DATA`` like this::

    OLIVES/Prime_FULL/...             scans, https://doi.org/10.5281/zenodo.7105232; "TREX DME", "TREX_DME" and
    OLIVES/TREX DME/...               "TREX-DME" are taken for the same folder
    OLIVES/final_csvs_1/*.csv         split 1 of github.com/olivesgatech/Severity_Contrastive_Learning
    OCT2017/train/NORMAL/*.jpeg       healthy scans, NORMAL-PATIENT-NUMBER.jpeg (Kermany et al., Cell 2018)

The tables begin their paths at a folder of the authors' machine (``/data/Datasets/Prime_FULL/...``); only what comes
after it is used. A patient is read off the path, since the tables number patients differently.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from tutorial_lib.data.errors import DataDamaged, DataUnavailable
from tutorial_lib.data.files import data_folder, data_folder_said
from tutorial_lib.data.formats import centre_square, read_image_files
from tutorial_lib.data.images import ImageSet
from tutorial_lib.data.registry import suggestion

__all__ = ["BIOMARKERS", "OlivesScans", "load_healthy_oct", "load_olives"]

BIOMARKERS: Mapping[str, str] = {
    "PAVF": "Partially attached vitreous face",
    "FAVF": "Fully attached vitreous face",
    "IRF": "Fluid (IRF)",
    "DME": "DRT/ME",
    "IRHRF": "IR HRF",
}
"""The five biomarkers that are frequent enough to be learned, by their short names, and their columns in the tables."""

_TABLES: Mapping[str, tuple[str, ...]] = {
    "train": ("complete_biomarker_training.csv",),
    "test": ("complete_biomarker_test.csv",),
    "unlabelled": ("full_prime_train.csv", "full_trex_train.csv"),
}
_TRIALS = re.compile("prime(full)?|trex(dme)?")

_HOW = (
    "To get it: the scans from https://doi.org/10.5281/zenodo.7105232 (Prime_FULL and TREX DME), and the folder "
    "final_csvs_1 of https://github.com/olivesgatech/Severity_Contrastive_Learning, all into the folder OLIVES of "
    "TUTORIAL_DATA."
)


@dataclass(frozen=True, eq=False)
class OlivesScans:
    """Scans of one split.

    Attributes:
        images: ``uint8`` (N, 1, size, size).
        biomarkers: ``int64`` (N, 5), 1 present, 0 absent, -1 not known, in the order of `BIOMARKERS`.
        patients: N names; splits never cut through a patient.
        paths: N paths below the folder OLIVES, as the tables have them.
    """

    images: torch.Tensor
    biomarkers: torch.Tensor
    patients: tuple[str, ...]
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def for_biomarker(self, name: str) -> ImageSet:
        """The scans for which this biomarker is known, labelled 0 (absent) or 1 (present); a source is a patient.

        Raises:
            ValueError: no such biomarker.
        """
        if name not in BIOMARKERS:
            raise ValueError(f"there is no biomarker {name!r}{suggestion(name, BIOMARKERS)}")
        labels = self.biomarkers[:, list(BIOMARKERS).index(name)]
        number = {patient: place for place, patient in enumerate(dict.fromkeys(self.patients))}
        source = torch.tensor([number[patient] for patient in self.patients], dtype=torch.int64)
        known = labels >= 0
        return ImageSet(
            f"olives {name}", self.images[known], labels[known], (f"without {name}", f"with {name}"), source[known]
        )


def load_olives(split: str = "test", size: int = 28, limit: int | None = None, seed: int = 0) -> OlivesScans:
    """Scans of one split of split 1, the one of Kokilepersaud et al. (ICIP 2022), brought to ``size`` x ``size`` grey.

    Args:
        split: ``"train"`` or ``"test"`` (with biomarkers, 7,448 and 1,960 scans), or ``"unlabelled"`` (62,273).
        size: sides of the result in pixels; the whole scan is squeezed into it, as in the published code.
        limit: read only so many, drawn at random with ``seed``.
        seed: of that draw.

    Raises:
        ValueError: no such split, or a limit below 1.
        DataUnavailable: tables or scans are not there; says what is missing and how to get it.
        DataDamaged: a table lacks a column, or a scan cannot be read.
    """
    if split not in _TABLES:
        raise ValueError(f"OLIVES has no split {split!r}{suggestion(split, _TABLES)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    root = data_folder() / "OLIVES"
    rows = [row for name in _TABLES[split] for row in _read_table(root / "final_csvs_1" / name, split)]
    if limit is not None and limit < len(rows):
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:limit]
        rows = [rows[place] for place in chosen.sort().values.tolist()]
    trials = _trial_folders(root)
    files = []
    for path, _ in rows:
        trial, _, rest = path.partition("/")
        file = trials.get(_plain(trial), root / trial) / rest
        if not file.exists():
            raise DataUnavailable(f"OLIVES scan {path} is not on this machine.\nLooked for {file}.\n{_HOW}")
        files.append(file)
    images, _ = read_image_files(files, [0] * len(files), "L", lambda scan: _squeezed(scan, size))
    return OlivesScans(
        torch.from_numpy(images)[:, None],
        torch.tensor([labels for _, labels in rows], dtype=torch.int64).reshape(-1, len(BIOMARKERS)),
        tuple(_patient(path) for path, _ in rows),
        tuple(path for path, _ in rows),
    )


def load_healthy_oct(size: int = 28, limit: int | None = None, seed: int = 0) -> ImageSet:
    """Healthy scans (Kermany et al. 2018, class NORMAL of the training folder), the largest middle square of each.

    Args:
        size: sides of the result in pixels.
        limit: read only so many, drawn at random with ``seed``.
        seed: of that draw.

    Returns:
        grey images with one label, 0; a source is a patient.

    Raises:
        DataUnavailable: the folder is not there, or holds no scan.
    """
    folder = data_folder() / "OCT2017" / "train" / "NORMAL"
    files = sorted(folder.glob("NORMAL-*-*.jpeg"))
    if not files:
        raise DataUnavailable(
            f"healthy OCT scans are not on this machine.\nLooked in {data_folder_said()} for "
            "OCT2017/train/NORMAL/NORMAL-PATIENT-NUMBER.jpeg.\n"
            "To get them: https://doi.org/10.17632/rscbjbr9sj (Kermany et al. 2018)."
        )
    if limit is not None and limit < len(files):
        chosen = torch.randperm(len(files), generator=torch.Generator().manual_seed(seed))[:limit]
        files = [files[place] for place in chosen.sort().values.tolist()]
    images, labels = read_image_files(files, [0] * len(files), "L", lambda scan: centre_square(scan, size))
    patients = [file.name.split("-")[1] for file in files]
    number = {patient: place for place, patient in enumerate(dict.fromkeys(patients))}
    source = torch.tensor([number[patient] for patient in patients], dtype=torch.int64)
    return ImageSet("healthy_oct", torch.from_numpy(images)[:, None], torch.from_numpy(labels), ("healthy",), source)


def _read_table(path: Path, split: str) -> list[tuple[str, list[int]]]:
    """Path below OLIVES and the five biomarkers, or five times -1, of every row."""
    if not path.exists():
        raise DataUnavailable(
            f"the {split} split of OLIVES is not on this machine.\nLooked in {data_folder_said()} for "
            f"{path.relative_to(data_folder())}.\n{_HOW}"
        )
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.reader(stream)
        head = [name.strip() for name in next(reader, [])]
        columns: list[int | None] = [None] * len(BIOMARKERS)
        if split != "unlabelled":
            missing = [name for name in BIOMARKERS.values() if name not in head]
            if missing:
                raise DataDamaged(f"{path} has no column {', '.join(map(repr, missing))}; get it again")
            columns = [head.index(name) for name in BIOMARKERS.values()]
        rows = []
        for line in reader:
            try:
                labels = [
                    -1 if place is None or not line[place].strip() else int(float(line[place])) for place in columns
                ]
            except (IndexError, ValueError) as error:
                raise DataDamaged(f"{path}, line {reader.line_num}: {error}; get it again") from error
            rows.append((_below_olives(line[0], path, reader.line_num), labels))
    return rows


def _below_olives(path: str, table: Path, line: int) -> str:
    """``Prime_FULL/...`` of ``/data/Datasets/Prime_FULL/...``."""
    parts = path.replace("\\", "/").split("/")
    for place, part in enumerate(parts[:-1]):
        if _TRIALS.fullmatch(_plain(part)):
            return "/".join(parts[place:])
    raise DataDamaged(f"{table}, line {line}: {path!r} lies in none of the trials PRIME and TREX; get the table again")


def _plain(name: str) -> str:
    """Letters and digits only, in lower case: ``TREX DME``, ``TREX_DME`` and ``TREX-DME`` are one folder."""
    return re.sub("[^a-z0-9]", "", name.lower())


def _trial_folders(root: Path) -> dict[str, Path]:
    return {_plain(folder.name): folder for folder in sorted(root.iterdir()) if folder.is_dir()}


def _patient(path: str) -> str:
    """``02-010`` of ``Prime_FULL/02-010/W0/OD/0.tif``; ``0232`` of ``TREX DME/GILA/0232GOD/...``."""
    parts = path.split("/")
    if _plain(parts[0]).startswith("prime"):
        return parts[1]
    numbered = re.match(r"\d+", parts[2]) if len(parts) > 2 else None
    return numbered.group() if numbered else parts[1]


def _squeezed(scan: Image.Image, size: int) -> Image.Image:
    return scan.resize((size, size), Image.Resampling.LANCZOS)  # Pillow's filter widens with the scale: no aliasing
