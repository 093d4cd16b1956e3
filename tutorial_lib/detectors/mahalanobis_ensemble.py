"""Mahalanobis distances at every stage of the network, weighed by logistic regression.

Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS
2018, section 2.2 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from tutorial_lib.detectors.base import NotFittedError, checked, needed
from tutorial_lib.detectors.evidence import Computed, Evidence, Quantity, Stage, step_down
from tutorial_lib.detectors.gaussian import TiedGaussians
from tutorial_lib.detectors.layers import stage_features, stage_names
from tutorial_lib.detectors.second_stage import SecondStageDetector, logistic_regression


class MahalanobisEnsemble(SecondStageDetector):
    r"""Confidence of a logistic regression on :math:`\min_c \tfrac12 d_{l,c}^2` of every stage l.

    Each stage's output is averaged over positions and has its own class means and covariance, as in `Mahalanobis`. With
    ``epsilon`` = 0 this is the tables' "Mahalanobis (FE)", feature ensemble; with a positive one every stage sees the
    input after a step towards its own nearest class, "(P+FE)". Larger is stranger.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).
        epsilon: size of the step, in [0, 1] pixels.
        layers: names of the submodules to read; by default the stages of a `tutorial_lib.models.Classifier`, see
            `stage_names`.
        second_stage: scikit-learn classifier; logistic regression by default.
        shrink: estimate the covariances by Ledoit and Wolf's shrinkage, as in `Mahalanobis`.

    ``fit(known, challenging, reference)``: the class means come from ``reference``, labelled, the training images in
    the paper. Challenging data seen in ``fit``: yes.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = MahalanobisEnsemble(model).fit((flat, torch.arange(90) % 3), challenging=noise)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    uses_reference = True

    def __init__(
        self,
        model: nn.Module | None = None,
        epsilon: float = 0.0,
        layers: Sequence[str] | None = None,
        second_stage: BaseEstimator | None = None,
        shrink: bool = False,
    ) -> None:
        super().__init__(model, second_stage)
        self.epsilon = checked("epsilon", epsilon, 0)
        self.layers = layers
        self.shrink = shrink

    def needs(self) -> tuple[Quantity, ...]:
        if not hasattr(self, "_gaussians"):
            raise NotFittedError(f"this {self._name} compares with reference images; call fit or fit_reference first")
        return (self._columns,) if self.epsilon else self._stages

    def _default_second_stage(self) -> BaseEstimator:
        return logistic_regression()

    def _prepare_reference(self, image: Tensor) -> None:
        self._stages = tuple(map(Stage, self.layers or stage_names(self.model, image)))

    def _reference_needs(self) -> tuple[Quantity, ...]:
        return self._stages

    def _fit_reference(self, seen: Evidence) -> None:
        labels = needed(seen.labels, self)
        self._gaussians = [TiedGaussians.fit(seen[stage], labels, shrink=self.shrink) for stage in self._stages]
        self._columns = Computed(self._stepped)

    def _features(self, seen: Evidence) -> Tensor:
        if self.epsilon:
            return seen[self._columns]
        return torch.stack([self._half_distance(seen[stage], i) for i, stage in enumerate(self._stages)], dim=1)

    def _stepped(self, images: Tensor) -> Tensor:
        columns = []
        for i, stage in enumerate(self._stages):

            def half_distance(batch: Tensor, i: int = i, layer: str = stage.layer) -> Tensor:
                return self._half_distance(stage_features(self.model, batch, [layer])[0], i)

            columns.append(half_distance(step_down(half_distance, images, self.epsilon)))
        return torch.stack(columns, dim=1)

    def _half_distance(self, features: Tensor, stage: int) -> Tensor:
        return 0.5 * self._gaussians[stage].squared_distances(features).amin(dim=1)
