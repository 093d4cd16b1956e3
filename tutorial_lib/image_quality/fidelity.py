r"""PSNR and SSIM, with everything said that people's values differ by.

=================  =================================================================================================
range, direction   PSNR in dB, [0, ∞); SSIM in [-1, 1]; larger = better, a perfect copy has ∞ and 1
images             in [0, 1]; ``uint8`` is divided by 255, nothing is rounded in between
colour             PSNR: mean squared error over all channels; SSIM: each channel by itself, then the mean.
                   ``colour="luma"`` looks at 0.299 R + 0.587 G + 0.114 B only, not rounded
window             Gaussian, 11 x 11, standard deviation 1.5, sum 1 (Wang et al. 2004, section III.B)
variance           of the window's weights, divided by their sum (no "sample covariance" n / (n - 1))
constants          :math:`C_1 = (0.01 L)^2, C_2 = (0.03 L)^2`, L = 1
border             only windows that lie wholly inside count: 5 pixels are cut off on each side
scale              the image as it is; the authors' script first averages down large images, we do not
=================  =================================================================================================

This is ``skimage.metrics.structural_similarity(..., gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
data_range=1)``; its default, a flat window of 7 x 7 with sample covariance, is another number.

Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error visibility to structural similarity", IEEE
Transactions on Image Processing 13, 2004.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from torch import Tensor

from tutorial_lib.image_quality.colour import luma
from tutorial_lib.image_quality.pairs import checked_pair

__all__ = ["WINDOW", "gaussian_window", "psnr", "ssim", "ssim_map"]

WINDOW = 11
"""Side of SSIM's window, in pixels."""

_SD = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(reference: Tensor, distorted: Tensor, colour: str = "rgb") -> NDArray[np.float64]:
    r"""Peak signal-to-noise ratio :math:`-10 \log_{10} \mathrm{MSE}` in dB, of images in [0, 1].

    Args:
        reference, distorted: (N, C, H, W), ``uint8`` or float in [0, 1].
        colour: ``"rgb"`` or ``"luma"``, see the top of this module.

    Returns:
        (N,) float64, larger = better, infinite for a perfect copy.

    >>> import torch
    >>> psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.1)).round(6)
    array([20.])
    """
    first, second = _in_colour(*checked_pair(reference, distorted), colour)
    error = ((first - second) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 0.0 - 10 * np.log10(error)  # no -0.0 for black against white


def ssim(reference: Tensor, distorted: Tensor, colour: str = "rgb") -> NDArray[np.float64]:
    """Structural similarity: the mean of `ssim_map` over windows and channels.

    Args:
        reference, distorted: (N, C, H, W), ``uint8`` or float in [0, 1], at least 11 x 11 pixels.
        colour: ``"rgb"`` or ``"luma"``.

    Returns:
        (N,) float64 in [-1, 1], larger = better, 1 for a perfect copy.
    """
    return ssim_map(reference, distorted, colour).mean(axis=(1, 2, 3))


def ssim_map(reference: Tensor, distorted: Tensor, colour: str = "rgb") -> NDArray[np.float64]:
    r"""Structural similarity of every window, (N, C, H - 10, W - 10), equation 13 of the paper.

    .. math:: \frac{(2 \mu_x \mu_y + C_1)(2 \sigma_{xy} + C_2)}{(\mu_x^2 + \mu_y^2 + C_1)(\sigma_x^2 + \sigma_y^2 + C_2)}
    """
    x, y = _in_colour(*checked_pair(reference, distorted), colour)
    if min(x.shape[2:]) < WINDOW:
        raise ValueError(f"SSIM's window has {WINDOW} x {WINDOW} pixels, the images {x.shape[2]} x {x.shape[3]}")
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x = _windowed(x * x) - mean_x**2
    variance_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    above = (2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)
    below = (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    return above / below


def gaussian_window() -> NDArray[np.float64]:
    """The window along one axis, (11,), with the sum 1; the window is its product with itself."""
    places = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-(places**2) / (2 * _SD**2))
    return weights / weights.sum()


def _windowed(planes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weighted mean in every window that lies wholly inside."""
    weights, edge = gaussian_window(), WINDOW // 2
    for axis in (2, 3):
        planes = correlate1d(planes, weights, axis=axis)
    return planes[:, :, edge:-edge, edge:-edge]


def _in_colour(
    first: NDArray[np.float64], second: NDArray[np.float64], colour: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if colour == "rgb":
        return first, second
    if colour == "luma":
        return luma(first)[:, None], luma(second)[:, None]
    raise ValueError(f"colour must be 'rgb' or 'luma', got {colour!r}")
