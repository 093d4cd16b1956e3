"""What comes with the library: whole, found by name, and made from a clean checkout."""

from __future__ import annotations

import csv

import pytest

from tutorial_lib.benchmarks.gradients import RESULTS as BENCHMARKS
from tutorial_lib.results.rows import RESULTS, read_rows, runs_file
from tutorial_lib.results.stored import stored_arrays, stored_rows

STORED = sorted(path.stem for path in RESULTS.glob("*.csv"))

TO_BE_MADE_AGAIN: tuple[str, ...] = ()
"""Experiments some of whose rows were made by code that no commit holds. Whoever makes them again takes the name out."""


@pytest.mark.parametrize(
    "experiment",
    [
        pytest.param(name, marks=pytest.mark.xfail(strict=True, reason="rows are still to be made again"))
        if name in TO_BE_MADE_AGAIN
        else name
        for name in STORED
    ],
)
def test_rows_come_from_a_clean_checkout(experiment):
    """A commit of twelve digits, without ``+changes``: whoever has it can make the number again."""
    commits = {row.commit for row in stored_rows(experiment)}
    assert {commit for commit in commits if len(commit) != 12 or not commit.isalnum()} == set()


def test_what_is_to_be_made_again_is_stored():
    assert set(TO_BE_MADE_AGAIN) <= set(STORED)


@pytest.mark.parametrize("experiment", STORED)
def test_rows_of_a_study_are_those_of_the_file(experiment):
    rows = read_rows(RESULTS / f"{experiment}.csv")
    studies = dict.fromkeys(row.study for row in rows)
    assert stored_rows(experiment) == rows
    assert [row for study in studies for row in stored_rows(experiment, study)] == sorted(
        rows, key=lambda row: list(studies).index(row.study)
    )
    assert len({row.key for row in rows}) == len(rows)


@pytest.mark.parametrize("path", [*RESULTS.glob("*.csv"), *BENCHMARKS.glob("*.csv")], ids=lambda path: path.stem)
def test_each_run_is_described_under_its_name_and_has_a_row(path):
    with runs_file(path).open(newline="", encoding="utf-8") as file:
        named = [line["run"] for line in csv.DictReader(file)]
    assert named == list(dict.fromkeys(row.run for row in read_rows(path)))


def test_structure_has_columns_of_its_own():
    """No method, network or variant holds two things in one word."""
    for experiment in STORED:
        for row in stored_rows(experiment):
            for part in (row.method, row.network, row.variant, row.protocol):
                assert not set(part) & set("/:"), row.label


def test_what_is_not_stored_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="make them with: python -m tutorial_lib run nothing --save"):
        stored_rows("nothing")
    with pytest.raises(FileNotFoundError, match="run calibration --study svhn --save"):
        stored_arrays("calibration", "svhn")
    assert stored_rows("calibration", "svhn") == []
