"""Local intrinsic dimensionality at every stage of the network.

Ma et al., "Characterizing adversarial subspaces using local intrinsic dimensionality", ICLR 2018, eq. 4 and algorithm
1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from tutorial_lib.detectors.base import NotFittedError
from tutorial_lib.detectors.evidence import Evidence, Quantity, Stage
from tutorial_lib.detectors.layers import stage_names
from tutorial_lib.detectors.second_stage import SecondStageDetector, logistic_regression


class LID(SecondStageDetector):
    r"""Confidence of a logistic regression on the local intrinsic dimensionality of every stage.

    At a stage, :math:`-k \big/ \sum_{i=1}^k \log (d_i / d_k)` with the distances d_i to the k nearest of a small
    reference set of known images: how fast the number of neighbours grows with the radius. Adversarial images lie where
    it grows fast. Larger is stranger.

    The paper takes each mini-batch as its own reference, so that a score depends on the batch around it. Here the
    reference is drawn once, and the images that ``fit`` learns from are not in it.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).
        k: neighbours, at least 2; the paper uses 20.
        reference_size: images in the reference; the paper uses 100.
        layers: names of the submodules to read; by default the stages of a `tutorial_lib.models.Classifier`, see
            `stage_names`.
        second_stage: scikit-learn classifier; logistic regression by default.
        seed: of the draw.

    ``fit(known, challenging, reference)``: the neighbours are drawn from ``reference``, whose labels are not needed.
    Challenging data seen in ``fit``: yes.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = LID(model, k=5, reference_size=40).fit(flat, challenging=noise)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    uses_reference = True

    def __init__(
        self,
        model: nn.Module | None = None,
        k: int = 20,
        reference_size: int = 100,
        layers: Sequence[str] | None = None,
        second_stage: BaseEstimator | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(model, second_stage, seed)
        if not 2 <= k <= reference_size:
            raise ValueError(f"k must lie between 2 and reference_size = {reference_size}, got {k}")
        self.k = k
        self.reference_size = reference_size
        self.layers = layers

    def needs(self) -> tuple[Quantity, ...]:
        if not hasattr(self, "_reference"):
            raise NotFittedError(f"this {self._name} compares with reference images; call fit or fit_reference first")
        return self._stages

    def _default_second_stage(self) -> BaseEstimator:
        return logistic_regression()

    def _prepare_reference(self, image: Tensor) -> None:
        self._stages = tuple(map(Stage, self.layers or stage_names(self.model, image)))

    def _reference_needs(self) -> tuple[Quantity, ...]:
        return self._stages

    def _fit_reference(self, seen: Evidence) -> None:
        if len(seen) < self.k:
            raise ValueError(f"{self.k} neighbours need at least {self.k} reference images, got {len(seen)}")
        order = torch.randperm(len(seen), generator=torch.Generator().manual_seed(self.seed))
        drawn = order[: self.reference_size]
        self._reference = [seen[stage][drawn] for stage in self._stages]

    def _features(self, seen: Evidence) -> Tensor:
        columns = []
        for stage, reference in zip(self._stages, self._reference, strict=True):
            points = seen[stage]
            columns.append(local_dimension(points, reference.to(points.device), self.k))
        return torch.stack(columns, dim=1)


def local_dimension(points: Tensor, reference: Tensor, k: int) -> Tensor:
    """Maximum-likelihood local intrinsic dimensionality of points (N, D) among reference points (M, D), float64 (N,).

    A point of the reference itself is its own neighbour at distance 0. Distances below 1e-12 count as 1e-12, and k
    equal distances, an infinite dimension, as one of a million.

    >>> line = torch.linspace(-1, 1, 2001, dtype=torch.float64).unsqueeze(1)
    >>> local_dimension(torch.tensor([[0.0003]]), line, k=200).round(decimals=1)  # a line has one dimension
    tensor([1.], dtype=torch.float64)
    """
    distances = torch.cdist(points.double(), reference.double(), compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distances.topk(k, largest=False).values.clamp(min=1e-12)
    return k / (nearest[:, -1:].log() - nearest.log()).sum(dim=1).clamp(min=k * 1e-6)
