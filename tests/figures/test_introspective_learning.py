"""Pictures of chapter 12 show what they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from tutorial_lib.figures import introspective_learning as pictures


def test_a_line_of_gains_goes_through_its_numbers():
    figure, axes = plt.subplots()
    pictures.draw_gains(axes, (0, 1, 5), {"one": [0.0, 1.0, -2.0], "two": [3.0, 2.0, 1.0]})
    lines = [line for line in axes.lines if line.get_label() in ("one", "two")]
    np.testing.assert_allclose(lines[0].get_ydata(), [0, 1, -2])
    np.testing.assert_allclose(lines[1].get_xdata(), [0, 1, 5])
    plt.close(figure)


def test_differences_are_drawn_in_points_with_a_bar_at_their_mean():
    figure = pictures.differences({"better": [0.01, 0.03], "worse": [-0.02]}, "who gains")
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.collections[0].get_offsets()[:, 0], [1, 3])
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [2, 2])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row at the top
    plt.close(figure)
