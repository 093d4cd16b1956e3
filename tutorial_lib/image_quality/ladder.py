"""A ladder: photographs made worse step by step, so that the order is known without asking anybody.

Level 3 of a blur is worse than level 2 of the same blur of the same photograph. That is all a ladder says. It has no
opinion scores, and nothing about whether blur at level 3 looks worse than noise at level 2; hence only the rank
correlation with the level and the share of pairs in the right order, per photograph and distortion, mean anything on it.

It is an easy test: the five levels of the classical four distortions are far apart, and PSNR, SSIM and UNIQUE all climb
them nearly without a slip. A measure that fails is broken; one that passes has shown little.
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
from tutorial_lib.data.images import check_images
from tutorial_lib.data.registry import suggestion
from tutorial_lib.image_quality.agreement import pairwise_accuracy
from tutorial_lib.image_quality.pairs import Quality

__all__ = ["DISTORTIONS", "Distortion", "Ladder", "LadderScore", "ladder", "score_ladder"]

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


@dataclass(frozen=True, eq=False)
class Ladder:
    """Distorted photographs, and what was done to each.

    Attributes:
        references: ``uint8`` (R, 3, H, W).
        reference_names: R names.
        distorted: ``uint8`` (N, 3, H, W).
        reference: (N,) index into ``references``.
        distortion: N names.
        level: (N,) from 1, mild, to 5.
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
            measure that gives all five levels of one group the same value has 0 there.
        pairs_right: share of pairs within a group in the right order, in [0, 1]; 0.5 is guessing.
        by_distortion: ``pairs_right`` of each distortion.
    """

    srcc: float
    pairs_right: float
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
    check_images(references, channels=3)
    if references.dtype != torch.uint8 or len(names) != len(references) or len(set(names)) != len(names):
        raise ValueError(f"references must be uint8, with {len(references)} different names, got {list(names)}")
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
    distorted = torch.stack(columns, dim=1).flatten(0, 1)  # (R, distortions * levels) flat
    rungs = [(d, level) for d in distortions for level in levels]
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
    return LadderScore(float(np.mean(correlations)), pairwise_accuracy(quality, ladder.level, groups), by_distortion)
