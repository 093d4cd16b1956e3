"""What several chapters draw, and the rules of every module of pictures."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from tutorial_lib import figures
from tutorial_lib.figures import common
from tutorial_lib.metrics import auroc, fpr_at_tpr
from tutorial_lib.plots import KNOWN, UNKNOWN

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def bars(axes) -> tuple[np.ndarray, np.ndarray]:
    """Heights of the known images' bars and of the strangers', which hang down."""
    heights = np.array([patch.get_height() for patch in axes.patches][: 2 * common.BARS])
    return heights[: common.BARS], heights[common.BARS :]


def drawn_queue(known, strange, **options):
    _, axes = plt.subplots()
    common.draw_queue(axes, known, strange, **options)
    return axes


def test_places_weigh_both_groups_alike_and_keep_ties_together():
    known, strange = common.places([1, 2, 3, 4], [4])
    np.testing.assert_allclose(known, [0.0625, 0.1875, 0.3125, 0.6875])  # 4 ties with the stranger, who weighs one half
    np.testing.assert_allclose(strange, [0.6875])


def test_places_depend_on_the_order_alone():
    rng = np.random.default_rng(0)
    known, strange = rng.normal(size=30), rng.normal(1, size=50)
    once, again = common.places(known, strange), common.places(np.exp(5 * known), np.exp(5 * strange))
    for one, other in zip(once, again, strict=True):
        np.testing.assert_array_equal(one, other)


def test_mean_places_give_the_auroc():
    """Half of the queue is the strangers' own, half of it known: their mean place is 1/4 + AUROC/2."""
    rng = np.random.default_rng(1)
    known, strange = rng.integers(0, 5, 40), rng.integers(1, 7, 90)
    _, place = common.places(known, strange)
    assert place.mean() == pytest.approx(0.25 + auroc(known, strange) / 2)


def test_equal_scores_are_not_drawn_apart():
    """A hundred known images and a hundred strangers with one score: AUROC 0.50, and no bar that leans to a side."""
    up, down = bars(drawn_queue(np.ones(100), np.ones(100)))
    np.testing.assert_allclose(up, 0.5)
    np.testing.assert_allclose(down, -0.5)


def test_bars_hold_what_lies_in_their_stretch_of_the_queue():
    """Against a slow sort: copies of both groups until they are as many, ties cut evenly over their stretch."""
    rng = np.random.default_rng(0)
    known, strange = rng.integers(0, 6, 40).astype(float), rng.integers(2, 9, 60).astype(float)
    together = np.r_[np.repeat(known, 3), np.repeat(strange, 2)]  # 120 of each
    is_known = np.r_[np.ones(120), np.zeros(120)]
    order = together.argsort(kind="stable")
    share = np.array([is_known[together == score].mean() for score in together[order]])
    up, down = bars(drawn_queue(known, strange))
    np.testing.assert_allclose(up, share.reshape(common.BARS, -1).mean(axis=1))
    np.testing.assert_allclose(up - down, 1)


def test_bars_depend_on_the_order_of_the_scores_alone():
    known, strange = np.arange(10.0), np.arange(20.0) + 0.5
    once, again = drawn_queue(known, strange), drawn_queue(np.exp(3 * known), np.exp(3 * strange))
    np.testing.assert_array_equal(bars(once), bars(again))


@pytest.mark.parametrize("accepted", [0.95, 0.5])
def test_the_gate_stands_behind_what_it_accepts(accepted):
    known, strange = np.arange(1, 101), np.array([95, 96, 200, 300])
    axes = drawn_queue(known, strange, accepted=accepted, names=("known", "roofs"))
    passed = fpr_at_tpr(known, strange, accepted)
    said = {text.get_text() for text in axes.texts}
    assert said == {"100 known", "4 roofs", f"{accepted:.0%} accepted", f"{1 - passed:.0%} caught"}
    assert axes.lines[1].get_xdata()[0] == pytest.approx((accepted + passed) / 2)


def test_queue_puts_images_in_the_order_of_their_scores():
    figure = common.queue(
        IMAGES,
        [3, 1, 2, 0],
        [True, False, True, False],
        [0, 1],
        [2, 3],
        "t",
        {"again": IMAGES / 2},
        answers=list("abcd"),
    )
    first, second, histograms = figure.axes
    for image, below, n in zip(first.images, second.images, (3, 1, 2, 0), strict=True):
        np.testing.assert_allclose(image.get_array(), IMAGES[n, 0], atol=1e-6)
        np.testing.assert_allclose(below.get_array(), IMAGES[n, 0] / 2, atol=1e-6)
    frames = [patch.get_edgecolor() for patch in first.patches if isinstance(patch, Rectangle)]
    assert frames == [to_rgba(colour) for colour in (KNOWN, KNOWN, UNKNOWN, UNKNOWN)]
    assert [label.get_text() for label in second.get_xticklabels()] == list("dbca")
    up, down = bars(histograms)
    assert np.flatnonzero(up).max() < np.flatnonzero(down).min(), "all strange ones score higher"


def test_images_in_a_queue_keep_their_shape():
    """A pixel of a photograph twice as wide as high is as wide as high, on paper."""
    for shape in ((1, 8, 8), (3, 6, 12)):
        figure = common.queue(torch.rand(5, *shape), range(5), [False] * 5, [0, 1], [2, 3], "t")
        strip, image = figure.axes[0], figure.axes[0].images[0]
        left, right, bottom, top = image.get_extent()
        box = strip.get_window_extent()
        width, height = (right - left) / 5 * box.width, (top - bottom) * box.height
        assert width / height == pytest.approx(shape[2] / shape[1], rel=0.01)


def test_by_class_draws_each_seed_and_marks_the_mean():
    figure = common.by_class({"a": {"x": [0.2, 0.4], "y": 0.9}, "b": {"x": 0.5, "y": 0.5}}, "t", empty=["b"])
    axes = figure.axes[0]
    marks = [line for line in axes.lines if line.get_marker() not in ("None", "")]
    assert [line.get_xdata()[0] for line in marks] == pytest.approx([0.3, 0.9, 0.5, 0.5])
    assert [line.get_markerfacecolor() == "white" for line in marks] == [False, False, True, True]
    spans = [line.get_xdata() for line in axes.lines if line.get_marker() in ("None", "")][:1]
    np.testing.assert_allclose(spans, [[0.2, 0.4]])


def test_against_keeps_names_apart():
    close = {"one": 0.50, "two": 0.505, "three": 0.51}
    figure = common.against({"p": (close, close), "q": (close, close)}, "x")
    names = [text for text in figure.axes[0].texts if text.get_text() in close]
    heights = sorted(text.get_position()[1] for text in names if text.get_ha() == names[0].get_ha())
    assert len(names) == 3 and (len(heights) < 2 or min(np.diff(heights)) > 0.003)


def test_labels_are_moved_apart_in_order():
    rng = np.random.default_rng(0)
    heights = rng.uniform(size=8)
    moved = common.apart(heights, 0.2)
    assert (moved.argsort() == heights.argsort()).all() and np.diff(np.sort(moved)).min() > 0.19
    np.testing.assert_array_equal(common.apart([0.0, 3.0, 1.0], 0.5), [0.0, 3.0, 1.0])


def test_a_table_writes_its_values_and_frames_what_it_is_told():
    _, axes = plt.subplots()
    common.draw_table(axes, [[0.1, 0.996]], ["row"], "title", np.array([[False, True]]))
    assert [text.get_text() for text in axes.texts] == [".10", "1"]
    assert len(axes.patches) == 1


CHAPTERS = [module.name for module in pkgutil.iter_modules(figures.__path__) if module.name != "common"]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_module_is_a_chapter_and_keeps_the_rules(chapter):
    notebooks = Path(figures.__file__).parents[2] / "notebooks"
    assert [path.stem for path in notebooks.glob(f"??_{chapter}.ipynb")], f"there is no chapter {chapter}"
    module = importlib.import_module(f"tutorial_lib.figures.{chapter}")
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) and "__call__" in vars(thing):  # others hold what a picture is drawn from
            assert inspect.signature(thing.__call__).return_annotation == "tuple[Figure, str]", name
        elif inspect.isfunction(thing):
            signature = inspect.signature(thing)
            drawing = name.startswith("draw_")
            assert (signature.return_annotation == "Figure") != drawing, name
            assert (next(iter(signature.parameters)) == "axes") == drawing, name
    public = {name for name, thing in vars(module).items() if inspect.isfunction(thing) and name[0] != "_"}
    own = {name for name in public if vars(module)[name].__module__ == module.__name__}
    assert own <= set(module.__all__), "what is public stands in __all__"
