r"""Losses, as the gradients of the network's outputs that they start from.

Everything a loss and a label do to a gradient feature they do here: the rest of the backward pass is the network's. With logits z,
p = softmax(z), s = sigmoid(z) and target t,

=======  ==========================================  ====================================
``loss``  one sample's loss, summed over its outputs  dl/dz
=======  ==========================================  ====================================
``bce``  −Σ t log s + (1 − t) log(1 − s)             s − t
``ce``   −Σ t log p                                  (Σ t) p − t
``mse``  Σ (z − t)²                                  2 (z − t)
=======  ==========================================  ====================================

Sums, not means: the mean over K outputs would divide every squared norm by K². Samples are summed too, since a mean over the batch
would divide by N². Cross-entropy is torch's: classes stand on axis 1 of (N, K) or (N, K, ...), and what stands behind them, the pixels of
a segmentation, say, is summed as well.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tutorial_lib.gradients._start import Cotangent, OutputGradient
from tutorial_lib.gradients.targets import Label, target

Loss = str | Callable[..., Tensor]

NAMES = ("bce", "ce", "mse")

SMALLEST = 1e-300
"""Where no output has a gradient, the direction is 0 divided by this, a number that float64 has and float32 has not."""


def logit_gradient(z: Tensor, t: Tensor, loss: str) -> Tensor:
    """dl/dz for outputs z (..., K) and targets t (..., K), by the closed forms above: the classes on the last axis.

    Written so that a confident network's s − 1 and p − 1 keep their digits: 1 − s(z) is s(−z), and since the entries of the
    cross-entropy's gradient add up to zero, the one of the likeliest class is minus the sum of the others.
    """
    if loss == "mse":
        return 2 * (z - t)
    if loss == "bce":
        return torch.lerp(z.sigmoid(), -(-z).sigmoid(), t)  # (1 − t) s(z) − t s(−z)
    gradient = t.sum(-1, keepdim=True) * z.softmax(-1) - t
    likeliest = z.argmax(-1, keepdim=True).expand(*t.shape[:-1], 1)
    others = gradient.scatter(-1, likeliest, 0)
    return others.scatter(-1, likeliest, -others.sum(-1, keepdim=True))


def output_gradient(label: Label | None, loss: Loss) -> OutputGradient:
    """How a backward pass starts for one label and loss.

    Args:
        label: see `tutorial_lib.gradients.targets.target`; None for a loss that needs no target.
        loss: ``"bce"``, ``"ce"``, ``"mse"``, or a function (outputs, target) to losses (N,), one a sample, differentiable in the
            outputs. It gets the outputs as the network returned them, and no target if ``label`` is None.
    """
    if isinstance(loss, str):
        check_name(loss)
        if label is None:
            raise ValueError(f"the loss {loss!r} needs a label")
    elif not callable(loss):
        raise TypeError(
            f"loss must be a name or a function (outputs, target) to losses (N,), got {type(loss).__name__}"
        )

    def start(outputs: tuple[Tensor, ...], images: Tensor, samples: slice) -> Cotangent:
        outputs = tuple(output.detach() for output in outputs)
        if not isinstance(loss, str):
            return direction_and_scale(_gradient_of_function(loss, label, outputs, images, samples), outputs)
        z = single(outputs, loss).double()
        if loss == "ce" and z.dim() == 1:
            raise ValueError("cross-entropy needs logits (N, K), the network returns one number a sample")
        t = target(label, z, images, samples)  # type: ignore[arg-type]  # a named loss has a label
        if loss == "ce":
            gradient = logit_gradient(z.movedim(1, -1), t.movedim(1, -1), loss).movedim(-1, 1)  # classes last and back
        else:
            gradient = logit_gradient(z, t, loss)
        return direction_and_scale([gradient.unsqueeze(1)], outputs)

    return start


def contrast_gradient(loss: str) -> OutputGradient:
    """How a backward pass starts for all K one-hot labels at once: L = K."""
    check_name(loss)

    def start(outputs: tuple[Tensor, ...], images: Tensor, samples: slice) -> Cotangent:
        z = single(outputs, loss).detach().double()
        if z.dim() != 2:
            raise ValueError(f"one-hot labels need logits (N, K), the network returns the shape {tuple(z.shape)}")
        every_class = torch.eye(z.shape[1], dtype=z.dtype, device=z.device).expand(len(z), -1, -1)
        return direction_and_scale([logit_gradient(z.unsqueeze(1), every_class, loss)], outputs)

    return start


def check_name(loss: str) -> None:
    if loss not in NAMES:
        raise ValueError(
            f"unknown loss {loss!r}; there are {', '.join(map(repr, NAMES))}, or a function (outputs, target) to losses (N,)"
        )


def single(outputs: tuple[Tensor, ...], loss: str) -> Tensor:
    if len(outputs) > 1:
        raise ValueError(
            f"the network returns {len(outputs)} tensors; the loss {loss!r} takes one, give a function (outputs, target)"
        )
    return outputs[0]


def direction_and_scale(gradients: Sequence[Tensor], outputs: Sequence[Tensor]) -> Cotangent:
    """Split gradients (N, L, ...) of the outputs into a direction of largest entry 1 and a scale (N, L, 1)."""
    flat = [gradient.reshape(*gradient.shape[:2], -1).double() for gradient in gradients]  # (N, L, numbers)
    largest = [torch.linalg.vector_norm(g, torch.inf, dim=2, keepdim=True) for g in flat]
    scale = functools.reduce(torch.maximum, largest).clamp_min(SMALLEST)
    direction = tuple(
        (g / scale).to(output.dtype).view(gradient.shape)
        for g, gradient, output in zip(flat, gradients, outputs, strict=True)
    )
    return Cotangent(direction, scale)


def _gradient_of_function(
    loss: Callable[..., Tensor], label: Label | None, outputs: tuple[Tensor, ...], images: Tensor, samples: slice
) -> list[Tensor]:
    with torch.enable_grad():
        leaves = [output.requires_grad_(output.is_floating_point()) for output in outputs]
        as_returned = leaves[0] if len(leaves) == 1 else tuple(leaves)
        losses = (
            loss(as_returned)
            if label is None
            else loss(as_returned, target(label, outputs[0].detach(), images, samples))
        )
    if not isinstance(losses, Tensor) or losses.shape != (len(images),):
        got = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise ValueError(f"loss must return one number a sample, shape ({len(images)},), got {got}")
    if not losses.isfinite().all():
        raise ValueError(
            f"the loss is NaN or infinite, first for image {samples.start + int((~losses.isfinite()).nonzero()[0])}"
        )
    with torch.enable_grad():  # the caller may have gradients off
        total = losses.sum()
    if not total.requires_grad:
        raise ValueError("the loss does not depend on the network's output, or was taken out of autograd's graph")
    wanted = [leaf for leaf in leaves if leaf.requires_grad]
    found = iter(torch.autograd.grad(total, wanted, allow_unused=True))
    gradients = [next(found) if leaf.requires_grad else None for leaf in leaves]
    return [
        (torch.zeros_like(leaf) if g is None else g).unsqueeze(1) for leaf, g in zip(leaves, gradients, strict=True)
    ]
