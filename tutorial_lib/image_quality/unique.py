r"""UNIQUE, and its introspective form.

Feed-forward (Temel, Prabhushankar and AlRegib, "UNIQUE: Unsupervised Image Quality Estimation", 2016): both images are
cut into patches of the planes Y, G, Cr, whitened each by its own statistics, and encoded. Responses below 0.025 are
zero. If the same units answer in the same order, the picture has kept its quality:

.. math:: q = \lvert \mathrm{Spearman}(h(\text{reference}), h(\text{distorted})) \rvert^{10}

Introspective: which change would the *reference* ask of the decoder? Its gradient

.. math:: G = \frac1M \sum_m (\hat x_m - x_m)\, h_m^\top \quad (192 \times 400)

is a set of 400 filters made for this picture, and both pictures are looked at through them, :math:`y = G^\top x`. The
feature is the complex logarithm of the odds, :math:`\log \frac{y}{1 - y}`, as magnitude and angle; a filter that is
peaked in the luma (kurtosis of its first 64 numbers above 3) counts double. Threshold and correlation are as above.

The second form follows the code published with "Stochastic Surprisal" (Prabhushankar and AlRegib, Frontiers in
Neuroscience 17, 2023). The NeurIPS paper on introspective learning says the same in words; whether its table was made
by exactly this code is not known. **The reference alone makes the filters, so the two images cannot be exchanged**, and
what little the angle says, 0 or π for real odds, it says at every place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.image_quality.autoencoder import SparseAutoencoder
from tutorial_lib.image_quality.pairs import checked_pair
from tutorial_lib.image_quality.patches import patches_of, whiten

__all__ = ["Unique", "decoder_gradient", "log_odds", "spearman_quality", "unit_weights"]

THRESHOLD = 0.025
POWER = 10
_LUMA = 64
_EDGE = 1e-12


@dataclass(frozen=True)
class Unique:
    """The measure; call it with references and distorted images.

    Args:
        autoencoder: trained on whitened patches of other images, see `fit_autoencoder`.
        introspective: look through the gradient of the decoder in place of the encoder.
        half: make images half as wide and high first.

    ``unique(reference, distorted)``, both (N, C, H, W), ``uint8`` or float in [0, 1], gives the quality (N,), float64 in
    [0, 1], larger = better, 1 for a perfect copy. The mean patch is taken off, so a picture that is evenly brighter is
    a perfect copy, too. Of a picture without any structure only the units' biases are left, and the forward quality is
    next to 0. The introspective one is not: in both pictures magnitudes are larger than angles and doubled filters larger
    than single ones, so the features of any two pictures correlate, and a flat grey copy keeps much of its quality.
    """

    autoencoder: SparseAutoencoder
    introspective: bool = False
    half: bool = True

    def __call__(self, reference: Tensor, distorted: Tensor) -> NDArray[np.float64]:
        checked_pair(reference, distorted)
        pairs = zip(patches_of(reference, self.half), patches_of(distorted, self.half), strict=True)
        return np.array([self._quality(whiten(first), whiten(second)) for first, second in pairs])

    def _quality(self, reference: NDArray[np.float64], distorted: NDArray[np.float64]) -> float:
        if not self.introspective:
            return spearman_quality(self.autoencoder.hidden(reference), self.autoencoder.hidden(distorted))
        gradient = decoder_gradient(self.autoencoder, reference)
        weights = unit_weights(gradient)
        return spearman_quality(log_odds(gradient, reference, weights), log_odds(gradient, distorted, weights))


def decoder_gradient(autoencoder: SparseAutoencoder, patches: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gradient of half the mean squared reconstruction error by the decoder's weights: patches (D, M) to (D, units)."""
    hidden = autoencoder.hidden(patches)
    return (autoencoder.reconstruct(hidden) - patches) @ hidden.T / patches.shape[1]


def unit_weights(gradient: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weight of each unit (units,): 2 where its luma filter, the first 64 rows, has a kurtosis above 3, else 1.

    Kurtosis is the fourth central moment by the squared variance (3 for a Gaussian), not corrected for bias, as MATLAB
    has it.
    """
    rows = gradient[:_LUMA]
    centred = rows - rows.mean(axis=0)
    variance = (centred**2).mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        kurtosis = (centred**4).mean(axis=0) / variance**2
    return np.where(kurtosis > 3, 2.0, 1.0)


def log_odds(
    gradient: NDArray[np.float64], patches: NDArray[np.float64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Magnitude and angle of the complex log-odds of what the filters answer: (2 units, M), weighted.

    Answers within 1e-12 of 0 or 1, whose logarithm is infinite, are moved there: an infinity has no place in an order
    in which several units are to be told apart.
    """
    answers = gradient.T @ patches  # (units, M), any real number
    odds = _away_from_zero(answers) / _away_from_zero(1 - answers)
    logarithm = np.log(odds.astype(complex))
    return np.concatenate([np.abs(logarithm), np.angle(logarithm)]) * np.tile(weights, 2)[:, None]


def _away_from_zero(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(values) < _EDGE, _EDGE, values)  # the sign of rounding is nobody's answer


def spearman_quality(reference: NDArray[np.float64], distorted: NDArray[np.float64]) -> float:
    """|Spearman|^10 of two arrays of responses of one shape, those below 0.025 set to zero; 0 where one is constant."""
    first, second = (np.where(r < THRESHOLD, 0.0, r).ravel() for r in (reference, distorted))
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    ranks = [scipy.stats.rankdata(responses) for responses in (first, second)]
    return float(abs(np.corrcoef(*ranks)[0, 1]) ** POWER)
