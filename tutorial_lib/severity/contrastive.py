r"""Contrastive learning: pull together what belongs together, push away all else.

Khosla et al., "Supervised contrastive learning", NeurIPS 2020, eq. 2:

.. math:: \mathcal{L} = \sum_{i \in I} \frac{-1}{|P(i)|} \sum_{p \in P(i)}
          \log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{a \in A(i)} \exp(z_i \cdot z_a / \tau)}

Every image i of a batch appears in two views, each an anchor; A(i) are all other views of the batch and P(i) those of
the same label. Without labels, P(i) is the other view of the same image alone, and the loss is NT-Xent, the loss of
SimCLR (Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020, eq. 1).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from tutorial_lib.data.images import as_float
from tutorial_lib.severity.views import Views, random_views

__all__ = ["ContrastiveConfig", "supervised_contrastive_loss", "train_contrastive"]


def supervised_contrastive_loss(projections: Tensor, labels: Tensor | None = None, temperature: float = 0.07) -> Tensor:
    """The loss above as the mean over all anchors, a scalar.

    Args:
        projections: (N, V, D), V at least 2 views of N images; they are scaled to length one here.
        labels: (N,); images of one label are positives for each other. None: SimCLR.
        temperature: positive; the paper uses 0.07 to 0.1.

    Raises:
        ValueError: wrong shapes, or a temperature that is not positive.

    >>> apart = torch.eye(2).repeat_interleave(2, dim=0).view(2, 2, 2)  # two images, views alike
    >>> round(supervised_contrastive_loss(apart, temperature=1.0).item(), 4)  # log(e + 1 + 1) - 1
    0.5514
    """
    if projections.ndim != 3 or projections.shape[1] < 2:
        raise ValueError(
            f"projections must have the shape (N, V, D) with two views or more, got {tuple(projections.shape)}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    count, views, _ = projections.shape
    names = torch.arange(count, device=projections.device) if labels is None else labels.to(projections.device)
    if names.shape != (count,):
        raise ValueError(f"labels must be one an image, {count}, got shape {tuple(names.shape)}")
    z = F.normalize(projections.float(), dim=2).flatten(0, 1)  # (N V, D): half precision would round 1 / 0.07 away
    names = names.repeat_interleave(views)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_probability = (z @ z.T / temperature).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    positive = (names[:, None] == names) & ~itself
    per_anchor = -log_probability.masked_fill(~positive, 0).sum(dim=1) / positive.sum(dim=1)
    return per_anchor.mean()


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
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(config.seed)
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
    for _ in tqdm(range(config.steps), disable=not progress):
        if len(order) < size:
            order = torch.randperm(len(pixels), generator=generator)
        chosen, order = order[:size], order[size:]
        batch = pixels[chosen.to(device)]
        both = torch.cat([random_views(batch, config.views, generator) for _ in range(2)])
        z = projection(model.features(both))  # type: ignore[operator]
        z = z.view(2, size, -1).transpose(0, 1)
        loss = supervised_contrastive_loss(z, None if names is None else names[chosen], config.temperature)
        if not bool(loss.isfinite()):
            raise FloatingPointError(
                f"the contrastive loss is {loss.item()}; try a learning rate below {config.learning_rate:g}"
            )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    model.eval()
    return losses
