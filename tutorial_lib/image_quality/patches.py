"""Images in patches, and patches without what their neighbours already say."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tutorial_lib.data.images import as_float, check_images
from tutorial_lib.image_quality.colour import to_ygcr

__all__ = ["PATCH", "ZCA_EPSILON", "patches_of", "random_patches", "whiten"]

PATCH = 8
"""Side of a patch in pixels; with three planes a patch is 192 numbers."""

_ROUNDING = 1e-13

ZCA_EPSILON = 0.1
"""Added to the eigenvalues in `whiten`, for planes in [0, 1]."""


def patches_of(images: Tensor, half: bool = True) -> list[NDArray[np.float64]]:
    """Non-overlapping 8 x 8 patches of the planes Y, G, Cr, of each image.

    Args:
        images: (N, C, H, W), ``uint8`` or float in [0, 1].
        half: first make images half as wide and high (bicubic with antialiasing, as MATLAB's ``imresize`` does): the eye
            looks at low frequencies, and it is four times as fast.

    Returns:
        N arrays (192, M), M the number of patches: first the 64 numbers of Y, then of G, then of Cr. What does not fill a
        patch at the right and lower border is left out.

    Raises:
        ValueError: the image has no room for two patches; a mean and a covariance need more than one.
    """
    check_images(images)
    pixels = as_float(images.detach(), torch.float64).cpu()
    if half:
        size = [-(-side // 2) for side in pixels.shape[2:]]  # imresize rounds up
        pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    planes = to_ygcr(pixels.numpy())
    down, across = planes.shape[2] // PATCH, planes.shape[3] // PATCH
    if down * across < 2:
        least = 2 * PATCH if half else PATCH
        raise ValueError(
            f"images need room for two patches, {least} x {2 * least} pixels, got {tuple(images.shape[2:])}"
        )
    cut = planes[:, :, : down * PATCH, : across * PATCH].reshape(len(planes), 3, down, PATCH, across, PATCH)
    return list(cut.transpose(0, 1, 3, 5, 2, 4).reshape(len(planes), 3 * PATCH**2, down * across))


def random_patches(images: Tensor, per_image: int, seed: int, half: bool = True) -> NDArray[np.float64]:
    """Patches to train on, (192, N * per_image), drawn with replacement from those of `patches_of`."""
    if per_image < 1:
        raise ValueError(f"per_image must be at least 1, got {per_image}")
    generator = np.random.default_rng(seed)
    drawn = [patches[:, generator.integers(patches.shape[1], size=per_image)] for patches in patches_of(images, half)]
    return np.concatenate(drawn, axis=1)


def whiten(patches: NDArray[np.float64], epsilon: float = ZCA_EPSILON) -> NDArray[np.float64]:
    r"""Mean patch taken off, then ZCA: :math:`U (S + \epsilon)^{-1/2} U^\top x` with the covariance :math:`U S U^\top`.

    Mean and covariance (divided by M) are those of these patches themselves: UNIQUE fits them to each image, so that a
    change of brightness or contrast of the whole image is mostly taken away before anybody looks.

    Bell and Sejnowski, "The 'independent components' of natural scenes are edge filters", 1997.

    Args:
        patches: (D, M).
        epsilon: > 0; keeps directions without variance from being blown up.
    """
    if patches.ndim != 2 or not epsilon > 0:
        raise ValueError(f"patches must be (D, M) and epsilon positive, got {patches.shape} and {epsilon}")
    centred = patches - patches.mean(axis=1, keepdims=True)
    centred[np.abs(centred) < _ROUNDING] = 0  # a flat picture has no structure, and rounding is none
    values, vectors = np.linalg.eigh(centred @ centred.T / patches.shape[1])
    return (vectors / np.sqrt(np.maximum(values, 0) + epsilon)) @ (vectors.T @ centred)
