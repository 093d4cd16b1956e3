"""A small experiment for the engine's tests: real arithmetic, can be slowed to be killed, told to fail, and told to kill its worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tutorial_lib.results.rows import Row
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    return [Cell("grid", study, seed, {"method": method}) for seed in seeds for method in ("mean", "spread", "largest")]


def compute(cell: Cell, device: torch.device) -> CellResult:
    if os.environ.get("GRID_FAIL") == cell.settings["method"]:
        raise ArithmeticError("told to fail")
    if os.environ.get("GRID_KILL") == cell.settings["method"]:
        os.kill(os.getpid(), signal.SIGKILL)
    method, _, mark = os.environ.get("GRID_KILL_ONCE", "").partition(" ")
    if method == cell.settings["method"] and not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(os.environ.get("GRID_SECONDS", "0")))
    sample = torch.randn(1000, generator=torch.Generator().manual_seed(cell.seed)).to(device)
    value = {"mean": sample.mean(), "spread": sample.std(), "largest": sample.max()}[cell.settings["method"]]
    return CellResult(
        [Measurement(cell.settings["method"], "normal", "value", float(value), len(sample))],
        {"sample": sample.cpu().numpy()[:5].astype(np.float32)},
    )


def table(rows: Sequence[Row]) -> str:
    return "\n".join(
        f"| {row.method} | {row.seed} | {row.value:.6f} |"
        for row in sorted(rows, key=lambda row: (row.method, row.seed))
    )


EXPERIMENT = Experiment("grid", "statistics of normal numbers", ("digits",), cells, compute, table)
