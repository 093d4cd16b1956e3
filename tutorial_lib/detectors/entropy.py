"""Entropy of the softmax.

Its use as a detector is common knowledge; Lakshminarayanan et al., NeurIPS 2017, use it for ensembles.
"""

from __future__ import annotations

from torch import Tensor

from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.evidence import LOGITS, Evidence, Quantity


class Entropy(Detector):
    r"""Entropy of the softmax p, :math:`-\sum_c p_c \log p_c`, in nats, 0 to log K.

    Larger is stranger: 0 is certain, log K is undecided between all K classes.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).

    Challenging data seen in ``fit``: none (nothing is fitted).

    >>> import torch
    >>> Entropy(torch.nn.Flatten()).predict(torch.tensor([[[[0.0, 0.0]]], [[[0.0, 1.0]]]])).round(3)
    array([0.693, 0.582])
    """

    def needs(self) -> tuple[Quantity, ...]:
        return (LOGITS,)

    def _score(self, seen: Evidence) -> Tensor:
        log_p = seen[LOGITS].double().log_softmax(dim=1)
        return -(log_p.exp() * log_p).sum(dim=1)
