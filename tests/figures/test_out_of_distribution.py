"""Pictures of detectors say what they are given."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from tutorial_lib.data.images import ImageSet
from tutorial_lib.explore import explore
from tutorial_lib.figures import out_of_distribution as pictures
from tutorial_lib.figures.common import BARS
from tutorial_lib.metrics import auroc
from tutorial_lib.plots import KNOWN, UNKNOWN

GENERATOR = torch.Generator().manual_seed(0)
GREY = torch.randint(0, 256, (60, 1, 8, 8), dtype=torch.uint8, generator=GENERATOR)
COLOURED = torch.randint(0, 256, (60, 3, 8, 8), dtype=torch.uint8, generator=GENERATOR)


def some(images, name="temple_roofs"):
    return ImageSet(name, images, torch.zeros(len(images), dtype=torch.int64), ("any",), torch.arange(len(images)))


def words(figure) -> list[str]:
    figure.canvas.draw()
    return [text.get_text() for text in figure.findobj(plt.Text) if text.get_text()]


def frames(axes) -> list[str]:
    return [to_hex(patch.get_edgecolor()).upper() for patch in axes.patches if isinstance(patch, Rectangle)]


@pytest.mark.parametrize("images", [GREY, COLOURED], ids=["grey", "colour"])
def test_queue_frames_by_origin_and_says_what_the_gate_does(images):
    known, strange = np.arange(30.0), np.arange(30.0) + 100
    figure = pictures.queue_of_sets((known, some(images[:30])), (strange, some(images[30:])), "A title")
    said = words(figure)
    assert {"A title", "30 known", "30 temple roofs", "95% accepted", "100% caught"} <= set(said)
    assert frames(figure.axes[0]) == 6 * [KNOWN] + frames(figure.axes[0])[6:7] + 6 * [UNKNOWN]
    assert len(figure.axes[0].images) == pictures.IN_PERSON


def test_queue_histograms_hold_all_images():
    rng = np.random.default_rng(0)
    known, strange = rng.normal(size=600), rng.normal(0.5, size=300)
    figure = pictures.queues({"score": (known, strange)}, "temples")
    heights = np.array([bar.get_height() for bar in figure.axes[0].patches])
    up, down = heights[:BARS], heights[BARS:]
    assert up.sum() == pytest.approx(BARS / 2) and down.sum() == pytest.approx(-BARS / 2)
    assert f"score: AUROC {auroc(known, strange):.2f}" in words(figure)


def test_a_long_tie_shows_different_images():
    figure = pictures.queue_of_sets((np.zeros(30), some(GREY[:30])), (np.zeros(30), some(GREY[30:])), "t")
    shown = {image.get_array().tobytes() for image in figure.axes[0].images}
    assert len(shown) > pictures.IN_PERSON // 2


def test_queue_answers_an_explorable():
    scores = {
        "one": {"a_b": (np.arange(30.0), np.arange(30.0) + 10), "c": (np.arange(30.0), np.arange(20.0))},
        "other": {"a_b": (np.arange(30.0), -np.arange(30.0) - 1), "c": (np.arange(30.0), np.arange(20.0))},
    }
    draw = pictures.Queue(scores, some(GREY[:30]), {"a_b": some(COLOURED[:30]), "c": some(GREY[:20])})
    shown = explore(draw, detector=list(scores), stranger=["a_b", "c"])
    assert len(shown.frames) == 4
    assert "By other, against a b: AUROC 0.00" in shown.frames[2].sentence and "0% of" in shown.frames[2].sentence


def test_barcodes_draw_the_deviations_as_they_are():
    lines = {"known": torch.zeros(4, 3), "far_away": torch.tensor([[1.0, -2.0, 5.0]] * 4)}
    figure = pictures.barcodes(lines, "known")
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), lines["far_away"])
    assert {"known", "far\naway", "first layer", "last layer"} <= set(words(figure))


def test_two_layers_ellipse_holds_95_percent_and_the_line_keeps_the_sum():
    known = torch.randn(400, 2, generator=GENERATOR) @ torch.tensor([[1.0, 0.8], [0.0, 0.5]])
    figure = pictures.two_layers(known, {"noise": known - 3})
    ellipse, line = (drawn.get_xydata() for drawn in figure.axes[0].lines)
    inside = plt.matplotlib.path.Path(ellipse).contains_points(known.numpy() / np.log(10))
    assert inside.mean() == pytest.approx(0.95, abs=0.01)
    np.testing.assert_allclose((10.0**line).sum(1), np.median(known.exp().sum(1)), rtol=1e-6)


def test_table_writes_every_value_the_mean_and_frames_the_best():
    block = {"one": {"a": 0.9, "b": 0.3}, "two": {"a": 0.52, "b": 0.997}}
    figure = pictures.auroc_table({"title": block})
    assert {".90", ".30", ".60", ".52", "1", ".76", "title", "one", "two"} <= set(words(figure))
    best = [(round(p.get_x() + 0.46), round(p.get_y() + 0.42)) for p in figure.axes[0].patches]
    assert best == [(0, 0), (1, 1), (2, 1)]


def test_same_and_other_draws_both_and_the_unsupervised():
    values = {"gradients": {"a": (0.99, 0.8), "b": (0.95, 0.6)}, "logits": {"a": (1.0, 0.4), "b": (0.9, 0.7)}}
    figure = pictures.same_and_other(values, {"a": 0.91, "b": 0.92}, "title")
    lines = figure.axes[0].lines
    hollow = [float(line.get_xdata()[0]) for line in lines if line.get_markerfacecolor() == "white"]
    assert sorted(hollow) == [0.4, 0.6, 0.7, 0.8]
    assert [line.get_xdata()[0] for line in lines if line.get_linewidth() == 3] == [0.91, 0.92]
    assert figure.axes[0].get_xlim()[0] < 0.4


def test_price_is_a_multiple_of_the_first():
    values = {"confidence": (0.02, 0.9), "density": (0.1, 0.95), "H": (0.08, 0.95)}
    figure = pictures.price(values, ["H"], "title")
    marks = {line.get_xdata()[0]: line for line in figure.axes[0].lines if line.get_marker() in ("s", "D")}
    assert sorted(marks) == pytest.approx([1, 4, 5])
    assert marks[4.0].get_markerfacecolor() == "white"
    heights = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    assert min(np.diff(heights)) > 0.003, "labels of equal values stand apart"


def test_strangers_are_framed_and_named():
    answers = torch.tensor([[0.1, 0.9], [0.998, 0.002], [0.4, 0.6]])
    figure = pictures.strangers(GREY[:3], ["known", "far_away", "noise"], answers, ["cat", "dog"])
    assert {"known\n“dog”, 90.0%", "far away\n“cat”, 99.8%", "noise\n“dog”, 60.0%"} <= set(words(figure))
    drawn = [to_hex(axes.spines["left"].get_edgecolor()).upper() for axes in figure.axes]
    assert drawn == [KNOWN, UNKNOWN, UNKNOWN]
