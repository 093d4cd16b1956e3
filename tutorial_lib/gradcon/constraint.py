r"""The gradient constraint of GradCON.

An autoencoder is trained to reconstruct, and at the same time to ask for the same change of its decoder with every
batch: the gradient of the reconstruction error should point where the gradients before it have pointed. With
:math:`\mathcal L` the reconstruction error and :math:`\phi_i` the weights of the decoder's i-th layer, the
loss of step k is

.. math::
    J^k = \mathcal L^k + \alpha \mathcal L_{grad}^k, \qquad
    \mathcal L_{grad}^k = -\frac{1}{I} \sum_{i=1}^{I} \cos \left(
        \frac{\partial J}{\partial \phi_i}^{k-1}_{avg}, \frac{\partial \mathcal L^k}{\partial \phi_i} \right),
    \qquad \frac{\partial J}{\partial \phi_i}^{k-1}_{avg} =
    \frac{1}{k-1} \sum_{t=1}^{k-1} \frac{\partial J^t}{\partial \phi_i}.

A stranger's gradient is then out of line with the average: the alignment is a score (`tutorial_lib.detectors.GradCON`).

Kwon et al., "Backpropagated gradient representations for anomaly detection", ECCV 2020, section 3. As in the authors'
code, biases and the encoder are left out, the average runs over all steps of the training, and the first step has no
average and so no constraint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["ALPHA", "MODELS", "GradientConstraint", "decoder_weights"]

#: Weight of the constraint in the published experiments.
ALPHA = 0.03

#: The published models by name: kind of autoencoder, and weight of the constraint. With weight 0 nothing is
#: constrained, but the average gradient is kept, so that its score can be asked of an ordinary autoencoder, too.
MODELS: Mapping[str, tuple[str, float]] = MappingProxyType(
    {"cae": ("cae", 0.0), "cae_grad": ("cae", ALPHA), "vae": ("vae", 0.0), "vae_grad": ("vae", ALPHA)}
)


def decoder_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights that are constrained, by their name in the model: of every convolution in ``model.decoder``.

    Raises:
        TypeError: the model has no decoder, or one without convolutions.
    """
    decoder = getattr(model, "decoder", None)
    if not isinstance(decoder, nn.Module):
        raise TypeError(f"{type(model).__name__} has no decoder; see tutorial_lib.models.autoencoder.Autoencoder")
    convolutions = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    weights = {
        f"decoder.{name}.weight": part.weight
        for name, part in decoder.named_modules()
        if isinstance(part, convolutions)
    }
    if not weights:
        raise TypeError(f"the decoder of {type(model).__name__} has no convolution whose gradient could be constrained")
    return weights


class GradientConstraint:
    """The running average of the decoder's gradients, and the loss that keeps new ones in line with it.

    Args:
        model: an autoencoder, see `decoder_weights`.
        alpha: weight of the constraint in the training loss, at least 0. With 0 nothing is constrained, but the average
            is kept all the same, so that an ordinary autoencoder has gradients to compare with, too.

    Attributes:
        mean: average gradient of the total loss, a tensor for each constrained weight; zero before the first update.
        steps: how many gradients it averages.

    >>> import torch
    >>> from tutorial_lib.models.autoencoder import build_autoencoder
    >>> constraint = GradientConstraint(build_autoencoder("cae", (1, 8, 8), width=0.1))
    >>> ones = [torch.ones_like(mean) for mean in constraint.mean.values()]
    >>> bool(constraint.loss(ones) == 0)  # nothing to compare with yet
    True
    >>> constraint.update(ones)
    >>> round(float(constraint.loss(ones)), 6)
    -1.0
    """

    def __init__(self, model: nn.Module, alpha: float = ALPHA) -> None:
        if not alpha >= 0:
            raise ValueError(f"alpha must not be negative, got {alpha}")
        self.alpha = float(alpha)
        self.mean: dict[str, Tensor] = {n: torch.zeros_like(w.detach()) for n, w in decoder_weights(model).items()}
        self.steps = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the constrained weights, in the order in which the decoder applies them."""
        return tuple(self.mean)

    def cosines(self, gradients: Sequence[Tensor]) -> Tensor:
        """Cosine of each gradient with its average, (I,) in [-1, 1]; 0 where one of the two is zero. Differentiable."""
        return cosines(list(self.mean.values()), gradients)

    def loss(self, gradients: Sequence[Tensor]) -> Tensor:
        """Gradient loss in [-1, 1]: minus the mean of `cosines`; 0 before the first update."""
        return -self.cosines(gradients).mean()

    @torch.no_grad()
    def loss_and_directions(self, gradients: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        r"""`loss`, and its own gradient with respect to each gradient, in closed form.

        With lengths 1 (hats), :math:`\partial \mathcal L_{grad} / \partial g_i = -\frac{1}{I |g_i|} (\hat r_i - \cos_i \hat g_i)`. To
        start a backward pass from the gradients with these directions is to differentiate the loss, without a graph of the
        cosines.
        """
        cosines_, directions = [], []
        for mean, gradient in zip(self.mean.values(), gradients, strict=True):
            length = gradient.norm()
            scale = length * mean.norm()
            known = scale > 0  # a gradient of zero has no direction, and pulls nowhere
            cosine = torch.where(known, (mean * gradient).sum() / scale, 0.0)
            weight = torch.where(known, -1 / (len(self.mean) * scale), 0.0)
            shrink = torch.where(known, cosine * scale / length.square(), 0.0)
            directions.append(weight * (mean - shrink * gradient))
            cosines_.append(cosine)
        return -torch.stack(cosines_).mean(), directions

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor | None]) -> None:
        """Take one step's gradients of the *total* loss into the average."""
        if any(gradient is None for gradient in gradients):
            raise ValueError("a constrained weight has no gradient; call backward on the total loss first")
        self.steps += 1
        torch._foreach_lerp_(list(self.mean.values()), list(gradients), 1 / self.steps)  # type: ignore[arg-type]

    def reference(self) -> dict[str, Tensor]:
        """A copy of the average, as `tutorial_lib.gradients.alignment` takes it.

        Raises:
            ValueError: there is nothing in it yet.
        """
        if self.steps == 0:
            raise ValueError("the constraint has seen no gradient yet; train with it first")
        return {name: mean.clone() for name, mean in self.mean.items()}

    def state_dict(self) -> dict[str, Any]:
        """Average, number of steps and alpha, as `load_state_dict` takes them."""
        return {"mean": {n: m.clone() for n, m in self.mean.items()}, "steps": self.steps, "alpha": self.alpha}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of another constraint on a model of the same shape.

        Raises:
            ValueError: it belongs to a model of another shape.
        """
        shapes = {name: tuple(mean.shape) for name, mean in state["mean"].items()}
        if shapes != {name: tuple(mean.shape) for name, mean in self.mean.items()}:
            raise ValueError(f"this state constrains weights of other shapes: {shapes}")
        for name, mean in state["mean"].items():
            self.mean[name].copy_(mean)
        self.steps, self.alpha = int(state["steps"]), float(state["alpha"])

    def to(self, device: torch.device | str) -> GradientConstraint:
        """Move the average to a device; returns the constraint itself."""
        self.mean = {name: mean.to(device) for name, mean in self.mean.items()}
        return self


def cosines(directions: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """Cosine of each pair, (I,); 0 where one of the two is zero."""
    if len(directions) != len(gradients):
        raise ValueError(f"there are {len(directions)} constrained weights, but {len(gradients)} gradients")
    values = []
    for direction, gradient in zip(directions, gradients, strict=True):
        inner, squared, length = (direction * gradient).sum(), gradient.square().sum(), direction.norm()
        defined = (squared > 0) & (length > 0)
        # the root of zero has an infinite gradient, which a later product with zero would turn into NaN
        lengths = torch.where(defined, squared, 1.0).sqrt() * torch.where(defined, length, 1.0)
        values.append(torch.where(defined, inner / lengths, 0.0))
    return torch.stack(values)
