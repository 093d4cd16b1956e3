"""DDU: the density of a feature among the training features of each class.

Mukhoti et al., "Deep Deterministic Uncertainty: A New Simple Baseline", CVPR 2023. An ordinary classifier with residual
connections and bounded layers is trained with cross-entropy; afterwards one Gaussian a class is fitted to its penultimate
features. The density says what is foreign (the model does not know it), the entropy of the softmax what is ambiguous (the
data do not decide it). Derived by hand in chapter 3.

`DDU` works on top of any trained classifier; whether bound and residual connections are needed is then a question that
can be asked (chapter 3 asks it).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector, needed
from tutorial_lib.detectors.evidence import FEATURES, Evidence, Quantity
from tutorial_lib.models import Classifier
from tutorial_lib.studies import Study
from tutorial_lib.training.classifier import TrainingHistory, train_classifier
from tutorial_lib.training.trained import recipe, untrained_classifier
from tutorial_lib.uncertainty.class_gaussians import ClassGaussians
from tutorial_lib.uncertainty.spectral import bound_spectral_norms

__all__ = ["DDU", "train_bounded"]


class DDU(Detector):
    r"""Minus the logarithm of the density of the penultimate feature, :math:`-\log \sum_c \pi_c \mathcal N(h; \mu_c,
    \Sigma_c)`.

    Larger is stranger: far from every class, in units of each class's own spread.

    Args:
        model: classifier with ``features(images)`` -> (N, D).
        covariance: ``"shrunk"``, ``"counted"`` (the paper's) or ``"tied"``, see `ClassGaussians`.

    ``fit(known)`` needs labels and takes the training images, as in the paper; afterwards ``gaussians.jitters`` says
    what had to be added to the covariances. Challenging data seen in ``fit``: none.
    """

    requires_fit = True
    from_training_images = True

    def __init__(self, model: nn.Module | None = None, covariance: str = "shrunk") -> None:
        super().__init__(model)
        if covariance not in ("shrunk", "counted", "tied"):
            raise ValueError(f"covariance must be 'shrunk', 'counted' or 'tied', got {covariance!r}")
        self.covariance = covariance

    def needs(self) -> tuple[Quantity, ...]:
        return (FEATURES,)

    def _fit(self, seen: Evidence) -> None:
        self.gaussians = ClassGaussians.fit(seen[FEATURES], needed(seen.labels, self), self.covariance)

    def _score(self, seen: Evidence) -> Tensor:
        return -self.gaussians.log_density(seen[FEATURES])


def train_bounded(
    study: Study, seed: int = 0, bound: float = 3.0, network: str = "resnet20", **settings: Any
) -> tuple[Classifier, TrainingHistory]:
    """A classifier whose backbone has bounded layers, trained from its initial weights with the library's trainer.

    The paper's network also has leaky ReLU and average pooling in its shortcuts; this one does not.

    Args:
        study: its images and its recipe.
        seed: of weights, order and augmentation.
        bound: see `bound_spectral_norms`; 0 for none.
        network: one with residual connections.
        **settings: of the trainer, in place of the recipe's.
    """
    model = untrained_classifier(study, network, seed)
    if bound:
        bound_spectral_norms(model.backbone, torch.zeros(1, *study.image_shape), bound)
    config = replace(recipe(study, network, seed), **({"precision": "float32"} | settings))
    return model, train_classifier(model, study.train, config=config, progress=False)
