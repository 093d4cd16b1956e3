"""From a chapter to the line that computes it: what CONTRIBUTING.md says of names and places is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tutorial_lib
from tutorial_lib.runs.registry import EXPERIMENTS

LIBRARY = Path(tutorial_lib.__file__).parent
ROOT = LIBRARY.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
CHAPTERS = {path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")}
LINES = re.findall(r"^\| `(\d\d_\w+)` \| (.*) \| (.*)\|$", CONTRIBUTING, re.MULTILINE)
TABLE = {chapter: (re.findall("`(.*?)`", rooms), re.findall("`(.*?)`", grids)) for chapter, rooms, grids in LINES}


def test_every_chapter_and_every_experiment_stands_in_the_table():
    assert CHAPTERS <= TABLE.keys()
    assert set(EXPERIMENTS) <= {name for _, grids in TABLE.values() for name in grids}


@pytest.mark.parametrize("chapter", sorted(CHAPTERS))
def test_the_places_of_a_chapter_exist(chapter):
    name, (rooms, grids) = chapter[3:], TABLE[chapter]
    notebook = (ROOT / "notebooks" / f"{chapter}.ipynb").read_text()
    pictures = re.findall(r"tutorial_lib\.figures(?:\.(\w+))? import (\w+)", notebook)
    assert {module or imported for module, imported in pictures} <= {name}, "one module of pictures, of the same name"
    assert not pictures or (ROOT / f"tests/figures/test_{name}.py").exists()
    assert rooms and all((LIBRARY / place).exists() for place in rooms)
    for grid in grids:
        assert (LIBRARY / "experiments" / f"{grid}.py").exists()
        assert (LIBRARY / "experiments/results" / f"{grid}.csv").exists()


def test_tests_have_the_rooms_of_the_library():
    rooms = {path.name for path in LIBRARY.iterdir() if path.is_dir()} | {"book", "notebooks", "tools"}
    assert {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name[0] != "_"} <= rooms
