"""What the command line can say without PyTorch, it says at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tutorial_lib import __version__
from tutorial_lib.runs.registry import EXPERIMENTS, STUDIES, experiment_named

SLOW = ("torch", "torchvision", "sklearn", "scipy", "matplotlib")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--help", "COMMAND"),
        ("run --help", "cifar10_full"),
        ("score --help", "--fit"),
        ("calibrate --help", "--risk"),
        ("--version", __version__),
        ("list", "calibration"),
        ("data digits", "embedded"),
        ("show calibration --shipped", "calibration,cifar10"),
    ],
)
def test_nothing_slow_is_imported(arguments, expected, tmp_path, monkeypatch):
    """PyTorch alone takes seconds and hundreds of megabytes; without it every one of these takes a fraction of one."""
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    program = (
        "import sys; from tutorial_lib.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print('imported', [name for name in {SLOW} if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *arguments.split()], capture_output=True, text=True, check=True
    )
    assert expected in run.stdout and run.stdout.splitlines()[-1] == "imported []"


def test_the_registry_says_what_the_experiments_say():
    for name, summary in EXPERIMENTS.items():
        experiment = experiment_named(name)
        assert (experiment.name, experiment.title, experiment.studies) == (name, *summary)
    assert set(STUDIES) == {study for summary in EXPERIMENTS.values() for study in summary.studies}


def test_help_names_every_study_and_experiment(capsys):
    from tutorial_lib.__main__ import main

    for command in ("run", "table", "show"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said = capsys.readouterr().out.replace("\n", " ")
        assert all(name in said for name in (*EXPERIMENTS, *STUDIES))


def test_columns_of_the_list_line_up(tmp_path, monkeypatch, capsys):
    from tutorial_lib.__main__ import main

    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    assert main(["list"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert len(lines) == sum(len(summary.studies) for summary in EXPERIMENTS.values())
    assert len({len(line) for line in lines}) == 1 and all(len(line.split()) == 3 for line in lines)
    assert main(["list", "gradcon_class"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert ["mnist_full", "0", "of", "50", "cells", "of", "seed", "0"] in lines
