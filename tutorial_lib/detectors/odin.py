"""ODIN: temperature and a small step of the input.

Liang et al., "Enhancing the reliability of out-of-distribution image detection in neural networks", ICLR 2018, eqs. 1
and 2.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector


class ODIN(Detector):
    r"""Negative confidence at temperature T, after a step of the input towards confidence.

    The step is :math:`\tilde x = x - \varepsilon \, \mathrm{sign} \, \nabla_x \mathrm{CE}(z(x)/T, \hat y)` with the
    predicted class :math:`\hat y`; the score is :math:`-\max_c \mathrm{softmax}(z(\tilde x)/T)_c`. Larger is stranger:
    a known image gains more confidence by the step than an unknown one. The published code divides the step by each
    channel's standard deviation because its inputs are normalised; here the model normalises, and the step is in pixels
    as it is.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).
        temperature: T > 0.
        epsilon: size of the step, in [0, 1] pixels; 0 leaves the input alone.

    Challenging data seen in ``fit``: none at fixed settings. The papers choose T and epsilon for each set of unknown
    images; wrap a list of settings in `Tuned` to do so, which then says that it has seen them.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = nn.init.eye_(model[1].weight)
    >>> image = torch.tensor([[[[0.2, 0.8]]]])
    >>> ODIN(model, temperature=1, epsilon=0.1).predict(image).round(3)  # as if it had been [0.1, 0.9]
    array([-0.69])
    """

    def __init__(self, model: nn.Module, temperature: float = 1000.0, epsilon: float = 0.0014) -> None:
        super().__init__(model)
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if epsilon < 0:
            raise ValueError(f"epsilon must not be negative, got {epsilon}")
        self.temperature = temperature
        self.epsilon = epsilon

    def _score(self, images: Tensor) -> Tensor:
        if self.epsilon:
            images = step_down(self._cross_entropy, images, self.epsilon)
        # near-equal logits divided by 1000 need float64 to differ at all
        return -(self.model(images).double() / self.temperature).softmax(dim=1).amax(dim=1)

    def _cross_entropy(self, images: Tensor) -> Tensor:
        logits = self.model(images) / self.temperature
        return F.cross_entropy(logits, logits.argmax(dim=1), reduction="none")


def step_down(loss: Callable[[Tensor], Tensor], images: Tensor, epsilon: float) -> Tensor:
    """Images a step of ``epsilon`` against the sign of their loss's gradient; ``loss`` maps images to one number each.

    The model's parameters get no gradient. Pixels may leave [0, 1] by ``epsilon``, as in the papers.
    """
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(images).sum(), images)
    return images.detach() - epsilon * gradient.sign()
