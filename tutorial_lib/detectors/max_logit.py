"""Largest logit.

Hendrycks et al., "Scaling out-of-distribution detection for real-world settings", ICML 2022.
"""

from __future__ import annotations

from torch import Tensor

from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.evidence import LOGITS, Evidence, Quantity


class MaxLogit(Detector):
    r"""Negative largest logit, :math:`-\max_c z_c`.

    Larger is stranger: a familiar input has one large logit. Softmax would divide the size of the logits away; here it
    counts.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).

    Challenging data seen in ``fit``: none (nothing is fitted).

    >>> import torch
    >>> MaxLogit(torch.nn.Flatten()).predict(torch.tensor([[[[0.0, 0.0]]], [[[0.0, 1.0]]]]))
    array([-0., -1.])
    """

    def needs(self) -> tuple[Quantity, ...]:
        return (LOGITS,)

    def _score(self, seen: Evidence) -> Tensor:
        return -seen[LOGITS].amax(dim=1)
