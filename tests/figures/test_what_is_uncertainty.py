"""The pictures show the numbers they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from tutorial_lib.figures.what_is_uncertainty import (
    draw_answers,
    draw_confidence_gap,
    draw_members,
    draw_parts,
    draw_passing,
    draw_prediction,
    draw_uncertainties,
)
from tutorial_lib.plots import DATA_UNCERTAINTY, KNOWN, MODEL, MODEL_UNCERTAINTY, UNKNOWN
from tutorial_lib.uncertainty.decomposition import Decomposition
from tutorial_lib.uncertainty.toy import evaluation_inputs, toy_regression, true_function


@pytest.fixture
def axes():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def line_of(axes, colour):
    return next(line for line in axes.lines if to_rgb(line.get_color()) == to_rgb(colour))


def test_bands_are_two_standard_deviations(axes):
    x = evaluation_inputs(31)
    mean, data, model = torch.linspace(-1, 1, 31), torch.full((31,), 0.3), torch.full((31,), 0.4)
    draw_prediction(axes, x, mean, data, model, toy_regression(25))
    by_colour = {}
    for band in axes.collections:
        if band.get_paths() and len(band.get_paths()[0].vertices) > 40:
            by_colour.setdefault(tuple(band.get_facecolor()[0][:3]), []).append(band.get_paths()[0].vertices)
    inner = np.concatenate(by_colour[to_rgb(DATA_UNCERTAINTY)])
    outer = np.concatenate(by_colour[to_rgb(MODEL_UNCERTAINTY)])
    middle = np.isclose(inner[:, 0], 0, atol=1e-5), np.isclose(outer[:, 0], 0, atol=1e-5)
    assert inner[middle[0], 1].max() == pytest.approx(0.6) and inner[middle[0], 1].min() == pytest.approx(-0.6)
    assert outer[middle[1], 1].max() == pytest.approx(1.0) and outer[middle[1], 1].min() == pytest.approx(-1.0)
    np.testing.assert_allclose(line_of(axes, MODEL).get_ydata(), mean)
    assert sum(len(c.get_offsets()) == 25 for c in axes.collections) == 1


def test_without_standard_deviations_there_are_no_bands(axes):
    x = evaluation_inputs(31)
    draw_prediction(axes, x, true_function(x))
    assert not axes.collections


def test_curves_of_uncertainty(axes):
    x = evaluation_inputs(31)
    draw_uncertainties(axes, x, torch.full((31,), 0.2), torch.linspace(0, 1, 31))
    np.testing.assert_allclose(line_of(axes, MODEL_UNCERTAINTY).get_ydata(), np.linspace(0, 1, 31), atol=1e-6)
    np.testing.assert_allclose(line_of(axes, DATA_UNCERTAINTY).get_ydata(), 0.2, atol=1e-6)


def test_patches_are_put_together_and_answers_stand_where_they_belong(axes):
    picture = torch.rand(1, 6, 9)
    patches = torch.stack([picture[:, r : r + 3, c : c + 3] for r in (0, 3) for c in (0, 3, 6)])
    draw_answers(axes, patches, 3, [None, None, None, None, "7", None])
    np.testing.assert_allclose(axes.images[0].get_array(), picture[0], rtol=1e-6)
    (box,) = axes.patches
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (2.5, 2.5, 3, 3)
    assert [text.get_text() for text in axes.texts] == ["7"]


def test_members_are_drawn_as_they_are(axes):
    p = torch.rand(5, 4)
    draw_members(axes, p, ["0", "1", "2", "3"])
    np.testing.assert_allclose(axes.images[0].get_array(), p, rtol=1e-6)
    assert axes.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2", "3"]


def test_bars_are_mean_data_then_mean_model_uncertainty(axes):
    parts = {
        "strange": Decomposition(torch.tensor([0.5, 1.5]), torch.tensor([0.1, 0.3]), torch.tensor([0.4, 1.2])),
        "known": Decomposition(torch.tensor([0.2, 0.2]), torch.tensor([0.2, 0.2]), torch.tensor([0.0, 0.0])),
    }
    draw_parts(axes, parts)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["known", "strange"]
    assert [label.get_color() for label in axes.get_yticklabels()] == [KNOWN, UNKNOWN]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([0.2, 0.2, 0.0, 0.8])
    assert [bar.get_x() for bar in axes.patches] == pytest.approx([0, 0, 0.2, 0.2])
    assert {"1.00", "0.20"} <= {text.get_text() for text in axes.texts}
    assert axes.yaxis_inverted(), "the first set stands at the top"


def test_gap_runs_from_accuracy_to_confidence(axes):
    draw_confidence_gap(axes, {"noise": 0.7, "known": 0.9}, {"known": 0.8, "noise": None})
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.8, 0.9], [0, 0.7]]
    circles = [c for c in axes.collections if tuple(c.get_offsets()[0]) in {(0.8, 0), (0, 1)}]
    assert [tuple(c.get_facecolor()[0][:3]) for c in circles] == [to_rgb(KNOWN), (1, 1, 1)]


def test_passing_counts_what_reaches_the_threshold(axes):
    confidences = {"known": np.array([0.95, 0.99, 1.0, 0.5]), "noise": np.array([0.2, 0.9])}
    draw_passing(axes, confidences, sure=0.9)
    assert {text.get_text() for text in axes.texts} == {"known 75%", "noise 50%"}
    curve = line_of(axes, KNOWN)
    at = dict(zip(np.round(curve.get_xdata(), 3), curve.get_ydata(), strict=True))
    assert at[0.0] == 1 and at[0.6] == 0.75 and at[1.0] == 0.25
