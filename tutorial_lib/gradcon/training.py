"""Training of autoencoders, with or without the gradient constraint.

A training that is stopped, however abruptly, goes on from its last saved epoch and ends with the same weights as one
that was not.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from tutorial_lib.data.images import ImageSet, as_float, check_images
from tutorial_lib.gradcon.constraint import GradientConstraint, decoder_weights
from tutorial_lib.models.autoencoder import Autoencoder
from tutorial_lib.storage import write_atomically
from tutorial_lib.training.checkpoints import CheckpointError
from tutorial_lib.training.classifier import TrainingDiverged

__all__ = [
    "AutoencoderConfig",
    "AutoencoderHistory",
    "Losses",
    "reconstruction_errors",
    "train_autoencoder",
    "training_step",
]


@dataclass(frozen=True)
class AutoencoderConfig:
    """How to train an autoencoder. Batch size and learning rate are the published ones; published are 1000 epochs.

    Args:
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam.
        precision: ``"float32"`` or ``"bfloat16"`` (autocast; weights and averages stay float32).
        seed: of the order of the images and of the latent draws. The initial weights are the caller's.
    """

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be float32 or bfloat16, got {self.precision!r}")


@dataclass
class AutoencoderHistory:
    """What happened, one entry an epoch: means over the training batches, and the loss by which an epoch is chosen.

    Attributes:
        reconstruction: mean squared error a pixel.
        latent: latent loss an image (nats); 0 for an ordinary autoencoder.
        alignment: mean cosine with the average gradient over layers and steps; 0 without a constraint.
        validation: total loss on the validation images; empty without any.
        best_epoch: the epoch (from 0) whose weights were kept; the last one without validation images.
        seconds: time that training took.
    """

    reconstruction: list[float] = field(default_factory=list)
    latent: list[float] = field(default_factory=list)
    alignment: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_epoch: int = -1
    seconds: float = 0.0


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


def train_autoencoder(
    model: Autoencoder,
    images: ImageSet | Tensor,
    constraint: GradientConstraint | None = None,
    config: AutoencoderConfig | None = None,
    checkpoint: Path | str | None = None,
    progress: bool = True,
    validation: ImageSet | Tensor | None = None,
    device: torch.device | str | None = None,
    save_every: float = 10.0,
) -> AutoencoderHistory:
    """Train ``model`` in place to reconstruct images, and leave it in evaluation mode.

    Args:
        model: see `tutorial_lib.models.autoencoder.build_autoencoder`.
        images: normal images, (N, C, H, W) in [0, 1] or ``uint8``. Labels are not looked at.
        constraint: on this model. Its average is updated at every step; afterwards it is that of the epoch that was
            kept.
        config: settings; `AutoencoderConfig()` when left out.
        checkpoint: a file that holds the state after an epoch. If it exists and was made with the same settings, the
            training goes on from it and ends as if it had never stopped; it is deleted at the end.
        progress: show a bar.
        validation: normal images. The epoch of the lowest total loss on them is kept, with the average gradient of
            that moment, as published; without them, the last epoch.
        device: where to train; the model's own device when left out. The model ends up there.
        save_every: seconds between two savings of the state; 0 saves after every epoch.

    Raises:
        TrainingDiverged: the loss is not finite; says in which epoch and what to try.
        ValueError: images that do not fit the model, or a state made with other settings.
        CheckpointError: the state is damaged.

    >>> from tutorial_lib.models.autoencoder import build_autoencoder
    >>> model = build_autoencoder("cae", (1, 8, 8), width=0.1)
    >>> constraint = GradientConstraint(model)
    >>> history = train_autoencoder(model, torch.rand(32, 1, 8, 8), constraint, AutoencoderConfig(epochs=3), progress=False)
    >>> len(history.reconstruction), constraint.steps
    (3, 3)
    """
    config = config or AutoencoderConfig()
    device = torch.device(device) if device is not None else next(model.parameters()).device
    pictures = pictures_for(model, images, "images").to(device)
    held_out = None if validation is None else pictures_for(model, validation, "validation").to(device)
    # bfloat16 units of processors take the channels last; for float32 it makes no difference worth the conversion
    layout = torch.channels_last if config.precision == "bfloat16" else torch.contiguous_format
    model.to(device).to(memory_format=layout).train()
    if constraint is not None:
        constraint.to(device)
    state = _State(model, constraint, config)
    if checkpoint is not None and Path(checkpoint).exists():
        state.load(Path(checkpoint))
    history = state.history
    saved = time.perf_counter()
    bar = tqdm(
        total=config.epochs, initial=len(history.reconstruction), disable=not progress, desc=model.kind, unit="epoch"
    )
    for epoch in range(len(history.reconstruction), config.epochs):
        start = time.perf_counter()
        model.train()
        sums = torch.zeros(3, device=device)
        for chosen in torch.randperm(len(pictures), generator=state.generator).split(config.batch_size):
            batch = as_float(pictures[chosen.to(device)]).contiguous(memory_format=layout)
            noise = None
            if model.kind == "vae":  # drawn on the CPU, so that every device sees the same numbers
                size = model.latent_shape[0] * model.latent_shape[1] * model.latent_shape[2]
                noise = torch.randn(len(batch), size, generator=state.generator).to(device)
            losses = training_step(model, batch, constraint, noise, config.precision)
            state.optimizer.step()
            sums += len(chosen) * torch.stack(losses)
        means = (sums / len(pictures)).tolist()
        if not all(value == value and abs(value) != float("inf") for value in means):
            bar.close()
            raise TrainingDiverged(
                f"the loss is {means[0]} in epoch {epoch + 1} of {config.epochs}; "
                f"try a learning rate below {config.learning_rate:g}"
            )
        history.reconstruction.append(means[0])
        history.latent.append(means[1])
        history.alignment.append(-means[2])
        if held_out is not None:
            history.validation.append(_total_loss(model, held_out, constraint, config))
        state.keep_if_best(epoch)
        bar.set_postfix(error=f"{means[0]:.4f}", alignment=f"{-means[2]:.2f}")
        bar.update()
        history.seconds += time.perf_counter() - start
        if checkpoint is not None and epoch + 1 < config.epochs and time.perf_counter() - saved >= save_every:
            state.save(Path(checkpoint))
            saved = time.perf_counter()
    bar.close()
    state.restore_best()
    model.zero_grad(set_to_none=True)
    model.to(memory_format=torch.contiguous_format).eval()
    if checkpoint is not None:
        Path(checkpoint).unlink(missing_ok=True)
    return history


def reconstruction_errors(model: nn.Module, images: Tensor) -> Tensor:
    """Mean squared error a pixel of each image (N,), of any autoencoder in the mode in which it is; differentiable."""
    images = as_float(images)
    return (model(images) - images).square().flatten(1).mean(1)


class _State:
    """All that decides how a training goes on."""

    def __init__(self, model: Autoencoder, constraint: GradientConstraint | None, config: AutoencoderConfig) -> None:
        self.model, self.constraint, self.config = model, constraint, config
        self.optimizer = torch.optim.Adam(model.parameters(), config.learning_rate)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.history = AutoencoderHistory()
        self.best: dict[str, Any] | None = None

    def keep_if_best(self, epoch: int) -> None:
        validation = self.history.validation
        if not validation:
            self.history.best_epoch = epoch
        elif validation[-1] <= min(validation):
            self.history.best_epoch = epoch
            self.best = copy.deepcopy(self._weights())

    def restore_best(self) -> None:
        if self.best is not None:
            self._take(self.best)

    def save(self, path: Path) -> None:
        content = io.BytesIO()
        torch.save(
            {
                "settings": self._settings(),
                "now": self._weights(),
                "best": self.best,
                "optimizer": self.optimizer.state_dict(),
                "generator": self.generator.get_state(),
                "history": dataclasses.asdict(self.history),
            },
            content,
        )
        # one file, with its own sum in front: nothing can come between two
        write_atomically(path, hashlib.sha256(content.getvalue()).digest() + content.getvalue())

    def load(self, path: Path) -> None:
        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise CheckpointError(f"{path} is damaged; delete it to start the training again")
        state = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
        if state["settings"] != self._settings():
            raise ValueError(f"{path} was made with other settings: {state['settings']}; delete it to start again")
        self._take(state["now"])
        self.best = state["best"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.history = AutoencoderHistory(**state["history"])

    def _settings(self) -> dict[str, Any]:
        alpha = None if self.constraint is None else self.constraint.alpha
        shape = [*self.model.image_shape, *self.model.widths]
        return dataclasses.asdict(self.config) | {"kind": self.model.kind, "shape": shape, "alpha": alpha}

    def _weights(self) -> dict[str, Any]:
        constraint = None if self.constraint is None else self.constraint.state_dict()
        return {"model": self.model.state_dict(), "constraint": constraint}

    def _take(self, weights: dict[str, Any]) -> None:
        self.model.load_state_dict(weights["model"])
        if self.constraint is not None:
            self.constraint.load_state_dict(weights["constraint"])


def _total_loss(
    model: Autoencoder, images: Tensor, constraint: GradientConstraint | None, config: AutoencoderConfig
) -> float:
    """Mean total loss over batches of validation images, in evaluation mode; weights and average stay as they are."""
    model.eval()
    total = 0.0
    for part in images.split(config.batch_size):
        batch = as_float(part)
        with torch.autocast(batch.device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            losses = losses_of(model, batch, constraint)
        loss = losses.total(batch[0].numel(), constraint.alpha if constraint else 0.0)
        total += float(loss) * len(batch)
    return total / len(images)


def pictures_for(model: Autoencoder, images: ImageSet | Tensor, name: str) -> Tensor:
    """The images as a tensor, if the model can take them; errors begin with ``name``."""
    pictures = images.images if isinstance(images, ImageSet) else images
    try:
        check_images(pictures, channels=model.image_shape[0], size=model.image_shape[1:])
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None
    return pictures
