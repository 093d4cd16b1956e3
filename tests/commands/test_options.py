"""How many cells run side by side if nobody says; the same for ``run`` and ``suite``."""

from __future__ import annotations

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
