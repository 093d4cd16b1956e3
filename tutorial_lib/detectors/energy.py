"""Energy score.

Liu et al., "Energy-based out-of-distribution detection", NeurIPS 2020, eq. 4.
"""

from __future__ import annotations

from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector, checked
from tutorial_lib.detectors.evidence import LOGITS, Evidence, Quantity


class Energy(Detector):
    r"""Free energy of the logits, :math:`-T \log \sum_c e^{z_c / T}`.

    Larger is stranger: a familiar input has one large logit, hence low energy.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).
        temperature: T > 0; the paper uses 1.

    Challenging data seen in ``fit``: none (nothing is fitted).

    >>> import torch
    >>> Energy(torch.nn.Flatten()).predict(torch.zeros(2, 1, 1, 2)).round(3)
    array([-0.693, -0.693])
    """

    def __init__(self, model: nn.Module | None = None, temperature: float = 1.0) -> None:
        super().__init__(model)
        self.temperature = checked("temperature", temperature, 0, above=True)

    def needs(self) -> tuple[Quantity, ...]:
        return (LOGITS,)

    def _score(self, seen: Evidence) -> Tensor:
        return -self.temperature * (seen[LOGITS].double() / self.temperature).logsumexp(dim=1)
