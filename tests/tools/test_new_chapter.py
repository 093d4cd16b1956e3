"""A new chapter: entered everywhere, and right in everything but its missing words."""

from __future__ import annotations

import shutil

import chapters
import code_rules
import new_chapter
import notebook_cells
import pytest
import teaching_rules
import yaml

ROOT = chapters.ROOT


@pytest.fixture
def copy(tmp_path):
    """The parts of the repository that a new chapter is entered into."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    for name in ("chapters.yml", "instructor_chapters.md"):
        shutil.copy(ROOT / "book" / name, tmp_path / "book")
    return tmp_path


def test_it_is_entered_into_contents_plan_and_guide(copy):
    path = new_chapter.new_chapter("97_conformal_prediction", None, copy)
    assert path == copy / "notebooks" / "97_conformal_prediction.ipynb"
    toc = (copy / "_toc.yml").read_text(encoding="utf-8")
    files = [line.split("file: ")[1] for line in toc.splitlines() if "file: notebooks/" in line]
    assert files[-1] == "notebooks/97_conformal_prediction" and files == sorted(files)
    (entry,) = [
        chapter
        for part in yaml.safe_load(toc)["parts"]
        for chapter in part["chapters"]
        if chapter["file"] == "notebooks/97_conformal_prediction"
    ]
    assert entry["title"] == "97 · Conformal prediction"
    planned = yaml.safe_load((copy / "book" / "chapters.yml").read_text(encoding="utf-8"))["chapters"][-1]
    assert (planned["number"], planned["name"], planned["title"]) == (97, path.stem, "Conformal prediction")
    guide = (copy / "book" / "instructor_chapters.md").read_text(encoding="utf-8")
    assert "## Chapter 97, Conformal prediction" in guide


@pytest.mark.parametrize("title", ['What\'s "known"?', "It's", 'So "called"', "A: b, {c} \\ # d", "Größer"])
def test_a_title_may_hold_any_quotes(copy, title):
    new_chapter.new_chapter("97_conformal_prediction", title, copy)
    plan = yaml.safe_load((copy / "book" / "chapters.yml").read_text(encoding="utf-8"))["chapters"]
    assert plan[-1]["title"] == title
    parts = yaml.safe_load((copy / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    titles = [chapter.get("title") for part in parts for chapter in part["chapters"]]
    assert f"97 · {title}" in titles


def test_it_passes_every_rule_but_the_one_about_words(copy):
    path = new_chapter.new_chapter("97_conformal_prediction", "Conformal prediction", copy)
    notebook = chapters.read(path)
    guide = (copy / "book" / "instructor_chapters.md").read_text(encoding="utf-8")
    broken = {rule.__name__ for rule in teaching_rules.RULES if rule(notebook)}
    assert broken == {"no_words_are_missing"}
    assert [wrong for rule in code_rules.RULES for wrong in rule(notebook)] == []
    assert teaching_rules.in_the_guide(path.stem, guide) == []
    stored = notebook_cells.stored_form(notebook, f"notebooks/{path.name}")
    assert [cell.source for cell in stored.cells] == [cell.source for cell in notebook.cells]


def test_it_runs_and_its_solution_is_right(copy, monkeypatch):
    path = new_chapter.new_chapter("97_conformal_prediction", "Conformal prediction", copy)
    monkeypatch.chdir(path.parent)
    assert teaching_rules.solutions_and_gaps(chapters.read(path)) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("conformal", "two digits"),
        ("15 conformal", "two digits"),
        ("02_other_name", "planned for 02_ensembles"),
    ],
)
def test_a_name_that_does_not_fit_is_refused(copy, name, said):
    with pytest.raises(ValueError, match=said):
        new_chapter.new_chapter(name, None, copy)


def test_a_number_that_is_taken_is_refused(copy):
    new_chapter.new_chapter("97_one", None, copy)
    with pytest.raises(ValueError, match="97 is taken by 97_one.ipynb"):
        new_chapter.new_chapter("97_two", None, copy)
