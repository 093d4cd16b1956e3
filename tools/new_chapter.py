"""Start a chapter: a notebook that runs, is read by every tool, and says TODO where words are missing.

Command line::

    python tools/new_chapter.py 15_conformal_prediction --title "Conformal prediction"

(``make new-chapter NAME=15_conformal_prediction TITLE="Conformal prediction"``). It writes the notebook, adds the page
to ``_toc.yml``, the chapter to ``book/chapters.yml`` if it is not planned, and a section to the instructor's guide.
The skeleton passes every check except the one that no TODO is left.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import chapters
import jupytext
import nbformat
import notebook_cells
import yaml

TEMPLATE = Path(__file__).parent / "templates" / "chapter.percent"
_NAME = re.compile(r"(?P<number>[0-9]{2})_[a-z][a-z0-9_]*")


def new_chapter(name: str, title: str | None = None, root: Path = chapters.ROOT) -> Path:
    """Write the skeleton of a chapter and enter it where chapters are listed.

    Args:
        name: of the notebook without ending, ``NN_words_like_these``.
        title: of the chapter; None: as planned in ``book/chapters.yml``, else the words of the name.
        root: of the repository.

    Returns:
        The notebook.

    Raises:
        ValueError: the name has another form, or its number is taken.
    """
    match = _NAME.fullmatch(name)
    if not match:
        raise ValueError(
            f"NAME={name}: a chapter is called like 15_conformal_prediction: two digits, then small letters"
        )
    taken = [path for path in chapters.chapter_paths(root / "notebooks") if path.name.startswith(match["number"])]
    if taken:
        raise ValueError(f"number {match['number']} is taken by {taken[0].name}; choose another")
    planned = _planned(root, name, int(match["number"]))
    if title is None:
        title = str(planned["title"]) if planned else name[3:].replace("_", " ").capitalize()
    path = root / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    text = (
        TEMPLATE.read_text(encoding="utf-8")
        .replace("{{ title }}", title)
        .replace("{{ name }}", name[3:].replace("_", "-"))
    )
    notebook = jupytext.reads(text, fmt="py:percent")
    notebook = notebook_cells.stored_form(notebook, f"notebooks/{path.name}")
    path.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    _enter_into_toc(root / "_toc.yml", name, title)
    if planned is None:
        _enter_into_plan(root / "book" / "chapters.yml", name, title)
    _enter_into_guide(root / "book" / "instructor_chapters.md", name, title)
    return path


def _planned(root: Path, name: str, number: int) -> dict[str, object] | None:
    entries = yaml.safe_load((root / "book" / "chapters.yml").read_text(encoding="utf-8"))["chapters"]
    for entry in entries:
        if entry["number"] == number and entry["name"] != name:
            raise ValueError(f"number {number:02d} is planned for {entry['name']}; take that name or another number")
        if entry["name"] == name:
            return entry
    return None


def _enter_into_toc(toc: Path, name: str, title: str) -> None:
    """Add the page behind the chapter with the next smaller number; comments in the file stay."""
    lines = toc.read_text(encoding="utf-8").splitlines()
    pattern = re.compile(r"(?P<before>\s*- file: notebooks/)(?P<name>[0-9]{2}_\w+)\s*$")
    listed = [(number, match) for number, line in enumerate(lines) if (match := pattern.match(line))]
    if not listed:
        raise ValueError(f"{toc.name} lists no notebook yet; enter notebooks/{name} by hand")
    earlier = [number for number, match in listed if match["name"] < name]
    place = earlier[-1] + 1 if earlier else listed[0][0]
    while earlier and place < len(lines) and lines[place].strip() and not lines[place].lstrip().startswith("-"):
        place += 1  # behind the title of that chapter
    before = listed[0][1]["before"]
    titled = json.dumps(f"{int(name[:2])} · {title}", ensure_ascii=False)
    lines[place:place] = [f"{before}{name}", f"{' ' * (before.index('-') + 2)}title: {titled}"]
    toc.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _enter_into_plan(plan: Path, name: str, title: str) -> None:
    stored = plan.read_text(encoding="utf-8").rstrip("\n")
    line = yaml.safe_load(stored)["chapters"][-1]["line"]
    quoted = json.dumps(title, ensure_ascii=False)  # a string of YAML as well, whatever quotes it holds
    entry = f"  - {{number: {int(name[:2])}, name: {name}, title: {quoted}, line: {line}, after: []}}"
    plan.write_text(f"{stored}\n{entry}\n", encoding="utf-8")


def _enter_into_guide(guide: Path, name: str, title: str) -> None:
    section = (Path(__file__).parent / "templates" / "guide_section.md").read_text(encoding="utf-8")
    section = (
        section.replace("{{ title }}", title).replace("{{ number }}", str(int(name[:2]))).replace("{{ page }}", name)
    )
    guide.write_text(f"{guide.read_text(encoding='utf-8').rstrip()}\n\n{section}", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Start a chapter.")
    parser.add_argument("name", help="of the notebook without ending, like 15_conformal_prediction")
    parser.add_argument("--title", help="of the chapter")
    options = parser.parse_args(arguments)
    try:
        path = new_chapter(options.name, options.title or None)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{path.relative_to(chapters.ROOT)} is there and runs. Replace every TODO, there and in the instructor's guide."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
