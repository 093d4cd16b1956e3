r"""The direction of the last layer's gradient, against those of the classes.

After "GradPCA: leveraging NTK alignment for reliable out-of-distribution detection", arXiv 2505.16017: gradients of images of
one class point the same way, so a few directions, the principal components of the classes' mean gradients, hold those of
known images; of a stranger's, less lies in them. The paper takes all layers' gradients. Here it is the last layer's, for which
nothing has to be propagated back or even formed.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.evidence import FEATURES, LOGITS, Evidence, Quantity

__all__ = ["GradPCA"]

QUESTIONS = ("loss", "output")

FLAT = 1e-8
"""Principal components whose variance is a smaller share of the largest one's than this are rounding."""


class GradPCA(Detector):
    r"""Share of an image's gradient, squared and from the mean, that lies outside the classes' principal components; 0 to 1.

    The last layer's gradient is :math:`g = a h^\top` with the penultimate feature h. Two gradients are compared without being
    formed, :math:`\langle g, g' \rangle = (a \cdot a') (h \cdot h')`, which is all that PCA and projection need. Larger is
    stranger.

    Args:
        model: classifier with ``features(images)`` -> (N, D), such as `tutorial_lib.models.Classifier`.
        question: ``"loss"``: of the cross-entropy with the predicted class :math:`\hat y`, :math:`a = p - e_{\hat y}`;
            ``"output"``: of the predicted class's logit, :math:`a = e_{\hat y}`. With the second a is the same for all
            images of a class, and what is left is the direction of the feature: the control that the forward pass has.

    ``fit(known)`` wants images that the network was not trained on: on those, p hardly differs from :math:`e_{\hat y}`, and
    what is left points anywhere. Classes are the predicted ones; labels are not used. Challenging data seen in ``fit``: none.

    >>> known = torch.tensor([[3.0, 0.1], [2.9, -0.1], [0.1, 3.0], [-0.1, 2.9]])
    >>> detector = GradPCA(question="output").fit_from({"features": known, "logits": known})
    >>> strange = torch.tensor([[3.0, 2.9]])
    >>> bool(detector.predict_from(features=strange, logits=strange) > detector.predict_from(features=known, logits=known).max())
    True
    """

    requires_fit = True
    tags = frozenset({"weak"})

    def __init__(self, model: nn.Module | None = None, question: str = "loss") -> None:
        super().__init__(model)
        if question not in QUESTIONS:
            raise ValueError(f"question must be 'loss' or 'output', got {question!r}")
        self.question = question

    def needs(self) -> tuple[Quantity, ...]:
        return FEATURES, LOGITS

    def _fit(self, seen: Evidence) -> None:
        self._a, self._h = self._factors(seen)
        answers = seen[LOGITS].argmax(dim=1)
        classes = answers.unique()
        self._average = torch.stack([(answers == c).double() / (answers == c).sum() for c in classes], dim=1)  # (M, C)
        rows = [self._to_class_means(*part) for part in zip(self._a.split(512), self._h.split(512), strict=True)]
        gram = self._average.T @ torch.cat(rows)  # (C, C), inner products of the class means
        # the middle of the class means; with a single answer for all images it is 0, and its mean the one direction
        self._weight = 1.0 / len(classes) if len(classes) > 1 else 0.0
        self._mean_to_means = self._weight * gram.sum(dim=0)
        self._mean_to_mean = self._weight * self._mean_to_means.sum()
        centred = gram - self._mean_to_means - self._mean_to_means[:, None] + self._mean_to_mean
        variances, vectors = torch.linalg.eigh(centred)
        kept = variances > FLAT * variances[-1].clamp(min=1e-300)
        self._components = vectors[:, kept] / variances[kept].sqrt()

    def _score(self, seen: Evidence) -> Tensor:
        a, h = self._factors(seen)
        to_means = self._to_class_means(a.cpu(), h.cpu())  # (N, C)
        to_mean = self._weight * to_means.sum(dim=1, keepdim=True)
        centred = to_means - to_mean - self._mean_to_means + self._mean_to_mean
        length = (a.square().sum(1) * h.square().sum(1)).cpu() - 2 * to_mean[:, 0] + self._mean_to_mean
        inside = (centred @ self._components).square().sum(dim=1)
        return 1 - inside / length.clamp(min=1e-300)

    def _factors(self, seen: Evidence) -> tuple[Tensor, Tensor]:
        """a (N, K) and h (N, D), float64."""
        p = seen[LOGITS].double().softmax(dim=1)
        answer = F.one_hot(p.argmax(dim=1), p.shape[1]).double()
        return (p - answer if self.question == "loss" else answer), seen[FEATURES].double()

    def _to_class_means(self, a: Tensor, h: Tensor) -> Tensor:
        """Inner products (N, C) of gradients with the classes' mean gradients."""
        return ((a @ self._a.T) * (h @ self._h.T)) @ self._average
