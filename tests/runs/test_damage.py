"""One wrong byte: a file is read as it was written, or it is named, set aside and made again. Nothing in between."""

from __future__ import annotations

import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # the experiment is imported by name

import grid

from tutorial_lib.results.rows import RESULTS, Row, read_arrays, read_rows, runs_file, write_arrays
from tutorial_lib.runs.cache import cached_arrays
from tutorial_lib.runs.runner import run
from tutorial_lib.runs.store import CellStore, DamagedCell
from tutorial_lib.storage import Damaged
from tutorial_lib.training.checkpoints import load_checkpoint, save_checkpoint

CELLS = grid.cells("digits", [0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = CellStore(tmp_path_factory.mktemp("cells"))
    run(grid.EXPERIMENT, CELLS, store, "test", progress=False)
    return store


def assert_same(found, expected):
    assert found[0] == expected[0] and found[1].keys() == expected[1].keys()
    for name, array in expected[1].items():
        np.testing.assert_array_equal(found[1][name], array)


def test_every_flipped_byte_of_a_cell_is_harmless_or_named(whole, tmp_path):
    """At every position, one bit drawn at random; then many bytes at once, and every length that a write can stop at."""
    path, expected, random_ = whole.path(CELLS[0]), whole.read(CELLS[0]), random.Random(0)
    content = path.read_bytes()
    store = CellStore(tmp_path)
    copy = store.path(CELLS[0])
    copy.parent.mkdir(parents=True)
    changed = []
    for position in range(len(content)):
        changed.append(bytearray(content))
        changed[-1][position] ^= 1 << random_.randrange(8)
    for _ in range(100):
        changed.append(bytearray(content))
        for position in random_.sample(range(len(content)), 20):
            changed[-1][position] = random_.randrange(256)
    changed += [bytearray(content[:length]) for length in range(0, len(content), 37)]
    named = 0
    for damaged in changed:
        copy.write_bytes(damaged)
        try:
            assert_same(store.read(CELLS[0]), expected)
        except DamagedCell as error:
            named += 1
            assert copy.name in str(error) and "\n" not in str(error)
    assert named > 0.7 * len(changed)


def test_a_flipped_byte_of_a_result_file_is_harmless_or_named(tmp_path):
    """Of the arrays that come with the library, nothing else is read; of the rows, a line that is none is named."""
    arrays, path = {"known": np.arange(9, dtype=np.uint16), "svhn": np.linspace(0, 1, 30)}, tmp_path / "scores.npz"
    write_arrays(path, arrays)
    content, random_ = path.read_bytes(), random.Random(2)
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << random_.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_arrays(path)
        except Damaged as error:
            assert str(path) in str(error)
        else:
            assert found.keys() == arrays.keys() and all((found[name] == arrays[name]).all() for name in arrays)
    table = tmp_path / "table.csv"
    table.write_bytes((RESULTS / "calibration.csv").read_bytes()[:2000] + b"\xff\n")
    runs_file(table).parent.mkdir()
    runs_file(table).write_bytes(runs_file(RESULTS / "calibration.csv").read_bytes())
    with pytest.raises(Damaged, match="table.csv, line"):
        read_rows(table)


def test_a_flipped_byte_of_a_checkpoint_is_harmless_or_named(tmp_path):
    path, state = tmp_path / "model.pt", {"weight": torch.arange(20.0), "epoch": 3}
    save_checkpoint(path, state, {"command": "a test", "accuracy": 0.9876})
    files, random_ = {file: file.read_bytes() for file in tmp_path.iterdir()}, random.Random(3)
    for file, content in files.items():
        for position in range(0, len(content), 1 if file.suffix == ".json" else 5):
            damaged = bytearray(content)
            damaged[position] ^= 1 << random_.randrange(8)
            file.write_bytes(damaged)
            try:
                found, record = load_checkpoint(path)
            except Damaged as error:
                assert str(path.with_suffix("")) in str(error)
            else:
                assert found["epoch"] == 3 and torch.equal(found["weight"], state["weight"])
                assert record["command"] == "a test" and record["accuracy"] == 0.9876
        file.write_bytes(content)


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_cell_that_cannot_be_read_is_set_aside_and_made_again(whole, tmp_path, place):
    store = CellStore(tmp_path)
    run(grid.EXPERIMENT, CELLS, store, "test", progress=False)
    path, expected = store.path(CELLS[1]), store.read(CELLS[1])
    content = bytearray(path.read_bytes())
    start = int(place * len(content))
    content[start : start + 8] = bytes(255 - byte for byte in content[start : start + 8])
    path.write_bytes(content)
    [problem] = [found for found in store.rows("grid") if not isinstance(found, Row)]
    assert path.name in str(problem)
    for again in range(2):  # twice: an older damaged file is not overwritten
        outcomes = run(grid.EXPERIMENT, CELLS, store, "test", progress=False)
        assert [outcome.state for outcome in outcomes] == ["repaired", "done"]
        aside = path.with_name(path.name + ".damaged" + ("2" if again else ""))
        assert aside.read_bytes() == content and aside.name in outcomes[0].message
        rows, arrays = store.read(CELLS[1])
        assert [row.value for row in rows] == [row.value for row in expected[0]]
        np.testing.assert_array_equal(arrays["sample"], expected[1]["sample"])
        path.write_bytes(content)


def test_a_cached_file_that_cannot_be_read_is_named_and_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path))
    answer = {"a": np.arange(50), "b": np.linspace(0, 1, 7)}

    def ask():
        return cached_arrays("test", {"seed": 0}, lambda: answer)

    ask()
    [path] = tmp_path.rglob("*.npz")
    content, random_ = path.read_bytes(), random.Random(1)
    remade = 0
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 1 << random_.randrange(8)
        path.write_bytes(damaged)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            found = ask()
        for name, array in answer.items():
            np.testing.assert_array_equal(found[name], array)
        if heard:
            remade += 1
            assert str(path) in str(heard[0].message)
    assert remade and len(list(tmp_path.rglob("*.npz.damaged*"))) == remade
