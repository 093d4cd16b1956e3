"""Pictures of chapter 2 show what they are given."""

import numpy as np
import pytest
import torch

from tutorial_lib.figures import ensembles
from tutorial_lib.plots import KNOWN
from tutorial_lib.uncertainty.cubic import cubic_points, train_cubic


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
