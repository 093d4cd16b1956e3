"""Mahalanobis distances at every stage of the network, weighed by logistic regression.

Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS
2018, section 2.2 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sklearn.base import BaseEstimator
from torch import Tensor, nn

from tutorial_lib.detectors.gaussian import TiedGaussians
from tutorial_lib.detectors.layers import all_stage_features, stage_features, stage_names
from tutorial_lib.detectors.mahalanobis import needed
from tutorial_lib.detectors.odin import step_down
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
        model: nn.Module,
        epsilon: float = 0.0,
        layers: Sequence[str] | None = None,
        second_stage: BaseEstimator | None = None,
    ) -> None:
        super().__init__(model, second_stage)
        if epsilon < 0:
            raise ValueError(f"epsilon must not be negative, got {epsilon}")
        self.epsilon = epsilon
        self.layers = layers

    def _default_second_stage(self, seed: int) -> BaseEstimator:
        return logistic_regression()

    def _fit_reference(self, images: Tensor, labels: Tensor | None) -> None:
        labels = needed(labels, self)
        with self._guarded():
            one = self._as_input(images[:1])
            self._names = list(self.layers) if self.layers else stage_names(self.model, one)
            _, widths = all_stage_features(self.model, one, self._names)
        stages = self._in_batches(lambda batch: all_stage_features(self.model, batch, self._names)[0], images)
        self._gaussians = [TiedGaussians.fit(features, labels) for features in stages.split(widths, dim=1)]

    def _features(self, images: Tensor) -> Tensor:
        if not self.epsilon:
            stages = stage_features(self.model, images, self._names)
            return torch.stack([self._half_distance(features, i) for i, features in enumerate(stages)], dim=1)
        columns = []
        for i, name in enumerate(self._names):

            def half_distance(batch: Tensor, i: int = i, name: str = name) -> Tensor:
                return self._half_distance(stage_features(self.model, batch, [name])[0], i)

            columns.append(half_distance(step_down(half_distance, images, self.epsilon)))
        return torch.stack(columns, dim=1)

    def _half_distance(self, features: Tensor, stage: int) -> Tensor:
        return 0.5 * self._gaussians[stage].squared_distances(features).amin(dim=1)
