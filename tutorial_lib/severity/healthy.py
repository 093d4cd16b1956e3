"""An autoencoder that knows the healthy, the scores it gives, and the trivial scores that it has to beat.

Kokilepersaud et al., "Gradient-based severity labeling for biomarker classification in OCT", ICIP 2022: GradCON (Kwon
et al., ECCV 2020), trained on healthy images alone, scores an image by how far it lies from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.data.images import as_float, check_images
from tutorial_lib.detectors.gradcon import GradCON, GradientAlignment, LatentLoss, ReconstructionError
from tutorial_lib.gradcon import ALPHA, AutoencoderConfig, AutoencoderHistory, GradientConstraint, train_autoencoder
from tutorial_lib.models.autoencoder import Autoencoder, build_autoencoder
from tutorial_lib.models.predict import device_of, preserved

__all__ = ["MODELS", "HealthyModel", "control_scores", "train_healthy"]

MODELS: Mapping[str, tuple[str, float]] = {
    "cae": ("cae", 0.0),
    "cae+grad": ("cae", ALPHA),
    "vae": ("vae", 0.0),
    "vae+grad": ("vae", ALPHA),
}
"""Kind of autoencoder and weight of the gradient constraint, by name. With weight 0 nothing is constrained, but the
average gradient is kept, so that the gradient score can be compared."""


@dataclass(frozen=True)
class HealthyModel:
    """What was learned from healthy images.

    Attributes:
        autoencoder: in evaluation mode.
        constraint: holds the average gradient of the training.
        history: of the training.
    """

    autoencoder: Autoencoder
    constraint: GradientConstraint
    history: AutoencoderHistory

    def scores(self, images: Tensor) -> dict[str, NDArray[np.float64]]:
        """Every score of every image, float64 (N,), larger = iller.

        ``reconstruction``, ``latent`` (of a variational autoencoder), ``gradient``, and ``combined``, which is
        GradCON's. None has seen an image that is not healthy.
        """
        detectors: dict[str, Any] = {"reconstruction": ReconstructionError(self.autoencoder)}
        if self.autoencoder.kind == "vae":
            detectors["latent"] = LatentLoss(self.autoencoder)
        detectors["gradient"] = GradientAlignment(self.autoencoder, self.constraint)
        detectors["combined"] = GradCON(self.autoencoder, self.constraint)
        return {name: detector.predict(images) for name, detector in detectors.items()}

    def reconstruct(self, images: Tensor) -> Tensor:
        """Reconstructions (N, C, H, W) in (0, 1), on the CPU."""
        with preserved(self.autoencoder), torch.no_grad():
            parts = [self.autoencoder(as_float(part).to(device_of(self.autoencoder))) for part in images.split(512)]
        return torch.cat(parts).cpu()


def train_healthy(
    healthy: Tensor,
    model: str = "cae+grad",
    widths: Sequence[int] | None = None,
    config: AutoencoderConfig | None = None,
    validation: Tensor | None = None,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> HealthyModel:
    """Train one of `MODELS` on healthy images.

    Args:
        healthy: (N, C, H, W), ``uint8`` or float in [0, 1].
        model: a name in `MODELS`.
        widths: channels of the encoder's stages; the published ones when left out. On small images those leave more
            numbers in the middle than an image has pixels, and such a network can copy any lesion.
        config: of the training; its seed also decides the initial weights.
        validation: healthy images on which the epoch is chosen.
        device: where to train, and where the model stays.
        progress: show a bar.

    Raises:
        ValueError: no such model.
    """
    if model not in MODELS:
        raise ValueError(f"there is no model {model!r}; there are {', '.join(MODELS)}")
    kind, alpha = MODELS[model]
    config = config or AutoencoderConfig()
    check_images(healthy)
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(config.seed)
        autoencoder = build_autoencoder(kind, tuple(healthy.shape[1:]), widths=widths).to(device)
    constraint = GradientConstraint(autoencoder, alpha)
    history = train_autoencoder(autoencoder, healthy, constraint, config, progress=progress, validation=validation)
    return HealthyModel(autoencoder, constraint, history)


def control_scores(images: Tensor, healthy: Tensor) -> dict[str, NDArray[np.float64]]:
    """Scores that need no network, float64 (N,); their direction is fixed before anything is measured.

    * ``brightness``: mean of the pixels; brighter is called iller;
    * ``complexity``: total variation, the mean absolute difference of neighbouring pixels; rougher is called iller;
    * ``mean image``: mean squared difference from the mean of the healthy images;
    * ``nearest healthy``: mean squared difference from the most similar healthy image.

    Args:
        images: (N, C, H, W), ``uint8`` or float in [0, 1].
        healthy: (M, C, H, W), what an autoencoder would have been trained on.
    """
    check_images(images)
    check_images(healthy, channels=images.shape[1], size=(images.shape[2], images.shape[3]))
    x, known = as_float(images, torch.float64), as_float(healthy, torch.float64)
    rough = x.diff(dim=2).abs().mean((1, 2, 3)) + x.diff(dim=3).abs().mean((1, 2, 3))
    nearest = [torch.cdist(part.flatten(1), known.flatten(1)).amin(1).square() / x[0].numel() for part in x.split(256)]
    found = {
        "brightness": x.mean((1, 2, 3)),
        "complexity": rough,
        "mean image": (x - known.mean(0)).square().mean((1, 2, 3)),
        "nearest healthy": torch.cat(nearest),
    }
    return {name: values.numpy() for name, values in found.items()}
