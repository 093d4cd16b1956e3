"""Distance to the nearest known images in feature space.

Sun et al., "Out-of-distribution detection with deep nearest neighbors", ICML 2022.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector, checked
from tutorial_lib.detectors.evidence import FEATURES, Evidence, Quantity


class KNN(Detector):
    r"""Distance :math:`\lVert \bar h - \bar h_{(k)} \rVert` to the k-th nearest of the images given to ``fit``.

    :math:`\bar h` is the penultimate feature scaled to length 1, so distances lie in [0, 2]. Larger is stranger: no
    known image looks like it.

    Args:
        model: classifier with ``features(images)`` -> (N, D), such as `tutorial_lib.models.Classifier`.
        k: which neighbour, at least 1. The paper takes 50 for CIFAR-10's 50,000 training images; fewer images ask for a
            smaller k.

    ``fit(known)`` may be given training images, as in the paper. Challenging data seen in ``fit``: none.

    >>> model = nn.Module()
    >>> model.features = nn.Flatten()
    >>> known = torch.tensor([[[[0.0, 1.0]]], [[[0.0, 0.5]]]])
    >>> KNN(model, k=1).fit(known).predict(torch.tensor([[[[0.0, 0.2]]], [[[0.5, 0.0]]]])).round(3)
    array([0.   , 1.414])
    """

    requires_fit = True
    from_training_images = True

    def __init__(self, model: nn.Module | None = None, k: int = 10) -> None:
        super().__init__(model)
        if checked("k", k) < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        self.k = k

    def needs(self) -> tuple[Quantity, ...]:
        return (FEATURES,)

    def _fit(self, seen: Evidence) -> None:
        if len(seen) < self.k:
            raise ValueError(f"the {self.k}-th neighbour needs at least {self.k} known images, got {len(seen)}")
        self._neighbours = NearestNeighbors(n_neighbors=self.k, algorithm="brute")
        self._neighbours.fit(directions(seen[FEATURES]).numpy())

    def _score(self, seen: Evidence) -> Tensor:
        distances, _ = self._neighbours.kneighbors(directions(seen[FEATURES]).cpu().numpy())
        return torch.from_numpy(distances[:, -1])


def directions(features: Tensor) -> Tensor:
    """Features (N, D) scaled to length 1, float64."""
    return F.normalize(features.double(), dim=1)
