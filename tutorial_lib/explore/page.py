"""The face of an explorable in a page without Python."""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from tutorial_lib.explore.control import Control, start_index
from tutorial_lib.explore.frames import Frame

_numbers = itertools.count(1)


def asset(name: str) -> str:
    """The text of a style sheet or script beside this module."""
    return files("tutorial_lib.explore").joinpath(name).read_text(encoding="utf-8")


def unique_id(content: str) -> str:
    """An id that no other output of this page has: what is shown, and its number in this session."""
    return f"explore-{hashlib.sha256(content.encode()).hexdigest()[:8]}-{next(_numbers)}"


def as_json(value: Any) -> str:
    """JSON that can stand inside a script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def data_uri(png: bytes) -> str:
    """A PNG as an address that carries its own content."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def static_face(frames: Sequence[Frame], controls: Mapping[str, Control]) -> str:
    """HTML of a picture and its sliders: style, script and all frames inside, no address outside.

    The sliders stay hidden until the script runs, so that a reader without scripts meets a figure, not a dead control.
    """
    shown = start_index(controls)
    first = frames[shown]
    # the first frame is in the page already, as the image itself
    pictures = ["" if number == shown else base64.b64encode(frame.png).decode() for number, frame in enumerate(frames)]
    data = {
        "pictures": pictures,
        "sentences": [frame.sentence for frame in frames],
        "texts": [control.texts for control in controls.values()],
    }
    root = unique_id(as_json(data))
    sliders = "\n".join(
        f'<div class="explore-control"><label for="{root}-{name}">{html.escape(control.label or name)}</label>'
        f'<span class="explore-value" aria-hidden="true">{html.escape(control.texts[control.first])}</span>'
        f'<input type="range" id="{root}-{name}" min="0" max="{len(control.texts) - 1}" step="1" '
        f'value="{control.first}" autocomplete="off" '
        f'aria-valuetext="{html.escape(control.texts[control.first])}">'
        f'<div class="explore-ends" aria-hidden="true"><span>{html.escape(control.texts[0])}</span>'
        f"<span>{html.escape(control.texts[-1])}</span></div></div>"
        for name, control in controls.items()
    )
    at_start = " and ".join(
        f"{html.escape(control.label or name)} {html.escape(control.texts[control.first])}"
        for name, control in controls.items()
    )
    names = html.escape(" and ".join(control.label or name for name, control in controls.items()))
    return f"""<div class="explore" id="{root}" role="group" aria-label="Picture that follows {names}">
<style>{asset("explore.css")}</style>
<img class="explore-picture" width="{first.width}" height="{first.height}" alt="{html.escape(first.sentence)}" \
src="{data_uri(first.png)}">
<p class="explore-sentence" aria-hidden="true">{html.escape(first.sentence)}</p>
<div class="explore-controls" hidden>
{sliders}
</div>
<noscript><p>Shown for {at_start}. With scripts, a slider stands here.</p></noscript>
<script type="application/json" class="explore-data">{as_json(data)}</script>
<script>({asset("slider.js").strip()})("{root}");</script>
</div>"""
