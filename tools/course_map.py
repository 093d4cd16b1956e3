"""The map of the course, drawn as SVG from ``book/chapters.yml``.

Two drawings of the same map: one that is wide, one for the width of a phone. A style sheet shows one of them. Text and
links in the drawings are real text and real links, so that a keyboard and a screen reader get through it; colours are
left to the style sheet (classes ``map-*``), so that it is legible in the light and in the dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent

_LABEL_WIDTH = 16  # characters a line of a label in the wide map
_COLUMN, _ROW = 168, 112  # distance between stations in the wide map
_MARGIN = 84  # from the left edge to the first station: half a label
_RADIUS = 17

#: Where each chapter stands in the wide map: column, row. Rows are half steps, for the trunk lies between two lines.
_PLACES = {
    1: (0, 1.5),
    2: (1, 0),
    3: (2, 0),
    4: (1, 1.5),
    5: (2, 1),
    6: (3, 1),
    7: (4, 1),
    8: (2, 2),
    9: (3, 2),
    10: (4, 2),
    11: (1, 3),
    12: (2, 3),
    13: (3, 3),
    14: (4, 3),
    15: (5, 3),
    16: (5, 2),
}


@dataclass(frozen=True)
class Chapter:
    """One chapter of the course, written or planned."""

    number: int
    name: str
    title: str
    line: str
    after: tuple[int, ...]

    @property
    def path(self) -> str:
        """Its notebook, relative to the root of the repository."""
        return f"notebooks/{self.name}.ipynb"

    @property
    def exists(self) -> bool:
        return (ROOT / self.path).is_file()


def read_chapters() -> tuple[list[Chapter], dict[str, str]]:
    """The chapters in the order of reading, and the name of each line of the map."""
    plan = yaml.safe_load((ROOT / "book" / "chapters.yml").read_text(encoding="utf-8"))
    chapters = [Chapter(**{**entry, "after": tuple(entry["after"])}) for entry in plan["chapters"]]
    return chapters, plan["lines"]


def draw(link_prefix: str = "../", here: str | None = None) -> str:
    """The map as HTML, both drawings.

    Args:
        link_prefix: from the page that shows the map to the root of the book.
        here: name of the chapter to mark as the place of the reader.
    """
    chapters, lines = read_chapters()
    return (
        '<div class="course-map">\n'
        f"{_wide(chapters, lines, link_prefix, here)}\n{_narrow(chapters, lines, link_prefix, here)}\n</div>"
    )


def description(chapters: list[Chapter]) -> str:
    """What is to be seen in the map, in words."""
    written = ", ".join(str(chapter.number) for chapter in chapters if chapter.exists) or "none"
    return (
        f"Map of the course: {len(chapters)} chapters as stations. From chapter 1 a line runs through chapters 2 and "
        "3, another to chapter 4, and a third to chapter 11. From chapter 4 three lines start: to rare things "
        "(5 to 7), to strange inputs (8 to 10), which end in chapter 16, your own model, and to looking inward (12 to 15). "
        f"Filled stations are written: {written}."
    )


def _wide(chapters: list[Chapter], lines: dict[str, str], link_prefix: str, here: str | None) -> str:
    by_number = {chapter.number: chapter for chapter in chapters}
    width, height = 2 * _MARGIN + 5 * _COLUMN, 3 * _ROW + 104
    tracks, stations, names = [], [], []
    for chapter in chapters:
        x, y = _at(chapter)
        for earlier in chapter.after:
            x0, y0 = _at(by_number[earlier])
            bend, end = x0 + 40, x - 44  # straight near the stations, so as not to run through their labels
            half = (end - bend) / 2 + 12
            curve = f"H{bend} C{bend + half} {y0} {end - half} {y} {end} {y} H{x}"
            path = f"M{x0} {y0} " + (f"H{x}" if y == y0 else curve)
            tracks.append(f'<path class="map-track map-{chapter.line}" d="{path}"/>')
        stations.append(
            _station(chapter, x, y, link_prefix, here, _wrapped(chapter.title), x, y + _RADIUS + 19, "middle")
        )
    for key, name in lines.items():
        first = next(chapter for chapter in chapters if chapter.line == key)
        if key == "start":
            continue  # the trunk explains itself
        x, y = _at(first)
        x += 1.5 * _COLUMN if key == "inward" else 0.5 * _COLUMN  # over a stretch that no other line crosses
        place = f'x="{x}" y="{y - 12}" text-anchor="middle"'
        names.append(f'<text class="map-line map-{key}" {place}>{escape(name)}</text>')
    return _svg("wide", width, height, chapters, tracks + names + stations)


def _narrow(chapters: list[Chapter], lines: dict[str, str], link_prefix: str, here: str | None) -> str:
    left, step, y = 30, 50, 6
    tracks, stations, names = [], [], []
    for key, name in lines.items():
        members = [chapter for chapter in chapters if chapter.line == key]
        y += 34
        names.append(f'<text class="map-line map-{key}" x="{left - _RADIUS}" y="{y}">{escape(name)}</text>')
        y += 34
        tracks.append(f'<path class="map-track map-{key}" d="M{left} {y} V{y + step * (len(members) - 1)}"/>')
        for chapter in members:
            stations.append(_station(chapter, left, y, link_prefix, here, [chapter.title], left + 32, y + 6, "start"))
            y += step
        y -= step - 14
    return _svg("narrow", 320, y + 20, chapters, tracks + names + stations)


def _station(
    chapter: Chapter,
    x: float,
    y: float,
    link_prefix: str,
    here: str | None,
    label: list[str],
    label_x: float,
    label_y: float,
    anchor: str,
) -> str:
    state = "written" if chapter.exists else "planned"
    ring, current = "", ""
    if chapter.name == here:
        state += " map-here"
        ring = f'<circle class="map-ring" cx="{x}" cy="{y}" r="{_RADIUS + 6}"/>'
        current = ' aria-current="page"'
    words = "".join(
        f'<tspan x="{label_x}" dy="{0 if row == 0 else 19}">{escape(text)}</tspan>' for row, text in enumerate(label)
    )
    drawing = (
        f'{ring}<circle class="map-station" cx="{x}" cy="{y}" r="{_RADIUS}"/>'
        f'<text class="map-number" x="{x}" y="{y + 5.5}" text-anchor="middle">{chapter.number}</text>'
        f'<text class="map-label" x="{label_x}" y="{label_y}" text-anchor="{anchor}">{words}</text>'
    )
    if chapter.exists:
        link = f"{link_prefix}{chapter.path.removesuffix('.ipynb')}.html"
        words = f"Chapter {chapter.number}: {escape(chapter.title)}"
        drawing = f'<a href="{link}" aria-label="{words}"{current}>{drawing}</a>'
    return f'<g class="map-{chapter.line} map-{state}">{drawing}</g>'


def _svg(name: str, width: float, height: float, chapters: list[Chapter], content: list[str]) -> str:
    inside = "\n".join(content)
    size = f'viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg"'
    return (
        f'<svg class="map-{name}" {size} role="group" aria-label="{escape(description(chapters))}">\n{inside}\n</svg>'
    )


def _at(chapter: Chapter) -> tuple[float, float]:
    column, row = _PLACES[chapter.number]
    return _MARGIN + column * _COLUMN, 46 + row * _ROW


def _wrapped(title: str) -> list[str]:
    rows = [""]
    for word in title.split():
        if len(rows[-1]) + len(word) >= _LABEL_WIDTH and rows[-1]:
            rows.append("")
        rows[-1] = f"{rows[-1]} {word}".strip()
    return rows
