"""The Purview detector: a trained second stage on gradient features.

Lee et al., "Probing the purview of neural networks via gradient analysis", IEEE Access 2023; the same features in Lee &
AlRegib, "Open-set recognition with gradient-based representations", ICIP 2021.
"""

from __future__ import annotations

from sklearn.base import BaseEstimator
from torch import Tensor, nn

from tutorial_lib.detectors.evidence import Evidence, GradientNorms, Quantity
from tutorial_lib.detectors.second_stage import SecondStageDetector
from tutorial_lib.gradients.losses import Loss
from tutorial_lib.gradients.targets import Label

PARTS = ("all", "first", "second")


class Purview(SecondStageDetector):
    r"""How sure a network H is that an image is a challenging one, from the image's gradient norms alone.

    The features are :math:`\log \lVert \partial \ell / \partial \theta_p \rVert^2`, one for every parameter tensor p,
    where :math:`\ell` is the binary cross-entropy of the logits with a label that no training image had: all ones.
    Larger is stranger.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).
        second_stage: H, a scikit-learn classifier; by default one hidden layer of 64, see `two_layers`.
        label, loss: see `tutorial_lib.gradients.squared_norms`.
        seed: of the default H.
        part: which parameter tensors H sees, in the order of the network: ``"all"``, the ``"first"`` or the
            ``"second"`` half of them (with an odd number, the middle one is in the second).

    ``fit(known, challenging)``. Challenging data seen in ``fit``: yes. What it scores on images of other kinds is
    another question, which is why `challenging_data_for` a test set belongs beside every number.

    >>> import torch
    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = Purview(model).fit(known=flat, challenging=noise)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        second_stage: BaseEstimator | None = None,
        label: Label = "ones",
        loss: Loss = "bce",
        seed: int = 0,
        part: str = "all",
    ) -> None:
        super().__init__(model, second_stage, seed)
        if part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(map(repr, PARTS))}, got {part!r}")
        self.part = part
        self.label = label
        self.loss = loss

    def needs(self) -> tuple[Quantity, ...]:
        return (GradientNorms(self.label, self.loss),)

    def _features(self, seen: Evidence) -> Tensor:
        (norms,) = (seen[q] for q in self.needs())
        middle = norms.shape[1] // 2
        if self.part == "all":
            return norms
        return norms[:, :middle] if self.part == "first" else norms[:, middle:]
