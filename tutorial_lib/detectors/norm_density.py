r"""How unusual the norms of an image's layers are, without a sign and without an outlier.

.. math:: (g - \mu_{\hat y})^\top \Sigma^{-1} (g - \mu_{\hat y})

with g the logarithms of squared norms, one for each layer or parameter tensor, one mean for each *predicted* class
:math:`\hat y` and one covariance for all, shrunk after Ledoit and Wolf. Larger is stranger, whichever way the norms go: too
large, too small, or in proportions between layers that known images never show. The classes here differ in what they take
norms of. The gradient of a linear layer has the squared norm :math:`\lVert \delta \rVert^2 \lVert a \rVert^2`:
`GradientDensity` looks at the products, `ActivationDensity` and `BackpropDensity` at the factors, `LayerDensity` at both
factors side by side.

The gradients' norms are features of Lee & AlRegib (ICIP 2021). A joint density of layer-wise log gradient norms is used by
Dauncey et al., "Approximations to the Fisher information metric of deep generative models for out-of-distribution
detection", TMLR 2024, for generative models. Class-wise means, and the same density on what the forward pass has, are this
course's own.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.evidence import LOGITS, ActivationNorms, BackpropNorms, Evidence, GradientNorms, Quantity
from tutorial_lib.detectors.gaussian import TiedGaussians
from tutorial_lib.gradients.losses import Loss
from tutorial_lib.gradients.targets import Label

__all__ = ["ActivationDensity", "BackpropDensity", "GradientDensity", "LayerDensity", "NormDensity"]


class NormDensity(Detector):
    """Base class: the squared Mahalanobis distance of `_norms` from those of known images that got the same answer.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).
        by_class: False for one mean for all classes.
    """

    requires_fit = True

    def __init__(self, model: nn.Module | None = None, by_class: bool = True) -> None:
        super().__init__(model)
        self.by_class = by_class

    @abstractmethod
    def _norms(self) -> tuple[Quantity, ...]:
        """Log squared norms, (N, L) each."""

    def needs(self) -> tuple[Quantity, ...]:
        return (LOGITS, *self._norms())

    def _fit(self, seen: Evidence) -> None:
        classes = seen[LOGITS].shape[1]
        self._gaussians = TiedGaussians.fit(self._joined(seen), self._group(seen), classes, shrink=True)

    def _joined(self, seen: Evidence) -> Tensor:
        return torch.cat([seen[quantity].double() for quantity in self._norms()], dim=1)

    def _group(self, seen: Evidence) -> Tensor:
        answers = seen[LOGITS].argmax(dim=1)
        return answers if self.by_class else torch.zeros_like(answers)

    def _score(self, seen: Evidence) -> Tensor:
        return self._gaussians.squared_distances_to(self._joined(seen), self._group(seen))


class ActivationDensity(NormDensity):
    """The density on log squared norms of every parametric layer's *output*. One forward pass, nothing comes back.

    The control of `GradientDensity`, and as a rule the better detector.

    Args:
        model, by_class: as in `NormDensity`.

    ``fit(known)`` wants images that the network was not trained on. Labels are not used. Challenging data seen in ``fit``:
    none.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = ActivationDensity(model).fit(flat)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def _norms(self) -> tuple[Quantity, ...]:
        return (ActivationNorms(),)


class _Asking(NormDensity):
    """With a label to ask for."""

    def __init__(
        self,
        model: nn.Module | None = None,
        label: Label = "uniform",
        loss: Loss = "ce",
        by_class: bool = True,
    ) -> None:
        super().__init__(model, by_class)
        self.label = label
        self.loss = loss


class GradientDensity(_Asking):
    r"""The density on log squared *gradient* norms :math:`\log \lVert \partial \ell / \partial \theta_p \rVert^2` of
    every parameter tensor p.

    Args:
        model, by_class: as in `NormDensity`.
        label, loss: see `tutorial_lib.gradients.squared_norms`. The default asks for the uniform distribution, as
            GradNorm does.

    ``fit(known)`` wants images that the network was not trained on: on its training images the gradients are small as
    nowhere else. Labels are not used. Challenging data seen in ``fit``: none.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = GradientDensity(model).fit(flat)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def _norms(self) -> tuple[Quantity, ...]:
        return (GradientNorms(self.label, self.loss),)


class BackpropDensity(_Asking):
    r"""The density on log squared norms of :math:`\delta`, the gradient that arrives at every convolution's and linear
    layer's output.

    What a backward pass adds to a forward pass, before the product with the activations hides it. Near strangers show here
    more than in the activations, far ones less.

    Args:
        model, by_class: as in `NormDensity`.
        label, loss: what is asked for, the name of a loss. The default asks for the uniform distribution.

    ``fit(known)`` as in `GradientDensity`. Challenging data seen in ``fit``: none.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = BackpropDensity(model).fit(flat)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def _norms(self) -> tuple[Quantity, ...]:
        return (BackpropNorms(self.label, self.loss),)


class LayerDensity(_Asking):
    r"""The density on the log squared norms of activations and of :math:`\delta` side by side: one forward and one backward
    pass.

    Arguments as in `BackpropDensity`. Challenging data seen in ``fit``: none.

    >>> from tutorial_lib.models import build
    >>> _ = torch.manual_seed(0)
    >>> model = build("lenet", num_classes=3, image_shape=(1, 8, 8))
    >>> flat, noise = torch.rand(90, 1, 1, 1).repeat(1, 1, 8, 8), torch.rand(90, 1, 8, 8)
    >>> detector = LayerDensity(model).fit(flat)
    >>> bool(detector.predict(noise).mean() > detector.predict(flat).mean())
    True
    """

    def _norms(self) -> tuple[Quantity, ...]:
        return ActivationNorms(), BackpropNorms(self.label, self.loss)
