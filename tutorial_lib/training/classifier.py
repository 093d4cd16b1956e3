"""One trainer for classifiers.

The data set stays on the device as ``uint8``; a batch is gathered, shifted and flipped there in one indexing operation.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from tutorial_lib.data.images import ImageSet
from tutorial_lib.models.predict import predict_logits
from tutorial_lib.training.checkpoints import load_checkpoint, save_checkpoint


class TrainingDiverged(RuntimeError):
    """The loss is no longer a finite number."""


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
) -> TrainingHistory:
    """Train ``model`` in place, and leave it in evaluation mode.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K).
        train: training images and labels in 0..K-1.
        validation: measured after every epoch, never trained on.
        config: settings; `TrainingConfig()` when left out.
        device: where to train; the model's own device when left out. The model ends up there.
        progress: show a bar.
        resume_from: a file that holds the state after every epoch. If it exists and was made with the same settings,
            the training goes on from it and ends as if it had never stopped; it is deleted at the end.
        loss_of: images (B, C, H, W) and labels (B,) to the loss, a scalar; the cross-entropy of the logits when left
            out. What it learns must be parameters of ``model``.
        after_step: called with the same images and labels after each step.

    Raises:
        TrainingDiverged: the loss is not finite; says in which epoch and what to try.
        ValueError: no images, labels that the model has no logit for, or a state made with other settings.
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
    state_file = None if resume_from is None else Path(resume_from)
    if state_file is not None and state_file.exists():
        history = _resume(state_file, config, model, optimizer, scheduler, generator)

    done = len(history.loss)
    bar = tqdm(
        total=config.epochs * steps_per_epoch, initial=done * steps_per_epoch, disable=not progress, desc=train.name
    )
    for epoch in range(done, config.epochs):
        start = time.perf_counter()
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
            bar.update()
        mean_loss = float(total) / len(train)
        if mean_loss != mean_loss or mean_loss == float("inf"):
            bar.close()
            raise TrainingDiverged(
                f"the loss is {mean_loss} in epoch {epoch + 1} of {config.epochs}; "
                f"try a learning rate below {config.learning_rate:g}"
            )
        history.loss.append(mean_loss)
        if validation is not None:
            history.validation_accuracy.append(accuracy(model, validation))
            bar.set_postfix(loss=f"{mean_loss:.3f}", accuracy=f"{history.validation_accuracy[-1]:.3f}")
        history.seconds += time.perf_counter() - start
        if state_file is not None:
            _save_state(state_file, config, model, optimizer, scheduler, generator, history)
    bar.close()
    if state_file is not None:
        state_file.unlink(missing_ok=True)
        state_file.with_suffix(".json").unlink(missing_ok=True)
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


def _save_state(path: Path, config, model, optimizer, scheduler, generator, history) -> None:  # type: ignore[no-untyped-def]
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "generator": generator.get_state(),
        "global": torch.get_rng_state(),
    }
    save_checkpoint(path, state, {"config": dataclasses.asdict(config), "history": dataclasses.asdict(history)})


def _resume(path: Path, config, model, optimizer, scheduler, generator) -> TrainingHistory:  # type: ignore[no-untyped-def]
    state, record = load_checkpoint(path)
    if record["config"] != dataclasses.asdict(config):
        raise ValueError(
            f"{path} was made with other settings; delete it to start again, or train with {record['config']}"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["global"])
    return TrainingHistory(**record["history"])
