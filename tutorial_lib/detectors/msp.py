"""Maximum softmax probability.

Hendrycks & Gimpel, "A baseline for detecting misclassified and out-of-distribution examples in neural networks", ICLR
2017.
"""

from __future__ import annotations

from torch import Tensor

from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.evidence import LOGITS, Evidence, Quantity


class MSP(Detector):
    r"""Negative confidence, :math:`-\max_c p_c`, with p the softmax of the logits.

    Larger is stranger: -1 is certain, -1/K is undecided between K classes. The softmax is taken in float64, where two
    confident answers that float32 rounds to 1 still differ.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).

    Challenging data seen in ``fit``: none (nothing is fitted).

    >>> import torch
    >>> MSP(torch.nn.Flatten()).predict(torch.tensor([[[[0.0, 0.0]]], [[[0.0, 1.0]]]])).round(3)
    array([-0.5  , -0.731])
    """

    def needs(self) -> tuple[Quantity, ...]:
        return (LOGITS,)

    def _score(self, seen: Evidence) -> Tensor:
        return -seen[LOGITS].double().softmax(dim=1).amax(dim=1)
