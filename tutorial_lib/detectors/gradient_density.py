"""How unusual an image's gradient is, without a sign and without an outlier.

The features are those of Lee & AlRegib (ICIP 2021), see `log_squared_norms`; putting a density on them is this course's
own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.gaussian import TiedGaussians
from tutorial_lib.detectors.gradient_features import log_squared_norms
from tutorial_lib.gradients.losses import Loss
from tutorial_lib.gradients.targets import Label


class GradientDensity(Detector):
    r"""Squared Mahalanobis distance of an image's log squared gradient norms to those of known images that got the same
    answer.

    .. math:: (g - \mu_{\hat y})^\top \Sigma^{-1} (g - \mu_{\hat y}), \qquad g_p = \log \lVert \partial \ell / \partial
    \theta_p \rVert^2

    with one mean for each *predicted* class :math:`\hat y` and one covariance for all, shrunk after Ledoit and Wolf.
    Larger is stranger,
    whichever way the norms go: too large, too small, or in proportions between layers that known images never show.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).
        label, loss: see `tutorial_lib.gradients.squared_norms`. The default asks for the uniform distribution, as
            GradNorm does.
        by_class: False for one mean for all classes.

    ``fit(known)`` wants images that the network was not trained on: on its training images the gradients are small as
    nowhere else. Labels are not used. Challenging data seen in ``fit``: none.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = GradientDensity(model).fit(flat)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    requires_fit = True

    def __init__(self, model: nn.Module, label: Label = "uniform", loss: Loss = "ce", by_class: bool = True) -> None:
        super().__init__(model)
        self.label = label
        self.loss = loss
        self.by_class = by_class

    def _fit(self, images: Tensor, labels: Tensor | None) -> None:
        logits = self._in_batches(self.model, images)
        norms = self._in_batches(self._log_norms, images)
        self._gaussians = TiedGaussians.fit(norms, self._group(logits), logits.shape[1], shrink=True)

    def _log_norms(self, images: Tensor) -> Tensor:
        return log_squared_norms(self.model, images, self.label, self.loss)

    def _group(self, logits: Tensor) -> Tensor:
        answers = logits.argmax(dim=1)
        return answers if self.by_class else torch.zeros_like(answers)

    def _score(self, images: Tensor) -> Tensor:
        distances = self._gaussians.squared_distances(self._log_norms(images))
        return distances.gather(1, self._group(self.model(images))[:, None])[:, 0]
