"""Pictures of gradient norms say what they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import torch

from tutorial_lib.figures import gradients_as_features as pictures
from tutorial_lib.gradients import toy
from tutorial_lib.plots import KNOWN, UNKNOWN

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def words(figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(plt.Text)]


def test_profiles_draw_multiples_of_the_typical_known_image():
    known = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]], dtype=torch.float64)
    norms = torch.tensor([[4.0, 20.0], [2.0, 5.0]], dtype=torch.float64)
    figure = pictures.profiles(IMAGES[:2], norms, known, ["a", "b"], [KNOWN, UNKNOWN])
    drawn = [[bar.get_y() + bar.get_height() for bar in axis.patches] for axis in figure.axes[2:]]
    np.testing.assert_allclose(drawn, [[2.0, 1.0], [1.0, 0.25]])


def test_label_bars_draw_the_demand():
    u = torch.tensor([[0.5, -1.0], [0.0, 0.25]])
    figure = pictures.label_bars(IMAGES[:2], {"all ones": u}, ["0", "1"], ["a", "b"])
    drawn = [[bar.get_height() for bar in axis.patches] for axis in figure.axes[2:]]
    np.testing.assert_allclose(drawn, -u)
    assert "|δ|² = 1.2" in words(figure)


def test_layers_are_drawn_relative_to_the_known_and_named_apart():
    known = torch.tensor([[-1.0, -1.0], [0.0, 1.0], [1.0, 2.0]])
    strange = {"near_known": torch.tensor([0.5, 1.0]), "below": torch.tensor([-0.5, -1.0])}
    figure = pictures.layers({"panel": (known, strange)})
    lines = [
        line.get_ydata() for line in figure.axes[0].lines if len(line.get_ydata()) == 2 and line.get_marker() != "None"
    ]
    np.testing.assert_allclose(lines, [[0.5, 0.0], [-0.5, -2.0]])
    heights = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts}
    assert set(heights) == {"known", "near known", "below"}
    assert abs(heights["known"] - heights["near known"]) > 0.1


def test_seeds_draw_one_dot_a_seed():
    values = {"noise": {"net": [0.1, 0.6, 0.9], "other": [0.5]}}
    figure = pictures.seeds(values, "title")
    dots = [list(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert [0.1, 0.6, 0.9] in dots and [0.5] in dots


def test_one_pass_writes_the_product_of_the_lengths():
    x, g = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[2.0], [1.0]])
    assert {"100", "1"} <= set(words(pictures.one_pass(IMAGES[:2], x, g)))


def test_gram_writes_the_squared_norm():
    generator = torch.Generator().manual_seed(0)
    u, g = torch.randn(3, 5, generator=generator), torch.randn(2, 5, generator=generator)
    squared = (g @ u.T).square().sum().item()
    assert f"sum of all: {squared:.4g}" in words(pictures.gram(u.T @ u, g.T @ g))


def test_ratios_are_of_the_first():
    assert {"1", "0.5", "20"} <= set(words(pictures.ratios({"step": 2.0, "norms": 1.0, "loop": 40.0}, "title")))


def test_scores_and_tables_hold_every_value():
    values = {"sum": {"noise": 0.1, "sky": 0.4}, "profile": {"noise": 0.996, "sky": 0.75}}
    figure = pictures.scores(values, "title")
    dots = [list(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() != "None"]
    assert dots == [[0.1, 0.4], [0.996, 0.75]]
    assert {".10", ".40", "1", ".75"} <= set(words(pictures.verdict_table({"study": values})))


def test_factors_draw_both_groups():
    known = (torch.full((5,), 100.0), torch.full((5,), 4.0))
    strange = (torch.full((3,), 10.0), torch.full((3,), 2.0))
    figure = pictures.factors({"all ones": (known, strange), "predicted": (known, strange)}, "sky")
    counts = [len(group.get_offsets()) for axis in figure.axes for group in axis.collections]
    assert counts == [5, 3, 5, 3]


def test_toy_pictures_draw_their_marks():
    data = toy.three_arcs(60)
    net = toy.train_toy(data, steps=50)
    places = {"here": data.points[0], "far": torch.tensor([2.5, 2.3])}
    assert {"here", "far", "P", "Q₁", "Q₂"} <= set(words(pictures.moves(net, data, places, rate=0.01)))
    _, grid = toy.plane(2.0, 21)
    figure = pictures.maps(data, {"norms": net(grid).detach().square().sum(1)}, {"hole": torch.zeros(2)}, 2.0)
    assert {"norms", "hole"} <= set(words(figure))


def test_cost_draws_each_way_at_its_batch_sizes():
    table = {"resnet20": {"one pass": {1: 1.2, 8: 0.9}, "loop": {1: 1.0, 8: 7.0}}, "unknown": {"loop": {1: 1.0}}}
    figure = pictures.cost(table, ["resnet20", "absent"])
    curves = [line.get_xydata().tolist() for line in figure.axes[0].lines[:2]]
    assert curves == [[[1, 1.2], [8, 0.9]], [[1, 1.0], [8, 7.0]]]
    assert {"ResNet-20", "one pass", "loop"} <= set(words(figure))
