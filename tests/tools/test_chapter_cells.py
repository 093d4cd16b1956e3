"""What the tags of cells mean: exercises, gaps, quizzes, slides."""

from __future__ import annotations

import ast

import chapters
import pytest


def test_an_exercise_is_a_task_a_solution_a_check_and_a_note(chapter):
    assert chapters.exercises(chapter) == [chapters.Exercise(number=1, task=8, solution=9, check=10, note=11)]
    assert chapters.title(chapter) == "A coin"


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ([9], "a check, but no solution"),
        ([9, 10], "solution-note, but does not follow"),
        ([10, 11], "has no solution and check after it"),
        ([8], "no cell tagged 'exercise' stands before"),
        ([8, 9], "a check, but no solution"),
        ([8, 9, 10], "solution-note, but does not follow"),
    ],
)
def test_an_incomplete_exercise_is_named(chapter, gone, said):
    chapter.cells = [cell for position, cell in enumerate(chapter.cells) if position not in gone]
    with pytest.raises(chapters.ChapterError, match=said):
        chapters.exercises(chapter)


def test_two_exercises_are_numbered(chapter):
    chapter.cells += chapter.cells[8:12]
    assert [exercise.number for exercise in chapters.exercises(chapter)] == [1, 2]


def test_a_gap_stands_where_the_solution_stood(chapter):
    source = chapters.scaffold(chapter.cells[9].source, 7)
    assert "sum(tosses)" not in source and "SOLUTION" not in source
    function = ast.parse(source).body[0]
    assert ast.get_docstring(function) == "Count."
    namespace = {}
    exec(source, namespace)
    with pytest.raises(NotImplementedError, match="Exercise 7 is not written yet"):
        namespace["heads"]([1])


def test_gaps_at_every_depth_and_more_than_one():
    first = "a = 1\n# BEGIN SOLUTION\nb = 2\n# END SOLUTION\n"
    source = first + "if a:\n    # BEGIN SOLUTION\n    c = 3\n    # END SOLUTION\nd = 4"
    made = chapters.scaffold(source, 1)
    ast.parse(made)
    assert made.count("raise NotImplementedError") == 2
    assert "b = 2" not in made and "c = 3" not in made and "a = 1" in made and "d = 4" in made


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1", "needs pairs"),
        ("# BEGIN SOLUTION\nx = 1", "needs pairs"),
        ("# END SOLUTION\nx = 1\n# BEGIN SOLUTION", "out of order"),
        ("x = 1  # BEGIN SOLUTION\ny = 2\n# END SOLUTION", "share a line"),
        ("# BEGIN SOLUTION\n\n# END SOLUTION", "nothing between"),
    ],
)
def test_a_solution_without_proper_marks_is_refused(source, said):
    with pytest.raises(chapters.ChapterError, match=said):
        chapters.scaffold(source, 1)


def test_the_answer_is_the_solution_without_marks(chapter):
    assert chapters.answer(chapter.cells[9].source) == (
        'def heads(tosses):\n    """Count."""\n    count = sum(tosses)\n    return count'
    )


def test_questions_have_options_with_verdict_and_reason(chapter):
    (question,) = chapters.questions(chapter)
    assert question.text == "**1. What does the coin know?**"
    assert question.options == (
        chapters.Option("A. Its next face", False, "A fair coin has no memory."),
        chapters.Option("B. Nothing", True, "That is what fair means."),
    )


def test_several_questions_in_one_cell(chapter, quiz):
    chapter.cells[-1].source = quiz + "\n**2. And the die?**\n\n" + quiz.partition("\n\n")[2]
    assert [question.text for question in chapters.questions(chapter)] == [
        "**1. What does the coin know?**",
        "**2. And the die?**",
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Right. ", "Yes. ", "must start with 'Right.' or 'Not quite.'"),
        ("Right. That is what fair means.", "Right.", "give the reason"),
        ("</summary>\n\nNot", "</summary>\nNot", "empty line"),
        ("means.\n\n</details>", "means.\n\n", "not closed"),
    ],
)
def test_a_malformed_option_is_named(chapter, old, new, said):
    assert old in chapter.cells[-1].source
    chapter.cells[-1].source = chapter.cells[-1].source.replace(old, new)
    with pytest.raises(chapters.ChapterError, match=said):
        chapters.questions(chapter)


def test_notes_for_the_teacher_are_speaker_notes_unless_they_say_otherwise(chapter):
    kinds = [chapters.slide_type(cell) for cell in chapter.cells]
    assert kinds[1] == "notes" and kinds[5] == "slide" and kinds[6] == "-" and kinds[2] == "skip"
