"""The look of the pictures: legible with any colour vision, on paper, in the dark and on a phone; pixels left alone."""

from __future__ import annotations

import io
import itertools
import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from nbclient import NotebookClient
from PIL import Image

from tutorial_lib import plots

NAMES = ("KNOWN", "UNKNOWN", "MODEL", "DATA_UNCERTAINTY", "MODEL_UNCERTAINTY")
MEANINGS = {name: getattr(plots, name) for name in NAMES}
# Machado, Oliveira and Fernandes, IEEE TVCG 2009, severity 1.0, for linear RGB
COLOUR_VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def linear(colour: str) -> np.ndarray:
    values = np.array(mpl.colors.to_rgb(colour))
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast_with_white(colour: str) -> float:
    return 1.05 / (float(linear(colour) @ [0.2126, 0.7152, 0.0722]) + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb.clip(0, 1)
    f = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("colour", [*plots.PALETTE, *MEANINGS.values()])
def test_every_colour_stands_out_from_white(colour):
    assert contrast_with_white(colour) >= 3.0  # WCAG 2.2, 1.4.11


@pytest.mark.parametrize("vision", COLOUR_VISION)
def test_colours_with_a_meaning_differ_for_everybody(vision):
    seen = {name: lab(COLOUR_VISION[vision] @ linear(colour)) for name, colour in MEANINGS.items()}
    for (one, a), (other, b) in itertools.combinations(seen.items(), 2):
        assert np.linalg.norm(a - b) > 15, f"{one} and {other} look alike with {vision}"


def test_known_unknown_and_model_differ_in_shape_too():
    assert len({plots.MARKERS[colour] for colour in (plots.KNOWN, plots.UNKNOWN, plots.MODEL)}) == 3
    assert plots.HATCHES[plots.KNOWN] != plots.HATCHES[plots.UNKNOWN]


def test_saved_figures_are_opaque():
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    buffer = io.BytesIO()
    figure.savefig(buffer)
    assert np.asarray(Image.open(buffer).convert("RGBA"))[..., 3].min() == 255


def test_smallest_text_is_legible_on_a_phone():
    sizes = ("font.size", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")
    points = min(float(mpl.rcParams[name]) for name in sizes)
    column = 350  # pixels of a 390 pixel phone that text gets
    assert points / 72 * column / plots.WIDTH >= 8


def test_images_keep_their_brightness_and_their_pixels():
    dim = torch.full((1, 4, 4), 0.25)
    dim[0, 0, 0] = 0.5
    figure, axes = plt.subplots(figsize=(1, 1), dpi=100)
    axes.set_position((0, 0, 1, 1))
    plots.show_image(axes, dim)
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())
    assert tuple(drawn[80, 80, :3]) == (64, 64, 64)  # not stretched to black and white
    assert tuple(drawn[12, 12, :3]) == (128, 128, 128)
    assert len({tuple(pixel) for pixel in drawn[30:70, 30:70, :3].reshape(-1, 3)}) == 1  # not smoothed


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8)),
        np.zeros((1, 8, 8)),
        np.zeros((3, 8, 8)),
        torch.zeros(3, 8, 8),
        np.full((3, 8, 8), 255, np.uint8),
    ],
)
def test_images_of_every_kind_are_drawn(image):
    (axes,) = plots.image_grid([image]).axes
    assert axes.images[0].get_array().shape[:2] == (8, 8)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.full((8, 8), 1.5), r"\[0, 1\], got 1.5"),
        (np.full((8, 8), np.nan), r"\[0, 1\]"),
        (np.zeros((2, 8, 8)), r"\(3, H, W\), got \(2, 8, 8\)"),
        (np.zeros(8), r"got \(8,\)"),
    ],
)
def test_what_is_no_image_is_refused(image, said):
    with pytest.raises(ValueError, match=said):
        plots.image_grid([image])


def test_grid_rows_are_even_and_leave_no_empty_axes():
    figure = plots.image_grid(np.zeros((8, 1, 4, 4)), titles=list("abcdefgh"))
    positions = {(round(a.get_subplotspec().rowspan.start), a.get_subplotspec().colspan.start) for a in figure.axes}
    assert positions == set(itertools.product(range(2), range(4)))
    assert len(plots.image_grid(np.zeros((7, 1, 4, 4))).axes) == 7
    assert figure.get_size_inches()[0] == pytest.approx(plots.WIDTH)


def test_grid_counts_its_arguments():
    with pytest.raises(ValueError, match="2 images but 1 titles"):
        plots.image_grid(np.zeros((2, 1, 4, 4)), titles=["a"])
    with pytest.raises(ValueError, match="2 images but 3 colours"):
        plots.image_grid(np.zeros((2, 1, 4, 4)), colours=[plots.KNOWN] * 3)
    with pytest.raises(ValueError, match="empty"):
        plots.image_grid([])


def test_label_wears_the_colour_of_its_line():
    _, axes = plt.subplots()
    text = plots.label_line(axes, 1, 2, "ensemble", plots.MODEL_UNCERTAINTY)
    assert (text.get_text(), text.get_color(), text.get_position()) == ("ensemble", plots.MODEL_UNCERTAINTY, (1, 2))


def test_glue_does_nothing_outside_a_notebook(capsys):
    plots.glue("value", 0.5)
    assert capsys.readouterr().out == ""


def test_glued_values_can_be_quoted_as_they_are():
    source = (
        "import numpy as np, torch\nfrom tutorial_lib.plots import glue\n"
        "glue('numpy', np.float64(0.25)); glue('tensor', torch.tensor(0.5)); glue('word', 'roof'); glue('whole', 3)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    kept = {output.metadata["scrapbook"]["name"]: output.data for output in notebook.cells[0].outputs}
    text = {name: data["application/papermill.record/text/plain"] for name, data in kept.items()}
    assert text == {"numpy": "0.25", "tensor": "0.5", "word": "roof", "whole": "3"}
    assert not any(mime.startswith(("text", "image")) for data in kept.values() for mime in data)  # nothing to be seen
    assert math.isclose(float(text["tensor"]), 0.5)
