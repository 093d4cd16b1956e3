"""ODIN: temperature and a small step of the input.

Liang et al., "Enhancing the reliability of out-of-distribution image detection in neural networks", ICLR 2018, eqs. 1
and 2.
"""

from __future__ import annotations

from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector, checked
from tutorial_lib.detectors.evidence import Evidence, Quantity, SteppedLogits


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

    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = nn.init.eye_(model[1].weight)
    >>> image = torch.tensor([[[[0.2, 0.8]]]])
    >>> ODIN(model, temperature=1, epsilon=0.1).predict(image).round(3)  # as if it had been [0.1, 0.9]
    array([-0.69])
    """

    def __init__(self, model: nn.Module | None = None, temperature: float = 1000.0, epsilon: float = 0.0014) -> None:
        super().__init__(model)
        self.temperature = checked("temperature", temperature, 0, above=True)
        self.epsilon = checked("epsilon", epsilon, 0)

    def needs(self) -> tuple[Quantity, ...]:
        return (SteppedLogits(self.temperature, self.epsilon),)

    def _score(self, seen: Evidence) -> Tensor:
        (logits,) = (seen[q] for q in self.needs())
        # near-equal logits divided by 1000 need float64 to differ at all
        return -(logits.double() / self.temperature).softmax(dim=1).amax(dim=1)
