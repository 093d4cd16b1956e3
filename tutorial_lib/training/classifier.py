"""One trainer for classifiers.

The data set stays on the device as ``uint8``; a batch is gathered, shifted and flipped there in one indexing operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.data.images import ImageSet
from tutorial_lib.models.predict import predict_logits
from tutorial_lib.training.loop import TrainingDiverged, run_epochs

__all__ = [
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingHistory",
    "accuracy",
    "augment",
    "optimizer_for",
    "scheduler_for",
    "train_classifier",
]


@dataclass(frozen=True)
class TrainingConfig:
    """How to train a classifier; the defaults suit the ResNets on CIFAR-10.

    Args:
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: the highest one.
        optimizer: ``"sgd"`` (Nesterov momentum 0.9) or ``"adam"``.
        weight_decay: L2 penalty as the optimiser applies it.
        schedule: ``"one_cycle"`` (Smith & Topin 2018: up over the first fifth, then down to zero), ``"cosine"`` (down
            only) or ``"constant"``.
        shift: random translation of up to this many pixels, borders filled with zeros.
        flip: mirror half of the images left to right.
        precision: ``"float32"``, ``"bfloat16"`` (autocast), or ``"auto"``: bfloat16 where the device has units for it.
        seed: of the order of the images and of the augmentation. The initial weights are the caller's.
    """

    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    weight_decay: float = 5e-4
    schedule: str = "one_cycle"
    shift: int = 4
    flip: bool = True
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("optimizer", ("sgd", "adam")),
            ("schedule", ("one_cycle", "cosine", "constant")),
            ("precision", ("auto", "float32", "bfloat16")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        for name in ("epochs", "batch_size", "learning_rate"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.shift < 0 or self.weight_decay < 0:
            raise ValueError(f"shift and weight_decay must not be negative, got {self.shift} and {self.weight_decay}")


@dataclass
class TrainingHistory:
    """What happened: one entry an epoch in each list, and the seconds it took in all."""

    loss: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    seconds: float = 0.0


def train_classifier(
    model: nn.Module,
    train: ImageSet,
    validation: ImageSet | None = None,
    config: TrainingConfig | None = None,
    device: torch.device | str | None = None,
    progress: bool = True,
    resume_from: Path | str | None = None,
    loss_of: Callable[[Tensor, Tensor], Tensor] | None = None,
    after_step: Callable[[Tensor, Tensor], None] | None = None,
    save_every: float = 10.0,
) -> TrainingHistory:
    """Train ``model`` in place, and leave it in evaluation mode.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K).
        train: training images and labels in 0..K-1.
        validation: measured after every epoch, never trained on.
        config: settings; `TrainingConfig()` when left out.
        device: where to train; the model's own device when left out. The model ends up there.
        progress: show a bar.
        resume_from: a file that holds the state after an epoch. If it exists and was made with the same settings and
            images, the training goes on from it and ends as if it had never stopped. It is left behind: whoever keeps
            the result deletes it.
        loss_of: images (B, C, H, W) and labels (B,) to the loss, a scalar; the cross-entropy of the logits when left
            out. What it learns must be parameters of ``model``.
        after_step: called with the same images and labels after each step.
        save_every: seconds between two savings of the state; 0 saves after every epoch.

    Raises:
        TrainingDiverged: the loss is not finite; says in which epoch and what to try.
        ValueError: no images, labels that the model has no logit for, or a state made with other settings or images.
        CheckpointError: the state is damaged.
    """
    config = config or TrainingConfig()
    if len(train) == 0:
        raise ValueError(f"{train.name} has no training images")
    device = torch.device(device) if device is not None else next(model.parameters()).device
    model.to(device=device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images, labels = train.images.to(device), train.labels.to(device)
    with torch.no_grad():
        num_classes = model.eval()(train.images[:1].to(device).float() / 255).shape[1]
        model.train()
    if not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(
            f"labels run from {int(labels.min())} to {int(labels.max())}; the model has classes 0 to {num_classes - 1}"
        )

    steps_per_epoch = -(-len(train) // config.batch_size)
    optimizer = optimizer_for(model.parameters(), config)
    scheduler = scheduler_for(optimizer, config, config.epochs * steps_per_epoch)
    autocast = _autocast(config.precision, device)
    generator = torch.Generator().manual_seed(config.seed)  # on the CPU, so that every device sees the same order
    history = TrainingHistory()

    def one_epoch(step_done: Callable[[], object]) -> Mapping[str, float]:
        model.train()
        total = torch.zeros((), device=device)
        for chosen in torch.randperm(len(train), generator=generator).split(config.batch_size):
            batch = augment(images, chosen, config.shift, config.flip, generator)
            answers = labels[chosen.to(device)]
            if loss_of is None:
                with autocast:
                    logits = model(batch)
                loss = F.cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), answers)
            else:
                loss = loss_of(batch, answers)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if after_step is not None:
                after_step(batch, answers)
            scheduler.step()
            total += loss.detach() * len(chosen)
            step_done()
        return {"loss": float(total) / len(train)}

    def measured(epoch: int) -> Mapping[str, float]:
        return {} if validation is None else {"validation_accuracy": accuracy(model, validation)}

    run_epochs(
        one_epoch,
        measured,
        history,
        {"model": model, "optimizer": optimizer, "scheduler": scheduler},
        generator,
        config,
        steps_per_epoch,
        (train.images, train.labels),
        resume_from,
        {"own loss": loss_of is not None},
        save_every=save_every,
        progress=progress,
        title=train.name,
    )
    model.eval()
    return history


def accuracy(model: nn.Module, images: ImageSet) -> float:
    """Share of the images whose largest logit is their label's, in [0, 1]."""
    predicted = predict_logits(model, images.images).argmax(dim=1)
    return float((predicted == images.labels).double().mean())


def augment(images: Tensor, chosen: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """A batch of training images, each translated at random by up to ``shift`` pixels and mirrored half of the time.

    Args:
        images: all images, ``uint8`` (N, C, H, W), on any device.
        chosen: indices (B,) on the CPU.
        shift: largest translation in pixels; what comes in from outside is black.
        flip: mirror left to right with probability one half.
        generator: on the CPU.

    Returns:
        float32 (B, C, H, W) in [0, 1], on the device of ``images``, stored channels last.
    """
    count, (height, width) = len(chosen), images.shape[2:]
    offset = (
        torch.randint(-shift, shift + 1, (2, count, 1), generator=generator)
        if shift
        else torch.zeros(2, count, 1, dtype=torch.long)
    )
    mirrored = torch.rand(count, 1, generator=generator) < 0.5 if flip else torch.zeros(count, 1, dtype=torch.bool)
    rows = torch.arange(height) + offset[0]
    columns = torch.where(mirrored, torch.arange(width).flip(0), torch.arange(width)) + offset[1]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    device = images.device
    rows, columns, inside = (
        rows.clamp(0, height - 1).to(device),
        columns.clamp(0, width - 1).to(device),
        inside.to(device),
    )
    batch = images[chosen.to(device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return (batch.float() / 255 * inside[..., None]).permute(0, 3, 1, 2)


def optimizer_for(parameters: Iterable[Tensor], config: TrainingConfig) -> torch.optim.Optimizer:
    """The optimiser that the settings name."""
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        parameters, config.learning_rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay
    )


def scheduler_for(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate over so many steps, as the settings name it."""
    if config.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, config.learning_rate, total_steps=steps + 1, pct_start=0.2, cycle_momentum=False
        )
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _autocast(precision: str, device: torch.device) -> torch.autocast:
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_bfloat16_units()
    else:
        fast = precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)


def _cpu_has_bfloat16_units() -> bool:
    # torch names this probe with an underscore in every version we support; without it, float32 is the safe answer
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(probe and probe())
