"""Several unsupervised detectors as one, by how far each score lies in the tail of known images.

Fisher, "Statistical methods for research workers", 1925, section 21.1; the tail probabilities are the conformal
p-values of Bates et al., "Testing for outliers with conformal p-values", Annals of Statistics 2023. Putting confidence,
neighbours and the norms of layers together is this course's own; chapter 8 does it by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector, split_indices
from tutorial_lib.detectors.energy import Energy
from tutorial_lib.detectors.evidence import Evidence, Quantity
from tutorial_lib.detectors.knn import KNN
from tutorial_lib.detectors.norm_density import ActivationDensity, GradientDensity

__all__ = ["ActivationFusion", "Combination", "GradientFusion", "Tail"]

FEWEST = 20
"""Images that a tail is measured on, at least."""


class Combination(Detector):
    r"""Fisher's sum :math:`-\sum_i \log p_i` of the tail probabilities p_i of the detectors' scores, one vote each.

    p is the share of known images that score at least as high, see `Tail`. Scores of any unit become comparable, and no
    unknown image is needed. Larger is stranger: an image is strange if one detector is very surprised or several are
    somewhat.

    Args:
        detectors: of the same model, each learning from known images at most. They are copied, and the copies fitted.

    Attributes:
        detectors_: the copies, after ``fit``.

    ``fit(known, reference=train)`` wants known images that the network was not trained on. Two thirds go to the
    detectors' own ``fit``, the last third measures the tails: on images that a detector was fitted to, its scores are
    too low. Training images may be given as ``reference``: they then go to those detectors that a paper fits to them
    (`from_training_images`). Challenging data seen in ``fit``: none.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = Combination([Energy(model), KNN(model, k=5)]).fit(flat)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    requires_fit = True
    uses_reference = True

    def __init__(self, detectors: Sequence[Detector]) -> None:
        if not detectors:
            raise ValueError("there is nothing to combine: give at least one detector")
        super().__init__(detectors[0].model)
        for detector in detectors:
            if detector.model is not self.model:
                raise ValueError("all detectors must look at the same model")
            if detector.supervised:
                raise ValueError(f"{type(detector).__name__} needs challenging images; a combination takes none")
        self.detectors = detectors
        self._forget()

    def needs(self) -> tuple[Quantity, ...]:
        return _union(detector.needs() for detector in self.detectors_)

    def needs_to_fit(self) -> tuple[Quantity, ...]:
        return _union(chain.from_iterable((d.needs_to_fit(), d.needs()) for d in self.detectors_))

    def _reference_needs(self) -> tuple[Quantity, ...]:
        return _union(detector.needs_to_fit() for detector in self.detectors_ if detector.from_training_images)

    def _forget(self) -> None:
        super()._forget()
        self.detectors_: list[Detector] = [clone(detector) for detector in self.detectors]
        self._trained: list[Detector] = []

    def _fit_reference(self, seen: Evidence) -> None:
        self._trained = [detector.fit_from(seen) for detector in self.detectors_ if detector.from_training_images]

    def _fit(self, seen: Evidence) -> None:
        own, held_out = (seen.subset(part) for part in split_indices(len(seen), 2 / 3))
        if len(held_out) < FEWEST:
            raise ValueError(
                f"the tails need at least {FEWEST} held-out images, a third of known; got {len(seen)} in all"
            )
        self._tails = []
        for detector in self.detectors_:
            if detector not in self._trained:
                detector.fit_from(own)
            self._tails.append(Tail(detector.predict_from(held_out)))

    def _score(self, seen: Evidence) -> Tensor:
        surprise = np.zeros(len(seen))
        for detector, tail in zip(self.detectors_, self._tails, strict=True):
            surprise += tail.surprise(detector._score(seen).double().cpu().numpy())
        return torch.from_numpy(surprise)


def _union(needs: Iterable[tuple[Quantity, ...]]) -> tuple[Quantity, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(needs)))


class GradientFusion(Combination):
    """Gradients, confidence and neighbours: `GradientDensity`, `Energy` and `KNN`, one vote each. Larger is stranger.

    Gradients give away far shifts (textures, other alphabets, noise) that confidence misses, confidence near ones (an
    unseen class) that gradients miss. `ActivationFusion` needs no backward pass and is the one to beat.

    Args:
        model: classifier with ``features(images)`` -> (N, D), such as `tutorial_lib.models.Classifier`.
        k: neighbour that `KNN` measures to.

    ``fit(known, reference=train)`` as in `Combination`; neighbours are looked for among the training images if they are
    given, as in the paper on `KNN`. Challenging data seen in ``fit``: none.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = GradientFusion(model).fit(flat)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def __init__(self, model: nn.Module | None = None, k: int = 10) -> None:
        self.k = k
        super().__init__([GradientDensity(model), Energy(model), KNN(model, k)])


class ActivationFusion(Combination):
    """Norms of the layers' outputs, confidence and neighbours: `ActivationDensity`, `Energy` and `KNN`, one vote each.

    Larger is stranger. `GradientFusion` without its backward pass: one forward pass brings everything.

    Args:
        model, k: as in `GradientFusion`.

    ``fit(known, reference=train)`` as there. Challenging data seen in ``fit``: none.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = ActivationFusion(model).fit(flat)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def __init__(self, model: nn.Module | None = None, k: int = 10) -> None:
        self.k = k
        super().__init__([ActivationDensity(model), Energy(model), KNN(model, k)])


class Tail:
    r"""Upper tail of a score's distribution among known images, as a surprise :math:`-\log p`, in nats.

    At each of the n calibration scores :math:`p = (1 + \#\{\text{scores} \ge s\}) / (n + 1)`, a conformal p-value: a
    known image that is exchangeable with them gets p <= alpha with probability at most alpha, whatever the
    distribution. Between two of them the surprise goes up as a straight line, which keeps that promise and leaves no
    ties. Beyond the largest, where counting has nothing left to count, it goes on with the slope of an exponential tail
    (one over the mean excess above the 90 % quantile): the promise ends there, but what is stranger still scores
    higher.

    Args:
        scores: calibration scores (n,), finite, larger = stranger.

    >>> tail = Tail(np.arange(99.0))
    >>> np.exp(-tail.surprise(np.array([-1.0, 49.0, 98.0]))).round(2)
    array([1.  , 0.51, 0.02])
    >>> tail.surprise(np.array([198.0])) > tail.surprise(np.array([98.5]))
    array([ True])
    """

    def __init__(self, scores: NDArray[np.float64]) -> None:
        self.scores, below = np.unique(np.sort(scores), return_index=True)
        self.surprises = np.log((len(scores) + 1) / (1 + len(scores) - below))
        high = np.quantile(scores, 0.9)
        excess = float((scores[scores >= high] - high).mean())
        self.slope = 1 / excess if excess > 0 else 1.0

    def surprise(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """-log p of each score, at least 0."""
        beyond = np.maximum(scores - self.scores[-1], 0)
        return np.interp(scores, self.scores, self.surprises) + self.slope * beyond
