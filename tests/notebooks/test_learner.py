"""The notebooks that learners open: in step with the chapters, plain Markdown, gaps for answers, nothing for the teacher."""

from __future__ import annotations

import json
import re
from pathlib import Path

import chapters
import make_learner
import nbformat
import pytest
from coin import coin_chapter
from plain_markdown import Known

PATHS = chapters.chapter_paths()
MYST = re.compile(r"\{[a-z][a-z:_-]*\}`|^(:{3,}|`{3,})\{|^\([\w-]+\)=$", re.MULTILINE)


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_in_step_with_the_chapter(path):
    assert make_learner.problems_of(path) == []


def test_none_is_left_over():
    assert make_learner.left_over() == []


@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
def test_text_needs_no_book(path):
    """Of every chapter as it stands, whether or not its notebooks were written anew."""
    for solved in (False, True):
        made = make_learner.learner_notebook(chapters.read(path), make_learner.known_of(path, None), solved)
        for cell in made.cells:
            if cell.cell_type == "markdown":
                left = MYST.search(re.sub(r"``[^`]+``", "", cell.source))
                assert left is None, f"{left[0]!r} is MyST, which Jupyter shows as it stands:\n{cell.source}"


# On a chapter made up here


KNOWN = Known(
    {"guo2017calibration": ("Guo et al.", "2017", "https://x.org")}, {"rate": "0.5"}, {"fig-coin": "99.1"}, {}
)


def sources(solved: bool) -> list[str]:
    return [cell.source for cell in make_learner.learner_notebook(coin_chapter(), KNOWN, solved).cells]


def test_learners_get_gaps_numbers_works_and_captions():
    text = "\n".join(sources(solved=False))
    assert 'raise NotImplementedError("Exercise 1 is not written yet.")' in text
    assert "It lands on 0.50, says [Guo et al. (2017)](https://x.org); see Figure 99.1." in text
    assert "**Figure 99.1.** A line of heads." in text and "Open In Colab" in text
    for absent in ("sum(tosses)", "`len` counts tails", "Teacher's note", "one in", "SOLUTION"):
        assert absent not in text


def test_the_solved_one_has_the_answers_and_still_nothing_for_the_teacher():
    text = "\n".join(sources(solved=True))
    assert "    count = sum(tosses)\n    return count" in text and "`len` counts tails too" in text
    for absent in ("NotImplementedError", "Teacher's note", "one in", "SOLUTION"):
        assert absent not in text


def test_what_the_page_folds_is_folded():
    notebook = coin_chapter()
    notebook.cells[2].metadata["tags"] = ["hide-input"]
    code = [cell for cell in make_learner.learner_notebook(notebook, KNOWN).cells if cell.cell_type == "code"]
    assert code[0].metadata == {"cellView": "form", "jupyter": {"source_hidden": True}}
    assert all(cell.metadata == {} for cell in code[1:])


@pytest.fixture
def written(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """A chapter, and the folder into which its two notebooks were written."""
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "99_coin.ipynb"
    nbformat.write(coin_chapter(), path)
    remembered = {"rate": {"data": {"text/plain": "0.5"}}, "picture": {"data": {"image/png": ""}}}
    (tmp_path / "99_coin.glue.json").write_text(json.dumps(remembered), encoding="utf-8")
    monkeypatch.setattr(make_learner.glued, "__defaults__", (tmp_path,))
    make_learner.write(path, tmp_path / "colab")
    return path, tmp_path / "colab"


def test_in_step_means_all_but_the_numbers(written):
    path, target = written
    assert make_learner.problems_of(path, target) == []
    file = target / "99_coin.ipynb"
    stored = file.read_text(encoding="utf-8")
    assert "lands on 0.50, says" in stored
    file.write_text(stored.replace("lands on 0.50, says", "lands on 0.48, says"), encoding="utf-8")
    assert make_learner.problems_of(path, target) == []
    file.write_text(stored.replace("lands on 0.50, says", "falls on 0.50, says"), encoding="utf-8")
    assert make_learner.problems_of(path, target) == [
        "colab/99_coin.ipynb is not in step with 99_coin.ipynb; run `make learner`"
    ]


def test_a_change_of_the_chapter_and_a_missing_notebook_are_found(written):
    path, target = written
    notebook = chapters.read(path)
    notebook.cells[9].source = notebook.cells[9].source.replace("Count.", "Count heads.")
    nbformat.write(notebook, path)
    assert [problem.partition(" ")[0] for problem in make_learner.problems_of(path, target)] == [
        "colab/99_coin.ipynb",
        "colab/99_coin_solved.ipynb",
    ]
    (target / "99_coin.ipynb").unlink()
    assert "is missing" in make_learner.problems_of(path, target)[0]


def test_a_notebook_whose_chapter_is_gone_is_found(written):
    path, target = written
    assert make_learner.left_over(target, path.parent) == []
    path.unlink()
    assert [file.name for file in make_learner.left_over(target, path.parent)] == [
        "99_coin.ipynb",
        "99_coin_solved.ipynb",
    ]


def test_without_a_built_book_it_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run `make book` first"):
        make_learner.glued(tmp_path / "98_die.ipynb", tmp_path)
