r"""Classic constraints: a region of small volume around what is known.

Schölkopf et al., "Estimating the support of a high-dimensional distribution", Neural Computation 2001 (one-class SVM);
Tax & Duin, "Support vector data description", Machine Learning 2004 (the smallest ball). With a Gaussian kernel, for
which every image has the same length in feature space, the two have the same solution.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn import svm
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector, checked
from tutorial_lib.detectors.evidence import Evidence, Quantity
from tutorial_lib.models.autoencoder import Autoencoder, Posterior

__all__ = ["SVDD", "OneClassSVM"]


@dataclass(frozen=True)
class Description(Quantity):
    """(N, D), float64: penultimate features of a classifier, the latent of an autoencoder, else what the model returns."""

    @property
    def name(self) -> str:
        return "description"

    def of(self, model: nn.Module, images: Tensor) -> Tensor:
        if isinstance(model, Autoencoder):
            latent = model.encode(images)
            features = latent.mean if isinstance(latent, Posterior) else latent
        else:
            features = getattr(model, "features", model)(images)
        return features.flatten(1).double()


class _OnFeatures(Detector):
    requires_fit = True
    from_training_images = True
    tags = frozenset({"simple"})

    def __init__(self, model: nn.Module | None = None) -> None:
        super().__init__(nn.Flatten() if model is None else model)

    def needs(self) -> tuple[Quantity, ...]:
        return (Description(),)


class OneClassSVM(_OnFeatures):
    """Negative decision function of scikit-learn's one-class SVM with a Gaussian kernel; above 0 is outside.

    Larger is stranger. The time to fit grows with the square of the number of images.

    Args:
        model: what the images are described by: ``features(images)`` if it has them, the latent of an `Autoencoder`,
            else what it returns. Left out, the pixels.
        nu: upper bound on the share of known images left outside, in (0, 1].
        gamma: of the kernel exp(-gamma |x - y|²), as scikit-learn takes it.

    ``fit(known)`` may be given training images. Challenging data seen in ``fit``: none.

    >>> known = torch.rand(50, 1, 2, 2, generator=torch.Generator().manual_seed(0)) / 4
    >>> bool(OneClassSVM().fit(known).predict(torch.ones(1, 1, 2, 2)) > 0)
    True
    """

    def __init__(self, model: nn.Module | None = None, nu: float = 0.1, gamma: float | str = "scale") -> None:
        super().__init__(model)
        self.nu, self.gamma = checked("nu", nu, 0, 1, above=True), gamma

    def _fit(self, seen: Evidence) -> None:
        self._svm = svm.OneClassSVM(nu=self.nu, gamma=self.gamma)
        self._svm.random_state = 0  # without one, scikit-learn draws a seed from NumPy's global state
        self._svm.fit(seen[Description()].numpy())

    def _score(self, seen: Evidence) -> Tensor:
        return torch.from_numpy(-self._svm.decision_function(seen[Description()].cpu().numpy()))


class SVDD(_OnFeatures):
    r"""Squared distance from the centre of the smallest ball, minus its squared radius; above 0 is outside.

    Larger is stranger. Centre c and radius R minimise :math:`R^2 + \frac{1}{\nu N} \sum_n \max(0, \lVert x_n - c
    \rVert^2 - R^2)` (Tax & Duin, eq. 1 with a linear kernel), which means that c minimises the mean of the largest
    share :math:`\nu` of the squared distances. Steps of the subgradient method, whose n-th is 1/n, find it.

    Args:
        model: as for `OneClassSVM`.
        nu: share of known images left outside, in (0, 1].
        steps: of the method; the error falls with their number.

    ``fit(known)`` may be given training images. Challenging data seen in ``fit``: none.

    >>> known = torch.tensor([[[[0.0, 0.0]]], [[[1.0, 0.0]]]])
    >>> SVDD(nu=0.5).fit(known).predict(torch.tensor([[[[0.5, 0.0]]], [[[0.5, 1.0]]]])).round(2)
    array([-0.25,  0.75])
    """

    def __init__(self, model: nn.Module | None = None, nu: float = 0.1, steps: int = 1000) -> None:
        super().__init__(model)
        if checked("steps", steps) < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.nu, self.steps = checked("nu", nu, 0, 1, above=True), steps

    def _fit(self, seen: Evidence) -> None:
        x = seen[Description()]
        outside = max(1, round(self.nu * len(x)))
        centre, squared_lengths = x.mean(0), x.square().sum(1)
        for step in range(1, self.steps + 1):
            # |x - c|² without |c|², which shifts all alike
            farthest = (squared_lengths - 2 * x @ centre).topk(outside).indices
            centre = centre + (x[farthest].mean(0) - centre) / (step + 1)
        self._centre = centre
        distances = (x - centre).square().sum(1)
        self._squared_radius = distances.sort(descending=True).values[min(outside, len(x) - 1)]

    def _score(self, seen: Evidence) -> Tensor:
        x = seen[Description()]
        return (x - self._centre.to(x.device)).square().sum(1) - self._squared_radius.to(x.device)
