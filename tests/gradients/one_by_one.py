"""The reference of these tests: one image, one backward pass, torch's own losses. Nothing of the library is used."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.gradients import FallbackWarning, squared_norms


def bce_ones(z: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(z, torch.ones_like(z), reduction="sum")


def gradients(model: nn.Module, image: Tensor, loss: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Gradients of the parameters for a batch of one; zeros for those that the loss does not depend on."""
    parameters = [p for p in model.parameters()]
    found = torch.autograd.grad(loss(model(image)), parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


def norms(model: nn.Module, images: Tensor, loss: Callable[[Tensor], Tensor] = bce_ones) -> Tensor:
    """(N, P)."""
    return torch.stack(
        [torch.stack([g.square().sum() for g in gradients(model, image, loss)]) for image in images.split(1)]
    )


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The same weights and statistics in every run, none of them at the special values of an initialisation."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                width = parameter[0].numel() if parameter.dim() > 1 else 4
                parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter) * width**-0.5
        if getattr(module, "running_var", None) is not None:
            module.running_mean.copy_(0.3 * torch.randn(module.running_mean.shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=generator))
    return model.eval()


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest relative error; exact agreement is asked where zero is wanted."""
    assert got.shape == wanted.shape
    return ((got - wanted).abs() / torch.where(wanted == 0, 1.0, wanted.abs())).max().item()


def assert_exact(
    model: nn.Module, images: Tensor, fallback: bool = False, single: bool = True, tolerance: float = 1e-9
) -> None:
    """All norms equal to the reference in float64, and in float32 within 1e-4 of the float64 reference."""
    model = model.double().eval()
    images = images.double() if images.is_floating_point() else images
    wanted = norms(model, images).detach()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if fallback else "error", FallbackWarning)
        got, names = squared_norms(model, images)
        assert names == tuple(name for name, _ in model.named_parameters())
        assert relative_error(got, wanted) < tolerance
        if single:
            got, _ = squared_norms(model.float(), images)
            assert relative_error(got, wanted) < 1e-4
