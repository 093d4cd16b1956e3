"""Training of an encoder by contrast, with labels that say who belongs together or without.

The loss is `tutorial_lib.severity.contrastive.supervised_contrastive_loss`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from tutorial_lib.data.images import as_float
from tutorial_lib.reproducible import one_thread, seeded
from tutorial_lib.severity.contrastive import supervised_contrastive_loss
from tutorial_lib.severity.views import Views, random_views
from tutorial_lib.training.loop import LONG, diverged

__all__ = ["ContrastiveConfig", "train_contrastive"]


@dataclass(frozen=True)
class ContrastiveConfig:
    """How to train an encoder by contrast.

    Args:
        steps: batches drawn, each without replacement.
        batch_size: images in a batch, each in two views.
        learning_rate: the highest one; one cycle, Adam.
        temperature: of the loss.
        projection_width: width of the two-layer head that the loss sees and that is thrown away.
        views: what a view may change.
        seed: of the projection's weights, the batches and the views. The encoder's initial weights are the caller's.
    """

    steps: int = 600
    batch_size: int = 128
    learning_rate: float = 3e-3
    temperature: float = 0.1
    projection_width: int = 64
    views: Views = field(default_factory=Views)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "learning_rate", "temperature", "projection_width"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")


def train_contrastive(
    model: nn.Module,
    images: Tensor,
    labels: NDArray[np.int64] | Tensor | None = None,
    config: ContrastiveConfig | None = None,
    progress: bool = False,
) -> list[float]:
    """Train ``model.features`` in place, and leave the model in evaluation mode; its last layer is not touched.

    Args:
        model: with a method ``features`` from images (N, C, H, W) to (N, D), as every classifier here has.
        images: unlabelled (N, C, H, W), ``uint8`` or float in [0, 1].
        labels: severity labels (N,), or whatever says who belongs together; None: SimCLR.
        config: settings; `ContrastiveConfig()` when left out.
        progress: show a bar.

    Returns:
        the loss of every step.

    Raises:
        ValueError: fewer than two images, or labels that are not one an image.
        TrainingDiverged: the loss is not finite.
    """
    config = config or ContrastiveConfig()
    if len(images) < 2:
        raise ValueError(f"contrast needs two images or more, got {len(images)}")
    names = None if labels is None else torch.as_tensor(labels)
    if names is not None and names.shape != (len(images),):
        raise ValueError(f"labels must be one an image, {len(images)}, got shape {tuple(names.shape)}")
    device = next(model.parameters()).device
    pixels = as_float(images).to(device)
    generator = torch.Generator().manual_seed(config.seed)  # on the CPU, so that every device sees the same views
    with torch.no_grad():
        width = model.eval().features(pixels[:1]).shape[1]  # type: ignore[operator]
    with seeded(config.seed):
        projection = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.projection_width))
    projection.to(device)
    head = {id(parameter) for parameter in getattr(model, "head", nn.Identity()).parameters()}
    parameters = [parameter for parameter in model.parameters() if id(parameter) not in head]
    optimizer = torch.optim.Adam([*parameters, *projection.parameters()], config.learning_rate)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.steps + 1, pct_start=0.3, cycle_momentum=False
    )
    model.train()
    losses, order = [], torch.empty(0, dtype=torch.long)
    size = min(config.batch_size, len(pixels))
    with one_thread(config.steps * size * pixels[0].numel() <= LONG):
        for step in tqdm(range(config.steps), disable=not progress):
            if len(order) < size:
                order = torch.randperm(len(pixels), generator=generator)
            chosen, order = order[:size], order[size:]
            batch = pixels[chosen.to(device)]
            both = torch.cat([random_views(batch, config.views, generator) for _ in range(2)])
            z = projection(model.features(both))  # type: ignore[operator]
            z = z.view(2, size, -1).transpose(0, 1)
            loss = supervised_contrastive_loss(z, None if names is None else names[chosen], config.temperature)
            if not bool(loss.isfinite()):
                raise diverged(loss.item(), f"step {step + 1} of {config.steps}", config.learning_rate)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
    model.eval()
    return losses
