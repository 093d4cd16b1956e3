"""Controls of the Purview detector: the same second stage on what the forward pass already knows.

If H does as well on these, it was H and the challenging images that did the work, not the gradients.
"""

from __future__ import annotations

from torch import Tensor

from tutorial_lib.detectors.evidence import FEATURES, LOGITS, ActivationNorms, Evidence, Quantity
from tutorial_lib.detectors.second_stage import SecondStageDetector


class LogitsControl(SecondStageDetector):
    """H on the K logits.

    Larger is stranger. Challenging data seen in ``fit``: yes. Arguments as in `SecondStageDetector`.

    >>> from tutorial_lib.models import build
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = LogitsControl(model).fit(flat, challenging=noise)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def needs(self) -> tuple[Quantity, ...]:
        return (LOGITS,)

    def _features(self, seen: Evidence) -> Tensor:
        return seen[LOGITS]


class PenultimateControl(SecondStageDetector):
    """H on the D penultimate features.

    Larger is stranger. Challenging data seen in ``fit``: yes. Arguments as in `SecondStageDetector`.

    >>> from tutorial_lib.models import build
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = PenultimateControl(model).fit(flat, challenging=noise)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def needs(self) -> tuple[Quantity, ...]:
        return (FEATURES,)

    def _features(self, seen: Evidence) -> Tensor:
        return seen[FEATURES]


class ActivationNormsControl(SecondStageDetector):
    """H on the log squared L2 norm of every parametric layer's output: the gradient features' twin in the forward pass.

    Larger is stranger. Challenging data seen in ``fit``: yes. Arguments as in `SecondStageDetector`.

    >>> from tutorial_lib.models import build
    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = ActivationNormsControl(model).fit(flat, challenging=noise)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def needs(self) -> tuple[Quantity, ...]:
        return (ActivationNorms(),)

    def _features(self, seen: Evidence) -> Tensor:
        return seen[ActivationNorms()]
