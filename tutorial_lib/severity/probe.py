"""Linear probe: what a representation knows, as far as a plane can tell.

The encoder is frozen; a logistic regression on its standardised features learns the label from a few images. What the
probe cannot say, the representation does not say plainly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tutorial_lib.metrics import auroc

__all__ = ["Probe", "linear_probe"]


class Probe(NamedTuple):
    """What a probe found on images that it was not fitted on.

    Attributes:
        accuracy: share of right answers at probability one half, in [0, 1].
        auroc: of the probability of label 1; 0.5 is guessing.
        probabilities: of label 1, float64 (M,).
    """

    accuracy: float
    auroc: float
    probabilities: NDArray[np.float64]


def linear_probe(
    features: ArrayLike, labels: ArrayLike, test_features: ArrayLike, test_labels: ArrayLike, C: float = 1.0
) -> Probe:
    """Fit on (N, D) features with binary labels (N,), and test on others.

    Args:
        features, labels: the few labelled images; labels 0 and 1, both present.
        test_features, test_labels: (M, D) and (M,), both labels present.
        C: inverse strength of the L2 penalty, as in scikit-learn; not tuned.

    Raises:
        ValueError: labels other than 0 and 1, or only one of them.

    >>> x = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    >>> linear_probe(x, [0, 0, 1, 1], 2 * x, [0, 0, 1, 1])[:2]
    (1.0, 1.0)
    """
    known, unseen = np.asarray(labels).ravel(), np.asarray(test_labels).ravel()
    for name, values in (("labels", known), ("test_labels", unseen)):
        if set(np.unique(values).tolist()) != {0, 1}:
            raise ValueError(f"{name} must hold 0 and 1 and nothing else, got {np.unique(values)[:5].tolist()}")
    model = make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))
    model.fit(np.asarray(features, dtype=np.float64), known)
    probabilities = model.predict_proba(np.asarray(test_features, dtype=np.float64))[:, 1]
    right = (probabilities > 0.5) == (unseen == 1)
    return Probe(float(right.mean()), auroc(probabilities[unseen == 0], probabilities[unseen == 1]), probabilities)
