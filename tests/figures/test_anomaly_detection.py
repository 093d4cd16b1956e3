"""The pictures of chapter 5 show what they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch

from tutorial_lib.figures import anomaly_detection as pictures
from tutorial_lib.gradcon import toy

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def words(figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(plt.Text)]


def test_demands_are_the_residual_times_the_codes():
    codes = torch.tensor([[1.0, -2.0, 0.5, 9.0], [0.0, 1.0, 1.0, 9.0]])
    figure = pictures.demands(IMAGES[:2], IMAGES[2:], codes, ["a", "b"], [False, True])
    shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes[2:6]]
    for drawn, factor in zip(shown, (1, 1, -2, 0.5), strict=True):
        np.testing.assert_allclose(drawn, factor * (IMAGES[0, 0] - IMAGES[2, 0]), atol=1e-6)


def test_manifolds_send_strangers_to_their_reconstructions():
    points = toy.arc(n=8)
    figure = pictures.manifolds({"flat": lambda x: x * torch.tensor([1.0, 0.0])}, points)
    ends = [line.get_xydata() for line in figure.axes[0].lines if len(line.get_xydata()) == 2]
    assert len(ends) == sum(len(strange) for strange in points.strange.values())
    assert all(end[1, 1] == 0 and end[0, 0] == end[1, 0] for end in ends)
