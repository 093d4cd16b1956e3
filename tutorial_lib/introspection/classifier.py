"""The two networks as one classifier: images in, the second look's logits out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from tutorial_lib.data.images import ImageSet
from tutorial_lib.introspection.features import logit_scale
from tutorial_lib.introspection.network import IntrospectiveNetwork, SecondLook
from tutorial_lib.models.predict import predict_features

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""Images (N, C, H, W) and a generator to images of the same shape, each changed at random."""


class View(NamedTuple):
    """What a network shows of images: logits (N, K) and features (N, D), float32 on the CPU."""

    logits: Tensor
    features: Tensor


def views_of(
    model: nn.Module,
    images: Tensor,
    augment: Augment | None = None,
    count: int = 1,
    seed: int = 0,
    shown: Callable[[Tensor], View] | None = None,
) -> list[View]:
    """What a classifier shows of images, and of randomly changed copies of them.

    Args:
        model: classifier with ``features`` and a linear ``head``, see `tutorial_lib.models.Classifier`.
        images: (N, C, H, W), ``uint8`` or float in [0, 1].
        augment: how a copy is changed; None for the images themselves, of which one view is enough.
        count: number of views.
        seed: of the changes.
        shown: what to ask instead of the model, a cache of its answers, say.
    """
    if count < 1 or (augment is None and count > 1):
        raise ValueError(f"without augmentation there is one view of the images, with it at least one; got {count}")
    head = last_linear_layer(model)
    generator = torch.Generator().manual_seed(seed)

    def shown_by_the_model(images: Tensor) -> View:
        features = predict_features(model, images)
        with torch.no_grad():
            return View(head(features.to(head.weight)).float().cpu(), features)

    shown = shown or shown_by_the_model
    return [shown(images if augment is None else augment(images, generator)) for _ in range(count)]


def last_linear_layer(model: nn.Module) -> nn.Linear:
    """The layer from features to logits."""
    head = getattr(model, "head", None)
    if not isinstance(head, nn.Linear) or not callable(getattr(model, "features", None)):
        raise TypeError(
            f"introspection asks a linear last layer: {type(model).__name__} needs features(images) and a "
            "torch.nn.Linear called head, as tutorial_lib.models.Classifier has them"
        )
    return head


class IntrospectiveClassifier(nn.Module):
    """A classifier that looks twice; itself a classifier, which detectors, calibration figures and attacks take.

    Args:
        model: the first network, with ``features`` and a linear ``head``; it is not changed.
        network: H; fitted by `fit` or before.

    ``forward`` takes images (N, C, H, W) in [0, 1] and returns H's logits (N, K), differentiable in the images.
    ``features`` and ``head`` are those of H.
    """

    def __init__(self, model: nn.Module, network: IntrospectiveNetwork | None = None) -> None:
        super().__init__()
        last_linear_layer(model)
        self.first = model
        self.network = network or IntrospectiveNetwork()
        if hasattr(self.network, "_h"):
            self.second = self.network.module()

    def fit(
        self,
        train: ImageSet,
        validation: ImageSet,
        augment: Augment | None = None,
        views: int = 1,
    ) -> Self:
        """Train H on what the first network shows of its training images.

        The height of the ones is measured on the training images if the loss is ``"mse"`` and its scale is 1.

        Args:
            train: labelled, the first network's own training images.
            validation: labelled, never trained on; chooses the epoch.
            augment, views: see `views_of`; without augmentation H learns to copy a network that is always right there.
        """
        seen = views_of(self.first, train.images, augment, views, self.network.seed)
        (held_out,) = views_of(self.first, validation.images)
        if self.network.loss == "mse" and self.network.scale == 1.0:
            self.network.scale = logit_scale(seen[0].logits)
        self.network.fit(seen, train.labels, (*held_out, validation.labels))
        self.second = self.network.module()
        device = next(self.first.parameters()).device
        self.second.to(device)
        return self

    @property
    def normalize(self) -> nn.Module | None:
        """The first network's; it says how many channels an image has."""
        return getattr(self.first, "normalize", None)

    @property
    def head(self) -> nn.Module:
        return self._fitted().head

    def features(self, images: Tensor) -> Tensor:
        """What H's last layer sees (N, width)."""
        features = self.first.features(images)  # type: ignore[operator]
        logits = self.first.head(features)  # type: ignore[operator]
        return self._fitted().features(logits, features)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))

    def _fitted(self) -> SecondLook:
        if not hasattr(self, "second"):
            raise RuntimeError("this IntrospectiveClassifier is not fitted; call fit(train, validation) first")
        return self.second
