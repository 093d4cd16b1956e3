"""GradNorm: the last layer's gradient of the distance to "undecided".

Huang et al., "On the importance of gradients for detecting distributional shifts in the wild", NeurIPS 2021, eqs. 3 and
7.
"""

from __future__ import annotations

from torch import Tensor

from tutorial_lib.detectors.base import Detector, last_layer, penultimate


class GradNorm(Detector):
    r"""Negative L1 norm of the gradient of :math:`\mathrm{KL}(u \| p)` with respect to the last layer's weights.

    u is uniform over the K classes, p the softmax of the logits :math:`z = W h + b`. The gradient is :math:`(p - u)
    h^\top`, of rank one, so its norm is the product :math:`\lVert p - u \rVert_1 \lVert h \rVert_1` and no backward
    pass is needed: that is what this class computes. Larger is stranger: the norm falls to zero where the answer is
    undecided or the features are silent. Hence the minus sign, which is the opposite of "large gradients are strange".

    Args:
        model: classifier with ``features(images)`` -> (N, D) and a last linear layer ``head``, such as
            `tutorial_lib.models.Classifier`.

    Challenging data seen in ``fit``: none (nothing is fitted).

    >>> import torch
    >>> from tutorial_lib.models import Classifier
    >>> model = Classifier(torch.nn.Identity(), torch.nn.Flatten(), feature_width=2, num_classes=2)
    >>> _ = torch.nn.init.zeros_(model.head.weight), torch.nn.init.constant_(model.head.bias, 3)
    >>> abs(GradNorm(model).predict(torch.rand(2, 1, 1, 2)))  # equal logits: p = u
    array([0., 0.])
    """

    def _score(self, images: Tensor) -> Tensor:
        features = penultimate(self.model, images)
        p = last_layer(self.model)(features).double().softmax(dim=1)
        return -(p - 1 / p.shape[1]).abs().sum(dim=1) * features.double().abs().sum(dim=1)
