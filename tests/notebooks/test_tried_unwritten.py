"""nbval, with the cell that ``notebooks/conftest.py`` puts before each solution, on chapters made up here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from coin import coin_chapter

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PRETEND = "def glue(name, value): pass"


def test_a_gap_that_passes_and_a_solution_that_fails_are_found(tmp_path):
    (tmp_path / "conftest.py").symlink_to(ROOT / "notebooks" / "conftest.py")
    good, accepts, wrong = coin_chapter(), coin_chapter(), coin_chapter()
    accepts.cells[10].source = 'assert heads, "There are three."\nprint("Right: three.")'
    wrong.cells[9].source = wrong.cells[9].source.replace("sum(tosses)", "len(tosses)")
    for name, notebook in {"good": good, "accepts": accepts, "wrong": wrong}.items():
        notebook.cells[2].source = f"import numpy as np\n{PRETEND}\nrate = np.mean([0, 1, 1, 0])"
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        "/dev/null",
        "--nbval-lax",
        "--nbval-current-env",
        "-rA",
        "--color=no",
    ]
    done = subprocess.run([*command, tmp_path], cwd=tmp_path, capture_output=True, text=True)
    said = re.findall(r"^(PASSED|FAILED) (.*?ipynb::Cell \d+(?:, nothing written)?)", done.stdout, re.MULTILINE)
    verdicts = {name: verdict for verdict, name in said}
    assert len(verdicts) == 3 * 6, done.stdout
    failed = {name for name, verdict in verdicts.items() if verdict == "FAILED"}
    assert failed == {"accepts.ipynb::Cell 3, nothing written", "wrong.ipynb::Cell 4"}, done.stdout
    assert "the check passes although nothing is written" in done.stdout and "There are three" in done.stdout
