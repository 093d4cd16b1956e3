"""Choose a detector's settings with the help of challenging images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from sklearn.base import clone
from torch import Tensor

from tutorial_lib.detectors.base import Detector, NotFittedError, SupervisedDetector, split_indices
from tutorial_lib.detectors.evidence import Evidence, Quantity
from tutorial_lib.metrics import auroc, fpr_at_tpr


class Tuned(SupervisedDetector):
    """The best of several detectors, by the share of challenging images that it catches while it accepts 95 % of the
    known.

    This is how the papers choose temperature and step size of ODIN, and the step size of Mahalanobis (P) and (P+FE).
    Candidates that need fitting get the reference images if they learn from known images alone, and otherwise half of
    the known and half of the challenging ones; the choice is made on the other split. At equal shares the larger AUROC
    decides. Larger is stranger, as with the candidates.

    Args:
        candidates: detectors of the same model, at least one. They are copied, and the copies fitted.

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
        self.candidates = candidates
        self._forget()

    def needs(self) -> tuple[Quantity, ...]:
        if self._fitted:
            return self.chosen.needs()
        return self.needs_to_fit()

    def needs_to_fit(self) -> tuple[Quantity, ...]:
        if not self._has_reference:
            raise NotFittedError(
                f"this {self._name} fits its candidates to reference images; call fit or fit_reference"
            )
        return tuple(dict.fromkeys(chain.from_iterable(candidate.needs() for candidate in self.candidates_)))

    def _forget(self) -> None:
        super()._forget()
        self.candidates_: list[Detector] = [clone(candidate) for candidate in self.candidates]
        self._has_reference = False

    def _prepare_reference(self, image: Tensor) -> None:
        for candidate in self.candidates_:
            candidate._prepare_reference(image)

    def _reference_needs(self) -> tuple[Quantity, ...]:
        needs: list[Quantity] = []
        for candidate in self.candidates_:
            if not candidate.supervised:
                needs += candidate.needs_to_fit() if candidate.requires_fit else ()
            elif candidate.uses_reference:
                needs += candidate._reference_needs()
        return tuple(dict.fromkeys(needs))

    def _fit_reference(self, seen: Evidence) -> None:
        for candidate in self.candidates_:
            if not candidate.supervised:
                candidate.fit_from(seen)
            elif candidate.uses_reference:
                candidate._fit_reference(seen)
        self._has_reference = True

    def _fit_both(self, known: Evidence, challenging: Evidence) -> None:
        fit_known, known = (known.subset(part) for part in split_indices(len(known)))
        fit_challenging, challenging = (challenging.subset(part) for part in split_indices(len(challenging)))
        quality = []
        for candidate in self.candidates_:
            if candidate.supervised:
                candidate.fit_from(fit_known, fit_challenging)
            scores = candidate.predict_from(known), candidate.predict_from(challenging)
            quality.append((-fpr_at_tpr(*scores, tpr=0.95, positive="in"), auroc(*scores)))
        self.chosen = self.candidates_[max(range(len(quality)), key=quality.__getitem__)]

    def _score(self, seen: Evidence) -> Tensor:
        return self.chosen._score(seen)
