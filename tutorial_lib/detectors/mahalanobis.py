"""Mahalanobis distance in feature space.

Lee et al., "A simple unified framework for detecting out-of-distribution samples and adversarial attacks", NeurIPS
2018, eqs. 1 to 3.
"""

from __future__ import annotations

from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector, penultimate
from tutorial_lib.detectors.gaussian import TiedGaussians
from tutorial_lib.detectors.odin import step_down


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

    def __init__(self, model: nn.Module, epsilon: float = 0.0) -> None:
        super().__init__(model)
        if epsilon < 0:
            raise ValueError(f"epsilon must not be negative, got {epsilon}")
        self.epsilon = epsilon

    def _fit(self, images: Tensor, labels: Tensor | None) -> None:
        features = self._in_batches(lambda batch: penultimate(self.model, batch), images)
        self._gaussians = TiedGaussians.fit(features, needed(labels, self))

    def _score(self, images: Tensor) -> Tensor:
        if self.epsilon:
            images = step_down(self._half_distance, images, self.epsilon)
        return self._half_distance(images)

    def _half_distance(self, images: Tensor) -> Tensor:
        return 0.5 * self._gaussians.squared_distances(penultimate(self.model, images)).amin(dim=1)


def needed(labels: Tensor | None, detector: Detector) -> Tensor:
    """The labels, or an error that asks for them."""
    if labels is None:
        raise ValueError(f"{type(detector).__name__} learns one mean a class and needs labels: fit((images, labels))")
    return labels
