"""Result rows: a number is kept with what made it, and a killed run leaves no half file."""

import csv
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tutorial_lib.results import rows as module
from tutorial_lib.results.rows import (
    COLUMNS,
    DamagedResults,
    Measurement,
    Provenance,
    Row,
    provenance,
    read_arrays,
    read_rows,
    runs_file,
    select,
    write_arrays,
    write_rows,
)

HERE = Provenance("python -m something", "0123456789ab", "torch=2.6", "cpu: x86_64, 1 thread(s)")


def row(**changes):
    where = {"experiment": "calibration", "study": "digits", "seed": 0, "seconds": 0.0}
    where |= {name: changes.pop(name) for name in list(changes) if name in where}
    what = {"method": "lenet", "condition": "known", "metric": "accuracy", "value": 1 / 3, "n": 3}
    return Row.of(Measurement(**{**what, **changes}), HERE, **where)


def test_rows_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "folder" / "calibration.csv"
    first = row(seed=4, seconds=1.5, challenging_data="other")
    second = row(method='a, "quoted" name', value=np.float32(0.1))
    write_rows(path, [first, second])
    back = read_rows(path)
    assert [r.key for r in back] == [first.key, second.key]
    assert back[0].value == pytest.approx(first.value, rel=1e-8)
    assert np.float32(back[1].value) == np.float32(0.1)
    assert back[0] == replace(first, value=back[0].value)
    with path.open(newline="") as file:
        assert next(csv.reader(file)) == list(COLUMNS)
    assert COLUMNS[:8] == ("experiment", "study", "method", "condition", "metric", "value", "seed", "n")
    with runs_file(path).open(newline="") as file:
        runs = list(csv.DictReader(file))
    assert tuple(runs[0]) == ("run", "command", "commit", "versions", "device", "seconds")
    assert [(run["run"], run["command"], run["seconds"]) for run in runs] == [
        (first.run, HERE.command, "1.5"),
        (second.run, HERE.command, "0"),
    ]


def test_a_run_is_described_once_and_gone_with_its_last_row(tmp_path):
    path = tmp_path / "r.csv"

    def described():
        with runs_file(path).open(newline="") as file:
            return [run["seconds"] for run in csv.DictReader(file)]

    write_rows(path, [row(condition=str(k), seconds=2) for k in range(9)])
    assert described() == ["2"]
    write_rows(path, [row(condition="0", seconds=3)])
    assert described() == ["3", "2"]
    write_rows(path, [row(condition=str(k), seconds=4) for k in range(1, 9)])
    assert described() == ["3", "4"]
    assert {r.condition: r.seconds for r in read_rows(path)} == {"0": 3, **{str(k): 4 for k in range(1, 9)}}


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_whenever_a_write_is_killed_every_row_finds_its_run(tmp_path, monkeypatch, moment):
    path, real, calls = tmp_path / "r.csv", module.replacing, []
    write_rows(path, [row(condition="known", seconds=1), row(condition="noise", seconds=2)])

    def dying(target):
        calls.append(target)
        if len(calls) == moment:
            raise KeyboardInterrupt
        return real(target)

    monkeypatch.setattr(module, "replacing", dying)
    with pytest.raises(KeyboardInterrupt):
        write_rows(path, [row(condition="known", seconds=3)])
    monkeypatch.undo()
    new = moment == 3  # the second file is that of the rows
    assert [r.seconds for r in read_rows(path)] == ([3, 2] if new else [1, 2])
    write_rows(path, [row(condition="known", seconds=3)])
    assert [r.seconds for r in read_rows(path)] == [3, 2]
    assert sum(1 for _ in runs_file(path).open()) == 3


def test_who_saves_at_once_saves_with_the_others_rows(tmp_path):
    path = tmp_path / "r.csv"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda k: write_rows(path, [row(condition=str(k), seconds=k)]), range(24)))
    assert {r.condition: r.seconds for r in read_rows(path)} == {str(k): k for k in range(24)}


def test_who_reads_while_somebody_saves_finds_every_run(tmp_path, monkeypatch):
    path, real, saved = tmp_path / "r.csv", module._lines, []
    write_rows(path, [row(seconds=1)])

    def interrupted(file, *columns):
        lines = list(real(file, *columns))
        if file == path and not saved:
            saved.append(True)
            write_rows(path, [row(seconds=2)])  # the run of what has been read is gone
        return lines

    monkeypatch.setattr(module, "_lines", interrupted)
    assert [r.seconds for r in read_rows(path)] == [2]


def test_rows_whose_run_is_described_nowhere_are_damaged(tmp_path):
    path = tmp_path / "r.csv"
    write_rows(path, [row()])
    whole = runs_file(path).read_text()
    runs_file(path).write_text(whole.splitlines()[0] + "\n")
    with pytest.raises(DamagedResults, match=rf"line 2: .*runs/r.csv knows no run '{row().run}'"):
        read_rows(path)
    runs_file(path).write_text(whole.replace(f",{HERE.commit},", ","))
    with pytest.raises(DamagedResults, match=r"runs/r.csv, line 2: 6 values"):
        read_rows(path)
    runs_file(path).unlink()
    with pytest.raises(DamagedResults, match=r"runs/r.csv is missing"):
        read_rows(path)


def test_a_rerun_replaces_its_rows_and_keeps_the_others(tmp_path):
    path = tmp_path / "r.csv"
    write_rows(path, [row(condition="known"), row(condition="noise")])
    write_rows(path, [row(condition="known", value=0.5), row(condition="haze")])
    assert [(r.condition, round(r.value, 3)) for r in read_rows(path)] == [
        ("known", 0.5),
        ("noise", 0.333),
        ("haze", 0.333),
    ]


def test_seeds_and_challenging_data_are_different_rows(tmp_path):
    path = tmp_path / "r.csv"
    write_rows(path, [row(seed=0), row(seed=1), row(challenging_data="same")])
    assert len(read_rows(path)) == 3


def test_a_failing_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "r.csv"
    write_rows(path, [row()])
    before = path.read_bytes()
    with pytest.raises(AttributeError):
        write_rows(path, [row(value=0.9), "not a row"])
    broken = row(value=0.9)
    object.__setattr__(broken, "value", "not a number")
    with pytest.raises(ValueError):
        write_rows(path, [broken])
    assert path.read_bytes() == before
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")) == ["r.csv", "runs/r.csv"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"value": float("nan")}, "NaN"),
        ({"n": 0}, "at least one"),
        ({"metric": " "}, "metric"),
        ({"challenging_data": "some"}, "challenging_data"),
    ],
)
def test_bad_rows_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        row(**changes)


def test_a_missing_or_foreign_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the experiment 'calibration'"):
        read_rows(tmp_path / "calibration.csv")
    with pytest.raises(FileNotFoundError, match="run the experiment 'calibration'"):
        read_arrays(tmp_path / "calibration.npz")
    foreign = tmp_path / "foreign.csv"
    foreign.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="not a result file"):
        read_rows(foreign)
    damaged = tmp_path / "damaged.csv"
    write_rows(damaged, [row()])
    damaged.write_text(damaged.read_text().replace("0.333333333", "a third"))
    with pytest.raises(ValueError, match="line 2"):
        read_rows(damaged)


def test_a_row_is_a_measurement_with_what_made_it():
    """Two shapes: what was measured, and by whom; no third that copies their fields."""
    measured = Measurement("recon", "7", "auroc", np.float32(0.5), np.int64(9), network="plane", variant="16")
    made = Row.of(measured, HERE, experiment="anomaly_detection", study="digits", seed=2, seconds=3)
    assert isinstance(made, Measurement)
    for name in Measurement.__dataclass_fields__:
        assert getattr(made, name) == getattr(measured, name)
    assert (made.commit, made.seed, made.seconds) == (HERE.commit, 2, 3.0)
    assert type(made.value) is float and type(made.n) is int
    assert made.series == "plane/recon/16" and Measurement("", "7", "auroc", 0.5, 9, network="plane").series == "plane"


def test_a_file_has_the_columns_that_its_rows_need(tmp_path):
    plain, apart = tmp_path / "plain.csv", tmp_path / "apart.csv"
    write_rows(plain, [row()])
    assert plain.read_text().splitlines()[0] == ",".join(COLUMNS)
    rows = [row(network="lenet", protocol="open_set"), row(network="lenet"), row(network="resnet20"), row(variant="2")]
    write_rows(apart, rows)
    assert apart.read_text().splitlines()[0] == ",".join([*COLUMNS, "network", "variant", "protocol"])
    assert [r.key for r in read_rows(apart)] == [r.key for r in rows]
    assert select(rows, series="resnet20/lenet") == [rows[2]]
    write_rows(plain, [row(network="lenet")])  # a row that needs another column
    assert [r.network for r in read_rows(plain)] == ["", "lenet"]


def test_select_finds_rows_and_names_what_it_cannot_find():
    rows = [row(condition="known"), row(condition="noise")]
    assert select(rows, condition="noise") == rows[1:]
    with pytest.raises(ValueError, match="no column"):
        select(rows, conditions="noise")
    with pytest.raises(ValueError, match="no result row"):
        select(rows, condition="snow")


def test_arrays_come_back_and_objects_are_refused(tmp_path):
    path = tmp_path / "scores.npz"
    write_arrays(path, {"known": np.arange(5, dtype=np.uint16), "svhn": np.eye(2)})
    back = read_arrays(path)
    assert back["known"].dtype == np.uint16
    np.testing.assert_array_equal(back["svhn"], np.eye(2))
    np.savez(path, known=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(path)
    with pytest.raises(ValueError, match="nothing to write"):
        write_arrays(path, {})


def test_provenance_names_versions_and_device():
    made = provenance("python -m x", "cpu")
    assert "torch=" in made.versions and "numpy=" in made.versions
    assert made.device.startswith("cpu: ")
    assert made.commit == "none" or len(made.commit.removesuffix("+changes")) == 12


def test_an_installed_copy_inside_a_foreign_repository_has_no_commit(monkeypatch, tmp_path):
    import subprocess

    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    package = tmp_path / "tutorial_lib" / "experiments"
    package.mkdir(parents=True)
    (package / "rows.py").write_text("")
    monkeypatch.setattr(module, "__file__", str(package / "rows.py"))
    assert module._commit() == "none"
