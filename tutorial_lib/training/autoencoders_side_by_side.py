"""Several one-class autoencoders trained at once, each on its own images.

A step of a narrow network on small images costs hardly more for ten networks than for one: what costs is calling the
operations, not computing them. `torch.func.vmap` calls them once for all. Measured with ten networks on one core
(``python -m tutorial_lib benchmark gradcon``): faster for the digits' 8x8 pixels, slower for the published network on
28x28, whose convolutions are large enough to be busy one by one. So this is for small images.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, stack_module_state, vmap

from tutorial_lib.data.images import ImageSet, as_float
from tutorial_lib.gradcon.constraint import GradientConstraint, decoder_weights
from tutorial_lib.models.autoencoder import Autoencoder
from tutorial_lib.reproducible import one_thread
from tutorial_lib.training.autoencoder import AutoencoderConfig, AutoencoderHistory, pictures_for
from tutorial_lib.training.loop import diverged, is_long

__all__ = ["train_autoencoders_side_by_side"]

_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # Adam's, as in torch.optim


def train_autoencoders_side_by_side(
    models: Sequence[Autoencoder],
    images: Sequence[ImageSet | Tensor],
    constraints: Sequence[GradientConstraint],
    config: AutoencoderConfig | None = None,
) -> list[AutoencoderHistory]:
    """Train each model on its own images, in place, and leave it in evaluation mode.

    Each goes through the same steps as in `train_autoencoder` without validation images, in float32 and with the same
    random numbers, so that the results are the same but for rounding. The numbers of images may differ: a model whose epoch is over
    waits for the others.

    Args:
        models: of one kind and shape.
        images: for each model, as for `train_autoencoder`.
        constraints: for each model; all with the same alpha.
        config: settings for all.

    Returns:
        a history for each model; ``seconds`` is the time that all took together.

    Raises:
        ValueError: models of different shapes, not as many of one thing as of the other, different alphas.
        TrainingDiverged: a loss is not finite.

    >>> from tutorial_lib.models.autoencoder import build_autoencoder
    >>> models = [build_autoencoder("cae", (1, 8, 8), width=0.1) for _ in range(2)]
    >>> constraints = [GradientConstraint(model) for model in models]
    >>> sets = [torch.rand(32, 1, 8, 8), torch.rand(20, 1, 8, 8)]
    >>> histories = train_autoencoders_side_by_side(models, sets, constraints, AutoencoderConfig(epochs=2, batch_size=16))
    >>> [constraint.steps for constraint in constraints]
    [4, 4]
    """
    config = config or AutoencoderConfig()
    _check(models, images, constraints, config)
    start, device = time.perf_counter(), next(models[0].parameters()).device
    pictures = [pictures_for(model, part, "images").to(device) for model, part in zip(models, images, strict=True)]
    together = Together(models, [constraint.to(device) for constraint in constraints], config)
    generators = [torch.Generator().manual_seed(config.seed) for _ in models]
    histories = [AutoencoderHistory() for _ in models]
    with one_thread(not any(is_long(config.epochs, part) for part in pictures)):
        for epoch in range(config.epochs):
            orders, noises = zip(
                *(_draw(*pair, models[0], config) for pair in zip(pictures, generators, strict=True)), strict=True
            )
            sums = torch.zeros(3, len(models), device=device)
            for step in range(max(map(len, orders))):
                batch, mask, noise = _stack(step, pictures, orders, noises, config.batch_size)
                sums += together.step(batch, mask, noise) * mask.sum(1)
            means = (sums / torch.tensor([len(p) for p in pictures], device=device)).T.tolist()
            for history, (error, latent, aligned) in zip(histories, means, strict=True):
                if not abs(error) < float("inf"):
                    raise diverged(error, f"epoch {epoch + 1} of {config.epochs}", config.learning_rate)
                history.reconstruction.append(error)
                history.latent.append(latent)
                history.alignment.append(-aligned)
                history.best_epoch = epoch
    together.give_back(models, constraints)
    for history in histories:
        history.seconds = time.perf_counter() - start
    return histories


class _Losses(nn.Module):
    """Reconstruction error and latent loss of a batch, as one forward pass, which `functional_call` asks for."""

    def __init__(self, model: Autoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, mask: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.model.encode(images)
        decoded = self.model.decode(latent, noise) if self.model.kind == "vae" else self.model.decode(latent)  # type: ignore[call-arg]
        share = mask / mask.sum().clamp_min(1)
        errors = (decoded - images).square().flatten(1).mean(1)
        return (share * errors).sum(), (share * self.model.latent_loss(latent)).sum()


class Together:
    """Weights, averages and Adam's state of all models, each tensor with the models on its first axis."""

    def __init__(
        self, models: Sequence[Autoencoder], constraints: Sequence[GradientConstraint], config: AutoencoderConfig
    ) -> None:
        self.config, self.alpha = config, constraints[0].alpha
        self.losses = _Losses(copy.deepcopy(models[0]).train())
        weights, _ = stack_module_state(list(models))  # type: ignore[arg-type]
        self.weights = {f"model.{name}": value.detach() for name, value in weights.items()}
        self.names = [f"model.{name}" for name in decoder_weights(models[0])]
        self.averages = {
            f"model.{name}": torch.stack([c.mean[name] for c in constraints]) for name in constraints[0].mean
        }
        self.steps = torch.tensor([c.steps for c in constraints], device=next(iter(self.weights.values())).device)
        self.first = {name: torch.zeros_like(value) for name, value in self.weights.items()}
        self.second = {name: torch.zeros_like(value) for name, value in self.weights.items()}
        self.taken = torch.zeros_like(self.steps)
        self.gradients = vmap(grad(self._total, has_aux=True))

    def _total(self, weights: dict[str, Tensor], averages: dict[str, Tensor], *batch: Tensor) -> tuple[Tensor, Tensor]:
        """Total loss of one model, and its parts."""

        def error_of(constrained: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
            return functional_call(self.losses, {**weights, **constrained}, batch)

        if self.alpha > 0:
            constrained = {name: weights[name] for name in self.names}
            gradients, (error, latent) = grad_and_value(error_of, has_aux=True)(constrained)
            cosines = [_cosine(averages[name], gradients[name]) for name in self.names]
            aligned = -torch.stack(cosines).mean()
        else:
            error, latent = error_of({})
            aligned = error.new_zeros(())
        pixels = batch[0][0].numel()
        return error + latent / pixels + self.alpha * aligned, torch.stack([error, latent, aligned]).detach()

    def step(self, batch: Tensor, mask: Tensor, noise: Tensor) -> Tensor:
        """One step of every model that has images in this batch; parts of the loss (3, M)."""
        gradients, parts = self.gradients(self.weights, self.averages, batch, mask, noise)
        active = mask.any(1)
        self.steps, self.taken = self.steps + active, self.taken + active
        for name in self.names:
            share = _each(active / self.steps.clamp_min(1), gradients[name])
            self.averages[name] = self.averages[name] + share * (gradients[name] - self.averages[name])
        for name, gradient in gradients.items():
            on, taken = _each(active, gradient), _each(self.taken.clamp_min(1), gradient)
            first = torch.lerp(self.first[name], gradient, 1 - _BETAS[0])
            second = torch.lerp(self.second[name], gradient.square(), 1 - _BETAS[1])
            root = (second / (1 - _BETAS[1] ** taken)).sqrt() + _EPSILON
            change = self.config.learning_rate * first / (1 - _BETAS[0] ** taken) / root
            self.weights[name] = torch.where(on, self.weights[name] - change, self.weights[name])
            self.first[name] = torch.where(on, first, self.first[name])
            self.second[name] = torch.where(on, second, self.second[name])
        return parts.T

    @torch.no_grad()
    def give_back(self, models: Sequence[Autoencoder], constraints: Sequence[GradientConstraint]) -> None:
        """Weights into the models, averages into the constraints."""
        for i, (model, constraint) in enumerate(zip(models, constraints, strict=True)):
            for name, parameter in model.named_parameters():
                parameter.copy_(self.weights[f"model.{name}"][i])
            for name, mean in constraint.mean.items():
                mean.copy_(self.averages[f"model.{name}"][i])
            constraint.steps = int(self.steps[i])
            model.eval()


def _cosine(average: Tensor, gradient: Tensor) -> Tensor:
    """Cosine of two tensors; 0, without a gradient of its own, where one of them is zero."""
    squared, length = gradient.square().sum(), average.norm()
    known = (squared > 0) & (length > 0)
    lengths = torch.where(known, squared, 1.0).sqrt() * torch.where(known, length, 1.0)
    return torch.where(known, (average * gradient).sum() / lengths, 0.0)


def _each(values: Tensor, like: Tensor) -> Tensor:
    """A value for each model, in the shape in which it meets a stacked tensor."""
    return values.view(-1, *[1] * (like.dim() - 1))


def _draw(
    pictures: Tensor, generator: torch.Generator, model: Autoencoder, config: AutoencoderConfig
) -> tuple[list[Tensor], list[Tensor]]:
    """Order and noise of one model's epoch, from the same random numbers in the same order as `train_autoencoder`."""
    orders, noises = [], []
    size = model.latent_shape[0] * model.latent_shape[1] * model.latent_shape[2]
    for chosen in torch.randperm(len(pictures), generator=generator).split(config.batch_size):
        orders.append(chosen)
        noises.append(torch.randn(len(chosen), size, generator=generator) if model.kind == "vae" else torch.empty(0))
    return orders, noises


def _stack(
    step: int, pictures: Sequence[Tensor], orders: Sequence[list[Tensor]], noises: Sequence[list[Tensor]], size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One batch of all models: images (M, B, C, H, W), which of them count (M, B), noise (M, B, D)."""
    device, count = pictures[0].device, len(pictures)
    batch = torch.zeros(count, size, *pictures[0].shape[1:], device=device)
    mask = torch.zeros(count, size, device=device)
    noise = torch.zeros(count, size, noises[0][0].shape[-1], device=device)
    for i, (mine, order, drawn) in enumerate(zip(pictures, orders, noises, strict=True)):
        if step < len(order):
            n = len(order[step])
            batch[i, :n], mask[i, :n] = as_float(mine[order[step].to(device)]), 1.0
            if drawn[step].numel():
                noise[i, :n] = drawn[step].to(device)
    return batch, mask, noise


def _check(
    models: Sequence[Autoencoder],
    images: Sequence[ImageSet | Tensor],
    constraints: Sequence[GradientConstraint],
    config: AutoencoderConfig,
) -> None:
    if not models or not len(models) == len(images) == len(constraints):
        raise ValueError(
            f"give one set of images and one constraint for each model, got {len(models)} models, "
            f"{len(images)} sets, {len(constraints)} constraints"
        )
    if len({(model.kind, model.image_shape, model.widths) for model in models}) > 1:
        raise ValueError("the models are not of one kind and shape; train the others apart")
    if len({constraint.alpha for constraint in constraints}) > 1:
        raise ValueError("the constraints have different alphas; train the others apart")
    if config.precision != "float32":
        raise ValueError(f"side by side is for float32, got {config.precision}; use train_autoencoder")
