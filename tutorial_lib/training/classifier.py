"""One trainer for classifiers.

The data set stays on the device as ``uint8``; a batch is gathered, shifted and flipped there in one indexing operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tutorial_lib.data.images import ImageSet
from tutorial_lib.models.airbench import Whitening
from tutorial_lib.models.predict import predict_logits
from tutorial_lib.training.lookahead import Lookahead
from tutorial_lib.training.loop import TrainingDiverged, run_epochs
from tutorial_lib.training.precision import PRECISIONS, autocast

__all__ = [
    "TrainingConfig",
    "TrainingDiverged",
    "TrainingHistory",
    "accuracy",
    "augment",
    "norm_biases",
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
        optimizer: ``"sgd"`` (with Nesterov momentum) or ``"adam"``.
        momentum: of SGD.
        weight_decay: L2 penalty as the optimiser applies it.
        schedule: ``"one_cycle"`` (Smith & Topin 2018: up over the first fifth, then down to zero), ``"cosine"`` (down
            only), ``"triangular"`` (from a fifth of the highest up over the first 23 %, then down to 7 %, straight
            lines: Jordan 2024) or ``"constant"``.
        shift: random translation of up to this many pixels.
        border: what comes in from outside, ``"black"`` or ``"mirror"``.
        flip: mirror half of the images left to right, drawn anew for each; or ``"alternating"``: half of them in the
            first epoch, and all of them the other way round in each epoch that follows (Jordan 2024, section 3.6).
        label_smoothing: share of each label that is spread over all classes. What learned from smoothed labels is
            not sure of itself by design: mind that where confidence is measured.
        norm_bias_factor: the biases of batch normalisation learn so many times faster; SGD only.
        whitening_epochs: the bias of a `tutorial_lib.models.airbench.Whitening` learns in so many epochs, then stays;
            0 for all.
        lookahead: see `tutorial_lib.training.lookahead.Lookahead`.
        precision: ``"float32"``, ``"bfloat16"`` (autocast), or ``"auto"``: bfloat16 where the device has units for it,
            see `tutorial_lib.training.precision`.
        seed: of the order of the images and of the augmentation. The initial weights are the caller's.
    """

    epochs: int = 40
    batch_size: int = 128
    learning_rate: float = 0.1
    optimizer: str = "sgd"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "one_cycle"
    shift: int = 4
    border: str = "black"
    flip: bool | str = True
    label_smoothing: float = 0.0
    norm_bias_factor: float = 1.0
    whitening_epochs: int = 0
    lookahead: bool = False
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, allowed in (
            ("optimizer", ("sgd", "adam")),
            ("schedule", ("one_cycle", "cosine", "triangular", "constant")),
            ("border", ("black", "mirror")),
            ("flip", (True, False, "alternating")),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(map(str, allowed))}, got {getattr(self, name)!r}")
        for name in ("epochs", "batch_size", "learning_rate", "norm_bias_factor"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.shift < 0 or self.weight_decay < 0:
            raise ValueError(f"shift and weight_decay must not be negative, got {self.shift} and {self.weight_decay}")
        if not (0 <= self.momentum < 1 and 0 <= self.label_smoothing < 1):
            raise ValueError(
                f"momentum and label_smoothing must lie in [0, 1), got {self.momentum} and {self.label_smoothing}"
            )
        if self.whitening_epochs < 0:
            raise ValueError(f"whitening_epochs must not be negative, got {self.whitening_epochs}")
        if self.norm_bias_factor != 1 and self.optimizer != "sgd":
            raise ValueError("norm_bias_factor is for sgd")


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
    optimizer = optimizer_for(model.parameters(), config, norm_biases(model))
    scheduler = scheduler_for(optimizer, config, config.epochs * steps_per_epoch)
    forward_in = autocast(config.precision, device)
    generator = torch.Generator().manual_seed(config.seed)  # on the CPU, so that every device sees the same order
    mirrored = _first_mirrored(len(train), generator) if config.flip == "alternating" else None
    history = TrainingHistory()
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    lookahead = Lookahead(model, config.epochs * steps_per_epoch) if config.lookahead else None
    if lookahead is not None:
        parts["lookahead"] = lookahead

    def one_epoch(step_done: Callable[[], object]) -> Mapping[str, float]:
        epoch = len(history.loss)
        model.train()
        _thaw_whitening(model, not config.whitening_epochs or epoch < config.whitening_epochs)
        flip = bool(config.flip) if mirrored is None else mirrored ^ bool(epoch % 2)
        total = torch.zeros((), device=device)
        for chosen in torch.randperm(len(train), generator=generator).split(config.batch_size):
            batch = augment(images, chosen, config.shift, flip, generator, config.border)
            answers = labels[chosen.to(device)]
            if loss_of is None:
                with forward_in:
                    logits = model(batch)
                exact = logits if logits.dtype == torch.float64 else logits.float()
                loss = F.cross_entropy(exact, answers, label_smoothing=config.label_smoothing)
            else:
                loss = loss_of(batch, answers)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if after_step is not None:
                after_step(batch, answers)
            if lookahead is not None:
                lookahead.step()
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
        parts,
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
    _thaw_whitening(model, True)
    model.eval()
    return history


def _first_mirrored(count: int, generator: torch.Generator) -> Tensor:
    """Which images are mirrored in the first epoch."""
    return torch.rand(count, generator=generator) < 0.5


def _thaw_whitening(model: nn.Module, learns: bool) -> None:
    for layer in model.modules():
        if isinstance(layer, Whitening) and layer.bias is not None:
            layer.bias.requires_grad_(learns)


def accuracy(model: nn.Module, images: ImageSet) -> float:
    """Share of the images whose largest logit is their label's, in [0, 1]."""
    predicted = predict_logits(model, images.images).argmax(dim=1)
    return float((predicted == images.labels).double().mean())


def augment(
    images: Tensor,
    chosen: Tensor,
    shift: int,
    flip: bool | str | Tensor,
    generator: torch.Generator,
    border: str = "black",
) -> Tensor:
    """A batch of training images, each translated at random by up to ``shift`` pixels and mirrored half of the time.

    Args:
        images: all images, ``uint8`` (N, C, H, W), on any device.
        chosen: indices (B,) on the CPU.
        shift: largest translation in pixels.
        flip: mirror left to right with probability one half; or which of all images are mirrored, boolean (N,) on the
            CPU.
        generator: on the CPU.
        border: what comes in from outside, ``"black"``, or ``"mirror"``: the image goes on as its mirror image.

    Returns:
        float32 (B, C, H, W) in [0, 1], on the device of ``images``, stored channels last.
    """
    count, (height, width) = len(chosen), images.shape[2:]
    offset = (
        torch.randint(-shift, shift + 1, (2, count, 1), generator=generator)
        if shift
        else torch.zeros(2, count, 1, dtype=torch.long)
    )
    if isinstance(flip, Tensor):
        mirrored = flip[chosen][:, None]
    else:
        mirrored = torch.rand(count, 1, generator=generator) < 0.5 if flip else torch.zeros(count, 1, dtype=torch.bool)
    rows = torch.arange(height) + offset[0]
    columns = torch.where(mirrored, torch.arange(width).flip(0), torch.arange(width)) + offset[1]
    if border == "mirror":
        rows, columns = _reflected(rows, height), _reflected(columns, width)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    device = images.device
    rows, columns, inside = (
        rows.clamp(0, height - 1).to(device),
        columns.clamp(0, width - 1).to(device),
        inside.to(device),
    )
    batch = images[chosen.to(device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return (batch.float() / 255 * inside[..., None]).permute(0, 3, 1, 2)


def _reflected(places: Tensor, size: int) -> Tensor:
    """Places beside 0..size-1 as those that a mirror at the border shows; the border itself is not shown twice."""
    places = places.abs()
    return size - 1 - (size - 1 - places).abs()


def norm_biases(model: nn.Module) -> list[Tensor]:
    """The biases of batch normalisation."""
    return [m.bias for m in model.modules() if isinstance(m, _BatchNorm) and m.bias is not None]


def optimizer_for(
    parameters: Iterable[Tensor], config: TrainingConfig, biases: Iterable[Tensor] = ()
) -> torch.optim.Optimizer:
    """The optimiser that the settings name.

    Args:
        parameters: all of them.
        config: settings.
        biases: which of them learn ``config.norm_bias_factor`` times faster. Their decay in a step stays as it is.
    """
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, config.learning_rate, weight_decay=config.weight_decay)
    groups: list[Any] = list(parameters)
    if config.norm_bias_factor != 1:
        fast = {id(bias) for bias in biases}
        rate, decay = config.learning_rate * config.norm_bias_factor, config.weight_decay / config.norm_bias_factor
        groups = [
            {"params": [p for p in groups if id(p) in fast], "lr": rate, "weight_decay": decay},
            {"params": [p for p in groups if id(p) not in fast]},
        ]
    return torch.optim.SGD(
        groups, config.learning_rate, momentum=config.momentum, nesterov=True, weight_decay=config.weight_decay
    )


def scheduler_for(
    optimizer: torch.optim.Optimizer, config: TrainingConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate over so many steps, as the settings name it."""
    if config.schedule == "one_cycle":
        highest = [group["lr"] for group in optimizer.param_groups]
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, highest, total_steps=steps + 1, pct_start=0.2, cycle_momentum=False
        )
    if config.schedule == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if config.schedule == "triangular":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, partial(_triangle, steps=steps))
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _triangle(step: int, steps: int) -> float:
    """Share of the highest learning rate: straight lines from 0.2 to 1 at 23 % of the steps and to 0.07 at the end."""
    up = int(0.23 * steps)
    if step < up:
        return 0.2 + 0.8 * step / up
    return 1 - 0.93 * (step - up) / (steps - up)
