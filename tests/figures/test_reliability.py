"""The reliability diagram draws what the table says."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import binomtest

from tutorial_lib.figures.reliability import reliability_diagram


def test_diagram_puts_a_dot_where_each_bin_is_and_a_line_to_the_diagonal():
    axes = Figure().add_subplot()
    confidence, correct = (
        np.array([0.95] * 20 + [0.55] * 10 + [0.25]),
        np.array([True] * 12 + [False] * 8 + [True] * 11),
    )
    table = reliability_diagram(axes, confidence, correct, bins=10)
    (dots,) = [c for c in axes.collections if len(c.get_offsets()) == 3 and len(c.get_sizes()) == 3]
    np.testing.assert_allclose(dots.get_offsets(), [[0.25, 1], [0.55, 1], [0.95, 0.6]])
    assert np.diff(dots.get_sizes())[0] > 0
    chance, gaps = (c for c in axes.collections if c is not dots)
    ends = np.array([segment[:, 1] for segment in gaps.get_segments()])
    np.testing.assert_allclose(ends, [[1, 0.25], [1, 0.55], [0.6, 0.95]])
    first, second, third = gaps.get_colors()
    assert tuple(first) == tuple(second) != tuple(third)  # promised too little twice, too much once
    # Grey: a share that the binomial test does not reject at 5 %, and no larger one.
    (low, high) = sorted(chance.get_segments()[2][:, 1])
    assert binomtest(round(20 * low), 20, 0.95, "less").pvalue > 0.025
    assert binomtest(round(20 * low) - 1, 20, 0.95, "less").pvalue <= 0.025
    assert high == 1
    assert table.count.sum() == 31
    with pytest.raises(ValueError, match="chance"):
        reliability_diagram(axes, confidence, correct, chance=95)
