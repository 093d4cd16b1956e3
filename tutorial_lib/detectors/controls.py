"""Controls of the Purview detector: the same second stage on what the forward pass already knows.

If H does as well on these, it was H and the challenging images that did the work, not the gradients.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutorial_lib.detectors.base import penultimate
from tutorial_lib.detectors.layers import recorded
from tutorial_lib.detectors.second_stage import SecondStageDetector


class LogitsControl(SecondStageDetector):
    """H on the K logits.

    Larger is stranger. Challenging data seen in ``fit``: yes. Arguments as in `SecondStageDetector`.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = LogitsControl(model).fit(flat, challenging=noise)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def _features(self, images: Tensor) -> Tensor:
        return self.model(images)


class PenultimateControl(SecondStageDetector):
    """H on the D penultimate features.

    Larger is stranger. Challenging data seen in ``fit``: yes. Arguments as in `SecondStageDetector`.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = PenultimateControl(model).fit(flat, challenging=noise)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def _features(self, images: Tensor) -> Tensor:
        return penultimate(self.model, images)


class ActivationNormsControl(SecondStageDetector):
    """H on the log squared L2 norm of every parametric layer's output: the gradient features' twin in the forward pass.

    Larger is stranger. Challenging data seen in ``fit``: yes. Arguments as in `SecondStageDetector`.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = ActivationNormsControl(model).fit(flat, challenging=noise)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def _features(self, images: Tensor) -> Tensor:
        names = [
            name for name, module in self.model.named_modules() if any(True for _ in module.parameters(recurse=False))
        ]
        with recorded(self.model, names, squared_norm) as norms:
            self.model(images)
        return torch.stack([norms[name] for name in names if name in norms], dim=1).clamp(min=1e-30).log()


def squared_norm(output: Tensor) -> Tensor:
    """Squared L2 norm of each sample's output, float64 (N,)."""
    return output.double().flatten(1).square().sum(dim=1)
