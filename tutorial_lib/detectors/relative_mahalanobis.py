"""Relative Mahalanobis distance.

Ren et al., "A simple fix to Mahalanobis distance for improving near-OOD detection", arXiv 2106.09022, 2021, eq. 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector, needed
from tutorial_lib.detectors.evidence import FEATURES, Evidence, Quantity
from tutorial_lib.detectors.gaussian import TiedGaussians


class RelativeMahalanobis(Detector):
    r"""Distance to the nearest class less the distance to all known images as one cloud, :math:`\min_c d_c^2 - d_0^2`.

    d_c is the Mahalanobis distance of the penultimate feature to class c as in `Mahalanobis`, d_0 that to a single
    Gaussian that was fitted to the same images without their labels. What makes every image far, known or not, cancels;
    what is left is distance in the directions that tell classes apart. Larger is stranger; values may be negative.

    Args:
        model: classifier with ``features(images)`` -> (N, D), such as `tutorial_lib.models.Classifier`.
        shrink: estimate both covariances by Ledoit and Wolf's shrinkage, as in `Mahalanobis`.

    ``fit(known)`` needs labels and takes the training images, as in the paper. Challenging data seen in ``fit``: none.

    >>> model = torch.nn.Module()
    >>> model.features = torch.nn.Flatten()
    >>> known = torch.tensor([[0.0, 0.0], [0.2, 0.0], [0.0, 0.2], [0.2, 0.2]]).view(4, 1, 1, 2)
    >>> detector = RelativeMahalanobis(model).fit((known, torch.zeros(4, dtype=int)))
    >>> detector.predict(torch.rand(2, 1, 1, 2)).round(3)  # one class: it is the cloud
    array([0., 0.])
    """

    requires_fit = True
    from_training_images = True

    def __init__(self, model: nn.Module | None = None, shrink: bool = False) -> None:
        super().__init__(model)
        self.shrink = shrink

    def needs(self) -> tuple[Quantity, ...]:
        return (FEATURES,)

    def _fit(self, seen: Evidence) -> None:
        labels = needed(seen.labels, self)
        self._classes = TiedGaussians.fit(seen[FEATURES], labels, shrink=self.shrink)
        self._cloud = TiedGaussians.fit(seen[FEATURES], torch.zeros_like(labels), shrink=self.shrink)

    def _score(self, seen: Evidence) -> Tensor:
        nearest = self._classes.squared_distances(seen[FEATURES]).amin(dim=1)
        return nearest - self._cloud.squared_distances(seen[FEATURES])[:, 0]
