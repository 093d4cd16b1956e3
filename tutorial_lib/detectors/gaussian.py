"""Class means with one covariance for all, and the distances to them."""

from __future__ import annotations

from typing import Self

import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

RIDGE = 1e-6


class TiedGaussians:
    r"""Gaussians of K classes that share their covariance, :math:`\mathcal N(\mu_c, \Sigma)`.

    Attributes:
        means: float64 (K, D).
        whitening: float64 (D, D) lower triangular; :math:`\lVert` ``whitening`` :math:`(x - \mu_c) \rVert^2` is the
            squared Mahalanobis distance.
    """

    def __init__(self, means: Tensor, covariance: Tensor) -> None:
        self.means = means
        factor = torch.linalg.cholesky(covariance)
        identity = torch.eye(len(covariance), dtype=covariance.dtype)
        self.whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
        self._centre = means.mean(dim=0)
        self._whitened_means = (means - self._centre) @ self.whitening.T

    @classmethod
    def fit(cls, features: Tensor, labels: Tensor, classes: int | None = None, shrink: bool = False) -> Self:
        """Means and covariance of features (N, D) with class labels (N,), 0 to K - 1.

        Args:
            features, labels: as above.
            classes: K. A class without images gets the mean of all. Left out, every class up to the largest must have
                images.
            shrink: estimate the covariance by Ledoit and Wolf's shrinkage (J. Multivariate Analysis 2004) instead of
                counting. For few images and many features.

        The counted covariance gets a millionth of its mean variance on the diagonal: features that are always 0 (dead
        units) would make it singular. The effect on scores is far below their noise; a pseudo-inverse would blind the
        detector to a stranger that wakes such a unit.
        """
        features = features.double().cpu()
        counts = labels.bincount(minlength=classes or 0)
        if classes is None and not counts.all():
            raise ValueError(
                f"labels run to {len(counts) - 1}, but there is no image of class {int((counts == 0).nonzero()[0])}"
            )
        means = features.mean(dim=0).repeat(len(counts), 1)
        for c in counts.nonzero().flatten().tolist():
            means[c] = features[labels == c].mean(dim=0)
        centred = features - means[labels]
        if shrink:
            covariance = torch.from_numpy(ledoit_wolf(centred.numpy(), assume_centered=True)[0])
        else:
            covariance = centred.T @ centred / len(centred)
        scale = covariance.diagonal().mean()
        if not scale > 0:
            raise ValueError("all images of a class have the same features: no spread to measure distances by")
        return cls(means, covariance + RIDGE * scale * torch.eye(len(covariance), dtype=covariance.dtype))

    def squared_distances(self, features: Tensor) -> Tensor:
        r"""Squared Mahalanobis distances of features (N, D) to every class, float64 (N, K). Gradients flow through.

        As :math:`\lVert w \rVert^2 + \lVert m_c \rVert^2 - 2 w \cdot m_c` of whitened features w and means m_c, both
        from the middle of the means: nothing of size N K D is ever held.
        """
        features, means = self._whitened(features), self._whitened_means.to(features.device)
        squares = features.square().sum(dim=1, keepdim=True) + means.square().sum(dim=1)
        return (squares - 2 * features @ means.T).clamp(min=0)

    def squared_distances_to(self, features: Tensor, classes: Tensor) -> Tensor:
        """Squared Mahalanobis distance of each of features (N, D) to its class of (N,), float64 (N,)."""
        means = self._whitened_means.to(features.device)
        return (self._whitened(features) - means[classes]).square().sum(dim=1)

    def _whitened(self, features: Tensor) -> Tensor:
        """From the middle of the class means, float64 (N, D)."""
        return (features.double() - self._centre.to(features.device)) @ self.whitening.T.to(features.device)
