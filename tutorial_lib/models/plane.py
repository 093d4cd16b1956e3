"""The simplest autoencoder: a flat manifold.

Pearson, "On lines and planes of closest fit to systems of points in space", Philosophical Magazine 1901. Derived by
hand in chapter 5.
"""

from __future__ import annotations

import copy
import warnings

import torch
from torch import Tensor, nn

from tutorial_lib.data.images import as_float, check_images

__all__ = ["Plane"]


class Plane(nn.Module):
    r"""Linear autoencoder: reconstructs an image as its projection on the plane of closest fit to the training images.

    The plane goes through their mean m and has the r directions V along which they spread most (the first principal
    components), so that :math:`z = V (x - m)` and :math:`\hat x = V^\top z + m`. No other linear autoencoder of r codes
    has a smaller squared error on the training images.

    Args:
        images: training images (N, C, H, W), ``uint8`` or floating point in [0, 1].
        directions: r, from 0 (the mean image) to the smaller of N - 1 and C·H·W.

    Attributes:
        encoder: pixels (N, D) to codes (N, r).
        decoder: codes (N, r) to pixels (N, D); its bias is the mean image.
        image_shape: (C, H, W).

    Raises:
        ValueError: more directions than the images have.

    >>> corners = torch.eye(4).view(4, 1, 2, 2)
    >>> plane = Plane(corners, directions=3)
    >>> torch.allclose(plane(corners), corners, atol=1e-6)
    True
    """

    kind = "plane"

    def __init__(self, images: Tensor, directions: int) -> None:
        super().__init__()
        check_images(images)
        pixels = as_float(images).flatten(1).double()
        most = min(len(pixels) - 1, pixels.shape[1])
        if not 0 <= directions <= most:
            raise ValueError(
                f"{len(pixels)} images of {pixels.shape[1]} pixels have 0 to {most} directions, got {directions}"
            )
        self.image_shape = tuple(images.shape[1:])
        mean = pixels.mean(0)
        covariance = (pixels - mean).T @ (pixels - mean)
        spread = torch.linalg.eigh(covariance).eigenvectors.flip(1).T[:directions]  # largest eigenvalue first
        with warnings.catch_warnings():  # with no direction there is nothing to initialise, of which torch warns
            warnings.simplefilter("ignore", UserWarning)
            self.encoder, self.decoder = nn.Linear(len(mean), directions), nn.Linear(directions, len(mean))
        with torch.no_grad():
            self.encoder.weight.copy_(spread)
            self.encoder.bias.copy_(-spread @ mean)
            self.decoder.weight.copy_(spread.T)
            self.decoder.bias.copy_(mean)

    def narrowed(self, directions: int) -> Plane:
        """The plane of the first few of these directions, which is that of closest fit as well."""
        if not 0 <= directions <= self.encoder.out_features:
            raise ValueError(f"this plane has {self.encoder.out_features} directions, got {directions}")
        narrow = copy.deepcopy(self)
        narrow.encoder.weight = nn.Parameter(self.encoder.weight.detach()[:directions].clone())
        narrow.encoder.bias = nn.Parameter(self.encoder.bias.detach()[:directions].clone())
        narrow.decoder.weight = nn.Parameter(self.decoder.weight.detach()[:, :directions].clone())
        narrow.encoder.out_features = narrow.decoder.in_features = directions
        return narrow

    def encode(self, images: Tensor) -> Tensor:
        """Codes (N, r): how far along each direction."""
        codes: Tensor = self.encoder(as_float(images, self.encoder.weight.dtype).flatten(1))
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Images (N, C, H, W) of codes (N, r); not clipped to [0, 1]."""
        return self.decoder(codes).unflatten(1, self.image_shape)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Reconstructions (N, C, H, W)."""
        return self.decode(self.encode(images))
