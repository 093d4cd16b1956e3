"""A second stage H: features of the classifier in, "known or challenging?" out.

The Purview detector, its controls, Mahalanobis (FE) and LID all end in one. H is a scikit-learn classifier; any other
can be put in.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from tutorial_lib.detectors.base import Images, NotFittedError, SupervisedDetector, read_images, without_unknown


def two_layers(seed: int = 0) -> Pipeline:
    """H of the gradient papers: standardised features, 64 ReLU units, one output (Lee & AlRegib, ICIP 2021: "two fully
    connected layers").

    Adam with learning rate 1e-3 and weight decay 1e-4, 100 epochs in batches of 128; the papers name none of these.
    """
    network = MLPClassifier((64,), alpha=1e-4, batch_size=128, learning_rate_init=1e-3, max_iter=100, random_state=seed)
    return make_pipeline(StandardScaler(), network)


def logistic_regression() -> Pipeline:
    """H of Lee et al. (2018): logistic regression, here on standardised features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


class SecondStageDetector(SupervisedDetector):
    """Base class: `_features` of known and challenging images, and an H that tells them apart.

    Larger is stranger: the score is H's ``decision_function``, or, if it has none, the log odds of its
    ``predict_proba``. The smaller of the two sets is repeated until both weigh about the same, so that the odds mean
    "equally likely".

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).
        second_stage: a scikit-learn classifier, cloned before use; see each subclass for what it is by default.
        seed: of the default second stage and of the order of the images.
    """

    def __init__(self, model: nn.Module, second_stage: BaseEstimator | None = None, seed: int = 0) -> None:
        super().__init__(model)
        if second_stage is None:
            second_stage = self._default_second_stage(seed)
        if not hasattr(second_stage, "decision_function") and not hasattr(second_stage, "predict_proba"):
            raise TypeError(
                f"second_stage needs decision_function or predict_proba; {type(second_stage).__name__} has neither"
            )
        self.second_stage = second_stage
        self.seed = seed

    def _default_second_stage(self, seed: int) -> BaseEstimator:
        return two_layers(seed)

    @abstractmethod
    def _features(self, images: Tensor) -> Tensor:
        """Features (N, F) of one batch; the model is guarded and gradients are off."""

    def features(self, images: Images) -> Tensor:
        """What H sees of images (N, C, H, W): float64 (N, F) on the CPU.

        With `fit_features` and `predict_features` it lets a study fit many second stages and go through the network
        once. Detectors that compare with reference images need `fit_reference` first.
        """
        batch = read_images(images, "images")[0]
        self._check(batch)
        return self._in_batches(self._features, batch).double()

    def fit_reference(self, reference: Images) -> Self:
        """Learn from the reference images, labelled known ones, alone; ``fit`` does so by itself."""
        if not self.uses_reference:
            raise ValueError(f"{self._name} compares with no reference images")
        self._fit_reference(*without_unknown(*read_images(reference, "reference")[:2]))
        return self

    def fit_features(self, known: Tensor, challenging: Tensor) -> Self:
        """Fit H on `features` of known and of challenging images."""
        self._fit_features(known, challenging)
        return self

    def predict_features(self, features: Tensor) -> NDArray[np.float64]:
        """Scores, float64 (N,), larger = stranger, from `features`; what ``predict`` gives for their images."""
        if not hasattr(self, "_h"):
            raise NotFittedError(f"this {self._name} is not fitted; call fit_features(known, challenging) first")
        return log_odds(self._h, features.double().numpy())

    def _fit_both(self, images: Tensor, labels: Tensor | None, challenging: Tensor) -> None:
        self._fit_features(self._in_batches(self._features, images), self._in_batches(self._features, challenging))

    def _fit_features(self, known: Tensor, challenging: Tensor) -> None:
        sizes = len(known), len(challenging)
        known, challenging = (
            part.repeat(max(1, round(max(sizes) / len(part))), 1).double() for part in (known, challenging)
        )
        x = torch.cat([known, challenging]).numpy()
        y = np.repeat([0, 1], [len(known), len(challenging)])
        order = np.random.default_rng(self.seed).permutation(len(x))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed number of epochs is part of the recipe
            warnings.filterwarnings("ignore", message="Got `batch_size`")  # and so is a batch that may hold all images
            self._h = clone(self.second_stage).fit(x[order], y[order])

    def _score(self, images: Tensor) -> Tensor:
        return torch.from_numpy(log_odds(self._h, self._features(images).double().cpu().numpy()))


def log_odds(classifier: Any, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """How surely a fitted two-class classifier says "1", on a scale without ends.

    Probabilities saturate: near 1 they tie, and ties hide what is stranger. 1e-300 stands for 0, to stay finite.
    """
    if hasattr(classifier, "decision_function"):
        return np.asarray(classifier.decision_function(features), dtype=np.float64)
    no, yes = np.maximum(classifier.predict_proba(features).astype(np.float64), 1e-300).T
    return np.log(yes) - np.log(no)
