"""Convolutional autoencoder and variational autoencoder of gradient constraints.

Kwon et al., "Backpropagated gradient representations for anomaly detection", ECCV 2020. The convolutions are those of
the authors' published code; it trains them on 28x28 images. Images of another even size get as many stages as bring
them to a latent of 3x3 or less.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tutorial_lib.data.images import as_float

__all__ = [
    "AUTOENCODERS",
    "PUBLISHED_WIDTHS",
    "Autoencoder",
    "Posterior",
    "VariationalAutoencoder",
    "build_autoencoder",
]

#: Channels after each stage of the published encoder.
PUBLISHED_WIDTHS = (32, 32, 64, 64)

#: Names of the two kinds.
AUTOENCODERS = ("cae", "vae")

_KERNEL, _STRIDE, _SMALLEST = 4, 2, 3


class Autoencoder(nn.Module):
    """Images to a small map of features and back.

    Encoder: convolutions of kernel 4, stride 2, padding 2, each followed by a ReLU. Decoder: as many transposed
    convolutions of kernel 4 and stride 2 with ReLUs between them and a sigmoid at the end. No normalisation layers, and
    no normalisation of images: they are in [0, 1], and so are the reconstructions.

    Args:
        image_shape: (C, H, W), height and width even and at least 6.
        widths: channels after each stage of the encoder, which also says how many stages there are.

    >>> model = Autoencoder((1, 28, 28))
    >>> sum(p.numel() for p in model.parameters()), model.latent_shape
    (230721, (64, 3, 3))
    """

    kind = "cae"

    def __init__(self, image_shape: Sequence[int], widths: Sequence[int] = PUBLISHED_WIDTHS) -> None:
        super().__init__()
        channels, height, width = _checked_shape(image_shape)
        if not widths or min(widths) < 1:
            raise ValueError(f"widths must be positive numbers of channels, got {tuple(widths)}")
        stages = len(widths)
        small, paddings = zip(*(_plan(side, stages) for side in (height, width)), strict=True)
        self.image_shape, self.widths = (channels, height, width), tuple(widths)
        self.latent_shape = (widths[-1], small[0], small[1])
        down = [channels, *widths]
        encoder: list[nn.Module] = []
        for before, after in zip(down, down[1:], strict=False):
            encoder += [nn.Conv2d(before, after, _KERNEL, _STRIDE, padding=2), nn.ReLU()]
        up = [widths[-1], *widths[-2::-1], channels]
        decoder: list[nn.Module] = []
        for stage, (before, after) in enumerate(zip(up, up[1:], strict=False)):
            padding = (paddings[0][stage], paddings[1][stage])
            decoder += [nn.ConvTranspose2d(before, after, _KERNEL, _STRIDE, padding=padding), nn.ReLU()]
        decoder[-1] = nn.Sigmoid()
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)

    def encode(self, images: Tensor) -> Tensor:
        """Latent features (N, D, h, w) of images (N, C, H, W), ``uint8`` or floating point in [0, 1]."""
        if images.shape[-3:] != self.image_shape:
            raise ValueError(f"this autoencoder takes images of {_by(self.image_shape)}, got {_by(images.shape[-3:])}")
        return self.encoder(as_float(images, self.encoder[0].weight.dtype))  # type: ignore[arg-type]

    def decode(self, latent: Tensor) -> Tensor:
        """Images (N, C, H, W) in (0, 1) of latent features (N, D, h, w)."""
        return self.decoder(latent)

    def latent_loss(self, latent: Tensor) -> Tensor:
        """What the latent constraint costs each image, (N,): nothing, for this kind."""
        return latent.new_zeros(len(latent))

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions (N, C, H, W) in (0, 1)."""
        return self.decode(self.encode(images))


class Posterior(NamedTuple):
    """Normal distribution of the latent for each image: mean and logarithm of the variance, each (N, D)."""

    mean: Tensor
    log_variance: Tensor


class VariationalAutoencoder(Autoencoder):
    r"""The same with a latent that is a normal distribution, held close to the standard one.

    Linear layers turn the flattened features into mean and log-variance (N, D) and back, D as many as there are
    features (576 for 28x28 images). In training mode a latent is drawn, in evaluation mode it is the mean.

    Kingma & Welling, "Auto-encoding variational Bayes", ICLR 2014; latent loss: appendix B,
    :math:`\frac12 \sum_j (\mu_j^2 + \sigma_j^2 - \log \sigma_j^2 - 1)`.

    >>> model = VariationalAutoencoder((1, 8, 8), (4, 2)).eval()
    >>> posterior = model.encode(torch.zeros(5, 1, 8, 8))
    >>> posterior.mean.shape, model.latent_loss(posterior).shape, model.decode(posterior).shape
    (torch.Size([5, 18]), torch.Size([5]), torch.Size([5, 1, 8, 8]))
    """

    kind = "vae"

    def __init__(self, image_shape: Sequence[int], widths: Sequence[int] = PUBLISHED_WIDTHS) -> None:
        super().__init__(image_shape, widths)
        depth, height, width = self.latent_shape
        size = depth * height * width
        self.to_mean, self.to_log_variance = nn.Linear(size, size), nn.Linear(size, size)
        self.from_latent = nn.Linear(size, size)

    def encode(self, images: Tensor) -> Posterior:  # type: ignore[override]
        """Distribution of the latent of images (N, C, H, W), ``uint8`` or floating point in [0, 1]."""
        features = super().encode(images).flatten(-3)
        return Posterior(self.to_mean(features), self.to_log_variance(features))

    def decode(self, latent: Posterior | Tensor, noise: Tensor | None = None) -> Tensor:
        """Images (N, C, H, W) in (0, 1).

        Args:
            latent: a tensor (N, D), or a distribution. Of that, the mean is decoded in evaluation mode, a draw in
                training mode.
            noise: standard normal numbers (N, D) to draw with; torch's global random state makes them when left out.
        """
        if isinstance(latent, Posterior):
            mean, log_variance = latent
            if self.training or noise is not None:
                noise = torch.randn_like(mean) if noise is None else noise
                mean = mean + (log_variance / 2).exp() * noise
            latent = mean
        return self.decoder(self.from_latent(latent).unflatten(-1, self.latent_shape))

    def latent_loss(self, latent: Posterior) -> Tensor:  # type: ignore[override]
        """Kullback-Leibler divergence of the distribution from the standard normal one, in nats, (N,)."""
        mean, log_variance = latent
        return 0.5 * (mean.square() + log_variance.exp() - log_variance - 1).sum(-1)


def build_autoencoder(
    kind: str, image_shape: Sequence[int], width: float = 1.0, widths: Sequence[int] | None = None
) -> Autoencoder:
    """A new autoencoder with random weights (from torch's global random state).

    Args:
        kind: ``"cae"`` or ``"vae"``.
        image_shape: (C, H, W).
        width: the published channels times this. 28x28 images get all four stages, smaller ones the first few.
        widths: the channels themselves, instead.

    Returns:
        `Autoencoder` or `VariationalAutoencoder`.

    Raises:
        ValueError: unknown kind, sizes that no number of stages leads back to.

    >>> build_autoencoder("cae", (1, 8, 8), width=0.25).latent_shape
    (8, 3, 3)
    """
    if kind not in AUTOENCODERS:
        raise ValueError(f"kind must be one of {', '.join(AUTOENCODERS)}, got {kind!r}")
    if widths is None:
        if width <= 0:
            raise ValueError(f"width must be positive, got {width}")
        published = PUBLISHED_WIDTHS[: _stages(max(_checked_shape(image_shape)[1:]))]
        widths = [max(1, round(channels * width)) for channels in published]
    return (Autoencoder if kind == "cae" else VariationalAutoencoder)(image_shape, widths)


def _checked_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    if len(image_shape) != 3:
        raise ValueError(f"image_shape must be (C, H, W), got {tuple(image_shape)}")
    channels, height, width = image_shape
    if channels < 1 or min(height, width) < 6 or height % 2 or width % 2:
        raise ValueError(
            f"the decoder ends in images of even height and width, 6 at least; {_by(image_shape)} are not; "
            "resize them with tutorial_lib.data.resize.fit"
        )
    return channels, height, width


def _stages(side: int) -> int:
    """Stages that bring a side to 3 or less, at most as many as are published."""
    stages = 0
    while side > _SMALLEST and stages < len(PUBLISHED_WIDTHS):
        side, stages = side // 2 + 1, stages + 1
    return stages


def _plan(side: int, stages: int) -> tuple[int, tuple[int, ...]]:
    """The latent's side, and the paddings (1 or 2) with which the decoder comes back to ``side`` from it.

    A stage of the encoder takes n to n // 2 + 1; one of the decoder takes n to 2 n with padding 1, to 2 n - 2 with 2.
    """
    small = side
    for _ in range(stages):
        small = small // 2 + 1
    sides: dict[int, tuple[int, ...]] = {small: ()}
    for _ in range(stages):
        sides = {
            2 * (n - padding + 1): (*paddings, padding) for n, paddings in reversed(sides.items()) for padding in (2, 1)
        }
    if side not in sides:
        raise ValueError(f"{stages} stages do not lead back to {side} pixels; take other widths or another size")
    return small, sides[side]


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape)
