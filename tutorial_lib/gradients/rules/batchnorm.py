r"""Batch normalisation on running statistics (evaluation mode).

With fixed mean m and variance v it is an affine map a channel: y = γ x̂ + β, x̂ = (x − m) / √(v + ε), so

.. math:: \mathrm{d}\gamma_c = \sum_t g_{ct} \hat x_{ct}, \qquad \mathrm{d}\beta_c = \sum_t g_{ct} .

The library computes both sums and the input's gradient in one pass, but adds them up over the batch. Read the batch as *one*
image of N·C channels, with γ, m and v repeated N times, and it adds up over each sample alone.

On batch statistics (training mode) every sample's output depends on every other sample, and a sample's own gradient does not exist.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutorial_lib.gradients.rules._arithmetic import precise
from tutorial_lib.gradients.rules.layer_call import LayerCall, Unsupported
from tutorial_lib.gradients.rules.per_sample import Materialized, PerSampleGradients


class BatchNorm(LayerCall):
    """``torch.nn.functional.batch_norm`` with ``training=False``."""

    images = samples_first = True

    def __init__(
        self,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> None:
        if training or running_mean is None or running_var is None:
            raise ValueError(
                "batch normalisation on batch statistics mixes the samples of a batch, so a sample has no gradient of its own; "
                "call model.eval() (and give the layer track_running_stats=True)"
            )
        if weight is None or bias is None:
            raise Unsupported("batch normalisation with half of its parameters")
        super().__init__(input, weight=weight, bias=bias)
        self.mean, self.variance, self.eps = running_mean, running_var, eps

    def output(self, x: Tensor) -> Tensor:
        return torch.batch_norm(
            x, self.parameters["weight"], self.parameters["bias"], self.mean, self.variance, False, 0.0, self.eps, False
        )

    def backward(
        self, x: Tensor, g: Tensor, needs_input_gradient: bool
    ) -> tuple[Tensor | None, dict[str, PerSampleGradients]]:
        half, x, g = g.dtype, precise(x), precise(g)
        entries, channels = g.shape[:2]
        labels = entries // x.shape[0]
        gx, dscale, dshift = (self._one_label if labels == 1 else self._all_labels)(x, g, needs_input_gradient)
        return None if gx is None else gx.to(half), {
            "weight": Materialized(dscale.view(entries, channels), labels),
            "bias": Materialized(dshift.view(entries, channels), labels),
        }

    def _one_label(self, x: Tensor, g: Tensor, needs_input_gradient: bool) -> tuple[Tensor | None, Tensor, Tensor]:
        images, channels = x.shape[:2]
        one_image = (1, images * channels, -1)
        scale, mean, variance = (
            torch.cat([vector if vector.dtype == x.dtype else vector.to(x.dtype)] * images)
            for vector in (self.parameters["weight"], self.mean, self.variance)
        )
        unused = scale.new_empty(0)  # where batch statistics would be
        gx, dscale, dshift = torch.ops.aten.native_batch_norm_backward.default(
            g.reshape(one_image),
            x.reshape(one_image),
            scale,
            mean,
            variance,
            unused,
            unused,
            False,
            self.eps,
            (needs_input_gradient, True, True),
        )
        return (gx.view(g.shape) if needs_input_gradient else None), dscale, dshift

    def _all_labels(self, x: Tensor, g: Tensor, needs_input_gradient: bool) -> tuple[Tensor | None, Tensor, Tensor]:
        """Both sums of all labels as one product for a channel, (x̂, 1) Gᵀ, sample by sample."""
        samples, channels = x.shape[:2]
        x, by_sample = x.reshape(samples, channels, -1), g.reshape(samples, len(g) // samples, channels, -1)
        weight, mean, variance = (
            vector.to(x.dtype) for vector in (self.parameters["weight"], self.mean, self.variance)
        )
        inverse = (variance + self.eps).rsqrt().unsqueeze(1)
        slope = weight.unsqueeze(1) * inverse
        normalised_and_one = x.new_ones(samples, channels, 2, x.shape[2])
        torch.mul(x - mean.unsqueeze(1), inverse, out=normalised_and_one[:, :, 0])
        sums = g.new_empty(samples, channels, 2, by_sample.shape[1])
        gx = torch.empty_like(by_sample) if needs_input_gradient else None
        for n in range(samples):
            torch.bmm(normalised_and_one[n], by_sample[n].permute(1, 2, 0), out=sums[n])
            if gx is not None:
                torch.mul(by_sample[n], slope, out=gx[n])
        dscale, dshift = sums.permute(2, 0, 3, 1).flatten(1, 2)
        return (None if gx is None else gx.view(g.shape)), dscale, dshift
