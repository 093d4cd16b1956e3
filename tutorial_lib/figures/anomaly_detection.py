"""Pictures of chapter 5: what a manifold can reconstruct, and what is left over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from tutorial_lib.figures.common import against, by_class, draw_residuals, draw_signed, queue
from tutorial_lib.gradcon.toy import Points
from tutorial_lib.plots import (
    KNOWN,
    MODEL,
    UNKNOWN,
    WIDTH,
    show_image,
)

__all__ = ["against", "by_class", "demands", "manifolds", "queue"]

STRANGE_MARKERS = "^vD"


def manifolds(panels: Mapping[str, nn.Module], points: Points, extent: float = 1.9) -> Figure:
    """What each autoencoder of the plane can reconstruct, and where it puts points.

    Args:
        panels: for each title, an autoencoder of points (N, 2).
        points: what it was trained on, and strangers.
        extent: of the drawn plane around (0, 0.3).
    """
    ticks = torch.linspace(-extent, extent, 121)
    grid = torch.stack(torch.meshgrid(ticks, ticks + 0.3, indexing="xy"), dim=-1).reshape(-1, 2)
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.5), sharex=True, sharey=True)
    for axis, (title, model) in zip(np.atleast_1d(axes), panels.items(), strict=True):
        with torch.no_grad():
            axis.plot(*model(grid).T, ".", color=MODEL, markersize=1.2, rasterized=True)
            axis.plot(*points.held_out.T, ".", color=KNOWN, markersize=4, alpha=0.7)
            for marker, strangers in zip(STRANGE_MARKERS, points.strange.values(), strict=False):
                draw_residuals(axis, strangers, model(strangers), UNKNOWN)
                axis.plot(*strangers.T, marker, color=UNKNOWN, markersize=4.5, markeredgecolor="white", mew=0.4)
        axis.set(title=title, xticks=[], yticks=[], aspect="equal")
        axis.set(xlim=(-extent, extent), ylim=(0.3 - extent, 0.3 + extent))
    return figure


def demands(
    images: Tensor, reconstructions: Tensor, codes: Tensor, titles: Sequence[str], strange: Sequence[bool]
) -> Figure:
    """For each image: the image, its reconstruction, the residual, and what a linear decoder's gradient asks for.

    Args:
        images, reconstructions: (n, C, H, W).
        codes: (n, r), the first three of which are drawn.
        titles: n short texts.
        strange: which of the images are.

    The gradient of the squared error with respect to the decoder's k-th direction is -2 (x - x̂) z_k: the residual, once
    for each code. Drawn is its negative, the demand.
    """
    residuals = (images - reconstructions).mean(dim=1, keepdim=True)
    count = min(3, codes.shape[1])
    asked = torch.stack([residuals * codes[:, k, None, None, None] for k in range(count)], dim=1)
    names = ["image", "recon-\nstruction", "what is\nleft", *(f"ask of\ndirection {k + 1}" for k in range(count))]
    figure, axes = plt.subplots(len(images), 3 + count, figsize=(WIDTH, 0.35 + 1.12 * len(images)), squeeze=False)
    largest, loudest = float(residuals.abs().max()), float(asked.abs().max())
    for row, image, answer, left, parts, title, odd in zip(
        axes, images, reconstructions.clamp(0, 1), residuals, asked, titles, strange, strict=True
    ):
        colour = UNKNOWN if odd else KNOWN
        show_image(row[0], image, colour=colour)
        show_image(row[1], answer)
        for axis, values, reach in (
            (row[2], left, largest),
            *((a, p, loudest) for a, p in zip(row[3:], parts, strict=True)),
        ):
            draw_signed(axis, values[0], reach)
        row[0].set_ylabel(title, color=colour, fontweight="bold", rotation=0, ha="right", va="center")
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name, loc="center", fontsize=11)
    return figure
