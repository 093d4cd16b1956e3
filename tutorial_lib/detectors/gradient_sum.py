"""The sum of all squared gradient norms, with its sign in plain sight.

Lee & AlRegib, "Gradients as a measure of uncertainty in neural networks", ICIP 2020, sum the norms of a confounding
label's gradient.
"""

from __future__ import annotations

from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.evidence import Evidence, GradientNorms, Quantity
from tutorial_lib.gradients.losses import Loss
from tutorial_lib.gradients.targets import Label

DIRECTIONS = ("large", "small")


class GradientSum(Detector):
    r"""Log of the squared gradient norms' sum, :math:`\pm \log \sum_p \lVert \partial \ell / \partial \theta_p
    \rVert^2`.

    Larger is stranger under the assumption that ``direction`` names, and no theory says which one holds: it depends on
    loss, label, network and data. That is why both are here, to be reported together. The larger of the two AUROCs,
    picked after the fact, is not a detector.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).
        direction: ``"large"``: large gradients are strange (the published reading); ``"small"``: small ones are.
        label, loss: see `tutorial_lib.gradients.squared_norms`; all ones and binary cross-entropy as published.

    Challenging data seen in ``fit``: none (nothing is fitted).

    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> bool((GradientSum(model, "large").predict(images) == -GradientSum(model, "small").predict(images)).all())
    True
    """

    tags = frozenset({"no sign"})

    def __init__(
        self,
        model: nn.Module | None = None,
        direction: str = "large",
        label: Label = "ones",
        loss: Loss = "bce",
    ) -> None:
        super().__init__(model)
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be 'large' or 'small', got {direction!r}")
        self.direction = direction
        self.label = label
        self.loss = loss

    def needs(self) -> tuple[Quantity, ...]:
        return (GradientNorms(self.label, self.loss),)

    def _score(self, seen: Evidence) -> Tensor:
        (log_norms,) = (seen[q] for q in self.needs())
        log_sum = log_norms.logsumexp(dim=1)
        return log_sum if self.direction == "large" else -log_sum
