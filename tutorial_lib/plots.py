"""One look for every picture of the course: colours, sizes and a few drawing helpers.

The same colour means the same thing in every chapter: what the model knows is :data:`KNOWN` (blue), what it has never
seen is :data:`UNKNOWN` (orange), the model itself (its curve, its boundary) is :data:`MODEL` (black). Colour never
carries a meaning alone; :data:`MARKERS` and :data:`HATCHES` give each meaning a shape too. The hues follow Okabe and
Ito, "Color Universal Design" (2008), darkened until each has a contrast of 3:1 or more on white.

The background is opaque white, so that a figure stays as drawn in the dark theme, in Colab's dark mode and on paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

KNOWN = "#0072B2"
"""Blue: training data, in-distribution inputs, right answers."""
UNKNOWN = "#D55E00"
"""Orange: inputs from elsewhere, challenging data, wrong answers."""
MODEL = "#000000"
"""Black: what the model says (prediction, boundary, confidence)."""
DATA_UNCERTAINTY = "#8316D9"
"""Violet: uncertainty that more data would not remove (aleatoric)."""
MODEL_UNCERTAINTY = "#17652A"
"""Green: uncertainty that more data would remove (epistemic)."""
MUTED = "#767676"
"""Grey: references, diagonals, everything that is not the message."""

PALETTE = (KNOWN, UNKNOWN, MODEL_UNCERTAINTY, DATA_UNCERTAINTY, "#B8398A", "#8A6D00", MUTED)
"""Colours of the default cycle, for methods and layers without a meaning of their own."""

MARKERS: Mapping[str, str] = MappingProxyType({KNOWN: "o", UNKNOWN: "^", MODEL: "s"})
"""Marker of each colour that has a meaning."""
HATCHES: Mapping[str, str] = MappingProxyType({KNOWN: "", UNKNOWN: "///"})
"""Hatch of each colour that has a meaning, for bars and histograms."""

SEQUENTIAL = "cividis"
"""Colour map for quantities from small to large; looks alike with every kind of colour vision."""
DIVERGING = "PuOr_r"
"""Colour map for signed quantities, white at zero (set the limits symmetrically)."""

WIDTH = 6.4
"""Width of a figure in inches. At 390 pixels, a phone, its 12 point text is still 10 pixels high."""
WIDE = (WIDTH, 3.2)
TALL = (WIDTH, 5.2)
SQUARE = (4.2, 4.2)
PAIR = (WIDTH, 3.0)

_STYLE: dict[str, Any] = {
    "figure.figsize": WIDE,
    "figure.dpi": 130,  # 830 pixels wide: fills the text column of the book, sharp on a phone
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "axes.facecolor": "white",
    "axes.prop_cycle": cycler(color=PALETTE),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#404040",
    "axes.titlesize": 13,
    "axes.titlelocation": "left",
    "axes.titleweight": "normal",
    "axes.labelsize": 12,
    "axes.grid": False,
    "figure.titlesize": 13,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same picture on every machine
    "font.size": 12,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "legend.fontsize": 11,
    "legend.frameon": False,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
    "image.cmap": SEQUENTIAL,
    "image.interpolation": "none",  # a pixel is a pixel
    "hatch.linewidth": 0.6,
}


def use_style() -> None:
    """Make the look of the course the default of matplotlib, for this session.

    Call it once, after the imports. It changes ``matplotlib.rcParams`` and nothing else.
    """
    for name, value in _STYLE.items():
        mpl.rcParams[name] = value  # type: ignore[index]  # matplotlib types its keys one by one


def show_image(axes: Axes, image: Any, title: str | None = None, colour: str | None = None) -> None:
    """Draw one image, its pixels as they are: no smoothing, no stretching of contrast, no axes.

    Args:
        axes: where to draw.
        image: array or tensor (H, W), (1, H, W) or (3, H, W), uint8 or float in [0, 1].
        title: a few words above it.
        colour: colour of a frame around it (say :data:`KNOWN` or :data:`UNKNOWN`); None: a thin grey line.
    """
    pixels = image_pixels(image)
    grey = pixels.ndim == 2
    axes.imshow(pixels, cmap="gray" if grey else None, vmin=0, vmax=1, interpolation="none")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour or MUTED, linewidth=3.0 if colour else 0.8)
    if title:
        axes.set_title(title, loc="center", fontsize=11, color=colour or "black")


def image_grid(
    images: Any,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    colours: str | Sequence[str] | None = None,
    title: str | None = None,
) -> Figure:
    """Draw images in rows, each with its own words above and a frame that says where it comes from.

    Args:
        images: array, tensor or list of N images, each as in :func:`show_image`.
        titles: N short texts, or None.
        columns: images in a row; None: at most six, rows as even as they come.
        colours: colour of every frame, or N colours.
        title: the message of the whole figure, one sentence.

    Returns:
        The figure, of width :data:`WIDTH`.

    >>> figure = image_grid(np.zeros((3, 1, 8, 8)), titles=["a", "b", "c"], colours=KNOWN)
    >>> len(figure.axes)
    3
    >>> plt.close(figure)
    """
    count = len(images)
    if count == 0:
        raise ValueError("images is empty; give at least one image")
    if titles is not None and len(titles) != count:
        raise ValueError(f"{count} images but {len(titles)} titles; give one title an image")
    frames = [colours] * count if colours is None or isinstance(colours, str) else list(colours)
    if len(frames) != count:
        raise ValueError(f"{count} images but {len(frames)} colours; give one colour, or one an image")
    if columns is None:
        columns = math.ceil(count / math.ceil(count / 6))
    rows = math.ceil(count / columns)
    lines = max((text.count("\n") + 1 for text in titles), default=0) if titles is not None else 0
    side = WIDTH / max(columns, 3)  # one or two images do not fill the page
    height = rows * (side + 0.19 * lines) + (0.4 if title else 0.0)
    figure, axes = plt.subplots(rows, columns, figsize=(side * columns, height), squeeze=False)
    for cell, image, frame, number in zip(axes.flat, images, frames, range(count), strict=False):
        show_image(cell, image, titles[number] if titles is not None else None, frame)
    for cell in axes.flat[count:]:
        cell.remove()
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    return figure


def image_pixels(image: Any) -> np.ndarray:
    """Pixels as matplotlib's ``imshow`` takes them.

    Args:
        image: array or tensor (H, W), (1, H, W) or (3, H, W), uint8 or float in [0, 1].

    Returns:
        (H, W) or (H, W, 3), float64 in [0, 1].

    Raises:
        ValueError: another shape, or values outside [0, 1].
    """
    if hasattr(image, "detach"):
        image = image.detach().cpu().numpy()
    pixels = np.asarray(image)
    if pixels.ndim == 3:
        if pixels.shape[0] not in (1, 3):
            raise ValueError(f"an image has shape (H, W), (1, H, W) or (3, H, W), got {pixels.shape}")
        pixels = pixels[0] if pixels.shape[0] == 1 else np.moveaxis(pixels, 0, -1)
    elif pixels.ndim != 2:
        raise ValueError(f"an image has shape (H, W), (1, H, W) or (3, H, W), got {pixels.shape}")
    pixels = pixels / 255.0 if pixels.dtype == np.uint8 else pixels.astype(np.float64)
    if not np.isfinite(pixels).all() or pixels.min() < -1e-6 or pixels.max() > 1 + 1e-6:
        raise ValueError(f"pixels must lie in [0, 1], got {pixels.min():.3g} to {pixels.max():.3g}; do not normalise")
    return pixels.clip(0, 1)


def label_line(axes: Axes, x: float, y: float, text: str, colour: str, **text_options: Any) -> Text:
    """Write a label beside a line, in the colour of the line: nobody has to look up a legend.

    Args:
        axes: the axes of the line.
        x, y: where, in data coordinates.
        text: the label.
        colour: the colour of the line.
        **text_options: passed on to :meth:`matplotlib.axes.Axes.text` (``ha``, ``va``, ``rotation``).
    """
    options: dict[str, Any] = {"va": "center", "fontsize": 11, "fontweight": "bold", **text_options}
    return axes.text(x, y, text, color=colour, **options)


def glue(name: str, value: Any) -> None:
    """Remember a value of this run under a name, for the text of the page to quote.

    The text then says ``{glue:text}`name:.2f```. Only the built book needs it: where ``myst_nb`` is not installed
    (Colab), and outside a notebook, nothing happens, so a sentence that quotes a value should also read well without.

    Args:
        name: unique in the notebook.
        value: a number, a string, a 0-d array or tensor (taken as a number), or anything that a cell can display.
    """
    try:
        from IPython import get_ipython
        from myst_nb import glue as keep
    except ImportError:
        return
    if get_ipython() is None:
        return
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:  # np.float64 too, though it is a float
        value = value.item()  # NumPy would write "np.float64(0.5)" into the text
    keep(name, _Bare(value) if isinstance(value, str) else value, display=False)


class _Bare:
    """A string that displays without quotation marks."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text
