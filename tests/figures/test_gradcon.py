"""Pictures of chapters 5 and 6 show what they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from tutorial_lib.figures import gradcon as pictures
from tutorial_lib.gradcon import toy
from tutorial_lib.plots import KNOWN, UNKNOWN, use_style

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _style():
    with plt.rc_context():
        use_style()
        yield
        plt.close("all")


def words(figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(plt.Text)]


def test_queue_puts_images_in_the_order_of_their_scores():
    figure = pictures.queue(
        IMAGES, [3, 1, 2, 0], [True, False, True, False], [0, 1], [2, 3], "t", {"again": IMAGES / 2}
    )
    first, second = figure.axes[:4], figure.axes[4:8]
    for axis, below, n in zip(first, second, (3, 1, 2, 0), strict=True):
        np.testing.assert_allclose(axis.images[0].get_array(), IMAGES[n, 0], atol=1e-6)
        np.testing.assert_allclose(below.images[0].get_array(), IMAGES[n, 0] / 2, atol=1e-6)
    colours = [axis.spines["left"].get_edgecolor() for axis in first]
    assert colours == [plt.matplotlib.colors.to_rgba(c) for c in (KNOWN, KNOWN, UNKNOWN, UNKNOWN)]
    heights = np.array([bar.get_height() for bar in figure.axes[8].patches])
    assert heights[:20].sum() == pytest.approx(1) and heights[20:].sum() == pytest.approx(-1)
    assert np.flatnonzero(heights[:20]).max() < np.flatnonzero(heights[20:]).min(), "all strange ones score higher"


def test_demands_are_the_residual_times_the_codes():
    codes = torch.tensor([[1.0, -2.0, 0.5, 9.0], [0.0, 1.0, 1.0, 9.0]])
    figure = pictures.demands(IMAGES[:2], IMAGES[2:], codes, ["a", "b"], [False, True])
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes[2:6]]
    for drawn, factor in zip(shown, (1, 1, -2, 0.5), strict=True):
        np.testing.assert_allclose(drawn, factor * (IMAGES[0, 0] - IMAGES[2, 0]), atol=1e-6)


def test_directions_are_drawn_with_equal_length():
    points = toy.stretch(n=12)
    figure = pictures.directions(toy.train_two_weights(points.normal, 0.03, steps=5), points, "t")
    rays = [line.get_xydata()[1] for line in figure.axes[1].lines if len(line.get_xydata()) == 2]
    lengths = np.linalg.norm(rays, axis=1)
    assert set(lengths.round(5)) == {1.0, 0.8, 0.6} and len(rays) == 36
    assert {"off the line", "further along", "normal"} <= set(words(figure))


def test_manifolds_send_strangers_to_their_reconstructions():
    points = toy.arc(n=8)
    figure = pictures.manifolds({"flat": lambda x: x * torch.tensor([1.0, 0.0])}, points)
    ends = [line.get_xydata() for line in figure.axes[0].lines if len(line.get_xydata()) == 2]
    assert len(ends) == sum(len(strange) for strange in points.strange.values())
    assert all(end[1, 1] == 0 and end[0, 0] == end[1, 0] for end in ends)


def test_by_class_draws_each_seed_and_marks_the_mean():
    figure = pictures.by_class({"a": {"x": [0.2, 0.4], "y": 0.9}, "b": {"x": 0.5, "y": 0.5}}, "t", empty=["b"])
    axes = figure.axes[0]
    marks = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([0.3, 0.9, 0.5, 0.5])
    assert [line.get_markerfacecolor() == "white" for line in marks] == [False, False, True, True]
    spans = [line.get_xdata() for line in axes.lines if line.get_marker() in ("None", "")][:1]
    np.testing.assert_allclose(spans, [[0.2, 0.4]])


def test_against_keeps_names_apart():
    close = {"one": 0.50, "two": 0.505, "three": 0.51}
    figure = pictures.against({"p": (close, close), "q": (close, close)}, "x")
    names = [text for text in figure.axes[0].texts if text.get_text() in close]
    heights = sorted(text.get_position()[1] for text in names if text.get_ha() == names[0].get_ha())
    assert len(names) == 3 and (len(heights) < 2 or min(np.diff(heights)) > 0.003)


def test_conditions_draw_one_panel_each():
    figure = pictures.conditions({name: {"error": np.linspace(0, 1, 5)} for name in ("haze", "lens_blur")}, "t")
    shown = [axis for axis in figure.axes if axis.get_visible()]
    assert [axis.get_title(loc="left") for axis in shown] == ["haze", "lens blur"]
    np.testing.assert_allclose(shown[0].lines[1].get_ydata(), np.linspace(0, 1, 5))


def test_signed_rows_share_one_scale_around_zero():
    figure = pictures.rows_of_images({"image": IMAGES, "rest": IMAGES - 0.9}, [None] * 4, signed=["rest"])
    limits = {axis.images[0].get_clim() for axis in figure.axes[4:]}
    assert len(limits) == 1
    low, high = limits.pop()
    assert low == -high == pytest.approx(-float((IMAGES - 0.9).abs().max()))


def test_curves_and_cosines_name_their_rows():
    figure = pictures.by_directions({"error": {1: 0.9, 2: 0.8}, "gradient": {1: 0.6, 2: 0.7}}, "t", most=4)
    assert {"error", "gradient"} <= set(words(figure))
    figure = pictures.cosine_panels({"plain": (np.zeros(5), {"haze": np.ones(5)})}, "t")
    assert {"plain", "normal", "haze"} <= set(words(figure))
