"""`run` takes a part of a grid: some seeds, some settings; what is saved stands beside what the library has."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runs"))

import grid

from tutorial_lib.__main__ import main
from tutorial_lib.commands import experiments
from tutorial_lib.results.rows import read_arrays, read_rows
from tutorial_lib.runs import saved


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    """Where ``--save`` writes; the command runs the small grid, whatever its name says."""
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(experiments, "_experiment", lambda arguments: grid.EXPERIMENT)
    monkeypatch.setattr(saved.save, "__defaults__", (tmp_path / "results",))
    return tmp_path / "results"


def run(arguments: str) -> int:
    return main(["run", "grid", "--study", "digits", "--jobs", "1", *arguments.split()])


def test_seeds_need_not_start_at_0(results):
    assert run("--seeds 2 --save") == 0
    before = read_rows(results / "grid.csv")
    assert run("--seeds 1 --from-seed 2 --save") == 0
    rows = read_rows(results / "grid.csv")
    assert rows[: len(before)] == before and {row.seed for row in before} == {0, 1}
    assert [(row.method, row.seed) for row in rows[len(before) :]] == [("mean", 2), ("spread", 2), ("largest", 2)]
    assert rows[-1].command == "python -m tutorial_lib run grid --study digits --seeds 1 --from-seed 2"
    assert run("--seeds 3 --save") == 0
    assert [row.value for row in read_rows(results / "grid.csv")] == [row.value for row in rows]


def test_one_setting_alone(results, capsys):
    assert run("--seeds 2 --only method=spread --save") == 0
    rows = read_rows(results / "grid.csv")
    assert [(row.method, row.seed) for row in rows] == [("spread", 0), ("spread", 1)]
    assert rows[0].command == "python -m tutorial_lib run grid --study digits --seeds 2 --only method=spread"
    assert "2 of 2 cells" in capsys.readouterr().err


@pytest.mark.parametrize("wanted", ["method", "method=nothing", "nothing=mean", "=mean", "method="])
def test_a_setting_that_no_cell_has_is_refused(results, wanted, capsys):
    with pytest.raises(SystemExit) as stop:
        run(f"--only {wanted}")
    assert stop.value.code == 2 and "method" in capsys.readouterr().err
    assert not results.exists()


def test_arrays_of_other_cells_stay_until_no_cell_makes_them(results, monkeypatch):
    assert run("--only method=mean --save") == 0
    file = results / "grid_digits.npz"
    first = read_arrays(file)
    assert run("--only method=largest --save") == 0
    both = read_arrays(file)
    assert list(first) == ["mean/sample"] and set(both) == {"mean/sample", "largest/sample"}
    np.testing.assert_array_equal(both["mean/sample"], first["mean/sample"])
    assert run("--from-seed 1 --save") == 0
    assert read_arrays(file).keys() == both.keys()
    fewer = grid.cells("digits", [0])[1:]
    changed = type(grid.EXPERIMENT)(**{**vars(grid.EXPERIMENT), "cells": lambda study, seeds: fewer})
    monkeypatch.setattr(experiments, "_experiment", lambda arguments: changed)
    assert run("--only method=spread --save") == 0
    assert set(read_arrays(file)) == {"spread/sample", "largest/sample"}


def test_rows_that_no_cell_makes_go_with_the_whole_grid_alone(results, monkeypatch):
    assert run("--seeds 2 --save") == 0
    every = grid.EXPERIMENT
    fewer = type(every)(**{**vars(every), "cells": lambda study, seeds: every.cells(study, seeds)[::3]})
    monkeypatch.setattr(experiments, "_experiment", lambda arguments: fewer)
    assert run("--seeds 1 --only method=mean --from-seed 1 --save") == 0
    assert {row.method for row in read_rows(results / "grid.csv") if row.seed == 1} == {"mean"}
    assert {row.method for row in read_rows(results / "grid.csv") if row.seed == 0} == {"mean", "spread", "largest"}
    monkeypatch.setattr(experiments, "_experiment", lambda arguments: every)
    assert run("--seeds 2 --save") == 0
    assert run("--seeds 2 --only method=mean --save") == 0
    assert len(read_rows(results / "grid.csv")) == 6


def test_what_is_saved_does_not_hang_on_a_reader_of_the_table(results, monkeypatch):
    """``run ... --save | head``: the reader goes before the table is out, and nothing of the rows is lost."""

    class Gone(io.TextIOBase):
        def write(self, text: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return nowhere.fileno()

    with open(os.devnull, "w") as nowhere:
        monkeypatch.setattr(sys, "stdout", Gone())
        assert run("--seeds 2 --save") == 141
    assert {row.seed for row in read_rows(results / "grid.csv")} == {0, 1}
