"""Pictures of chapter 14 show what they are given."""

from __future__ import annotations

import numpy as np
import pytest

from tutorial_lib.figures import active_learning as pictures
from tutorial_lib.metrics import Interval

POINTS = np.array([[0.1, 0.2], [0.5, 0.5], [0.9, 0.3], [0.4, 0.8]])
CLASSES = [0, 1, 1, 2]


def test_labelled_points_show_their_class_and_the_others_do_not(axes):
    pictures.draw_asked(axes, POINTS, CLASSES, pictures.Asked([1, 0], [3], np.eye(4), 0.5), "entropy")
    pool, a, b, c, asked = axes.collections[-5:]
    np.testing.assert_allclose(pool.get_offsets(), POINTS)
    np.testing.assert_allclose(a.get_offsets(), POINTS[[0]])
    np.testing.assert_allclose(b.get_offsets(), POINTS[[1]])
    assert len(c.get_offsets()) == 0
    np.testing.assert_allclose(asked.get_offsets(), POINTS[[3]])


def test_rounds_name_both_runs():
    runs = {"entropy": [pictures.Asked([0], [1], np.eye(4), 0.25), pictures.Asked([0, 1], [], np.eye(4), 0.5)]}
    twin = [pictures.Asked([0], [2], None, 0.25), pictures.Asked([0, 2], [], None, 0.75)]
    figure, sentence = pictures.Rounds(POINTS, CLASSES, runs, twin)("entropy", 2)
    assert sentence == "Round 2, 2 labels: entropy 50% right, random twin 75% right."
    assert [axes.get_title() for axes in figure.axes] == ["entropy: 50% right", "random twin: 75% right"]


def test_seeds_are_dots_in_points_with_a_bar_at_the_mean(axes):
    pictures.draw_seeds(axes, {"margin": [0.01, -0.02, 0.04]})
    np.testing.assert_allclose(np.asarray(axes.collections[0].get_offsets())[:, 0], [1, -2, 4])
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [1, 1])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row at the top


def test_leads_are_drawn_in_points_with_their_intervals(axes):
    leads = {name: [Interval(0.01, -0.01, 0.03, 0.95), Interval(0.02, 0.0, 0.04, 0.95)] for name in ("one", "two")}
    pictures.draw_lead(axes, [20, 50], leads)
    one, two = axes.containers
    np.testing.assert_allclose(one.lines[0].get_ydata(), [1, 2])
    assert one.lines[0].get_xdata()[0] < 20 < two.lines[0].get_xdata()[0]  # side by side
    np.testing.assert_allclose(one.lines[2][0].get_segments()[0][:, 1], [-1, 3])


@pytest.mark.parametrize("published", [{}, {"margin": [0.001, 0.004]}])
def test_several_kinds_and_published_numbers_share_a_row(axes, published):
    two = {"margin": Interval(0.0, -0.02, 0.02, 0.95), "badge": Interval(0.01, 0.0, 0.02, 0.95)}
    control = {"badge": Interval(-0.01, -0.02, 0.0, 0.95), "margin": Interval(0.0, 0.0, 0.0, 0.95)}
    pictures.draw_intervals(axes, {"introspective": two, "control": control}, published)
    of_two, of_control = axes.containers
    np.testing.assert_allclose(of_two.lines[0].get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_allclose(of_two.lines[2][0].get_segments()[0][:, 0], [-2, 2])
    np.testing.assert_allclose(of_control.lines[0].get_xydata()[1], [-1, 1.22])  # below its row
    (theirs,) = [line for line in axes.lines if line.get_label() == "published"]
    np.testing.assert_allclose(theirs.get_xdata(), [0.1, 0.4] if published else [])
