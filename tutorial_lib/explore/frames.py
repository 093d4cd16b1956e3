"""Small pictures: a figure or an image becomes a PNG with a palette, a third of the size of an ordinary one."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from tutorial_lib.plots import image_grid

COLOURS = 64  # a chart is a few hues and their blends into white; photographs get all 256
ENOUGH = 1.0  # mean error per pixel and channel (of 255) up to which nobody sees a difference


@dataclass(frozen=True)
class Frame:
    """One picture of an explorable: PNG bytes, size in pixels, and the sentence that says what is to be seen."""

    png: bytes
    width: int
    height: int
    sentence: str


def render(drawn: Any, dpi: float) -> Frame:
    """Turn what a drawing function returned into a frame, and close its figure.

    Args:
        drawn: (picture, sentence). The picture is a matplotlib figure, one image as in
            :func:`tutorial_lib.plots.show_image`, or a batch of images (N, C, H, W).
        dpi: pixels an inch.
    """
    if not (isinstance(drawn, tuple) and len(drawn) == 2 and isinstance(drawn[1], str) and drawn[1].strip()):
        raise TypeError(
            "the drawing function must return (picture, sentence): a figure or image, and what is to be seen in it; "
            f"got {type(drawn).__name__}"
        )
    picture, sentence = drawn
    figure = picture if isinstance(picture, Figure) else _figure_of(picture)
    pixels = _pixels_of(figure, dpi)
    plt.close(figure)  # or the notebook shows it a second time
    return Frame(_png(pixels), pixels.shape[1], pixels.shape[0], " ".join(sentence.split()))


def _figure_of(picture: Any) -> Figure:
    shape = getattr(picture, "shape", None)
    if shape is None or len(shape) not in (2, 3, 4):
        raise TypeError(
            f"a picture is a matplotlib figure, an image or a batch of images, got {type(picture).__name__}"
        )
    return image_grid(picture if len(shape) == 4 else [picture])


def _pixels_of(figure: Figure, dpi: float) -> np.ndarray:
    """(H, W, 3) uint8: the whole canvas, uncropped, so that all frames have one size."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba()).astype(np.float32)
    opaque = drawn[..., 3:] / 255
    return (drawn[..., :3] * opaque + 255 * (1 - opaque)).round().astype(np.uint8)


def _png(pixels: np.ndarray) -> bytes:
    picture = Image.fromarray(pixels)
    small = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    error = np.abs(np.asarray(small.convert("RGB"), dtype=np.int16) - pixels).mean()
    if error > ENOUGH:
        small = picture.quantize(256, dither=Image.Dither.NONE)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
