"""Choose a detector's settings with the help of challenging images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.detectors.base import Detector, Images, SupervisedDetector, read_images, split
from tutorial_lib.detectors.second_stage import SecondStageDetector
from tutorial_lib.metrics import auroc, fpr_at_tpr


class Tuned(SupervisedDetector):
    """The best of several detectors, by the share of challenging images that it catches while it accepts 95 % of the
    known.

    This is how the papers choose temperature and step size of ODIN, and the step size of Mahalanobis (P) and (P+FE).
    Candidates that need fitting get the reference images if they learn from known images alone, and otherwise half of
    the known and half of the challenging ones; the choice is made on the other split. At equal shares the larger AUROC
    decides. Larger is stranger, as with the candidates.

    Args:
        candidates: detectors of the same model, at least one.

    Attributes:
        chosen: the winner, after ``fit``.

    ``fit(known, challenging, reference)``. Challenging data seen in ``fit``: yes, however little it learned from them.

    >>> from tutorial_lib.detectors import MSP, MaxLogit
    >>> import torch
    >>> model = torch.nn.Flatten()  # two logits: the pixels
    >>> known = torch.tensor([[0.9, 0.6], [0.8, 0.5]] * 4).view(8, 1, 1, 2)  # p as among the challenging ones
    >>> challenging = torch.tensor([[0.4, 0.1], [0.3, 0.0]] * 4).view(8, 1, 1, 2)
    >>> type(Tuned([MSP(model), MaxLogit(model)]).fit(known, challenging).chosen).__name__
    'MaxLogit'
    """

    uses_reference = True

    def __init__(self, candidates: Sequence[Detector]) -> None:
        if not candidates:
            raise ValueError("there is nothing to choose from: give at least one candidate")
        super().__init__(candidates[0].model)
        if any(candidate.model is not self.model for candidate in candidates):
            raise ValueError("all candidates must look at the same model")
        self.candidates = list(candidates)

    def features(self, images: Images) -> Tensor:
        """What the candidates know of images: scores, or what their second stages see, side by side; float64 (N, F).

        With `fit_features` and `predict_features` a study can choose many times and go through the network once.
        Candidates that learn from known images need `fit_reference` first.
        """
        columns = [self._columns(candidate, images) for candidate in self.candidates]
        self._widths = [column.shape[1] for column in columns]
        return torch.cat(columns, dim=1)

    def fit_reference(self, reference: Images) -> Self:
        """Fit what learns from known images alone; ``fit`` does so by itself."""
        for candidate in self.candidates:
            if not isinstance(candidate, SecondStageDetector):
                candidate.fit(reference)
            elif candidate.uses_reference:
                candidate.fit_reference(reference)
        return self

    def fit_features(self, known: Tensor, challenging: Tensor) -> Self:
        """Choose on `features` of known and of challenging images."""
        fit_known, _, known, _ = split(known, None)
        fit_challenging, _, challenging, _ = split(challenging, None)
        quality = []
        for number, candidate in enumerate(self.candidates):
            if isinstance(candidate, SecondStageDetector):
                candidate.fit_features(self._part(fit_known, number), self._part(fit_challenging, number))
            scores = self._scores(known, number), self._scores(challenging, number)
            quality.append((-fpr_at_tpr(*scores, tpr=0.95, positive="in"), auroc(*scores)))
        self._number = max(range(len(quality)), key=quality.__getitem__)
        self.chosen = self.candidates[self._number]
        return self

    def predict_features(self, features: Tensor) -> NDArray[np.float64]:
        """Scores of the chosen candidate, float64 (N,), larger = stranger, from `features`."""
        return self._scores(features, self._number)

    def _fit_reference(self, images: Tensor, labels: Tensor | None) -> None:
        self.fit_reference(images if labels is None else (images, labels))

    def _fit_both(self, images: Tensor, labels: Tensor | None, challenging: Tensor) -> None:
        self.fit_features(self.features(images), self.features(challenging))

    def _score(self, images: Tensor) -> Tensor:
        return self.chosen._score(images)

    @staticmethod
    def _columns(candidate: Detector, images: Images) -> Tensor:
        if isinstance(candidate, SecondStageDetector):
            return candidate.features(images)
        return candidate(read_images(images, "images")[0])[:, None]

    def _part(self, features: Tensor, number: int) -> Tensor:
        return features.split(self._widths, dim=1)[number]

    def _scores(self, features: Tensor, number: int) -> NDArray[np.float64]:
        candidate, part = self.candidates[number], self._part(features, number)
        return candidate.predict_features(part) if isinstance(candidate, SecondStageDetector) else part[:, 0].numpy()
