"""The pictures of chapter 9 show the numbers that they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from tutorial_lib.figures.adversarial import EpsilonPicture, attack_in_person, draw_ladder, draw_layers


@pytest.fixture
def axes():
    yield Figure().add_subplot()
    plt.close("all")


def test_the_sum_stands_below_what_was_added():
    clean = torch.full((2, 1, 4, 4), 0.5)
    changed = clean.clone()
    changed[0, 0, 0, 0] = 0.7
    figure = attack_in_person(clean, changed, ["one", "two"], ["three", "four"])
    first, added, last = figure.axes[0], figure.axes[2], figure.axes[4]
    assert (first.get_title(), last.get_title()) == ("one", "three")
    shown = added.images[0]
    assert shown.get_array()[0, 0] == pytest.approx(0.2)
    assert shown.get_clim() == pytest.approx((-0.2, 0.2))
    plt.close(figure)


def test_a_layer_that_does_not_move_stays_on_the_line(axes):
    clean = np.random.default_rng(0).normal(size=(50, 2))
    changed = clean + [0.0, 3 * clean[:, 1].std()]
    draw_layers(axes, clean, changed, ["a", "b"])
    heights = axes.collections[1].get_offsets()[:, 1]
    assert heights.tolist() == pytest.approx([0.0, 3.0])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]


def test_a_line_of_the_ladder_ends_where_nothing_was_measured(axes):
    draw_ladder(axes, ["nothing", "some", "all"], {"x": [[0.9, 0.7], [0.5], [0.1]], "y": [[0.4], [0.3], []]})
    means, ended = (line.get_ydata() for line in axes.lines)
    assert means.tolist() == pytest.approx([0.8, 0.5, 0.1])
    assert np.isnan(ended[2])
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places["x"] == pytest.approx((2.12, 0.1))
    assert places["y"] == pytest.approx((1.12, 0.3))


def test_the_sentence_says_what_is_fooled_and_caught():
    images = {level: torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0)) for level in (8, 16)}
    answers, fooled = {8: ["a", "b"], 16: ["c", "d"]}, {8: [False, True], 16: [True, True]}
    known = np.linspace(0, 1, 50)
    strange = {8: np.array([]), 16: np.linspace(0.5, 2, 20)}
    picture = EpsilonPicture(images, answers, fooled, {8: 0.25, 16: 1.0}, known, strange, {8: 0.0, 16: 0.6})
    for level, said in ((8, "25%"), (16, "60%")):
        figure, sentence = picture(level)
        assert f"With {level} grey levels" in sentence
        assert said in sentence
        plt.close(figure)
