"""The pictures of chapter 16 show the numbers that they are given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex

from tutorial_lib.figures.your_own_model import PromisePicture, decision, draw_evidence, draw_tails, ends
from tutorial_lib.plots import KNOWN, MUTED
from tutorial_lib.scoring.decision import KINDS, WAYS, auroc_by_kind, good_ways


def test_blue_is_what_cannot_be_told_from_the_best():
    table = {
        "near": {"msp": [0.9, 0.94], "energy": [0.92, 0.93], "mahalanobis": [0.6, 0.62]},
        "far": {"msp": [0.8, 0.81], "energy": [0.99, 0.98], "mahalanobis": [0.985, 0.99]},
    }
    figure = decision(table, "a title")
    for axes, expected in zip(figure.axes, ({0, 1}, {1, 2}), strict=True):
        blue = {row for row, dots in enumerate(axes.collections) if to_hex(dots.get_facecolor()[0]).upper() == KNOWN}
        assert blue == expected
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["confidence", "energy", "Mahalanobis"]
    assert figure.axes[1].collections[2].get_offsets()[:, 0].tolist() == [0.985, 0.99]


def test_good_ways_by_hand():
    assert good_ways({"a": [0.9, 0.8], "b": [0.8, 0.7], "c": [0.7, 0.79]}) == ["a", "b"]  # b reaches the worst of a
    assert good_ways({"a": [0.9], "b": [0.895], "c": [0.88]}) == ["a", "b"]  # within a hundredth


def test_stored_rows_hold_every_kind_and_way():
    table = auroc_by_kind("digits")
    assert list(table) == list(KINDS)
    for by_way in table.values():
        assert by_way.keys() == WAYS.keys()
        assert all(len(values) == 3 and 0 <= min(values) <= max(values) <= 1 for values in by_way.values())


def test_one_way_alone_is_good_for_every_kind():
    """The sentence over the figure of chapter 16."""
    good = [set(good_ways(by_way)) for by_way in auroc_by_kind("digits").values()]
    assert set.intersection(*good) == {"activation_fusion"}


def test_on_photographs_the_advice_turns_around():
    """What chapter 16 says of the larger networks."""
    table = auroc_by_kind("cifar10", "resnet20")
    far, turned = table["something else altogether"], table["known, turned or inverted"]
    assert min(np.subtract(far["activation_density"], far["energy"])) > 0
    assert max(np.subtract(turned["activation_density"], turned["energy"])) < 0
    attacked = {way: np.mean(values) for way, values in table["known, attacked"].items()}
    assert max(attacked["msp"], attacked["energy"]) < 0.45
    assert attacked["activation_fusion"] < attacked["activation_density"] - 0.05


def test_nothing_lies_outside_the_picture():
    """A way that is worse than a coin is the most instructive dot of all."""
    figure = decision({"attacked": {"msp": [0.35], "energy": [0.9]}}, "a title")
    left, right = figure.axes[0].get_xlim()
    assert left < 0.35 and right > 0.9
    assert decision({"calm": {"msp": [0.8]}}, "a title").axes[0].get_xlim()[0] == 0.5


def test_tails_are_drawn_as_shares(axes):
    draw_tails(axes, {"normal": [0.1, 0.5, 0.9], "strange": [0.01, 0.01, 0.2]})
    x, y = axes.lines[2].get_data()
    assert x.tolist() == [0, 0.01, 0.01, 0.2, 1] and y[3] == pytest.approx(1)
    assert [text.get_text() for text in axes.texts] == ["normal", "strange"]


def test_promises_by_simulation():
    figure, sentence = PromisePicture(0.05, 0.1)(99)
    line = next(line for line in figure.axes[0].lines if line.get_label() == "promised on average")
    x, density = line.get_data()
    uniform = np.sort(np.random.default_rng(0).uniform(size=(20000, 99)), axis=1)
    rates = 1 - uniform[:, 94]  # four of 99 lie above
    assert np.trapezoid(density * (x > 0.05), x) == pytest.approx((rates > 0.05).mean(), abs=0.02)
    assert f"more than 5% in {(rates > 0.05).mean():.0%}"[:18] in sentence
    _, sentence = PromisePicture(0.05, 0.1)(30)
    assert "30 are too few to promise it in 90% of draws" in sentence


def test_evidence_and_alarms_stand_where_they_belong(axes):
    evidence, alarms = np.log([1.0, 10.0, 1000.0]), [False, True, False]
    draw_evidence(axes, evidence, alarms, change=1, delta=0.01)
    assert axes.lines[0].get_ydata() == pytest.approx([0, 1, 3])
    assert axes.lines[1].get_ydata()[0] == pytest.approx(2)
    assert axes.lines[3].get_xdata().tolist() == [2]
    assert to_hex(axes.lines[1].get_color()).upper() == MUTED


def test_ends_have_a_row_each():
    images = [torch.rand(1, 8, 8) for _ in range(3)]
    figure = ends({"strangest": (images, ["a", "b", "c"]), "ordinary": (images[:2], ["d", "e"])}, "a title")
    assert [axes.get_xlabel() for axes in figure.axes] == ["a", "b", "c", "d", "e"]
    assert figure.axes[0].get_title(loc="left") == "strangest"
