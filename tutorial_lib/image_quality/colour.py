"""Colours as image coders see them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["luma", "to_ycbcr", "to_ygcr"]

# ITU-R BT.601, studio range: what MATLAB's rgb2ycbcr does to doubles, and scikit-image's to floats (times 255).
_FROM_RGB = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
_OFFSET = np.array([16.0, 128.0, 128.0]) / 255


def luma(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Brightness 0.299 R + 0.587 G + 0.114 B (BT.601, full range): (N, C, H, W) in [0, 1] to (N, H, W) in [0, 1].

    Grey images are their own.
    """
    if images.shape[1] == 1:
        return images[:, 0]
    return np.einsum("c,nchw->nhw", [0.299, 0.587, 0.114], images)


def to_ycbcr(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """RGB (N, 3, H, W) in [0, 1] to Y in [16, 235]/255, Cb and Cr in [16, 240]/255. Not rounded.

    >>> (to_ycbcr(np.ones((1, 3, 1, 1))).ravel() * 255).round()
    array([235., 128., 128.])
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f"colours need RGB images (N, 3, H, W), got {images.shape}")
    return np.einsum("dc,nchw->ndhw", _FROM_RGB, images) + _OFFSET[None, :, None, None]


def to_ygcr(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """The three planes of UNIQUE: Y and Cr of `to_ycbcr`, with green in the place of Cb.

    Temel, Prabhushankar and AlRegib, "UNIQUE: Unsupervised Image Quality Estimation", IEEE Signal Processing Letters 23,
    2016, section II. Grey images are taken as RGB with three equal planes.
    """
    if images.shape[1] == 1:
        images = np.repeat(images, 3, axis=1)
    planes = to_ycbcr(images)
    planes[:, 1] = images[:, 1]
    return planes
