"""The ends of a table of scores as pictures: the strangest images, the most ordinary, and those on which detectors disagree.

One HTML file with everything inside: it can be mailed, and needs neither a server nor a script.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import rankdata

from tutorial_lib.scoring.preprocessing import in_colours
from tutorial_lib.scoring.sources import ImageSource
from tutorial_lib.scoring.table import read_table
from tutorial_lib.storage import write_atomically

__all__ = ["Ends", "ends_of", "write_contact_sheet"]

SIDE = 112
"""Pixels of the longer side of a picture."""


@dataclass(frozen=True)
class Ends:
    """Places of rows: strangest first, most ordinary first, most disagreed first (empty with one detector)."""

    strangest: list[int]
    ordinary: list[int]
    disagreed: list[int]
    strangeness: NDArray[np.float64]


def ends_of(scores: Mapping[str, NDArray[np.float64]], count: int = 24) -> Ends:
    """The ends by rank: an image's strangeness is the mean over detectors of its rank among all, from 0 to 1.

    Ranks and not tails, since tails tie at their smallest value and may not be there. Detectors disagree as far as their
    ranks lie apart. Rows without a score are left out.

    Args:
        scores: (N,) by detector, NaN where an image could not be read.
        count: images in each list, at most.
    """
    table = np.stack(list(scores.values()), axis=1)
    whole = np.flatnonzero(np.isfinite(table).all(axis=1))
    ranks = (rankdata(table[whole], axis=0) - 0.5) / max(1, len(whole))
    mean, apart = ranks.mean(axis=1), np.ptp(ranks, axis=1)
    order = np.argsort(-mean, kind="stable")
    strangeness = np.full(len(table), np.nan)
    strangeness[whole] = mean
    disagreed = np.argsort(-apart, kind="stable")[:count] if table.shape[1] > 1 else np.array([], dtype=int)
    return Ends(
        whole[order[:count]].tolist(), whole[order[::-1][:count]].tolist(), whole[disagreed].tolist(), strangeness
    )


def write_contact_sheet(page: Path, table: Path, source: ImageSource, count: int = 24, title: str = "") -> None:
    """The page of a table of scores that `score_images` wrote from this source."""
    columns = read_table(table)
    scores = {
        name.removeprefix("score_"): np.asarray(values, dtype=np.float64)
        for name, values in columns.items()
        if name.startswith("score_")
    }
    ends = ends_of(scores, count)
    tails = {name: np.asarray(columns[f"tail_{name}"]) for name in scores if f"tail_{name}" in columns}
    broken = [place for place, text in enumerate(columns["error"]) if text]
    lists = {
        "Strangest": (ends.strangest, "Highest mean rank over the detectors, strangest first."),
        "Most ordinary": (ends.ordinary, "Lowest mean rank, most ordinary first."),
        "Most disagreed": (
            ends.disagreed,
            "Ranks that lie furthest apart: strange to one detector, ordinary to another.",
        ),
    }
    sections = [
        f"<h2>{escape(name)}</h2><p>{said}</p><ul>{''.join(_figure(i, source, columns, scores, tails) for i in places)}</ul>"
        for name, (places, said) in lists.items()
        if places
    ]
    if broken:
        rows = "".join(f"<li>{escape(columns['path'][i])}: {escape(columns['error'][i])}</li>" for i in broken[:100])
        sections.append(f"<h2>Without a score ({len(broken):,})</h2><ul class='plain'>{rows}</ul>")
    heading = escape(title or f"{len(columns['path']):,} images of {source.where}")
    below = "small numbers: " + ("tail probabilities (small = strange)" if tails else "scores (large = strange)")
    content = f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{heading}</title>{_STYLE}<h1>{heading}</h1><p>{below}</p>"
    write_atomically(page, (content + "".join(sections) + "</html>").encode(errors="backslashreplace"))


def _figure(
    place: int,
    source: ImageSource,
    columns: Mapping[str, Sequence[str] | NDArray[np.float64]],
    scores: Mapping[str, NDArray[np.float64]],
    tails: Mapping[str, NDArray[np.float64]],
) -> str:
    name = str(columns["path"][place])
    answer = f"{columns['prediction'][place]} ({columns['confidence'][place]:.2f})"
    numbers = "<br>".join(f"{escape(detector)} {(tails or scores)[detector][place]:.3g}" for detector in scores)
    return (
        f"<li><img alt='{escape(name, quote=True)}, answered {escape(answer, quote=True)}' src='{_thumbnail(source, place)}'>"
        f"<b>{escape(name)}</b><span>{escape(answer)}</span><small>{numbers}</small></li>"
    )


def _thumbnail(source: ImageSource, place: int) -> str:
    """A small PNG inside an address; small images are enlarged without smoothing."""
    image = in_colours(source.image(place))
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


_STYLE = """<meta name="viewport" content="width=device-width"><style>
:root{color-scheme:light dark;font:16px/1.4 system-ui,sans-serif} body{margin:1.5rem auto;max-width:76rem;padding:0 1rem}
ul{display:grid;grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));gap:1rem;list-style:none;padding:0}
ul.plain{display:block} li{overflow-wrap:anywhere} li>*{display:block} b{font-weight:600;font-size:.8rem}
span,small{font-size:.8rem} img{border:1px solid #8888}
</style>"""
