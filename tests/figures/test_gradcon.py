"""The pictures of chapter 6 show what they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from tutorial_lib.figures import gradcon as pictures
from tutorial_lib.gradcon import toy

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def words(figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(plt.Text)]


def test_directions_are_drawn_with_equal_length():
    points = toy.stretch(n=12)
    figure = pictures.directions(toy.train_two_weights(points.normal, 0.03, steps=5), points, "t")
    rays = [line.get_xydata()[1] for line in figure.axes[1].lines if len(line.get_xydata()) == 2]
    lengths = np.linalg.norm(rays, axis=1)
    assert set(lengths.round(5)) == {1.0, 0.8, 0.6} and len(rays) == 36
    assert {"off the line", "further along", "normal"} <= set(words(figure))


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


def test_cosines_name_their_rows():
    figure = pictures.cosine_panels({"plain": (np.zeros(5), {"haze": np.ones(5)})}, "t")
    assert {"plain", "normal", "haze"} <= set(words(figure))
