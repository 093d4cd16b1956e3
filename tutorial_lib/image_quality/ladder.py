"""A ladder: photographs made worse step by step, so that the order is known without asking anybody.

Level 3 of a blur is worse than level 2 of the same blur of the same photograph. That is all a ladder says. It has no
opinion scores, and nothing about whether blur at level 3 looks worse than noise at level 2; hence only the rank
correlation with the level and the share of pairs in the right order, per photograph and distortion, mean anything on it.

`ladder` is an easy test: the five levels of the classical four distortions are far apart, and PSNR, SSIM and UNIQUE all
climb them nearly without a slip. A measure that fails is broken; one that passes has shown little. `faint_ladder` has
eight rungs about as far from the reference as an eye can just notice, close together and with fresh noise on each. But
what it asks is still *how much was done*, and that is what PSNR measures, not *how bad it looks*.

`against_level` asks more: one curve from the measure to the level for all photographs together. A measure passes if blur
of level 3 gets about the same value on every photograph. That people find it equally bad on every photograph is not
known; texture hides noise. So these are the columns of the published tables with the level in the place of opinions, and
no more than that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.data.corruptions import CIFAR10_C, CORRUPTIONS, LEVELS, corrupt
from tutorial_lib.data.corruptions.filters import smooth
from tutorial_lib.data.images import as_float, check_images
from tutorial_lib.data.registry import suggestion
from tutorial_lib.image_quality.agreement import Agreement, agreement, pairwise_accuracy
from tutorial_lib.image_quality.pairs import Quality

__all__ = [
    "DISTORTIONS",
    "FAINT",
    "Distortion",
    "Ladder",
    "LadderScore",
    "against_level",
    "faint_ladder",
    "ladder",
    "score_ladder",
]

BATCH = 8


@dataclass(frozen=True)
class Distortion:
    """A distortion of the ladder: one of the course's corruptions.

    Attributes:
        family: see `tutorial_lib.data.corruptions`.
        corruption: its name there.
    """

    family: str
    corruption: str


DISTORTIONS: Mapping[str, Distortion] = MappingProxyType(
    {
        "blur": Distortion("cifar10_c", "gaussian_blur"),
        "jpeg": Distortion("cifar10_c", "jpeg_compression"),
        "noise": Distortion("cifar10_c", "gaussian_noise"),
        "contrast": Distortion("cifar10_c", "contrast"),
    }
    | {f"cure_{name}": Distortion("cure", name) for name in CORRUPTIONS}
    | {
        f"cifar10_c_{name}": Distortion("cifar10_c", name)
        for name in CIFAR10_C
        if name not in ("gaussian_blur", "jpeg_compression", "gaussian_noise", "contrast")
    }
)
"""Distortions by name: the classical four, then the rest of the course's two families."""

CLASSICAL = ("blur", "jpeg", "noise", "contrast")

FAINT: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "blur": (0.40, 0.44, 0.48, 0.53, 0.58, 0.64, 0.70, 0.77),
        "jpeg": (98, 96, 94, 92, 90, 88, 86, 84),
        "noise": (1.0, 1.15, 1.32, 1.52, 1.75, 2.01, 2.31, 2.66),
        "contrast": (0.99, 0.98, 0.97, 0.96, 0.95, 0.94, 0.93, 0.92),
    }
)
"""Rungs of `faint_ladder`: sigma of the blur in pixels, quality of the JPEG file, standard deviation of the noise in grey
levels, and the share of contrast that is left."""


@dataclass(frozen=True, eq=False)
class Ladder:
    """Distorted photographs, and what was done to each.

    Attributes:
        references: ``uint8`` (R, 3, H, W).
        reference_names: R names.
        distorted: ``uint8`` (N, 3, H, W).
        reference: (N,) index into ``references``.
        distortion: N names.
        level: (N,) from 1, mild, upwards.
    """

    references: Tensor
    reference_names: tuple[str, ...]
    distorted: Tensor
    reference: NDArray[np.int64]
    distortion: tuple[str, ...]
    level: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.distorted)

    def group(self) -> NDArray[np.str_]:
        """(N,) names of photograph and distortion together: where the order is known."""
        return np.array(
            [f"{self.reference_names[r]}, {d}" for r, d in zip(self.reference, self.distortion, strict=True)]
        )

    def quality(self, measure: Quality, progress: Callable[[int], object] = lambda done: None) -> NDArray[np.float64]:
        """What a measure says of every image (N,), a few at a time; ``progress`` is told how many were just done."""
        parts = []
        for start in range(0, len(self), BATCH):
            rows = slice(start, start + BATCH)
            parts.append(measure(self.references[torch.from_numpy(self.reference[rows])], self.distorted[rows]))
            progress(len(parts[-1]))
        return np.concatenate(parts)


@dataclass(frozen=True)
class LadderScore:
    """How well a measure knows the order.

    Attributes:
        srcc: rank correlation of quality and minus the level, the mean over photographs and distortions, in [-1, 1]; a
            measure that gives all levels of one group the same value has 0 there.
        pairs_right: share of pairs within a group in the right order, in [0, 1]; 0.5 is guessing.
        neighbours_right: the same of pairs one level apart.
        by_distortion: ``pairs_right`` of each distortion.
    """

    srcc: float
    pairs_right: float
    neighbours_right: float
    by_distortion: Mapping[str, float]


def ladder(
    references: Tensor,
    names: Sequence[str],
    distortions: Sequence[str] = CLASSICAL,
    levels: Sequence[int] = LEVELS,
    seed: int = 0,
) -> Ladder:
    """Every photograph by every distortion by every level, in this order.

    Args:
        references: (R, 3, H, W), ``uint8``, such as `reference_images` gives.
        names: R names for them.
        distortions: names of `DISTORTIONS`.
        levels: of 1 to 5, rising.
        seed: of the noise. A photograph gets the same noise at all levels, only stronger.

    >>> small = ladder(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), ["a", "b"], ["noise"])
    >>> len(small), small.reference_names, small.level[:5]
    (10, ('a', 'b'), array([1, 2, 3, 4, 5]))
    """
    _check(references, names)
    if not distortions or not levels:
        raise ValueError("a ladder needs at least one distortion and one level")
    for distortion in distortions:
        if distortion not in DISTORTIONS:
            raise ValueError(f"there is no distortion {distortion!r}{suggestion(distortion, DISTORTIONS)}")
    columns = []
    for distortion in distortions:
        chosen = DISTORTIONS[distortion]
        for level in levels:
            generator = torch.Generator().manual_seed(seed)
            columns.append(corrupt(references, chosen.corruption, level, generator, family=chosen.family))
    return _assembled(references, names, columns, [(d, level) for d in distortions for level in levels])


def faint_ladder(references: Tensor, names: Sequence[str], seed: int = 0) -> Ladder:
    """Every photograph by every distortion of `FAINT` by its eight rungs, in this order.

    Args:
        references: (R, 3, H, W), ``uint8``.
        names: R names for them.
        seed: of the noise, which is drawn afresh for every rung: more noise is not the same noise, only stronger.
    """
    _check(references, names)
    pixels = as_float(references, torch.float32)
    columns, rungs = [], []
    for distortion, strengths in FAINT.items():
        for level, strength in enumerate(strengths, start=1):
            seeds = [seed * 10_000 + 100 * level + photograph for photograph in range(len(references))]
            if distortion == "blur":
                changed = smooth(pixels, strength)
            elif distortion == "noise":
                changed = CIFAR10_C["gaussian_noise"].apply(pixels, strength / 255, seeds)
            elif distortion == "jpeg":
                changed = CIFAR10_C["jpeg_compression"].apply(pixels, int(strength), seeds)
            else:
                changed = CIFAR10_C["contrast"].apply(pixels, strength, seeds)
            columns.append((changed.clamp(0, 1) * 255).round().to(torch.uint8))
            rungs.append((distortion, level))
    return _assembled(references, names, columns, rungs)


def _check(references: Tensor, names: Sequence[str]) -> None:
    check_images(references, channels=3)
    if references.dtype != torch.uint8:
        raise ValueError(f"references must be uint8, got {references.dtype}")
    if len(names) != len(references) or len(set(names)) != len(names):
        raise ValueError(f"{len(references)} references need as many different names, got {list(names)}")


def _assembled(
    references: Tensor, names: Sequence[str], columns: Sequence[Tensor], rungs: Sequence[tuple[str, int]]
) -> Ladder:
    distorted = torch.stack(list(columns), dim=1).flatten(0, 1)  # (R, rungs) flat
    return Ladder(
        references,
        tuple(names),
        distorted,
        np.repeat(np.arange(len(references)), len(rungs)),
        tuple(d for d, _ in rungs) * len(references),
        np.tile(np.array([level for _, level in rungs], dtype=np.int64), len(references)),
    )


def score_ladder(ladder: Ladder, quality: NDArray[np.float64]) -> LadderScore:
    """Compare a measure's values (N,), larger = better, with the order that the ladder knows."""
    quality = np.asarray(quality, dtype=np.float64)
    if quality.shape != (len(ladder),):
        raise ValueError(f"quality must be ({len(ladder)},), got {quality.shape}")
    groups, kinds = ladder.group(), np.array(ladder.distortion)
    correlations = []
    for group in np.unique(groups):
        mine, levels = quality[groups == group], ladder.level[groups == group]
        flat = (mine == mine[0]).all()
        correlations.append(0.0 if flat else float(scipy.stats.spearmanr(mine, -levels).statistic))
    by_distortion = {}
    for kind in dict.fromkeys(ladder.distortion):
        rows = kinds == kind
        by_distortion[kind] = pairwise_accuracy(quality[rows], ladder.level[rows], groups[rows])
    right, pairs = 0.0, 0
    for level in np.unique(ladder.level)[:-1]:
        rows = (ladder.level == level) | (ladder.level == level + 1)
        count = int((ladder.level == level).sum())
        right += count * pairwise_accuracy(quality[rows], ladder.level[rows], groups[rows])
        pairs += count
    return LadderScore(
        float(np.mean(correlations)), pairwise_accuracy(quality, ladder.level, groups), right / pairs, by_distortion
    )


def against_level(ladder: Ladder, quality: NDArray[np.float64]) -> dict[str, Agreement]:
    """For each distortion, how one curve from a measure to the level fits all photographs (see the top of this module).

    `Agreement.rmse` is in levels, and `Agreement.outlier_ratio` is the share of pictures whose fitted level is more than
    one level off: half a level stands for the standard deviation of opinions.

    Raises:
        ValueError: a measure is infinite somewhere, or says the same of all pictures of a distortion.
    """
    kinds = np.array(ladder.distortion)
    found = {}
    for kind in dict.fromkeys(ladder.distortion):
        rows = kinds == kind
        level = ladder.level[rows].astype(np.float64)
        found[kind] = agreement(np.asarray(quality)[rows], level, np.full(len(level), 0.5))
    return found
