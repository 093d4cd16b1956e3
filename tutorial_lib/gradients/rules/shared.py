r"""What is the same for every sample, once for each of them: y_n = c.

Position embeddings, class tokens, layer scales, learned queries: a parameter, or something computed from parameters, meets the samples by
broadcasting. Autograd would add its gradient up over them. Handed out N times, it gets one for each, :math:`\mathrm{d}c_n = g_n`.
"""

from __future__ import annotations

from torch import Tensor

from tutorial_lib.gradients.rules._arithmetic import precise
from tutorial_lib.gradients.rules.layer_call import LayerCall
from tutorial_lib.gradients.rules.per_sample import Materialized, PerSampleGradients


class Shared(LayerCall):
    """A tensor c, expanded to (N, *c.shape)."""

    keeps_input = False

    def __init__(self, samples: Tensor, tensor: Tensor) -> None:
        super().__init__(samples, tensor=tensor)

    def output(self, x: Tensor) -> Tensor:
        tensor = self.parameters["tensor"]
        return tensor.expand(len(x), *tensor.shape)

    def backward(
        self, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, PerSampleGradients]]:
        return None, {"tensor": Materialized(precise(g), labels=len(g) // len(x))}
