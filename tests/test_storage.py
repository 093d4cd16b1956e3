"""Whole files and locks."""

import multiprocessing
import time

import pytest

from tutorial_lib.storage import locked, replacing, write_atomically


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), replacing(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def _hold(path, held):
    with locked(path):
        held.set()
        time.sleep(30)


def test_a_lock_is_seen_by_another_process_and_goes_with_it(tmp_path):
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "lock", held))
    process.start()
    assert held.wait(60)
    with locked(tmp_path / "lock", wait=False) as mine:
        assert not mine
    process.kill()
    process.join()
    with locked(tmp_path / "lock", wait=False) as mine:
        assert mine
