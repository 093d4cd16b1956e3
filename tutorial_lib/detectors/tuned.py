"""Choose a detector's settings with the help of challenging images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from tutorial_lib.detectors.base import Detector, SupervisedDetector, split
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

    def _fit_reference(self, images: Tensor, labels: Tensor | None) -> None:
        self._reference = images if labels is None else (images, labels)

    def _fit_both(self, images: Tensor, labels: Tensor | None, challenging: Tensor) -> None:
        fit_known, fit_labels, known, _ = split(images, labels)
        fit_challenging, _, strange, _ = split(challenging, None)
        quality = []
        for candidate in self.candidates:
            if isinstance(candidate, SupervisedDetector):
                reference = self._reference if candidate.uses_reference else None
                candidate.fit(fit_known if fit_labels is None else (fit_known, fit_labels), fit_challenging, reference)
            else:
                candidate.fit(self._reference)
            scores = candidate.predict(known), candidate.predict(strange)
            quality.append((-fpr_at_tpr(*scores, tpr=0.95, positive="in"), auroc(*scores)))
        del self._reference
        self.chosen = self.candidates[max(range(len(quality)), key=quality.__getitem__)]

    def _score(self, images: Tensor) -> Tensor:
        return self.chosen._score(images)
