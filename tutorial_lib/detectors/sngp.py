"""SNGP: a Gaussian process, by random features, in place of the last layer.

Liu et al., "Simple and Principled Uncertainty Estimation with Deterministic Deep Learning via Distance Awareness",
NeurIPS 2020. A residual network with bounded layers keeps apart what is apart; its last layer knows how far an input is from
what it was trained on. See `tutorial_lib.uncertainty.random_features` for the mathematics and for what differs from the
paper. Derived by hand in chapter 3.

`SNGP` also works on top of any trained classifier: the variance of a Gaussian process depends on where the training
features lie, not on what was learned there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector, checked
from tutorial_lib.detectors.evidence import FEATURES, Evidence, Quantity
from tutorial_lib.models import Classifier
from tutorial_lib.models.predict import device_of, predict_features
from tutorial_lib.studies import Study
from tutorial_lib.training.classifier import TrainingHistory, train_classifier
from tutorial_lib.training.trained import recipe, untrained_classifier
from tutorial_lib.uncertainty.random_features import RandomFeatureGP
from tutorial_lib.uncertainty.spectral import bound_spectral_norms

__all__ = ["SNGP", "train_sngp"]


class SNGP(Detector):
    """Posterior variance of the logits, between 0 and about 1.

    Larger is stranger: 1 where no training feature is near. It is the variance itself, without the mean-field factor.

    Args:
        model: classifier with ``features(images)`` -> (N, D). If its ``head`` is a `RandomFeatureGP` (see
            `train_sngp`), that is used, and ``fit`` measures it anew on a copy; else one is put on its features.
        features, length_scale, ridge, seed: of the random features put on another classifier, see `RandomFeatureGP`.

    ``fit(known)`` takes the training images, as in the paper; labels are not needed. Challenging data seen in ``fit``:
    none.
    """

    requires_fit = True
    from_training_images = True

    def __init__(
        self,
        model: nn.Module | None = None,
        features: int = 1024,
        length_scale: float = 0.7,
        ridge: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__(model)
        self.features, self.seed = int(checked("features", features, 1)), seed
        self.length_scale = checked("length_scale", length_scale, 0, above=True)
        self.ridge = checked("ridge", ridge, 0, above=True)

    def needs(self) -> tuple[Quantity, ...]:
        return (FEATURES,)

    def _fit(self, seen: Evidence) -> None:
        hidden = seen[FEATURES].float()
        head = getattr(self.model, "head", None)
        if isinstance(head, RandomFeatureGP):
            process = RandomFeatureGP(hidden.shape[1], 1, len(head.phases), ridge=head.ridge)
            process.frequencies, process.phases = head.frequencies.clone(), head.phases.clone()
        else:
            process = RandomFeatureGP(hidden.shape[1], 1, self.features, self.length_scale, self.ridge, self.seed)
        self.process = process.to(device_of(self.model))
        self.process.measure(hidden.split(self.batch_size))

    def _score(self, seen: Evidence) -> Tensor:
        return self.process.variance(seen[FEATURES].float())


def train_sngp(
    study: Study,
    seed: int = 0,
    bound: float = 6.0,
    network: str = "resnet20",
    features: int = 1024,
    length_scale: float = 0.7,
    ridge: float = 1.0,
    **settings: Any,
) -> tuple[Classifier, TrainingHistory]:
    """A classifier with bounded layers and a `RandomFeatureGP` for its head, trained with the library's trainer.

    After training, one clean pass over the training images in evaluation mode measures the head's precision.

    Args:
        study: its images and its recipe.
        seed: of weights, random features, order and augmentation.
        bound: see `bound_spectral_norms`; 0 for none.
        network: one with residual connections.
        features, length_scale, ridge: see `RandomFeatureGP`.
        **settings: of the trainer, in place of the recipe's.
    """
    model = untrained_classifier(study, network, seed)
    if bound:
        bound_spectral_norms(model.backbone, torch.zeros(1, *study.image_shape), bound)
    width: Any = model.head.in_features
    model.head = RandomFeatureGP(  # type: ignore[assignment]
        width, study.num_classes, features, length_scale, ridge, seed
    )
    config = replace(recipe(study, network, seed), **({"precision": "float32"} | settings))
    history = train_classifier(model, study.train, config=config, progress=False)
    model.head.measure(predict_features(model, study.train.images).split(512))  # type: ignore[operator]
    return model, history
