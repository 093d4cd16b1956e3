"""Training of autoencoders, with or without the gradient constraint.

A training that is stopped, however abruptly, goes on from its last saved epoch and ends with the same weights as one
that was not.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutorial_lib.data.images import ImageSet, as_float, check_images
from tutorial_lib.gradcon.constraint import GradientConstraint
from tutorial_lib.gradcon.losses import losses_of, training_step
from tutorial_lib.models.autoencoder import Autoencoder
from tutorial_lib.training.loop import run_epochs
from tutorial_lib.training.precision import PRECISIONS, autocast, resolved

__all__ = ["AutoencoderConfig", "AutoencoderHistory", "pictures_for", "train_autoencoder"]


@dataclass(frozen=True)
class AutoencoderConfig:
    """How to train an autoencoder. Batch size and learning rate are the published ones; published are 1000 epochs.

    Args:
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: of Adam.
        precision: ``"float32"``, ``"bfloat16"`` (autocast; weights and averages stay float32), or ``"auto"``: bfloat16
            where the device has units for it, see `tutorial_lib.training.precision`.
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
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")


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


def train_autoencoder(
    model: Autoencoder,
    images: ImageSet | Tensor,
    constraint: GradientConstraint | None = None,
    config: AutoencoderConfig | None = None,
    resume_from: Path | str | None = None,
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
        resume_from: a file that holds the state after an epoch. If it exists and was made with the same settings and
            images, the training goes on from it and ends as if it had never stopped. It is left behind: whoever keeps
            the result deletes it.
        progress: show a bar.
        validation: normal images. The epoch of the lowest total loss on them is kept, with the average gradient of
            that moment, as published; without them, the last epoch.
        device: where to train; the model's own device when left out. The model ends up there.
        save_every: seconds between two savings of the state; 0 saves after every epoch.

    Raises:
        TrainingDiverged: the loss is not finite; says in which epoch and what to try.
        ValueError: images that do not fit the model, or a state made with other settings or images.
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
    precision = resolved(config.precision, device)
    # bfloat16 units of processors take the channels last; for float32 it makes no difference worth the conversion
    layout = torch.channels_last if precision == "bfloat16" else torch.contiguous_format
    model.to(device).to(memory_format=layout).train()
    if constraint is not None:
        constraint.to(device)
    optimizer = torch.optim.Adam(model.parameters(), config.learning_rate)
    generator = torch.Generator().manual_seed(config.seed)
    history, best = AutoencoderHistory(), _BestEpoch(model, constraint)

    def one_epoch(step_done: Callable[[], object]) -> Mapping[str, float]:
        model.train()
        sums = torch.zeros(3, device=device)
        for chosen in torch.randperm(len(pictures), generator=generator).split(config.batch_size):
            batch = as_float(pictures[chosen.to(device)]).contiguous(memory_format=layout)
            noise = None
            if model.kind == "vae":  # drawn on the CPU, so that every device sees the same numbers
                size = model.latent_shape[0] * model.latent_shape[1] * model.latent_shape[2]
                noise = torch.randn(len(batch), size, generator=generator).to(device)
            losses = training_step(model, batch, constraint, noise, precision)
            optimizer.step()
            sums += len(chosen) * torch.stack(losses)
            step_done()
        error, latent, aligned = (sums / len(pictures)).tolist()
        return {"reconstruction": error, "latent": latent, "alignment": -aligned}

    def measured(epoch: int) -> Mapping[str, float]:
        if held_out is None:
            history.best_epoch = epoch
            return {}
        loss = _total_loss(model, held_out, constraint, config)
        if not history.validation or loss <= min(history.validation):
            history.best_epoch = epoch
            best.keep()
        return {"validation": loss}

    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "best": best}
    if constraint is not None:
        parts["constraint"] = constraint
    alpha = None if constraint is None else constraint.alpha
    run_epochs(
        one_epoch,
        measured,
        history,
        parts,
        generator,
        config,
        -(-len(pictures) // config.batch_size),
        (pictures, held_out),
        resume_from,
        {"kind": model.kind, "shape": [*model.image_shape, *model.widths], "alpha": alpha},
        save_every,
        progress,
        title=model.kind,
    )
    best.restore()
    model.zero_grad(set_to_none=True)
    model.to(memory_format=torch.contiguous_format).eval()
    return history


class _BestEpoch:
    """Weights and average gradient of the best epoch so far; none without validation images."""

    def __init__(self, model: Autoencoder, constraint: GradientConstraint | None) -> None:
        self.model, self.constraint = model, constraint
        self.kept: dict[str, Any] = {}

    def keep(self) -> None:
        constraint = None if self.constraint is None else self.constraint.state_dict()
        self.kept = copy.deepcopy({"model": self.model.state_dict(), "constraint": constraint})

    def restore(self) -> None:
        if self.kept:
            self.model.load_state_dict(self.kept["model"])
            if self.constraint is not None:
                self.constraint.load_state_dict(self.kept["constraint"])

    def state_dict(self) -> dict[str, Any]:
        return self.kept

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state


def _total_loss(
    model: Autoencoder, images: Tensor, constraint: GradientConstraint | None, config: AutoencoderConfig
) -> float:
    """Mean total loss over batches of validation images, in evaluation mode; weights and average stay as they are."""
    model.eval()
    total = 0.0
    for part in images.split(config.batch_size):
        batch = as_float(part)
        with autocast(config.precision, batch.device):
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
