"""GradNorm: the last layer's gradient of the distance to "undecided".

Huang et al., "On the importance of gradients for detecting distributional shifts in the wild", NeurIPS 2021, eqs. 3 and
7.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tutorial_lib.detectors.base import NO_MODEL, Detector
from tutorial_lib.detectors.evidence import FEATURES, LOGITS, Evidence, Quantity
from tutorial_lib.detectors.forward import listening
from tutorial_lib.models.inputs import logits_of


class GradNorm(Detector):
    r"""Negative L1 norm of the gradient of :math:`\mathrm{KL}(u \| p)` with respect to the last layer's weights.

    u is uniform over the K classes, p the softmax of the logits :math:`z = W h + b`. The gradient is :math:`(p - u)
    h^\top`, of rank one, so its norm is the product :math:`\lVert p - u \rVert_1 \lVert h \rVert_1` and no backward
    pass is needed: that is what this class computes. Larger is stranger: the norm falls to zero where the answer is
    undecided or the features are silent. Hence the minus sign, which is the opposite of "large gradients are strange".

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K). With ``features(images)`` and one linear layer
            ``head``, such as `tutorial_lib.models.Classifier` has, h are its features. Otherwise the last linear layer is
            looked for, the one whose output the logits are (of a head of several layers, the last); and where there is
            none, the gradient of the weights nearest to the logits is taken, image by image.

    Challenging data seen in ``fit``: none (nothing is fitted).

    >>> import torch
    >>> from tutorial_lib.models import Classifier
    >>> model = Classifier(torch.nn.Identity(), torch.nn.Flatten(), feature_width=2, num_classes=2)
    >>> _ = torch.nn.init.zeros_(model.head.weight), torch.nn.init.constant_(model.head.bias, 3)
    >>> abs(GradNorm(model).predict(torch.rand(2, 1, 1, 2)))  # equal logits: p = u
    array([0., 0.])
    """

    def needs(self) -> tuple[Quantity, ...]:
        if self.model is NO_MODEL or isinstance(getattr(self.model, "head", None), nn.Linear):
            return FEATURES, LOGITS
        return (LastGradientNorm(),)

    def _score(self, seen: Evidence) -> Tensor:
        if FEATURES in seen and LOGITS in seen:
            return -gradient_norm(seen[LOGITS], seen[FEATURES])
        return -seen[LastGradientNorm()]


@dataclass(frozen=True)
class LastGradientNorm(Quantity):
    """L1 norm (N,) of the gradient of KL(u || p) with respect to the last weights, whatever form they have."""

    @property
    def name(self) -> str:
        return "last_gradient_norm"

    def of(self, model: nn.Module, images: Tensor) -> Tensor:
        linear: dict[str, nn.Module] = {
            name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)
        }
        outputs: dict[str, list[Tensor]] = {name: [] for name in linear}
        inputs: dict[str, Tensor] = {}
        handles = [
            module.register_forward_pre_hook(lambda _, given, name=name: inputs.__setitem__(name, given[0]))
            for name, module in linear.items()
        ]
        try:
            with listening(linear, lambda name, output: outputs[name].append(output)):
                logits = logits_of(model(images), len(images), model)
        finally:
            for handle in handles:
                handle.remove()
        for name, returned in outputs.items():
            if len(returned) == 1 and returned[0].shape == logits.shape and torch.equal(returned[0], logits):
                return gradient_norm(logits, inputs[name])
        return torch.stack([_norm_of_one(model, image) for image in images.split(1)])


def gradient_norm(logits: Tensor, features: Tensor) -> Tensor:
    r""":math:`\lVert p - u \rVert_1 \lVert h \rVert_1`, float64 (N,), for logits (N, K) and what the last layer gets (N, D)."""
    p = logits.double().softmax(dim=1)
    return (p - 1 / p.shape[1]).abs().sum(dim=1) * features.double().abs().sum(dim=1)


def _norm_of_one(model: nn.Module, image: Tensor) -> Tensor:
    with torch.enable_grad():
        for parameter in model.parameters():
            parameter.requires_grad_()
        logits = logits_of(model(image), 1, model)
        loss = -logits.double().log_softmax(dim=1).mean()  # KL(u || p) but for a constant
        (gradient,) = torch.autograd.grad(loss, _nearest_weights(logits))
    return gradient.double().abs().sum()


def _nearest_weights(logits: Tensor) -> Tensor:
    """The parameter with at least two axes that is the fewest operations away from the logits."""
    row, met = [logits.grad_fn], set()
    while row:
        for node in row:
            weights = getattr(node, "variable", None)
            if isinstance(weights, Tensor) and weights.dim() > 1:
                return weights
        met.update(row)
        following = [source for node in row if node is not None for source, _ in node.next_functions]
        row = [node for node in dict.fromkeys(following) if node is not None and node not in met]
    raise ValueError("the logits depend on no weights: there is no last layer")
