"""What a model says of the images that have no label yet: all that a strategy may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutorial_lib.models.predict import predict_features, predict_probabilities

__all__ = ["Prediction", "Sampler", "predict_pool"]

Sampler = Callable[[nn.Module, Tensor, int], Tensor]
"""Model, images (N, C, H, W) and seed to the probabilities of several plausible models, (M, N, K)."""

_MOST_NAMES = 10**8  # a strategy draws a random number for every name up to the largest
_SUM_TOLERANCE = 1e-3  # as for the decomposition of uncertainty: what half precision leaves


@dataclass(frozen=True, eq=False)
class Prediction:
    """A model's answers to N images. There is no label in it, so no strategy can look at one.

    Attributes:
        probabilities: (N, K), in [0, 1], each row with the sum 1. Kept as float64 on the CPU.
        features: (N, D), what the last layer sees; only BADGE needs it.
        members: (M, N, K), M >= 2 answers of plausible models (passes with dropout, an ensemble); only BALD needs it.
        ids: (N,) whole numbers below 10^8, all different: names of the images, which do not change when the pool shrinks
            or is shuffled. Random numbers belong to names, not to places, so a choice does not depend on the pool's order.
            Left out: 0 to N - 1.

    Raises:
        TypeError: no tensor.
        ValueError: shapes that do not fit each other, no probabilities, numbers that are not finite, a name twice.

    >>> Prediction(torch.tensor([[0.9, 0.1], [0.5, 0.5]])).ids
    array([0, 1])
    """

    probabilities: Tensor
    features: Tensor | None = None
    members: Tensor | None = None
    ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        probabilities = _probabilities(self.probabilities, "probabilities", 2)
        count = len(probabilities)
        object.__setattr__(self, "probabilities", probabilities)
        if self.features is not None:
            features = self.features.detach().cpu().double()
            if features.ndim != 2 or len(features) != count or not torch.isfinite(features).all():
                raise ValueError(f"features must be (N, D), finite, N = {count}; got {tuple(features.shape)}")
            object.__setattr__(self, "features", features)
        if self.members is not None:
            members = _probabilities(self.members, "members", 3)
            if members.shape[1:] != probabilities.shape or len(members) < 2:
                raise ValueError(
                    f"members must be (M, N, K) with M >= 2 and (N, K) = {tuple(probabilities.shape)}, "
                    f"got {tuple(members.shape)}"
                )
            object.__setattr__(self, "members", members)
        ids = np.arange(count) if self.ids is None else np.asarray(self.ids)
        whole = np.issubdtype(ids.dtype, np.integer) and ids.shape == (count,)
        if not whole or len(np.unique(ids)) != count or ids.min() < 0 or ids.max() >= _MOST_NAMES:
            raise ValueError(f"ids must be {count} different whole numbers from 0 on, below 10^8, one for each image")
        object.__setattr__(self, "ids", ids.astype(np.int64))

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def names(self) -> NDArray[np.int64]:
        """``ids``, given or not."""
        assert self.ids is not None  # set above
        return self.ids


def predict_pool(
    model: nn.Module,
    images: Tensor,
    ids: NDArray[np.int64] | None = None,
    seed: int = 0,
    sample: Sampler | None = None,
) -> Prediction:
    """What a classifier says of images, in evaluation mode and without augmentation.

    A score of a randomly changed copy mixes the image's doubt with that of the change, so images are taken as they are.
    A classifier that looks twice (`tutorial_lib.introspection.IntrospectiveClassifier`) is a classifier: its
    probabilities and features are those of the second network, and with them every strategy is introspective.

    Args:
        model: images (N, C, H, W) in [0, 1] to logits (N, K); with ``features(images)`` for BADGE.
        images: (N, C, H, W), ``uint8`` or float in [0, 1].
        ids: see `Prediction`.
        seed: of ``sample``.
        sample: for BALD, how plausible models are drawn, such as passes with dropout.
    """
    return Prediction(
        predict_probabilities(model, images),
        predict_features(model, images) if callable(getattr(model, "features", None)) else None,
        None if sample is None else sample(model, images, seed),
        ids,
    )


def _probabilities(values: Tensor, name: str, dimensions: int) -> Tensor:
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(values).__name__}; convert with torch.as_tensor")
    values = values.detach().cpu().double()
    if values.ndim != dimensions or values.shape[-1] < 2 or values.shape[-2] < 1:
        shape = "(N, K)" if dimensions == 2 else "(M, N, K)"
        raise ValueError(f"{name} must be {shape} with N >= 1 and K >= 2, got {tuple(values.shape)}")
    if not torch.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"{name} must be finite and not negative; apply softmax to logits first")
    if ((values.sum(-1) - 1).abs() > _SUM_TOLERANCE).any():
        raise ValueError(f"{name} must sum to one over the classes; apply softmax to logits first")
    return values
