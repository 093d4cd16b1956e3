"""Pictures of chapter 13 show what they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from tutorial_lib.figures import introspection_as_plug_in as pictures
from tutorial_lib.metrics import mean_interval
from tutorial_lib.plots import KNOWN, MUTED, UNKNOWN


def test_marks_stand_at_their_gains():
    figure, axes = plt.subplots()
    pictures.draw_gains_by_network(axes, {"plain": {"one": 1.0, "two": -2.0}, "AugMix": {"one": 0.5, "two": 0.0}})
    places = [tuple(marks.get_offsets()[0]) for marks in axes.collections]
    assert places == [(1.0, 0.0), (-2.0, 0.0), (0.5, 1.0), (0.0, 1.0)]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["plain", "AugMix"]
    plt.close(figure)


def test_intervals_are_students_and_their_colour_says_on_which_side_of_zero_they_lie():
    values = {"gains": [1.0, 1.2, 1.1], "loses": [-1.0, -1.2, -1.1], "nobody knows": [-1.0, 1.0, 0.1]}
    figure, axes = plt.subplots()
    pictures.draw_intervals(axes, values)
    bars = [line for line in axes.lines if line.get_linewidth() == 5]
    for bar, points, colour in zip(bars, values.values(), (KNOWN, UNKNOWN, MUTED), strict=True):
        found = mean_interval(points)
        np.testing.assert_allclose(bar.get_xdata(), [found.low, found.high])
        assert to_hex(bar.get_color()) == colour.lower()
    plt.close(figure)


def test_the_chosen_network_keeps_its_axes_and_says_the_last_level():
    levels = {0: [0.0, 0.2], 5: [1.0, 2.0]}
    other = {0: [0.0, 0.0], 5: [-3.0, -4.0]}
    picture = pictures.ChosenNetwork(
        {"plain": {"H": levels, "control": other}, "AugMix": {"H": other, "control": levels}}
    )
    limits = set()
    for first, last in (("plain", "+1.5"), ("AugMix", "-3.5")):
        figure, sentence = picture(first)
        (axes,) = figure.axes
        limits.add(axes.get_ylim())
        assert sentence.startswith(f"On top of {first}, at level 5: H {last}")
        heights = axes.containers[0].lines[0].get_ydata()
        assert heights[-1] == pytest.approx(float(last))
        plt.close(figure)
    assert len(limits) == 1
