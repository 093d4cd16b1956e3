"""Ordinary trouble is said in one line that names the file, and the same kind of mistake has the same exit status."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tutorial_lib.__main__ import main
from tutorial_lib.runs.store import CellStore

FAILED, REFUSED = 1, 2


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("TUTORIAL_RESULTS", raising=False)
    return tmp_path


def status(arguments: str) -> int:
    try:
        return main(arguments.split())
    except SystemExit as stop:
        return int(stop.code or 0)


def said(capsys) -> list[str]:
    """The lines that the last command has written to standard error."""
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "arguments",
    [
        "nothing",
        "run nothing",
        "table nothing",
        "show nothing",
        "list nothing",
        "data nothing",
        "data --download nothing",
        "train nothing",
        "benchmark nothing",
        "run calibration --study nothing",
        "table calibration --study nothing",
        "show calibration --study nothing",
        "train digits --network nothing",
        "benchmark gradients --networks nothing",
    ],
)
def test_an_unknown_name_is_refused(arguments, capsys):
    assert status(arguments) == REFUSED
    lines = said(capsys)
    assert "nothing" in lines[-1] and len(lines) <= 2


def test_a_command_by_itself_is_told_where_to_read(capsys):
    for arguments, where in (("", "python -m tutorial_lib --help"), ("train", "python -m tutorial_lib train --help")):
        assert status(arguments) == REFUSED
        hint, error = said(capsys)
        assert hint.endswith(where) and "required" in error


@pytest.mark.parametrize(
    "arguments",
    [
        "run calibration --device tpu",
        "run calibration --device cuda:x",
        "run calibration --threads 0",
        "run calibration --jobs 0",
        "run calibration --seeds 0",
        "run calibration --seeds some",
        "run calibration --backend ray",
        "run calibration --scheduler tcp://somewhere:8786",
        "train digits --seed -1",
        "benchmark gradients --device tpu",
        "benchmark gradients --threads 0",
        "benchmark gradients --seconds -1",
        "benchmark gradients --seconds nan",
        "benchmark gradients --batches 0",
        "benchmark gradients --save --out somewhere",
    ],
)
def test_an_option_without_sense_is_refused(arguments, capsys):
    assert status(arguments) == REFUSED
    assert "error: " in said(capsys)[-1]


def test_a_device_that_is_not_there_is_refused(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for command in ("run calibration", "benchmark gradients"):
        assert status(f"{command} --device cuda") == REFUSED
        assert "torch sees no CUDA device here" in said(capsys)[-1]


@pytest.mark.parametrize("study", ["cifar10", "unique"])
def test_missing_images_have_one_exit_status_whatever_is_trained_on_them(study, capsys):
    assert status(f"train {study} --seed 7") == FAILED
    assert "error: " not in said(capsys)[-1]


@pytest.mark.parametrize(
    "arguments", ["table calibration", "show calibration", "table severity --shipped --study olives"]
)
def test_rows_that_are_not_there_fail_in_one_line(arguments, capsys):
    assert status(arguments) == FAILED
    [line] = said(capsys)
    assert line.startswith("no rows of")


@pytest.mark.parametrize("command", ["run calibration --study digits", "train digits --seed 7"])
def test_a_file_in_place_of_the_cache_folder_is_named(command, own_folders, capsys):
    (own_folders / "cache").write_text("a file")
    assert status(command) == FAILED
    lines = said(capsys)
    assert len(lines) == 1 and str(own_folders / "cache") in lines[0]


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system"), OSError(28, "No space left")],
)
def test_a_cache_that_cannot_be_written_is_named(error, own_folders, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise type(error)(*error.args, str(own_folders / "cache" / "models"))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    assert status("train digits --seed 7") == FAILED
    assert said(capsys) == [f"{error.strerror}: {own_folders / 'cache' / 'models'}"]


def test_data_that_cannot_be_read_are_named(own_folders, monkeypatch, capsys):
    from tutorial_lib.data.catalogue import DATASETS

    file = DATASETS["svhn"].parts[0].files[0]
    path = own_folders / "data" / file.path
    path.parent.mkdir(parents=True)
    path.mkdir()  # a folder in place of a file
    assert status("data svhn") == FAILED
    [line] = said(capsys)
    assert str(path) in line


@pytest.mark.parametrize("missing", ["dask", "distributed"])
def test_without_dask_the_right_packages_are_named(missing, monkeypatch, capsys):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    assert status("run calibration --study digits --backend dask") == FAILED
    [line] = said(capsys)
    assert line.endswith("pip install dask distributed")


@pytest.mark.parametrize("arguments", ["show out_of_distribution --shipped", "list"])
def test_output_piped_into_head(arguments, own_folders):
    """The reader goes after the first line; nobody is told anything."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tutorial_lib", *arguments.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) in (0, 141)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_output_to_a_full_disk(own_folders):
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "tutorial_lib", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert run.returncode == FAILED and run.stderr.splitlines()[0] == "No space left on device"


def test_a_damaged_cell_is_named_by_table_and_show(own_folders, capsys):
    from tutorial_lib.runs.experiment import Cell

    store = CellStore()
    cell = Cell("calibration", "digits", 0, {"network": "lenet"})
    store.path(cell).parent.mkdir(parents=True)
    store.path(cell).write_bytes(b"PK not a cell")
    for command in ("table", "show"):
        assert status(f"{command} calibration") == FAILED
        [line] = said(capsys)
        assert str(store.path(cell)) in line and "cannot be read" in line


def test_the_benchmark_writes_only_where_it_is_told(monkeypatch, tmp_path, capsys):
    """Its results come with the library; a try must not change them."""
    from tutorial_lib.benchmarks import gradcon
    from tutorial_lib.results.rows import Measurement, Provenance, Row

    source = Provenance("a test", "none", "none", "cpu")
    row = Row.of(Measurement("ours", "scores", "ratio", 1.0, 4), source, experiment=gradcon.EXPERIMENT, study="1x8x8")
    monkeypatch.setattr(gradcon, "run", lambda *arguments, **options: [row])
    monkeypatch.setattr(gradcon, "table", lambda rows: "the table")
    monkeypatch.setattr(gradcon, "RESULTS", tmp_path / "shipped")
    for arguments in ("", " --quick"):
        assert status(f"benchmark gradcon{arguments}") == 0
        assert not list(tmp_path.rglob("*.csv"))
    assert status(f"benchmark gradcon --out {tmp_path / 'own'}") == 0
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.csv")} == {
        "own/gradcon_cpu.csv",
        "own/runs/gradcon_cpu.csv",
    }
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "gradcon_cpu.csv").write_text("something,else\n1,2\n")
    monkeypatch.setattr(
        gradcon, "run", lambda *arguments, **options: pytest.fail("measured before it is known where to")
    )
    assert status(f"benchmark gradcon --out {tmp_path / 'other'}") == 1
    assert "is not a result file" in capsys.readouterr().err
    monkeypatch.setattr(gradcon, "run", lambda *arguments, **options: [row])
    shipped = tmp_path / "shipped" / "gradcon_cpu.csv"
    monkeypatch.setattr(gradcon, "table", lambda rows: f"written before it is printed: {shipped.exists()}")
    capsys.readouterr()
    assert status("benchmark gradcon --save") == 0
    assert "printed: True" in capsys.readouterr().out  # with `| head` printing may be the end


def test_a_terminal_without_plus_minus(own_folders):
    """The table of several seeds has ± in it; where it cannot be written there is a question mark, and no traceback."""
    run = subprocess.run(
        [sys.executable, "-m", "tutorial_lib", *"table out_of_distribution --study digits --shipped".split()],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert b"?" in run.stdout


@pytest.mark.skipif(os.name == "nt", reason="a shell that can close a stream")
def test_output_that_is_closed(own_folders):
    run = subprocess.run(["sh", "-c", f"{sys.executable} -m tutorial_lib list >&-"], capture_output=True)
    assert b"Traceback" not in run.stderr and run.returncode == 0


@pytest.mark.parametrize(
    "variable, value",
    [
        ("TUTORIAL_CACHE", ""),
        ("TUTORIAL_CACHE", "~nobody-of-this-name/x"),
        ("TUTORIAL_RESULTS", "~nobody-of-this-name"),
    ],
)
def test_a_home_folder_that_is_not_there_is_named(variable, value, monkeypatch, capsys):
    """A container's user has often neither a home nor a name."""

    def nowhere(*_):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv(variable, value)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", nowhere)
    monkeypatch.setattr("pathlib.Path.expanduser", nowhere)
    assert status("list") == FAILED
    [line] = said(capsys)
    assert "home folder" in line and (value or "set TUTORIAL_CACHE") in line
