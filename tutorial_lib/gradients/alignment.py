"""How far each sample's gradient points along a reference gradient, one cosine a parameter tensor."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tutorial_lib.gradients._engine import per_sample
from tutorial_lib.gradients._network import Network, checked_images
from tutorial_lib.gradients.losses import Loss, output_gradient
from tutorial_lib.gradients.rules import PerSampleGradients
from tutorial_lib.gradients.targets import Label, check_length


def alignment(
    model: nn.Module,
    images: Tensor,
    reference: Mapping[str, Tensor],
    label: Label | None = "input",
    loss: Loss = "mse",
    *,
    memory_budget: int | None = None,
) -> Tensor:
    r"""Cosine between each sample's loss gradient and a reference, for each parameter tensor that the reference names.

    .. math:: A_{np} = \frac{\langle \partial_p \ell_n,\, r_p \rangle}{\|\partial_p \ell_n\| \, \|r_p\|}

    The defaults are those of gradient constraints for anomaly detection: the gradient of an autoencoder's reconstruction error,
    against the mean gradient of its training. Small is strange: the image asks for a change unlike those that familiar images
    asked for.

    Args:
        model: images (N, ...) to outputs; for the default label, an autoencoder.
        images: (N, ...).
        reference: a tensor of the parameter's shape for each name, for instance the decoder's weights.
        label, loss, memory_budget: as for `tutorial_lib.gradients.squared_norms`. A factor in the loss does not change a cosine.

    Returns:
        Cosines in [−1, 1], float64 (N, P) on the images' device, P in the order of ``reference``; 0 where a gradient or reference is zero.

    Raises:
        ValueError, TypeError: a reference of the wrong name or shape, with NaN, or empty; and as `tutorial_lib.gradients.squared_norms`.

    Kwon et al., "Backpropagated gradient representations for anomaly detection", ECCV 2020.

    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.zeros_(model.weight)  # reconstructs nothing, so the gradient is −2 x xᵀ
    >>> alignment(model, torch.tensor([[1.0, 0.0], [0.0, 1.0]]), {"weight": torch.tensor([[-1.0, 0.0], [0.0, 0.0]])})
    tensor([[1.],
            [0.]], dtype=torch.float64)
    """
    network = Network.inspect(model)
    parameters = network.parameters
    directions = {}
    if not reference:
        raise ValueError("the reference names no parameter; give a tensor for at least one")
    for name, tensor in reference.items():
        if name not in parameters:
            raise ValueError(f"the reference names {name!r}, which is no parameter of the model")
        if tensor.shape != parameters[name].shape:
            raise ValueError(
                f"the reference for {name} has the shape {tuple(tensor.shape)}, the parameter {tuple(parameters[name].shape)}"
            )
        if not tensor.isfinite().all():
            raise ValueError(f"the reference for {name} holds NaN or infinite values")
        precise = tensor.to(torch.cdouble if tensor.is_complex() else torch.double)
        length = precise.norm()
        directions[name] = (precise / torch.where(length > 0, length, 1.0)).to(parameters[name])

    def moments(name: str, gradients: PerSampleGradients) -> Tensor:
        return torch.stack(gradients.moments(directions[name]), dim=-1)

    images = checked_images(images, network)
    check_length(label, len(images))
    found = per_sample(network, images, tuple(reference), moments, output_gradient(label, loss), memory_budget)
    inner, squared = found.values.squeeze(1).unbind(-1)
    return torch.where(squared > 0, inner / squared.sqrt(), 0.0).clamp(-1, 1).to(images.device)
