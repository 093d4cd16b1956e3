"""A drawing function with one or two controls becomes a picture with sliders."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from tutorial_lib.explore.control import Control, start_index
from tutorial_lib.explore.frames import Frame, render
from tutorial_lib.explore.live import live_face, somebody_is_there
from tutorial_lib.explore.page import static_face

LARGEST = 1_500_000
"""Bytes that one explorable may add to a page; the page as a whole stays under two megabytes."""


class Explorable:
    """A picture with sliders; the last line of a cell shows it. Made by :func:`explore`.

    Attributes:
        controls: the sliders by name.
        frames: one picture for each combination of values, the last control fastest.
    """

    def __init__(self, draw: Callable[..., Any], controls: dict[str, Control], dpi: float) -> None:
        self.draw = draw
        self.controls = controls
        self.dpi = dpi
        self.frames: list[Frame] = []
        for values in itertools.product(*(control.values for control in controls.values())):
            self.frames.append(self.frame(*values))
        sizes = {(frame.width, frame.height) for frame in self.frames}
        if len(sizes) > 1:
            raise ValueError(f"all frames must have one size, got {sorted(sizes)}; give the figure a fixed figsize")
        self._page = static_face(self.frames, controls)
        if len(self._page) > LARGEST:
            raise ValueError(
                f"{len(self.frames)} frames make {len(self._page) / 1e6:.1f} MB, more than the {LARGEST / 1e6:.1f} MB "
                "that a page can bear; give fewer values, a smaller figsize or a lower dpi"
            )

    def frame(self, *values: Any) -> Frame:
        """Draw the picture for one value of each control, in order."""
        return render(self.draw(**dict(zip(self.controls, values, strict=True))), self.dpi)

    def html(self) -> str:
        """The picture for a page without Python: self-contained, and complete when scripts are off."""
        return self._page

    def widget(self) -> Any:
        """The picture for a kernel: ipywidgets, with steps between the values of the page."""
        return live_face(self.controls, self.frames, self.frame)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        sentence = self.frames[start_index(self.controls)].sentence
        bundle: dict[str, Any] = {"text/plain": f"Explorable picture: {sentence}", "text/html": self._page}
        if somebody_is_there():
            bundle.update(self.widget()._repr_mimebundle_())
            bundle["text/plain"] = f"Explorable picture: {sentence}"
        return bundle


def explore(draw: Callable[..., Any], /, *, dpi: float = 120, **controls: Control | Sequence[Any]) -> Explorable:
    """Give a drawing one or two sliders, in a notebook and in the built page.

    In Jupyter and Colab the sliders are ipywidgets and ``draw`` runs again for each new position. Where nobody can
    answer (the build of the book, a test, nbconvert) the page gets a slider over pictures drawn beforehand, without a
    kernel and without a network; keyboard and screen reader work, and the first picture shows when scripts are off.

    Args:
        draw: called with one keyword argument a control; returns (picture, sentence). The picture is a matplotlib
            figure, one image, or a batch of images; the sentence says what is to be seen in it, with its numbers, and
            becomes the alternative text. Fix the limits of the axes, or the picture jumps.
        dpi: pixels an inch of the pictures.
        **controls: one or two: name=values, or name=:class:`Control` for a label, a format or a start.

    Returns:
        The explorable; make it the last line of the cell.

    >>> import matplotlib.pyplot as plt
    >>> def draw(slope):
    ...     figure, axes = plt.subplots(figsize=(3, 2))
    ...     line = axes.plot([0, 1], [0, slope])
    ...     limits = axes.set_ylim(0, 2)
    ...     return figure, f"A line that rises to {slope}."
    >>> picture = explore(draw, slope=[0, 1, 2])
    >>> picture.frames[2].sentence
    'A line that rises to 2.'
    """
    if not 1 <= len(controls) <= 2:
        raise ValueError(f"a picture takes one or two controls, got {len(controls)}: {sorted(controls)}")
    made = {name: given if isinstance(given, Control) else Control(given) for name, given in controls.items()}
    return Explorable(draw, made, dpi)
