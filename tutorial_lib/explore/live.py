"""The face of an explorable where a kernel lives, and the question whether one does."""

from __future__ import annotations

import html
import itertools
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tutorial_lib.explore.control import Control
from tutorial_lib.explore.frames import Frame
from tutorial_lib.explore.page import data_uri

BETWEEN = 4
"""Steps of the live slider for each step of the page's slider, where values are real numbers."""
PROMPT = 0.12
"""Seconds a picture may take for the slider to redraw while it moves; slower ones wait until it is let go."""


def somebody_is_there() -> bool:
    """Whether a reader sits in front of this kernel, and ipywidgets can be shown.

    A front end with a person behind it lets a cell ask for input; nbclient, nbval and jupyter-book do not, and the
    kernel knows which. Colab asks in its own way and is recognised by its module. The environment variable
    ``TUTORIAL_EXPLORE`` (``live`` or ``static``) overrules both.
    """
    wish = os.environ.get("TUTORIAL_EXPLORE", "")
    if wish not in ("", "live", "static"):
        raise ValueError(f"TUTORIAL_EXPLORE is {wish!r}; it can be 'live', 'static' or unset")
    if wish == "static":
        return False
    try:
        import ipywidgets  # noqa: F401
        from IPython import get_ipython
    except ImportError:
        return False
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        return False
    return wish == "live" or "google.colab" in sys.modules or bool(getattr(kernel, "_allow_stdin", False))


def live_face(controls: Mapping[str, Control], frames: Sequence[Frame], draw: Callable[..., Frame]) -> Any:
    """ipywidgets of an explorable: a slider per control, the picture above, steps in between the page's values.

    Args:
        controls: the sliders by name.
        frames: those of the page, one for each combination of values, the last control fastest.
        draw: makes the frame for one value of each control, in order.
    """
    import ipywidgets

    ladders = [finer(control) for control in controls.values()]
    combinations = itertools.product(*(control.values for control in controls.values()))
    drawn = dict(zip(combinations, frames, strict=True))
    started = time.perf_counter()
    draw(*(control.values[control.first] for control in controls.values()))
    prompt = time.perf_counter() - started < PROMPT

    picture = ipywidgets.HTML()
    sliders = [
        ipywidgets.SelectionSlider(
            options=[(control.write(value), value) for value in ladder],
            value=control.values[control.first],
            description=control.label or name,
            continuous_update=prompt,
            style={"description_width": "initial"},
            layout={"width": "min(100%, 30rem)"},
        )
        for (name, control), ladder in zip(controls.items(), ladders, strict=True)
    ]

    def show(_: Any = None) -> None:
        values = tuple(slider.value for slider in sliders)
        if values not in drawn:
            drawn[values] = draw(*values)
        frame, sentence = drawn[values], html.escape(drawn[values].sentence)
        picture.value = (
            f'<img alt="{sentence}" src="{data_uri(frame.png)}" style="width:46rem;max-width:100%;background:#fff">'
            f'<p style="line-height:1.4;margin:.4em 0" aria-hidden="true">{sentence}</p>'
        )

    for slider in sliders:
        slider.observe(show, names="value")
    show()
    return ipywidgets.VBox([picture, *sliders])


def finer(control: Control) -> list[Any]:
    """The values of a control with steps in between; whole numbers and words stay as they are."""
    values = list(control.values)
    if {type(value) for value in values} not in ({float}, {float, int}):
        return values
    steps = [
        low + (high - low) * step / BETWEEN
        for low, high in zip(values, values[1:], strict=False)
        for step in range(BETWEEN)
    ]
    return [*steps, values[-1]]
