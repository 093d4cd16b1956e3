"""The pictures of the chapter show the numbers that they are given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from tutorial_lib.data.embedded import digits
from tutorial_lib.detectors.gradcon import autoencoder_scores
from tutorial_lib.figures import severity as pictures
from tutorial_lib.plots import KNOWN, UNKNOWN
from tutorial_lib.severity import among, quantile_bins, spearman
from tutorial_lib.training.autoencoder import AutoencoderConfig
from tutorial_lib.training.trained import trained_autoencoder


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(plt.Text))


def test_a_growing_lesion_says_where_it_falls_among_the_healthy():
    images = digits().float()
    model = trained_autoencoder(images[:64], config=AutoencoderConfig(epochs=2), widths=(6, 2))
    growing = pictures.GrowingLesion(model, images[100:101], images[101:141], [0.0, 0.5, 1.0], seed=2)
    healthy = autoencoder_scores(model, images[101:141])["combined"]
    for severity, kind in ((0.0, "spot"), (1.0, "gap")):
        figure, sentence = growing(severity, kind)
        score = autoencoder_scores(model, growing.painted(severity, kind))["combined"][0]
        assert f"{score:.3f}" in sentence and f"{among(healthy, score):.0%}" in sentence and kind in sentence
        axes = figure.axes[-1]
        (now,) = [line for line in axes.lines if line.get_marker() == "^"]
        assert now.get_xdata()[0] == pytest.approx(score)
        assert axes.get_xlim()[0] < min(healthy.min(), score) and axes.get_xlim()[1] > max(healthy.max(), score)
        assert sum(bar.get_height() for bar in axes.patches) == len(healthy)
    assert torch.equal(growing.painted(0.0, "gap"), images[100:101])


def test_dots_lie_at_score_and_severity():
    random = np.random.default_rng(0)
    truth, score = random.random(50), random.random(50)
    kinds = np.arange(50) % 2
    figure = pictures.against_truth({"error": score, "other": -truth}, truth, kinds, ["spots", "gaps"])
    first = figure.axes[0]
    drawn = np.concatenate([np.c_[line.get_xdata(), line.get_ydata()] for line in first.lines])
    assert sorted(map(tuple, drawn)) == sorted(zip(truth, score, strict=True))
    assert f"ρ = {spearman(score, truth):.2f}" in words(figure) and "ρ = -1.00" in words(figure)


def test_each_bin_shows_its_images_and_its_share():
    images, scores = digits().float()[:90], np.linspace(0, 1, 90)
    figure = pictures.bins_of(scores, quantile_bins(scores, 3), images, "Three")
    assert all(f"label {name}" in words(figure) for name in range(3))
    histogram = figure.axes[-1]
    assert sum(bar.get_height() for bar in histogram.patches) == 88, "all but what lies beyond the last edges"
    edges = sorted(line.get_xdata()[0] for line in histogram.lines)
    assert edges == [scores[30], scores[60]]
    assert len([axes for axes in figure.axes if axes.images]) == 9


def test_every_seed_is_a_dot_and_the_mean_a_bar():
    groups = {"one": {"a": [0.5, 0.7], "b": [0.9]}, "two": {"a": [0.1], "c": [0.2]}}
    figure = pictures.dots(groups, "Title", "AUROC", chance=0.5, highlighted=["a"])
    one = figure.axes[0]
    points = {line.get_color(): line.get_xdata() for line in one.lines if line.get_marker() == "o"}
    np.testing.assert_allclose(points[UNKNOWN], [0.5, 0.7])
    bars = [line.get_xdata()[0] for line in one.lines if line.get_linewidth() == 2.5]
    assert bars == pytest.approx([0.6, 0.9])
    assert [label.get_text() for label in one.get_yticklabels()] == ["a", "b", "c"]


def test_bins_run_from_few_to_many_with_their_companions():
    values = {"kind": {10: [0.7, 0.8], 2: [0.6, 0.6]}}
    figure = pictures.by_bins(values, {"kind": {"SimCLR": [0.9, 0.7]}}, {2: 31.5, 10: 6.3}, "Title", "AUROC")
    axes = figure.axes[0]
    curve = next(line for line in axes.lines if line.get_linestyle() == "-" and line.get_marker() in ("None", ""))
    np.testing.assert_allclose(curve.get_ydata(), [0.6, 0.75])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2\n32", "10\n6.3"]
    reference = next(line for line in axes.lines if line.get_linestyle() == "--")
    assert reference.get_ydata()[0] == pytest.approx(0.8)


def test_tenths_hold_their_share_of_the_ill():
    healthy, ill = np.linspace(0, 1, 50), np.linspace(0.5, 1.5, 50)
    figure = pictures.share_by_tenth(healthy, ill, ("healthy", "ill"), "Title")
    heights = [bar.get_height() for bar in figure.axes[0].patches[:10]]
    order = np.r_[healthy, ill].argsort(kind="stable")
    expected = np.r_[np.zeros(50), np.ones(50)][order].reshape(10, 10).mean(1)
    np.testing.assert_allclose(heights, expected)
    assert heights[0] == 0 and heights[-1] == 1


def test_reconstructions_stand_below_their_images():
    images = digits().images[:3].numpy()
    figure = pictures.rebuilt({"healthy ones": (images, images // 2), "ill ones": (images[:2], images[:2])}, "Title")
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    np.testing.assert_allclose(shown[0], images[0, 0] / 255)
    np.testing.assert_allclose(shown[3], images[0, 0] // 2 / 255)
    frames = [axes.spines["left"].get_edgecolor() for axes in figure.axes if axes.images]
    assert plt.matplotlib.colors.to_hex(frames[0]).upper() == KNOWN
    assert plt.matplotlib.colors.to_hex(frames[6]).upper() == UNKNOWN
