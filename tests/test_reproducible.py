"""Hashes forget comments and nothing else, seeds leave no trace, threads come back."""

import pytest
import torch

from tutorial_lib import reproducible
from tutorial_lib.reproducible import one_thread, seeded, source_hash


@pytest.fixture
def library(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "net.py").write_text('"""A net."""\n\n\ndef width():\n    return 3\n')
    (tmp_path / "train.py").write_text("rate = 0.1\n")
    monkeypatch.setattr(reproducible, "_LIBRARY", tmp_path)
    return tmp_path


def hashed(*arguments, **keywords):
    reproducible._source_hash.cache_clear()  # a process sees one state of the library
    return source_hash(*arguments, **keywords)


def test_a_typo_in_a_docstring_is_no_other_code_and_another_number_is(library):
    before = hashed("models", "train.py")
    (library / "models" / "net.py").write_text(
        '"""A network."""\ndef width():\n    "In pixels."\n    return 3  # odd\n'
    )
    assert hashed("models", "train.py") == before
    (library / "models" / "net.py").write_text('"""A net."""\n\n\ndef width():\n    return 4\n')
    assert hashed("models", "train.py") != before


def test_files_count_by_name_and_what_decides_nothing_is_left_out(library):
    before = hashed("models")
    (library / "models" / "other.py").write_text("")
    assert hashed("models") != before
    assert hashed("models", without=("models/other.py",)) == before


def test_what_is_not_there_has_no_hash(library):
    with pytest.raises(FileNotFoundError):
        hashed("modles")


def test_seeds_and_threads_are_as_before_even_after_an_error():
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt), one_thread(), seeded(0):
            assert torch.get_num_threads() == 1
            torch.rand(3)
            raise KeyboardInterrupt
        assert torch.get_num_threads() == 2
        with one_thread(False):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
