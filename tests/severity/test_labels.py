"""Bins of equal count, companions in a batch, rank correlation."""

import numpy as np
import pytest
import torch

from tutorial_lib.severity import among, expected_companions, quantile_bins, spearman


@pytest.mark.parametrize(("count", "bins"), [(100, 4), (101, 7), (60, 60), (10, 3), (5, 1)])
def test_bins_hold_equally_many_and_keep_the_order(count, bins):
    scores = np.random.default_rng(0).normal(size=count)
    labels = quantile_bins(scores, bins)
    sizes = np.bincount(labels, minlength=bins)
    assert sizes.max() - sizes.min() <= 1 and sizes.sum() == count
    assert (np.diff(labels[np.argsort(scores)]) >= 0).all()


def test_only_the_order_of_the_scores_counts():
    scores = np.random.default_rng(1).exponential(size=200)
    assert (quantile_bins(scores, 10) == quantile_bins(np.log(scores), 10)).all()


def test_equal_scores_share_a_label():
    labels = quantile_bins([1.0, 1.0, 1.0, 1.0, 2.0, 3.0], 6)
    assert len(set(labels[:4].tolist())) == 1 and labels[5] == 5


def test_as_many_bins_as_images_leave_each_alone():
    scores = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert sorted(quantile_bins(scores, 50).tolist()) == list(range(50))
    assert len(set(quantile_bins(scores, 500).tolist())) == 50


def test_companions_are_those_of_simulated_batches():
    labels = np.repeat([0, 1, 2, 3], [40, 20, 20, 4])
    random = np.random.default_rng(0)
    counted = []
    for _ in range(3000):
        batch = labels[random.permutation(len(labels))[:16]]
        counted.append((batch[:, None] == batch).sum(1).mean() - 1)
    assert expected_companions(labels, 16) == pytest.approx(np.mean(counted), rel=0.02)
    assert expected_companions(np.arange(84), 16) == 0


def test_spearman_against_ranks_by_hand():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 9, 40).astype(float), random.normal(size=40)

    def ranks(values):
        return np.array([(values < v).sum() + (values == v).sum() / 2 for v in values])

    assert spearman(a, b) == pytest.approx(np.corrcoef(ranks(a), ranks(b))[0, 1])
    assert spearman(b, np.exp(b)) == pytest.approx(1)
    assert spearman(b, -b) == pytest.approx(-1)


def test_among_counts_the_healthy_below():
    assert among([1, 2, 3, 4], 0) == 0 and among([1, 2, 3, 4], 9) == 1 and among([1, 2, 2, 4], 2) == 0.5


def test_bad_input_is_named():
    for call, message in (
        (lambda: quantile_bins([], 2), "N of at least 1"),
        (lambda: quantile_bins([1.0, float("nan")], 2), "NaN"),
        (lambda: quantile_bins([1.0, 2.0], 0), "bins must be"),
        (lambda: quantile_bins([1.0, 2.0], 1.5), "bins must be"),
        (lambda: spearman([1, 2, 3], [1, 2]), "3 scores and 2 severities"),
        (lambda: spearman([1, 1, 1], [1, 2, 3]), "scores are all 1"),
        (lambda: expected_companions([0, 1], 3), "got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
