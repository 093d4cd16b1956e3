"""How many cells run side by side if nobody says; the same for ``run`` and ``suite``."""

from __future__ import annotations

import argparse

import pytest
import torch

from tutorial_lib.commands import options


@pytest.mark.parametrize(
    ("where", "threads", "cells"), [("cpu", 1, 8), ("cpu", 3, 2), ("cpu", 9, 1), ("cuda", 1, 4), ("cuda:1", 1, 1)]
)
def test_cells_at_a_time(monkeypatch, where, threads, cells):
    monkeypatch.setattr(options.os, "cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert options.cells_at_a_time(where, threads) == cells


@pytest.mark.parametrize("text", ["foo", "host:8786", "tcp://host", "tcp://:8786", "tcp://host:many"])
def test_an_address_without_its_parts_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="tcp://host:8786"):
        options.scheduler(text)


def test_where_a_benchmark_cannot_write_is_known_before_it_measures(tmp_path):
    from tutorial_lib.commands.benchmark import _readable

    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="cannot write"):
        _readable(tmp_path / "file" / "scoring_cpu.csv")
    assert _readable(tmp_path / "new" / "scoring_cpu.csv").name == "scoring_cpu.csv"
