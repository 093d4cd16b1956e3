"""The linear probe against scikit-learn's parts put together by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from tutorial_lib.severity import linear_probe


def drawn(count, seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, count)
    features = random.normal(size=(count, 4)) * [1, 100, 0.01, 1] + labels[:, None] * [1.5, 0, 0.01, 0]
    return features, labels


def test_probe_is_a_logistic_regression_on_standardised_features():
    (x, y), (test_x, test_y) = drawn(80, 0), drawn(500, 1)
    found = linear_probe(x, y, test_x, test_y)
    model = LogisticRegression(max_iter=2000).fit((x - x.mean(0)) / x.std(0), y)
    p = model.predict_proba((test_x - x.mean(0)) / x.std(0))[:, 1]
    np.testing.assert_allclose(found.probabilities, p, atol=1e-6)
    assert found.accuracy == np.mean((p > 0.5) == test_y)
    assert found.auroc == pytest.approx(roc_auc_score(test_y, p))
    assert 0.8 < found.auroc < 1


def test_units_of_the_features_do_not_matter():
    (x, y), (test_x, test_y) = drawn(80, 0), drawn(500, 1)
    scale = np.array([1e3, 1e-3, 1.0, 7.0])
    assert linear_probe(x * scale, y, test_x * scale, test_y).auroc == pytest.approx(
        linear_probe(x, y, test_x, test_y).auroc, abs=1e-4
    )


def test_labels_must_be_zero_and_one_and_both():
    (x, y), (test_x, test_y) = drawn(80, 0), drawn(50, 1)
    with pytest.raises(ValueError, match="labels must hold 0 and 1"):
        linear_probe(x, y + 1, test_x, test_y)
    with pytest.raises(ValueError, match="test_labels must hold 0 and 1"):
        linear_probe(x, y, test_x, 0 * test_y)
