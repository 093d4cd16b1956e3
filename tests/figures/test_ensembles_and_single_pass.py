"""Pictures of chapters 2 and 3 show what they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from tutorial_lib.figures import ensembles, single_pass
from tutorial_lib.plots import KNOWN
from tutorial_lib.uncertainty import moons
from tutorial_lib.uncertainty.cubic import cubic_points, train_cubic


@pytest.fixture
def axes():
    figure, made = plt.subplots()
    yield made
    plt.close(figure)


def test_corners_of_the_triangle_are_the_sure_answers(axes):
    ensembles.draw_simplex(axes, np.eye(3), ("a", "b", "c"), "sure")
    dots, cross = (collection.get_offsets().data for collection in axes.collections)
    np.testing.assert_allclose(dots, [[0, 0], [1, 0], [0.5, 3**0.5 / 2]])
    np.testing.assert_allclose(cross[0], dots.mean(0))


def test_a_row_has_a_dot_a_seed_and_a_bar_at_the_mean(axes):
    ensembles.draw_dots(axes, {"one": [0.2, 0.4], "two": [0.9]}, {"two": KNOWN})
    np.testing.assert_allclose(axes.collections[0].get_offsets().data, [[0.2, 0], [0.4, 0]])
    np.testing.assert_allclose(axes.lines[0].get_xdata(), 0.3)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one", "two"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row at the top


def test_the_chosen_size_is_marked_at_the_mean(axes):
    ensembles.draw_trade(axes, [1, 2, 3], [[1, 2, 3], [3, 4, 5]], 2, KNOWN, "what")
    assert [tuple(line.get_ydata()) for line in axes.lines][-1] == (3,) or axes.lines[-1].get_ydata()[0] == 3


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


def test_band_is_three_standard_deviations(axes):
    x = torch.linspace(-1, 1, 3)[:, None]
    ensembles.draw_band(axes, x, torch.zeros(3), torch.full((3,), 2.0), (torch.zeros(1, 1), torch.zeros(1, 1)))
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (-6, 6)


@pytest.mark.parametrize("loss", ["nll", "mse"])
def test_members_of_the_cubic_are_the_networks_trained_alone(loss):
    points, x = cubic_points(), torch.linspace(-6, 6, 7)[:, None]
    together = train_cubic(points, x, seeds=(4, 9), loss=loss, adversarial_step=0.01, steps=20)
    alone = train_cubic(points, x, seeds=(9,), loss=loss, adversarial_step=0.01, steps=20)
    torch.testing.assert_close(together[0][1], alone[0][0], rtol=1e-3, atol=1e-3)
    assert (together[1] > 0).all() if loss == "nll" else (together[1] == 0).all()


def test_the_cubic_is_learned_where_its_points_are():
    points = cubic_points()
    mean, _ = train_cubic(points, points.x, seeds=[0], loss="mse", steps=300)
    assert (mean[0] - points.y[:, 0]).abs().mean() < 4  # the noise has deviation 3
    with pytest.raises(ValueError, match="'nll' or 'mse'"):
        train_cubic(points, points.x, loss="mae")
