"""Other ways to every sample's squared gradient norms: the plain step they are measured by, the loop of the papers, three libraries.

Each takes a model, images (N, ...) and a loss of the outputs that is summed over samples, and returns (N, P).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor], Tensor]
Way = Callable[[nn.Module, Tensor, Loss], Tensor]


def all_ones(logits: Tensor) -> Tensor:
    """Binary cross-entropy with the label of all ones, summed over classes and samples."""
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="sum")


def plain_step(model: nn.Module, images: Tensor, loss: Loss) -> tuple[Tensor, ...]:
    """One forward and one backward pass of the batch: what a training step costs without its update. The baseline."""
    return torch.autograd.grad(loss(model(images)), list(model.parameters()))


def loop(model: nn.Module, images: Tensor, loss: Loss) -> Tensor:
    """One image, one backward pass."""
    return torch.stack(
        [
            torch.stack([g.square().sum() for g in torch.autograd.grad(loss(model(image)), list(model.parameters()))])
            for image in images.split(1)
        ]
    )


def vmap(model: nn.Module, images: Tensor, loss: Loss, chunk_size: int | None = None) -> Tensor:
    """``torch.func``: the gradient of one sample, vectorised. All N gradients exist at once, or ``chunk_size`` of them."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def norms(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        gradients = torch.func.grad(lambda p: loss(torch.func.functional_call(model, p, (image[None],))))(parameters)
        return torch.stack([g.square().sum() for g in gradients.values()])

    return torch.func.vmap(norms, in_dims=(None, 0), chunk_size=chunk_size)(parameters, images)


def vmap_in_eights(model: nn.Module, images: Tensor, loss: Loss) -> Tensor:
    return vmap(model, images, loss, chunk_size=8)


class Backpack:
    """BackPACK's ``BatchL2Grad``, on a copy of the model that it has extended."""

    def __init__(self, model: nn.Module) -> None:
        from backpack import extend

        self.model = extend(copy.deepcopy(model))

    def __call__(self, model: nn.Module, images: Tensor, loss: Loss) -> Tensor:
        from backpack import backpack
        from backpack.extensions import BatchL2Grad

        self.model.zero_grad()
        with backpack(BatchL2Grad()):
            loss(self.model(images)).backward()
        return torch.stack([p.batch_l2 for p in self.model.parameters()], dim=1)


class Frozen(nn.Module):
    """Batch normalisation on running statistics as an affine layer without buffers: Opacus refuses the ordinary one."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias = copy.deepcopy(norm.weight), copy.deepcopy(norm.bias)
        assert norm.running_mean is not None and norm.running_var is not None
        self.statistics, self.eps = (norm.running_mean.clone(), norm.running_var.clone()), norm.eps

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, *self.statistics, self.weight, self.bias, eps=self.eps)


def _frozen_gradients(layer: Frozen, activations: list[Tensor], g: Tensor) -> dict[nn.Parameter, Tensor]:
    mean, variance = (t[:, None, None] for t in layer.statistics)
    normalised = (activations[0] - mean) * (variance + layer.eps).rsqrt()
    return {layer.weight: (g * normalised).sum((2, 3)), layer.bias: g.sum((2, 3))}


class Opacus:
    """Opacus: N gradients by its hooks, or "ghost" norms where it has rules for them (linear layers; convolutions are formed).

    It listens in training mode only, refuses batch normalisation and buffers, and gets a copy of the model without them.
    """

    def __init__(self, model: nn.Module, ghost: bool) -> None:
        from opacus.grad_sample import GradSampleModule, GradSampleModuleFastGradientClipping

        GradSampleModule.GRAD_SAMPLERS[Frozen] = _frozen_gradients
        twin = copy.deepcopy(model)
        for path, part in list(twin.named_modules()):
            if isinstance(part, nn.BatchNorm2d):
                parent, _, name = path.rpartition(".")
                setattr(twin.get_submodule(parent), name, Frozen(part))
            for name in list(part._buffers):  # the normalisation of the images: constants
                if not isinstance(part, nn.BatchNorm2d):
                    value = part._buffers.pop(name)
                    setattr(part, name, value)
        wrap = GradSampleModuleFastGradientClipping if ghost else GradSampleModule
        self.ghost = ghost
        self.model = wrap(
            twin.train(), loss_reduction="sum", strict=False, **({"use_ghost_clipping": True} if ghost else {})
        )

    def __call__(self, model: nn.Module, images: Tensor, loss: Loss) -> Tensor:
        loss(self.model(images)).backward()
        columns = []
        for p in self.model.parameters():
            columns.append(p._norm_sample.square() if self.ghost else p.grad_sample.flatten(1).square().sum(1))
            p._norm_sample = p.grad_sample = p.grad = None
        return torch.stack(columns, dim=1)


PEERS: dict[str, Callable[[nn.Module], Way]] = {
    "loop": lambda model: loop,
    "vmap": lambda model: vmap,
    "vmap, 8 at a time": lambda model: vmap_in_eights,
    "BackPACK": Backpack,
    "Opacus": lambda model: Opacus(model, ghost=False),
    "Opacus, ghost": lambda model: Opacus(model, ghost=True),
}
"""How to prepare each way for a model. One that is not installed raises ImportError."""
