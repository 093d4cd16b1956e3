"""The pictures of the chapter show the numbers that they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from scipy.stats import binomtest
from simulators import simulate

from tutorial_lib.calibration import ece, negative_log_likelihood
from tutorial_lib.figures.calibration import (
    TemperaturePicture,
    draw_against_chance,
    draw_by_level,
    draw_confidence,
    draw_promises,
    draw_reliability,
)
from tutorial_lib.metrics import Interval


@pytest.fixture
def axes():
    return Figure().add_subplot()


def words(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_right_answers_go_up_and_wrong_ones_down_each_to_one(axes):
    confidence, correct = np.array([0.95, 0.95, 0.95, 0.45, 1.0, 0.65]), np.array([1, 1, 1, 1, 0, 0])
    draw_confidence(axes, confidence, correct)
    heights = np.array([bar.get_height() for bar in axes.patches])
    assert heights[heights > 0].sum() == pytest.approx(1) and heights[heights < 0].sum() == pytest.approx(-1)
    by_place = {(round(bar.get_x(), 1), np.sign(bar.get_height())): bar.get_height() for bar in axes.patches}
    assert by_place[0.9, 1] == pytest.approx(3 / 4) and by_place[0.9, -1] == pytest.approx(-1 / 2)
    assert {"4 right answers", "2 wrong answers", "75%", "50%"} == set(words(axes))


def test_diagram_puts_a_dot_where_each_bin_is_and_a_line_to_the_diagonal():
    axes = Figure().add_subplot()
    confidence, correct = (
        np.array([0.95] * 20 + [0.55] * 10 + [0.25]),
        np.array([True] * 12 + [False] * 8 + [True] * 11),
    )
    table = draw_reliability(axes, confidence, correct, bins=10)
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
        draw_reliability(axes, confidence, correct, chance=95)


def test_an_error_stands_at_its_value_and_all_of_chance_is_in_view(axes):
    draw_against_chance(axes, 0.05, Interval(0.05, 0.03, 0.08, 0.95), np.linspace(0.01, 0.2, 50))
    (point,) = [line for line in axes.lines if len(line.get_xdata()) == 1 and line.get_marker() == "s"]
    assert point.get_xdata()[0] == 0.05
    (bar,) = [c for c in axes.collections if hasattr(c, "get_segments")]
    np.testing.assert_allclose(bar.get_segments()[0][:, 0], [0.03, 0.08])
    assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] > 0.2


def test_each_network_has_a_mark_a_seed_and_its_name(axes):
    draw_promises(axes, {"small": [(0.8, 0.9), (0.82, 0.93)], "large": [(0.9, 0.9)]})
    marks = [line for line in axes.lines if line.get_marker() in ("s", "D")]
    np.testing.assert_allclose(np.column_stack(marks[0].get_data()), [[0.8, 0.9], [0.82, 0.93]])
    assert words(axes) == ["small", "large"]
    assert axes.get_xlim() == axes.get_ylim() == (0.7, 1)
    left, right = axes.texts
    assert left.get_position()[0] < 0.8 and left.get_ha() == "right"  # above the diagonal: on its far side
    assert right.get_position()[0] > 0.9 and right.get_ha() == "left"


def test_the_worst_corruption_is_named_and_the_thick_line_is_the_mean(axes):
    errors = np.array([[0.1, 0.2, 0.3], [0.1, 0.3, 0.5], [0.1, 0.1, 0.1]])
    draw_by_level(axes, errors, ["noise", "lens_blur", "haze"], "title", top=0.6)
    (thick,) = [line for line in axes.lines if line.get_linewidth() == 3]
    np.testing.assert_allclose(thick.get_ydata(), [0.1, 0.2, 0.3])
    assert words(axes) == ["lens blur", "mean"]
    assert axes.get_ylim() == (0, 0.6)


def test_two_labels_never_lie_on_each_other(axes):
    draw_by_level(axes, np.full((2, 3), 0.3), ["noise", "haze"], "title", top=1.0)
    heights = [text.get_position()[1] for text in axes.texts]
    assert abs(heights[0] - heights[1]) >= 0.1 - 1e-9


def test_a_temperature_picture_says_the_numbers_of_the_library():
    logits, labels = simulate(400, true_temperature=2.5, seed=0)
    images = torch.rand(400, 3, 8, 8)
    picture = TemperaturePicture(logits, labels, images, ["a", "b", "c", "d", "e"], fitted=2.5)
    figure, sentence = picture(2.0)
    probabilities = (logits.double() / 2).softmax(1)
    assert f"{ece(probabilities, labels, 10):.1%}" in sentence
    assert f"{negative_log_likelihood(probabilities, labels):.2f}" in sentence
    assert "promises more than it keeps" in sentence
    assert "keeps more than it promises" in picture(8.0)[1]
    answers = figure.axes[2:]
    assert len(answers) == 5
    right = probabilities.argmax(1) == labels
    assert [bool(right[i]) for i in picture.chosen] == [False, False, False, True, True]
    for axes, i in zip(answers, picture.chosen, strict=True):
        assert axes.get_title(loc="center") == f"{'abcde'[probabilities[i].argmax()]}, {probabilities[i].max():.0%}"
        assert axes.get_xlabel() == ("right" if right[i] else f"is {'abcde'[labels[i]]}")
    assert picture.losses[int(np.abs(picture.temperatures - 2.5).argmin())] < picture.losses[0]
    plt.close("all")
