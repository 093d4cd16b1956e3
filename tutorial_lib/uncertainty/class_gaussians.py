"""One Gaussian a class in feature space, each with a covariance of its own.

Mukhoti et al., "Deep Deterministic Uncertainty: A New Simple Baseline", CVPR 2023, section 3: after training, the density
of a feature under a mixture of class Gaussians says how much of the known is near it.

Two things go wrong with many features and few images, and are dealt with here. A counted covariance of n images has rank
n - 1 at most, so with fewer images a class than features it has no inverse: the shrinkage of Ledoit and Wolf (J.
Multivariate Analysis 2004) gives it one. And features that never move (dead units) leave it singular all the same: a
jitter on the diagonal grows until a Cholesky factor exists, and is reported.
"""

from __future__ import annotations

import math
from typing import Self

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

__all__ = ["ClassGaussians"]

_JITTERS = (0.0, *(10.0**power for power in range(-12, 1)))


class ClassGaussians:
    r"""Mixture :math:`\sum_c \pi_c \, \mathcal N(h; \mu_c, \Sigma_c)` over K classes, in float64.

    Attributes:
        means: (K, D).
        factors: Cholesky factors of the covariances, (K, D, D), lower triangular.
        log_priors: logarithms of the shares of the classes, (K,).
        jitters: what was added to the diagonal of each covariance, as a share of its mean variance; 0 where nothing was.
    """

    def __init__(self, means: Tensor, factors: Tensor, log_priors: Tensor, jitters: tuple[float, ...]) -> None:
        self.means, self.factors, self.log_priors, self.jitters = means, factors, log_priors, jitters

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor, covariance: str = "shrunk") -> Self:
        """Estimate from features (N, D) with labels (N,) in 0..K-1.

        Args:
            features, labels: every class up to the largest label needs 2 images or more.
            covariance: ``"shrunk"`` (Ledoit and Wolf, each class its own), ``"counted"`` (as the paper has it, divided by
                n - 1) or ``"tied"`` (one for all classes, shrunk: for a handful of images a class).

        Raises:
            ValueError: a class with fewer than two images, or without any spread.
        """
        if covariance not in ("shrunk", "counted", "tied"):
            raise ValueError(f"covariance must be 'shrunk', 'counted' or 'tied', got {covariance!r}")
        if features.ndim != 2 or labels.shape != features.shape[:1]:
            raise ValueError(
                f"features must be (N, D) and labels (N,), got {tuple(features.shape)} and {tuple(labels.shape)}"
            )
        features, labels = features.detach().double().cpu(), labels.cpu()
        counts = labels.bincount()
        if bool((counts < 2).any()):
            few = int((counts < 2).nonzero()[0])
            raise ValueError(f"class {few} has {int(counts[few])} images; a covariance needs 2 or more of every class")
        means = torch.stack([features[labels == c].mean(0) for c in range(len(counts))])
        groups = [features[labels == c] - means[c] for c in range(len(counts))]
        if covariance == "tied":
            groups = [torch.cat(groups)]
        found = [_factor(_covariance(group, shrink=covariance != "counted"), c) for c, group in enumerate(groups)]
        if covariance == "tied":
            found *= len(counts)
        log_priors = (counts.double() / counts.sum()).log()
        return cls(means, torch.stack([f for f, _ in found]), log_priors, tuple(j for _, j in found))

    def class_log_densities(self, features: Tensor) -> Tensor:
        """Logarithm of each class's density, without its share: (N, D) to (N, K), float64."""
        device, count = features.device, features.shape[1]
        means, factors = self.means.to(device), self.factors.to(device)
        centred = (features.double()[None] - means[:, None]).mT  # (K, D, N)
        whitened = torch.linalg.solve_triangular(factors, centred, upper=False)
        log_volume = factors.diagonal(dim1=1, dim2=2).log().sum(1)  # half the log determinant
        return (-0.5 * (whitened.square().sum(1) + count * math.log(2 * math.pi)) - log_volume[:, None]).T

    def log_density(self, features: Tensor) -> Tensor:
        """Logarithm of the mixture's density: (N, D) to (N,), float64; small where nothing known is near."""
        return (self.class_log_densities(features) + self.log_priors.to(features.device)).logsumexp(1)


def _covariance(centred: Tensor, shrink: bool) -> Tensor:
    if shrink:
        return torch.from_numpy(ledoit_wolf(centred.numpy(), assume_centered=True)[0])
    return centred.T @ centred / (len(centred) - 1)


def _factor(covariance: Tensor, label: int) -> tuple[Tensor, float]:
    scale = float(covariance.diagonal().mean())
    if not scale > 0:
        raise ValueError(f"all features of class {label} are the same: no spread to measure a density by")
    identity = torch.eye(len(covariance), dtype=covariance.dtype)
    for jitter in _JITTERS:
        factor, failed = torch.linalg.cholesky_ex(covariance + jitter * scale * identity)
        if not failed:
            return factor, jitter
    raise ValueError(f"the covariance of class {label} has no Cholesky factor, whatever is added to its diagonal")
