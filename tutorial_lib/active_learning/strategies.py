r"""Which images should be labelled next? Six answers.

A strategy is a function of what the model says of the pool (`Prediction`), how many labels may be bought, and a seed;
it returns places in the pool. Four of them rank the images by one number, **larger = label first**:

================  =============================================================================  =======================
least confidence  :math:`1 - \max_k p_k`                                                         Lewis and Gale 1994
margin            :math:`1 - (p_{(1)} - p_{(2)})`, one minus the lead of the first class          Scheffer et al. 2001
entropy           :math:`H(p) = -\sum_k p_k \log p_k`                                             Shannon 1948
BALD              :math:`H(\bar p) - \frac1M \sum_m H(p_m)`, what models disagree about          Houlsby et al. 2011
================  =============================================================================  =======================

BADGE (Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds", ICLR 2020, algorithm 1)
looks at the batch as a whole: it spreads the choice over the gradients that the last layer would feel if each image's
predicted class were true. And random, which all must beat.

**Order and ties.** Every random number belongs to an image's name and the seed, not to its place. Shuffle the pool,
and the same images are chosen. Images with the same utility are taken in an order that the seed draws; without that, a
pool sorted by class would be labelled class by class as long as the model does not know anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.active_learning.prediction import Prediction

__all__ = [
    "STRATEGIES",
    "UTILITIES",
    "Strategy",
    "badge",
    "bald",
    "bald_utility",
    "entropy",
    "entropy_utility",
    "gradient_factors",
    "highest",
    "k_means_plus_plus",
    "least_confidence",
    "least_confidence_utility",
    "margin",
    "margin_utility",
    "random",
]

Strategy = Callable[[Prediction, int, int], NDArray[np.int64]]
"""(prediction, count, seed) to ``count`` different places in the pool, int64."""

_ROUNDING = 1e-12
"""A squared distance below this part of the two squared lengths is rounding, and means "the same gradient"."""


# The utilities stand here in full: a method package does not import another (the decomposition of chapter 1 has the
# same formulas, and a test holds the two together).
def entropy_utility(prediction: Prediction) -> Tensor:
    """Entropy of the prediction (N,), nats, in [0, log K].

    >>> entropy_utility(Prediction(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))).round(decimals=3)
    tensor([0.6930, 0.0000], dtype=torch.float64)
    """
    return torch.special.entr(prediction.probabilities).sum(-1)


def least_confidence_utility(prediction: Prediction) -> Tensor:
    """One minus the largest probability (N,), in [0, 1 - 1/K]."""
    return 1 - prediction.probabilities.amax(-1)


def margin_utility(prediction: Prediction) -> Tensor:
    """One minus the lead of the most probable class over the second (N,), in [0, 1]."""
    first, second = prediction.probabilities.topk(2, dim=-1).values.unbind(-1)
    return 1 - (first - second)


def bald_utility(prediction: Prediction) -> Tensor:
    """Mutual information of class and model (N,), nats, in [0, log min(M, K)].

    Raises:
        ValueError: the prediction has no members.
    """
    members = prediction.members
    if members is None:
        raise ValueError("BALD needs members, the answers of two or more models; give predict_pool a sampler")
    expected = torch.special.entr(members).sum(-1).mean(0)
    return (torch.special.entr(members.mean(0)).sum(-1) - expected).clamp_min(0)


UTILITIES: Mapping[str, Callable[[Prediction], Tensor]] = MappingProxyType(
    {
        "entropy": entropy_utility,
        "least_confidence": least_confidence_utility,
        "margin": margin_utility,
        "bald": bald_utility,
    }
)
"""What an image is worth by itself, larger = label first. Random and BADGE have no such number."""


def highest(prediction: Prediction, utility: Tensor, count: int, seed: int) -> NDArray[np.int64]:
    """The ``count`` places of largest utility (N,), largest first; ties in an order that the seed draws.

    Your own strategy is your utility and this.

    >>> highest(Prediction(torch.full((3, 2), 0.5)), torch.tensor([1.0, 3.0, 2.0]), 2, seed=0)
    array([1, 2])
    """
    _check_count(prediction, count)
    values = utility.detach().cpu().double().numpy()
    if values.shape != (len(prediction),):
        raise ValueError(f"utility must be {len(prediction)} numbers, one for each image, got the shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"utility must be finite, but {int((~np.isfinite(values)).sum())} of {len(values)} are not")
    return np.lexsort((_uniform(prediction, seed), -values))[:count].astype(np.int64)


def random(prediction: Prediction, count: int, seed: int) -> NDArray[np.int64]:
    """Any, all alike: the twin that the others are compared with."""
    return highest(prediction, torch.zeros(len(prediction)), count, seed)


def entropy(prediction: Prediction, count: int, seed: int) -> NDArray[np.int64]:
    """Largest `entropy_utility` first."""
    return highest(prediction, entropy_utility(prediction), count, seed)


def least_confidence(prediction: Prediction, count: int, seed: int) -> NDArray[np.int64]:
    """Largest `least_confidence_utility` first."""
    return highest(prediction, least_confidence_utility(prediction), count, seed)


def margin(prediction: Prediction, count: int, seed: int) -> NDArray[np.int64]:
    """Largest `margin_utility` first."""
    return highest(prediction, margin_utility(prediction), count, seed)


def bald(prediction: Prediction, count: int, seed: int) -> NDArray[np.int64]:
    """Largest `bald_utility` first: each image by itself, not as a batch (that would be BatchBALD)."""
    return highest(prediction, bald_utility(prediction), count, seed)


def badge(prediction: Prediction, count: int, seed: int) -> NDArray[np.int64]:
    r"""k-means++ over the gradients that the last layer would feel, never written out.

    If the predicted class were true, the gradient of the cross-entropy by the last weights would be
    :math:`g = (p - e_{\hat y}) h^\top`: one of chapter 12's, with the question "why not what you said?". It is long where
    the model is unsure, and points elsewhere for other images.

    Raises:
        ValueError: the prediction has no features, or the count does not fit the pool.
    """
    errors, features = gradient_factors(prediction)
    _check_count(prediction, count)
    return k_means_plus_plus(errors, features, count, seed, prediction.names)


def gradient_factors(prediction: Prediction) -> tuple[Tensor, Tensor]:
    """The two factors of BADGE's gradients, ``(p - one_hot(argmax p), h)``, (N, K) and (N, D).

    >>> gradient_factors(Prediction(torch.tensor([[0.75, 0.25]]), torch.ones(1, 3)))[0]
    tensor([[-0.2500,  0.2500]], dtype=torch.float64)
    """
    if prediction.features is None:
        raise ValueError("BADGE needs features, what the last layer sees; the model has no features(images)")
    probabilities = prediction.probabilities
    predicted = torch.nn.functional.one_hot(probabilities.argmax(-1), probabilities.shape[-1])
    return probabilities - predicted, prediction.features


def k_means_plus_plus(
    left: Tensor, right: Tensor, count: int, seed: int, ids: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    r"""Centres spread over the rank-one matrices :math:`a_i b_i^\top`, by their factors alone.

    With :math:`\lVert a b^\top - a' b'^\top \rVert^2 = \lVert a \rVert^2 \lVert b \rVert^2 + \lVert a' \rVert^2
    \lVert b' \rVert^2 - 2 (a \cdot a')(b \cdot b')` a step costs N (K + D), not N K D.

    The first centre is the largest matrix (as in the authors' code; the paper's algorithm draws it). Each next one is
    drawn with a probability proportional to the squared distance to the nearest centre so far (Arthur and Vassilvitskii,
    "k-means++", 2007). It is drawn by a race: image i arrives after a time that is exponential with this rate, and the
    first wins. So each image can have its own random number, whatever the order. Where nothing is left but copies of
    centres, the rest is drawn evenly.

    Args:
        left: a, (N, K).
        right: b, (N, D).
        count: 1 to N.
        seed: of the draws.
        ids: names of the images, see `Prediction`.

    Returns:
        ``count`` different places, int64, in the order in which they were drawn.
    """
    left, right = left.detach().double(), right.detach().double()
    if left.ndim != 2 or right.ndim != 2 or len(left) != len(right):
        raise ValueError(f"factors must be (N, K) and (N, D), got {tuple(left.shape)} and {tuple(right.shape)}")
    if not 1 <= count <= len(left):
        raise ValueError(f"cannot choose {count} of {len(left)}")
    ids = np.arange(len(left)) if ids is None else ids
    lengths = (left.square().sum(1) * right.square().sum(1)).cpu().numpy()
    ties = np.random.default_rng([seed, 0]).random(ids.max() + 1)[ids]
    chosen = [int(np.lexsort((ties, -lengths))[0])]
    nearest = np.full(len(left), np.inf)
    free = np.ones(len(left), dtype=bool)
    for step in range(1, count):
        centre = chosen[-1]
        free[centre] = False
        inner = ((left @ left[centre]) * (right @ right[centre])).cpu().numpy()
        scale = lengths + lengths[centre]
        distance = scale - 2 * inner
        distance[distance <= _ROUNDING * scale] = 0  # also what rounding has made negative
        nearest = np.minimum(nearest, distance)
        rate = np.where(free, nearest, 0)
        if not rate.any():
            rate = free.astype(float)
        arrival = np.random.default_rng([seed, step]).exponential(size=ids.max() + 1)[ids]
        with np.errstate(divide="ignore"):
            chosen.append(int(np.argmin(np.where(rate > 0, arrival / rate, np.inf))))
    return np.array(chosen, dtype=np.int64)


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        "random": random,
        "entropy": entropy,
        "least_confidence": least_confidence,
        "margin": margin,
        "bald": bald,
        "badge": badge,
    }
)
"""Every strategy by name."""


def _uniform(prediction: Prediction, seed: int) -> NDArray[np.float64]:
    """One number in [0, 1) for each image, the same for the same name and seed, whoever else is in the pool."""
    ids = prediction.names
    return np.random.default_rng(seed).random(ids.max() + 1)[ids]


def _check_count(prediction: Prediction, count: int) -> None:
    if not isinstance(count, int | np.integer) or not 1 <= count <= len(prediction):
        raise ValueError(f"cannot choose {count} images of a pool of {len(prediction)}")
