"""Several unsupervised detectors as one, by how far each score lies in the tail of known images.

Fisher, "Statistical methods for research workers", 1925, section 21.1; the tail probabilities are the conformal
p-values of Bates et al., "Testing for outliers with conformal p-values", Annals of Statistics 2023. Putting gradients,
confidence and neighbours together is this course's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector, Images, split
from tutorial_lib.detectors.energy import Energy
from tutorial_lib.detectors.gradient_density import GradientDensity
from tutorial_lib.detectors.knn import KNN
from tutorial_lib.detectors.msp import MSP

FEWEST = 20

EXPECTED = 1.0
"""Mean of -log p of known images, in nats: their p are evenly spread over [0, 1]."""


class Combination(Detector):
    r"""Fisher's sum :math:`-\sum_i w_i \log p_i` of the tail probabilities p_i of the detectors' scores.

    p is the share of known images that score at least as high, see `Tail`. Scores of any unit become comparable, and no
    unknown image is needed. Larger is stranger: an image is strange if one detector is very surprised or several are
    somewhat.

    Args:
        detectors: of the same model, each learning from known images at most.
        weights: w, one positive number a detector; all 1 if left out, as in Fisher's test. Two detectors that look at
            the same thing can share one vote.

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

    def __init__(self, detectors: Sequence[Detector], weights: Sequence[float] | None = None) -> None:
        if not detectors:
            raise ValueError("there is nothing to combine: give at least one detector")
        super().__init__(detectors[0].model)
        for detector in detectors:
            if detector.model is not self.model:
                raise ValueError("all detectors must look at the same model")
            if detector.supervised:
                raise ValueError(f"{type(detector).__name__} needs challenging images; a combination takes none")
        weights = [1.0] * len(detectors) if weights is None else list(weights)
        if len(weights) != len(detectors) or min(weights) <= 0:
            raise ValueError(f"weights must be {len(detectors)} positive numbers, one a detector, got {weights}")
        self.detectors = list(detectors)
        self.weights = weights
        self._reference: Images | None = None

    def _fit_reference(self, images: Tensor, labels: Tensor | None) -> None:
        self._reference = images if labels is None else (images, labels)

    def _fit(self, images: Tensor, labels: Tensor | None) -> None:
        fitted, fitted_labels, held_out, _ = split(images, labels, 2 / 3)
        if len(held_out) < FEWEST:
            raise ValueError(
                f"the tails need at least {FEWEST} held-out images, a third of known; got {len(images)} in all"
            )
        own = fitted if fitted_labels is None else (fitted, fitted_labels)
        self._tails = []
        for detector in self.detectors:
            trained = detector.from_training_images and self._reference is not None
            detector.fit(self._reference if trained else own)  # type: ignore[arg-type]
            self._tails.append(Tail(detector.predict(held_out)))
        self._reference = None

    def _surprises(self, images: Tensor) -> NDArray[np.float64]:
        """-log p of every detector's score, (N, number of detectors)."""
        return np.stack(
            [
                tail.surprise(detector._score(images).double().cpu().numpy())
                for detector, tail in zip(self.detectors, self._tails, strict=True)
            ],
            axis=1,
        )

    def _score(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self._surprises(images) @ np.array(self.weights))


class GradientFusion(Combination):
    r"""Gradients, confidence and neighbours, combined by the tails of their scores:

    .. math:: \max(0, s_g - 1) + s_c + s_k

    with the surprises :math:`s = -\log p` of `Combination`: :math:`s_g` is the mean over two labels of
    `GradientDensity`, uniform and all ones; :math:`s_c` that of `Energy` and `MSP`; :math:`s_k` is that of `KNN`.
    Larger is stranger.

    Gradients give away far shifts (textures, other alphabets, noise) that confidence misses, with p-values out of all
    proportion. Of near ones (an unseen class) they know little, and there their say would be noise. Hence they have one
    only beyond the surprise that a known image has on average, 1 nat.

    No unknown image is needed to fit it, but the rule itself was chosen with some in sight: those of LeNets on digits and
    MNIST and of a ResNet-20 on CIFAR-10. Networks it was not chosen on, such as the ResNet-20 on digits of the experiment
    ``out_of_distribution``, are the fairer test.

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

    def __init__(self, model: nn.Module, k: int = 10) -> None:
        gradients = [GradientDensity(model, "uniform", "ce"), GradientDensity(model, "ones", "bce")]
        super().__init__([*gradients, Energy(model), MSP(model), KNN(model, k)], weights=[0.5, 0.5, 0.5, 0.5, 1])

    def _score(self, images: Tensor) -> Tensor:
        votes = self._surprises(images) * np.array(self.weights)
        gradients, others = votes[:, :2].sum(axis=1), votes[:, 2:].sum(axis=1)
        return torch.from_numpy(np.maximum(gradients - EXPECTED, 0) + others)


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
