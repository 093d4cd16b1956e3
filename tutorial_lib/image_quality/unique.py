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
by exactly this code is not known. **The reference alone makes the filters, so the two images cannot be exchanged.** The
angle is that of the logarithm, not of the odds: 0 or π where the odds are positive, in between where they are negative.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import scipy.stats
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.image_quality.autoencoder import SparseAutoencoder
from tutorial_lib.image_quality.pairs import checked_pair
from tutorial_lib.image_quality.patches import PATCH, patches_of, whiten

__all__ = [
    "PatchMeasure",
    "RandomFilters",
    "Unique",
    "WhitenedPatches",
    "decoder_gradient",
    "log_odds",
    "spearman_quality",
    "unit_weights",
]

THRESHOLD = 0.025
POWER = 10
_LUMA = 64
_EDGE = 1e-12


Responses = NDArray[np.float64]


class PatchMeasure(ABC):
    """A measure that looks at whitened patches: encode both pictures, and compare the order of what answers.

    A reference that stands in several rows in succession is encoded once.
    """

    half: bool

    def __call__(self, reference: Tensor, distorted: Tensor) -> NDArray[np.float64]:
        """Quality (N,) of images (N, C, H, W), ``uint8`` or float in [0, 1]."""
        checked_pair(reference, distorted)
        remembered: NDArray[np.float64] | None = None
        found = []
        for first, second in zip(patches_of(reference, self.half), patches_of(distorted, self.half), strict=True):
            if remembered is None or not np.array_equal(first, remembered):
                remembered, white = first, whiten(first)
                look = self.look_for(white)
                expected = _ranks(self.cut(look(white)))
            # A copy is a copy, also where rounding or silence leaves no order to compare.
            same = np.array_equal(first, second)
            found.append(1.0 if same else _powered(expected, _ranks(self.cut(look(whiten(second))))))
        return np.array(found)

    @abstractmethod
    def look_for(self, reference: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], Responses]:
        """How pictures are looked at, given a reference (D, M): whitened patches (D, M) to responses (units, M)."""

    def cut(self, responses: Responses) -> Responses:
        """Responses without those that count as silence."""
        return _silenced(responses)


@dataclass(frozen=True)
class Unique(PatchMeasure):
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

    def __post_init__(self) -> None:
        _check_inputs(self.autoencoder)

    def look_for(self, reference: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], Responses]:
        if not self.introspective:
            return self.autoencoder.hidden
        return _through(decoder_gradient(self.autoencoder, reference))


@dataclass(frozen=True)
class RandomFilters(PatchMeasure):
    """Control of the introspective form: all of it, but filters that know nothing, in the place of the gradient.

    Each of the gradient's filters is replaced by normal numbers of the same length; log-odds, kurtosis weights, threshold
    and correlation are the same. What it reaches, the gradient was not needed for.

    Args:
        autoencoder: as in `Unique`; only the lengths of its gradient's filters are used.
        seed: of the filters.
        half: as in `Unique`.
    """

    autoencoder: SparseAutoencoder
    seed: int = 0
    half: bool = True

    def __post_init__(self) -> None:
        _check_inputs(self.autoencoder)

    def look_for(self, reference: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], Responses]:
        gradient = decoder_gradient(self.autoencoder, reference)
        filters = np.random.default_rng(self.seed).normal(size=gradient.shape)
        filters *= np.linalg.norm(gradient, axis=0) / np.linalg.norm(filters, axis=0)
        return _through(filters)


@dataclass(frozen=True)
class WhitenedPatches(PatchMeasure):
    """Control of both forms: no autoencoder, the whitened patches themselves are compared. No threshold: they have signs.

    Args:
        half: as in `Unique`.
    """

    half: bool = True

    def look_for(self, reference: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], Responses]:
        return np.asarray

    def cut(self, responses: Responses) -> Responses:
        return responses


def _check_inputs(autoencoder: SparseAutoencoder) -> None:
    if autoencoder.encoder.shape[1] != 3 * PATCH**2:
        raise ValueError(f"the autoencoder takes {autoencoder.encoder.shape[1]} numbers, a patch has {3 * PATCH**2}")


def _through(filters: NDArray[np.float64]) -> Callable[[NDArray[np.float64]], Responses]:
    return partial(log_odds, filters, weights=unit_weights(filters))


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
    real, imaginary = np.log(np.abs(odds)), np.where(odds < 0, np.pi, 0.0)  # of the complex logarithm
    features = [np.hypot(real, imaginary), np.arctan2(imaginary, real)]
    return np.concatenate(features) * np.tile(weights, 2)[:, None]


def _away_from_zero(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.abs(values) < _EDGE, _EDGE, values)  # the sign of rounding is nobody's answer


def spearman_quality(reference: NDArray[np.float64], distorted: NDArray[np.float64]) -> float:
    """|Spearman|^10 of two arrays of responses of one shape, those below 0.025 set to zero.

    0 where one is constant, 1 where both are: there is no order in either, and none was lost.
    """
    return _powered(_ranks(_silenced(reference)), _ranks(_silenced(distorted)))


def _silenced(responses: Responses) -> Responses:
    return np.where(responses < THRESHOLD, 0.0, responses)


def _ranks(responses: Responses) -> NDArray[np.float64]:
    """Ranks of all responses, flat, less their mean; ties share theirs."""
    flat = responses.ravel()
    if np.isnan(flat).any():
        raise ValueError("a response is NaN, which has no rank: is a pixel NaN?")
    if (flat < 0).any():
        ranks = scipy.stats.rankdata(flat)
    else:  # the silent ones, a third of all, come first and share a rank: they need no sorting
        loud = np.flatnonzero(flat)
        silent = len(flat) - len(loud)
        ranks = np.full(len(flat), (silent + 1) / 2)
        ranks[loud] = silent + scipy.stats.rankdata(flat[loud])
    return ranks - (len(ranks) + 1) / 2


def _powered(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    silent = [not ranks.any() for ranks in (first, second)]
    if any(silent):
        return float(all(silent))
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return min(1.0, abs(float(first @ second)) / lengths) ** POWER
