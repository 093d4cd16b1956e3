"""Bring your own network: trained anywhere, used here as it is.

The library asks a classifier for three things: images in [0, 1] go in, ``features(images)`` are what the last layer
gets, ``head`` is that last layer. `as_classifier` adds them to a network that has them under other names, without
taking it apart:

* torchvision's ResNets: ``as_classifier(resnet18(weights=...), "fc", mean, std)``; ``"classifier"`` for DenseNet and
  MobileNet, ``"heads"`` for its vision transformers;
* timm: ``as_classifier(net, net.get_classifier(), mean, std)``;
* a head that is code and not a layer: ``features=net.forward_features, head=net.forward_head``.

>>> import torch
>>> from torchvision.models import resnet18
>>> from tutorial_lib.detectors import KNN
>>> model = as_classifier(resnet18(num_classes=10), "fc", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
>>> images = torch.rand(4, 3, 32, 32)
>>> model.features(images).shape, model(images).shape
(torch.Size([4, 512]), torch.Size([4, 10]))
>>> KNN(model, k=1).fit(images).predict(images).shape
(4,)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from tutorial_lib.models.base import Normalize
from tutorial_lib.models.inputs import logits_of
from tutorial_lib.models.predict import check_head

__all__ = ["OwnNetwork", "as_classifier"]

Head = str | nn.Module | Callable[[Tensor], Tensor]


class OwnNetwork(nn.Module):
    """Any network with the names of a `Classifier`; `as_classifier` makes it."""

    def __init__(
        self,
        normalize: nn.Module,
        network: nn.Module,
        head: Head,
        features: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.normalize = normalize
        self.network = network
        self._features = features
        self._head_name: str | None = None
        self._head_function: Callable[[Tensor], Tensor] | None = None
        if isinstance(head, str | nn.Module):
            self._head_name = _name_of(network, head)
        elif features is None:
            raise ValueError("a head that is a function needs features, too: features=net.forward_features")
        else:
            self._head_function = head

    @property
    def head(self) -> Callable[[Tensor], Tensor]:
        """Features (N, D) to logits (N, K)."""
        return self._head_function or self.network.get_submodule(self._head_name or "")

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (N, D): what the head gets."""
        images = self.normalize(images)
        if self._features is not None:
            return self._features(images)
        head, met, thread = self.network.get_submodule(self._head_name or ""), [], threading.get_ident()

        def listen(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if threading.get_ident() == thread:
                met.append(arguments[0])

        handle = head.register_forward_pre_hook(listen)
        try:
            self.network(images)
        finally:
            handle.remove()
        if len(met) != 1:
            raise ValueError(f"the head {self._head_name!r} ran {len(met)} times in one forward pass; it must run once")
        return met[0]

    def forward(self, images: Tensor) -> Tensor:
        return logits_of(self.network(self.normalize(images)), len(images), self.network)


def as_classifier(
    network: nn.Module,
    head: Head,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    images: Tensor | None = None,
) -> OwnNetwork:
    """A network that was made elsewhere, with what this library asks of a classifier. Its layers are not copied.

    Args:
        network: normalised images (N, C, H, W) to logits (N, K), or to an object that has them as ``logits``.
        head: the last layer: its name in ``network.named_modules()``, the layer itself, or, together with ``features``, a
            function from features (N, D) to logits.
        mean, std: of the channels, in the units of [0, 1] images, as the network was trained with them; left out, the
            images go in as they are.
        features: normalised images to features (N, D); left out, what the head gets.
        images: a few, to try it: see `check_head`.

    Raises:
        ValueError: no such layer; or, given ``images``, a head of whose features the network's answer does not follow.
    """
    if (mean is None) != (std is None):
        raise ValueError("give mean and std, or neither")
    normalize = nn.Identity() if mean is None or std is None else Normalize(mean, std)
    classifier = OwnNetwork(normalize, network, head, features)
    classifier.train(network.training)
    if images is not None:
        check_head(classifier, images)
    return classifier


def _name_of(network: nn.Module, head: str | nn.Module) -> str:
    modules = dict(network.named_modules())
    if isinstance(head, str):
        if head in modules and head:
            return head
        last = [name for name, module in modules.items() if isinstance(module, nn.Linear)][-1:]
        hint = f"; its last linear layer is {last[0]!r}" if last else ""
        raise ValueError(f"{type(network).__name__} has no layer {head!r}{hint}")
    for name, module in modules.items():
        if module is head and name:
            return name
    raise ValueError(f"the {type(head).__name__} given as head is no layer of {type(network).__name__}")
