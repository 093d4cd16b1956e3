"""Mahalanobis distance in feature space.

Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS
2018, eqs. 1 to 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector, checked, needed
from tutorial_lib.detectors.evidence import FEATURES, IMAGES, Evidence, Quantity, step_down
from tutorial_lib.detectors.gaussian import TiedGaussians
from tutorial_lib.models.predict import penultimate


class Mahalanobis(Detector):
    r"""Distance to the nearest class, :math:`\min_c \tfrac12 (h - \mu_c)^\top \Sigma^{-1} (h - \mu_c)`, of the
    penultimate feature h.

    Class means and the common covariance are those of the images given to ``fit``. Larger is stranger: far from every
    class, in units of the spread inside classes. With ``epsilon`` = 0 this is the tables' "Mahalanobis (V)". With a
    positive one the input first takes a step towards the nearest class, :math:`x - \varepsilon \, \mathrm{sign} \,
    \nabla_x \tfrac12 d^2`, which known images gain more by: "Mahalanobis (P)".

    Args:
        model: classifier with ``features(images)`` -> (N, D), such as `tutorial_lib.models.Classifier`.
        epsilon: size of the step, in [0, 1] pixels.
        shrink: estimate the covariance by Ledoit and Wolf's shrinkage. With fewer images than features it is the better
            one; with many the two are the same.

    ``fit(known)`` needs labels and takes the training images, as in the paper. Challenging data seen in ``fit``: none.
    The paper chooses epsilon with challenging images; wrap several in `Tuned` to do so.

    >>> import torch
    >>> model = nn.Module()
    >>> model.features = nn.Flatten()
    >>> known = torch.tensor([[0.0, 0.0], [0.2, 0.0], [0.0, 0.2], [0.2, 0.2]]).view(4, 1, 1, 2)  # 0.1 ± 0.1
    >>> Mahalanobis(model).fit((known, torch.zeros(4, dtype=int))).predict(torch.full((1, 1, 1, 2), 0.5)).round(3)
    array([16.])
    """

    requires_fit = True
    from_training_images = True

    def __init__(self, model: nn.Module | None = None, epsilon: float = 0.0, shrink: bool = False) -> None:
        super().__init__(model)
        self.epsilon = checked("epsilon", epsilon, 0)
        self.shrink = shrink

    def needs(self) -> tuple[Quantity, ...]:
        return (IMAGES,) if self.epsilon else (FEATURES,)

    def needs_to_fit(self) -> tuple[Quantity, ...]:
        return (FEATURES,)

    def _fit(self, seen: Evidence) -> None:
        self._gaussians = TiedGaussians.fit(seen[FEATURES], needed(seen.labels, self), shrink=self.shrink)

    def _score(self, seen: Evidence) -> Tensor:
        if not self.epsilon:
            return self._half_distance(seen[FEATURES])

        def of_images(images: Tensor) -> Tensor:
            return self._half_distance(penultimate(self.model, images))

        return of_images(step_down(of_images, seen[IMAGES], self.epsilon))

    def _half_distance(self, features: Tensor) -> Tensor:
        return 0.5 * self._gaussians.squared_distances(features).amin(dim=1)
