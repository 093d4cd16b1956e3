"""What an autoencoder is trained on, with or without the gradient constraint: the parts of its loss, and one step.

Kwon et al., "Backpropagated gradient representations for anomaly detection", ECCV 2020, section 3.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from tutorial_lib.data.images import as_float
from tutorial_lib.gradcon.constraint import GradientConstraint, decoder_weights
from tutorial_lib.models.autoencoder import Autoencoder

__all__ = ["Losses", "losses_of", "reconstruction_errors", "training_step"]


class Losses(NamedTuple):
    """The parts of a batch's loss, each a scalar tensor: mean squared error, mean latent loss (nats), gradient loss."""

    reconstruction: Tensor
    latent: Tensor
    gradient: Tensor

    def total(self, pixels: int, alpha: float) -> Tensor:
        """What is minimised. The latent loss of an image is spread over its ``pixels`` numbers, as the error is."""
        return self.reconstruction + self.latent / pixels + alpha * self.gradient


def _error_and_latent(model: Autoencoder, images: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean squared error and mean latent loss of a batch."""
    latent = model.encode(images)
    reconstruction = model.decode(latent) if noise is None else model.decode(latent, noise)  # type: ignore[call-arg]
    return (reconstruction.to(images.dtype) - images).square().mean(), model.latent_loss(latent).mean()


def losses_of(model: Autoencoder, images: Tensor, constraint: GradientConstraint | None) -> Losses:
    """Losses of one batch, detached; the gradient loss is formed only where it counts."""
    error, latent = _error_and_latent(model, images, None)
    aligned = error.new_zeros(())
    if constraint is not None and constraint.alpha > 0 and constraint.steps > 0:
        aligned = constraint.loss(torch.autograd.grad(error, list(decoder_weights(model).values())))
    return Losses(error.detach(), latent.detach(), aligned.detach())


def training_step(
    model: Autoencoder,
    images: Tensor,
    constraint: GradientConstraint | None = None,
    noise: Tensor | None = None,
    precision: str = "float32",
) -> Losses:
    """Gradients of one batch's total loss into ``.grad`` of the model's parameters, and into the constraint's average.

    The constraint compares with the average from before this batch. One backward pass gives the gradients of all constrained
    layers; a second one starts from the loss and from these gradients together, each with the direction in which the
    constraint pulls it, so that the second-order part of all layers is done once. What an optimiser does with the result
    is its own affair.

    Args:
        model: in training mode.
        images: floating point (N, C, H, W) in [0, 1], of the model's type and on its device.
        constraint: on the same model; None for none.
        noise: for a variational autoencoder, the standard normal numbers of the draw (N, D).
        precision: ``"float32"`` or ``"bfloat16"``.

    Returns:
        the parts of the loss, detached.
    """
    weights = [] if constraint is None else list(decoder_weights(model).values())
    alpha = 0.0 if constraint is None else constraint.alpha
    gradients: tuple[Tensor, ...] = ()
    directions: list[Tensor] = []
    with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        error, latent = _error_and_latent(model, images, noise)
        aligned = error.new_zeros(())
        if constraint is not None and alpha > 0 and constraint.steps > 0:
            gradients = torch.autograd.grad(error, weights, create_graph=True)
    if gradients:
        assert constraint is not None
        aligned, directions = constraint.loss_and_directions(gradients)
        torch._foreach_mul_(directions, alpha)
    losses = Losses(error, latent, aligned)
    start = losses.total(images[0].numel(), alpha=0.0)
    model.zero_grad(set_to_none=True)
    torch.autograd.backward([start, *gradients], [torch.ones_like(start), *directions])
    if constraint is not None:
        constraint.update([weight.grad for weight in weights])
    return Losses(*(part.detach() for part in losses))


def reconstruction_errors(model: nn.Module, images: Tensor) -> Tensor:
    """Mean squared error a pixel of each image (N,), of any autoencoder in the mode in which it is; differentiable."""
    images = as_float(images)
    return (model(images) - images).square().flatten(1).mean(1)
