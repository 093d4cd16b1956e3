"""Pictures of chapter 3 show what they are given."""

import numpy as np
import pytest
import torch

from tutorial_lib.figures import single_pass
from tutorial_lib.uncertainty import moons
from tutorial_lib.uncertainty.cubic import cubic_points, train_cubic


def test_the_plane_is_drawn_the_right_way_up(axes):
    grid, side = moons.plane(10)
    single_pass.draw_plane(axes, grid[:, 1], torch.zeros(1, 2), torch.zeros(1, 2), "height")
    drawn = axes.images[0].get_array()
    assert drawn.shape == (side, side) and drawn[0, 0] < drawn[-1, 0] and axes.images[0].origin == "lower"


def test_histograms_show_shares(axes):
    single_pass.draw_kinds(axes, {"known": np.zeros(10), "ambiguous": np.ones(40)}, "score", bins=2)
    heights = [[patch.get_height() for patch in bars] for bars in axes.containers]
    np.testing.assert_allclose([sum(h) for h in heights], 1)


def test_lines_of_points_needed(axes):
    lines = {"shrunk": [[0.5, 0.7]], "counted": [[0.6, 0.9], [0.4, 0.9]]}
    single_pass.draw_points_needed(axes, (3, 5), lines, 5)
    np.testing.assert_allclose(axes.lines[2].get_ydata(), [0.5, 0.9])


def test_the_cubic_is_learned_where_its_points_are():
    points = cubic_points()
    mean, _ = train_cubic(points, points.x, seeds=[0], loss="mse", steps=300)
    assert (mean[0] - points.y[:, 0]).abs().mean() < 4  # the noise has deviation 3
    with pytest.raises(ValueError, match="'nll' or 'mse'"):
        train_cubic(points, points.x, loss="mae")
