r"""A Gaussian process as a last layer: random features, and the variance of a Bayesian linear model on them.

Rahimi & Recht, "Random Features for Large-Scale Kernel Machines", NeurIPS 2007 (the features); Liu et al., "Simple and
Principled Uncertainty Estimation with Deterministic Deep Learning via Distance Awareness" (SNGP), NeurIPS 2020 (their use
as a last layer). With :math:`\phi(h) = \sqrt{2/M} \cos(W h + b)`, W normal with deviation 1 / length scale, the product
:math:`\phi(h)^\top \phi(h')` approaches the kernel :math:`\exp(-\lVert h - h' \rVert^2 / 2 \ell^2)`.

Weights :math:`\beta \sim \mathcal N(0, I)` and observations with noise of variance r (the ridge) give the posterior
variance :math:`r \, \phi^\top (r I + \sum_i \phi_i \phi_i^\top)^{-1} \phi`, 1 where no training feature is near and towards
0 where many are. This is the Gaussian likelihood, the same covariance for all classes: what the reference code uses, not
the softmax likelihood that the paper derives. The sum is taken in one clean pass after training; a running sum during
training counts images twice and keeps features that the network no longer has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from tutorial_lib.reproducible import seeded

__all__ = ["RandomFeatureGP", "mean_field"]


class RandomFeatureGP(nn.Module):
    """Last layer: features (N, D) to logits (N, K), with a variance for every input once `measure` has run.

    The features are brought to length 1 after subtracting their mean (a layer normalisation over sqrt(D)): without
    it they grow during training while the length scale stays, and the kernel goes blind.

    Args:
        width: D.
        num_classes: K.
        features: M, random features.
        length_scale: of the kernel, in units in which every feature vector has length 1; its author's rule of thumb for
            the variance of W, 2 / D on layer-normed features, is 0.7 here.
        ridge: r > 0.
        seed: of the random features, which are not trained.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        features: int = 1024,
        length_scale: float = 0.7,
        ridge: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(features, length_scale, ridge) <= 0:
            raise ValueError(
                f"features, length_scale and ridge must be positive, got {features}, {length_scale} and {ridge}"
            )
        self.ridge = ridge
        generator = torch.Generator().manual_seed(seed)
        self.frequencies: Tensor
        self.phases: Tensor
        self.factor: Tensor
        self.register_buffer("frequencies", torch.randn(features, width, generator=generator) / length_scale)
        self.register_buffer("phases", 2 * math.pi * torch.rand(features, generator=generator))
        self.register_buffer("factor", torch.eye(features, dtype=torch.float64) * math.sqrt(ridge))
        with seeded(seed):
            self.output = nn.Linear(features, num_classes)

    def random_features(self, hidden: Tensor) -> Tensor:
        """phi(h): features (N, D) to (N, M); phi · phi is 1 on average."""
        centred = hidden - hidden.mean(1, keepdim=True)
        unit = centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-12)
        waves = torch.cos(unit @ self.frequencies.T.to(hidden.dtype) + self.phases.to(hidden.dtype))
        return math.sqrt(2 / len(self.phases)) * waves

    def forward(self, hidden: Tensor) -> Tensor:
        return self.output(self.random_features(hidden))

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Take the precision matrix, from nothing, over batches of training features (B, D): one pass, in float64."""
        precision = self.ridge * torch.eye(len(self.phases), dtype=torch.float64, device=self.phases.device)
        for hidden in batches:
            phi = self.random_features(hidden.to(self.phases.device)).double()
            precision += phi.T @ phi
        self.factor.copy_(torch.linalg.cholesky(precision))

    def variance(self, hidden: Tensor) -> Tensor:
        """Posterior variance of every logit: features (N, D) to (N,), float64, between 0 and |phi|² (about 1).

        Before `measure` it is that of the prior.
        """
        phi = self.random_features(hidden).double()
        return self.ridge * torch.linalg.solve_triangular(self.factor, phi.T, upper=False).square().sum(0)


def mean_field(logits: Tensor, variance: Tensor, factor: float = math.pi / 8) -> Tensor:
    r"""Logits divided by :math:`\sqrt{1 + f \sigma^2}`: an approximation to the softmax averaged over their Gaussian.

    For two classes the factor is :math:`\pi/8`. For more it is a **temperature that is tuned** and is nothing more: the
    reference code sets it to 20 for CIFAR-10 and 7.5 for CIFAR-100. Tune it on the likelihood of validation images. For
    strangers report the variance itself.

    Args:
        logits: (N, K).
        variance: (N,), not negative.
        factor: f >= 0.
    """
    if factor < 0:
        raise ValueError(f"factor must not be negative, got {factor}")
    return logits / (1 + factor * variance.to(logits.dtype)).sqrt()[:, None]
