"""A second stage H: features of the classifier in, "known or challenging?" out.

The Purview detector, its controls, Mahalanobis (FE) and LID all end in one. H is a scikit-learn classifier; any other
can be put in.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from typing import Any

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

from tutorial_lib.detectors.base import SupervisedDetector
from tutorial_lib.detectors.evidence import Evidence, guarded


def two_layers(seed: int = 0) -> Pipeline:
    """H of the gradient papers: standardised features, 64 ReLU units, one output (Lee & AlRegib, ICIP 2021: "two fully
    connected layers").

    Adam with learning rate 1e-3 and weight decay 1e-4, in batches of 128; at most 100 epochs, fewer if the training loss has
    not fallen by 1e-4 for ten of them, as scikit-learn stops by default. The papers name none of these.
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

    def __init__(
        self, model: nn.Module | None = None, second_stage: BaseEstimator | None = None, seed: int = 0
    ) -> None:
        super().__init__(model)
        if second_stage is not None and not any(
            hasattr(second_stage, method) for method in ("decision_function", "predict_proba")
        ):
            raise TypeError(
                f"second_stage needs decision_function or predict_proba; {type(second_stage).__name__} has neither"
            )
        self.second_stage = second_stage
        self.seed = seed

    def _default_second_stage(self) -> BaseEstimator:
        return two_layers(self.seed)

    @abstractmethod
    def _features(self, seen: Evidence) -> Tensor:
        """What H sees: features (N, F)."""

    def features(self, seen: Evidence) -> Tensor:
        """What H sees of images: float64 (N, F) on the CPU, from what ``observe(images)`` gives."""
        with guarded(self.model):
            return self._features(seen).double().cpu()

    def _fit_both(self, known: Evidence, challenging: Evidence) -> None:
        both = self.features(known), self.features(challenging)
        most = max(map(len, both))
        parts = [part.repeat(max(1, round(most / len(part))), 1) for part in both]
        x = torch.cat(parts).numpy()
        y = np.repeat([0, 1], [len(part) for part in parts])
        order = np.random.default_rng(self.seed).permutation(len(x))
        h = self._default_second_stage() if self.second_stage is None else clone(self.second_stage)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a limit on the epochs is part of the recipe
            warnings.filterwarnings("ignore", message="Got `batch_size`")  # and so is a batch that may hold all images
            self._h = h.fit(x[order], y[order])

    def _score(self, seen: Evidence) -> Tensor:
        return torch.from_numpy(log_odds(self._h, self._features(seen).double().cpu().numpy()))


def log_odds(classifier: Any, features: NDArray[np.float64]) -> NDArray[np.float64]:
    """How surely a fitted two-class classifier says "1", on a scale without ends.

    Probabilities saturate: near 1 they tie, and ties hide what is stranger. 1e-300 stands for 0, to stay finite.
    """
    if hasattr(classifier, "decision_function"):
        return np.asarray(classifier.decision_function(features), dtype=np.float64)
    no, yes = np.maximum(classifier.predict_proba(features).astype(np.float64), 1e-300).T
    return np.log(yes) - np.log(no)
