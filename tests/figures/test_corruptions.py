"""The pictures of chapter 10 show the numbers that they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from tutorial_lib.figures.corruptions import GalleryPicture, draw_dots, draw_levels, draw_over_levels
from tutorial_lib.plots import KNOWN, UNKNOWN


@pytest.fixture
def axes():
    yield Figure().add_subplot()
    plt.close("all")


def test_frames_of_the_gallery_say_who_is_right():
    names = ["noise", "lens_blur", "haze", "snow", "exposure"]
    images = {1: torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))}
    right = [True, False, True, True, False]
    figure, sentence = GalleryPicture(images, {1: ["3, 90%"] * 5}, {1: right}, names)(1)
    assert sentence == "At level 1 the network is right about 3 of 5 pictures."
    assert len(figure.axes) == 5
    frames = [to_hex(a.spines["top"].get_edgecolor()).upper() for a in figure.axes]
    assert frames == [KNOWN if good else UNKNOWN for good in right]
    assert figure.axes[1].get_title() == "lens blur\n3, 90%"
    plt.close(figure)


def test_the_thick_line_is_the_mean(axes):
    draw_over_levels(axes, {"a": [1, 1, 1, 1, 1, 1], "b_c": [1, 0.8, 0.6, 0.4, 0.2, 0]}, ["b_c"])
    assert axes.lines[-1].get_ydata().tolist() == pytest.approx([1, 0.9, 0.8, 0.7, 0.6, 0.5])
    assert [text.get_text() for text in axes.texts] == ["b c"]


def test_names_stand_at_the_ends_of_their_lines(axes):
    draw_levels(axes, {"low": np.linspace(0.5, 0.6, 5), "high": np.linspace(0.6, 0.9, 5)})
    low, high = axes.texts
    assert low.get_position()[1] < high.get_position()[1]
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(0.6)


def test_several_networks_are_a_mean_in_a_band(axes):
    draw_levels(axes, {"ours": [[0.5, 0.5, 0.5, 0.5, 0.6], [0.6, 0.7, 0.7, 0.7, 0.9]], "printed": [1] * 5})
    [band] = axes.collections
    corners = {(round(x), round(y, 6)) for x, y in band.get_paths()[0].vertices}
    assert {(1, 0.5), (1, 0.6), (5, 0.6), (5, 0.9)} <= corners
    assert axes.lines[0].get_ydata().tolist() == pytest.approx([0.55, 0.6, 0.6, 0.6, 0.75])
    assert axes.texts[0].get_position()[1] == pytest.approx(0.75)


def test_one_mark_per_network(axes):
    draw_dots(axes, {"a copy": {"H": [0.5, 0.5], "other": [0.5]}, "JPEG": {"H": [0.6, 0.7], "other": []}})
    marks = [points.get_offsets()[:, 0].tolist() for points in axes.collections]
    assert marks == [[0.5, 0.5], [0.5], [0.6, 0.7], []]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a copy", "JPEG"]
