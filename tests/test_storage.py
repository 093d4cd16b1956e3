"""Whole files and locks."""

import hashlib
import json
import multiprocessing
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from tutorial_lib.storage import (
    cache_folder,
    locked,
    md5,
    replacing,
    sealed,
    set_aside,
    sweep,
    unsealed,
    write_atomically,
)


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
    assert not (tmp_path / "lock").exists()


def test_waiters_take_turns_though_each_holder_removes_the_lock(tmp_path):
    """The file goes with its holder; who waited for it must not share the lock with who came later."""
    inside, most, counts = [], [], []

    def work():
        for _ in range(20):
            with locked(tmp_path / "lock"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.0005)
                inside.pop()
        counts.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 4 and set(most) == {1} and not (tmp_path / "lock").exists()


def test_temporary_names_cannot_be_foretold_and_the_file_is_for_everybody(tmp_path):
    names = set()
    for _ in range(20):
        with replacing(tmp_path / "file") as temporary:
            temporary.write_text("x")
            names.add(temporary.name)
            assert str(os.getpid()) not in temporary.name.split(".")
    assert len(names) == 20
    (tmp_path / "plain").write_text("x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_what_a_kill_has_left_is_swept(tmp_path):
    path, other = tmp_path / "file.npz", tmp_path / "other.npz"
    blocks = [replacing(target) for target in (path, other)]
    for target, block in zip((path, other), blocks, strict=True):
        block.__enter__().write_text("half")  # and no more: as after a kill
        target.write_text("whole")
    assert len(list(tmp_path.iterdir())) == 4
    sweep(path)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".npz", ".npz", ".part"]
    assert path.read_text() == "whole"


def test_damaged_files_are_kept_under_names_of_their_own(tmp_path):
    path = tmp_path / "file.npz"
    for number in ("first", "second", "third"):
        path.write_text(number)
        set_aside(path)
    kept = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert kept == {"file.npz.damaged": "first", "file.npz.damaged2": "second", "file.npz.damaged3": "third"}


def test_where_the_cache_lies(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_CACHE", "~/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == Path.home() / "mine"
    monkeypatch.delenv("TUTORIAL_CACHE")
    assert cache_folder() == tmp_path / "tutorial_lib"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == Path.home() / ".cache" / "tutorial_lib"


def test_md5_is_that_of_the_content(tmp_path):
    (tmp_path / "file").write_bytes(b"content" * 100_000)
    assert md5(tmp_path / "file") == hashlib.md5(b"content" * 100_000).hexdigest()


def test_a_seal_tells_every_change_of_a_record():
    record = {"accuracy": 0.98, "seeds": [1, 2], "settings": {"epochs": 3, "name": "é"}}
    sealed_record = sealed(record)
    assert unsealed(json.loads(json.dumps(sealed_record))) == record == unsealed(record)
    assert sealed(sealed_record) == sealed_record
    for change in ({"accuracy": 0.88}, {"seeds": [1, 3]}, {"settings": {"epochs": 3}}, {"more": None}):
        with pytest.raises(ValueError, match="SHA-256"):
            unsealed({**sealed_record, **change})
