"""Every chapter teaches: exercises that check themselves, a quiz with reasons, slides, a section in the guide.

Whether solutions pass their checks and gaps fail them is tried where nbval runs the chapters, ``notebooks/conftest.py``.
"""

from __future__ import annotations

import chapters
import pytest
import teaching_rules

PATHS = chapters.chapter_paths()
each_chapter = pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])


@each_chapter
@pytest.mark.parametrize("rule", teaching_rules.RULES, ids=[rule.__name__ for rule in teaching_rules.RULES])
def test_chapter_follows_the_rules_of_teaching(path, rule):
    assert rule(chapters.read(path)) == []


@each_chapter
def test_chapter_is_in_the_instructors_guide(path):
    guide = (chapters.ROOT / "book" / "instructor_chapters.md").read_text(encoding="utf-8")
    assert teaching_rules.in_the_guide(path.stem, guide) == []


def test_the_guide_leaves_no_words_out():
    for guide in (chapters.ROOT / "book").glob("instructor*.md"):
        assert teaching_rules.PLACEHOLDER not in guide.read_text(encoding="utf-8")


# The rules themselves: each finds what it is there for


def test_a_check_that_accepts_anything_is_found(chapter):
    chapter.cells[10].source = 'heads\nassert True, "no"\nprint("Right: yes.")'
    assert teaching_rules.solutions_and_gaps(chapter) == ["exercise 1: the check passes although nothing is written"]


def test_a_solution_that_is_wrong_is_found(chapter):
    chapter.cells[9].source = chapter.cells[9].source.replace("sum(tosses)", "len(tosses)")
    with pytest.raises(AssertionError, match="There are three"):
        teaching_rules.solutions_and_gaps(chapter)


def test_a_gap_that_fails_unclearly_is_found(chapter):
    chapter.cells[10].source = 'assert Heads([1]) == 1, "no"\nprint("Right: yes.")'
    (wrong,) = [*teaching_rules.failure_of_gap("pass", chapter.cells[10].source, {}, 1)]
    assert "NameError" in wrong


def test_checks_without_words_are_found(chapter):
    assert teaching_rules.checks_speak_to_the_learner(chapter) == []
    chapter.cells[10].source = "assert heads([1]) == 1"
    assert len(teaching_rules.checks_speak_to_the_learner(chapter)) == 2
    chapter.cells[10].source = 'print("Right: yes.")'
    assert "asserts nothing" in teaching_rules.checks_speak_to_the_learner(chapter)[0]


def test_short_quizzes_and_missing_explorables_are_found(chapter):
    assert "1 questions" in teaching_rules.quiz_gives_reasons(chapter)[0]
    assert teaching_rules.one_picture_answers_back(chapter)
    chapter.cells[2].source += "\nexplore(print, x=[1, 2])"
    assert teaching_rules.one_picture_answers_back(chapter) == []


def test_a_task_without_expectation_or_hint_is_found(chapter):
    assert [wrong.split(" ", 2)[2] for wrong in teaching_rules.exercises_are_complete(chapter)] == [
        "has no folded hint"
    ]
    chapter.cells[8].source = "Write `heads`."
    assert len(teaching_rules.exercises_are_complete(chapter)) == 2
