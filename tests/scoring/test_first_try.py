"""What a newcomer tries first, and where it went wrong once: each mistake is said in one line that says what to do."""

from __future__ import annotations

import hashlib
import json

import pytest
import torch

from tutorial_lib import scoring
from tutorial_lib.__main__ import main
from tutorial_lib.scoring import identity

LOADS = """
from pathlib import Path
import torch
from torch import nn

def random():
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3),
    )
    network.config = {"input_size": [1, 8, 8], "mean": [0.5], "std": [0.25]}
    return network

def make():
    network = random()
    network.load_state_dict(torch.load(Path(__file__).parent / "mine.pt", weights_only=True))
    return network

def lazy():
    network = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    network.config = {"input_size": [1, 8, 8]}
    return network
"""


@pytest.fixture
def own(place, tmp_path):
    """A folder with ``own.py:make``, which loads its own weights."""
    (tmp_path / "own.py").write_text(LOADS)
    (tmp_path / "mine.pt").write_bytes((place / "state.pt").read_bytes())
    return tmp_path


def command(model, images, out, *more):
    return [str(word) for word in ("score", "--model", model, "--images", images, "--out", out, *more)]


def said(capsys, words) -> tuple[int, str]:
    """Exit status and the last line of standard error."""
    try:
        status = main(words)
    except SystemExit as stop:
        status = int(stop.code or 0)
    return status, capsys.readouterr().err.splitlines()[-1]


# --- which network is it? ---------------------------------------------------------------------------------------------


def test_a_table_of_other_weights_is_not_this_very_run(place, own, capsys):
    words = command(own / "own.py:make", place / "new", own / "s.csv")
    assert main(words) == 0
    before = (own / "s.csv").read_bytes()
    assert main(words) == 0 and "from this very run" in capsys.readouterr().out
    state = torch.load(own / "mine.pt", weights_only=True)
    torch.save({**state, "7.bias": state["7.bias"] + 1}, own / "mine.pt")
    status, line = said(capsys, words)
    assert status == 1 and "from something else" in line and (own / "s.csv").read_bytes() == before


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda s: s, True),
        (lambda s: {**s, "7.bias": s["7.bias"] + 1e-6}, False),
        (lambda s: {**s, "7.bias": s["7.bias"].double()}, False),
        (lambda s: {**s, "7.weight": s["7.weight"].reshape(8, 3)}, False),
        (lambda s: {name.replace("7.", "8."): value for name, value in s.items()}, False),
        (lambda s: {**s, "packed": (torch.zeros(2), None)}, False),
    ],
)
def test_a_state_is_its_names_shapes_types_and_numbers(place, change, same):
    class Holds(torch.nn.Module):
        def __init__(self, state):
            super().__init__()
            self.state = state

        def state_dict(self):
            return self.state

    state = {**torch.load(place / "state.pt", weights_only=True), "empty": torch.empty(0), "half": torch.ones(2).half()}
    first = identity.state_sha256(Holds(state))
    assert (identity.state_sha256(Holds(change(state))) == first) is same


@pytest.mark.parametrize("factory", ["random", "lazy"])
def test_random_weights_are_refused(own, factory):
    with pytest.raises(ValueError, match="random weights.*load them in the factory, or pass --weights"):
        scoring.open_network(own / f"own.py:{factory}")
    assert scoring.open_network(own / "own.py:random", own / "mine.pt").classes == 3


def test_a_calibration_of_other_weights_is_not_used(place, own, capsys):
    sha256 = scoring.open_network(own / "own.py:make").sha256
    (own / "c.json").write_text(json.dumps({"model": {"sha256": sha256}, "calibration": {"temperature": 2}}))
    words = command(own / "own.py:make", place / "new", own / "s.csv", "--calibration", own / "c.json")
    state = torch.load(own / "mine.pt", weights_only=True)
    torch.save({**state, "7.bias": state["7.bias"] + 1}, own / "mine.pt")
    assert "was made with another network" in said(capsys, words)[1]


def test_where_files_hold_the_weights_the_identity_is_as_it_was(place):
    """Tables that were begun before go on."""
    parts = b"".join(hashlib.sha256((place / name).read_bytes()).digest() for name in ("net.py", "state.pt"))
    assert scoring.open_network(place / "net.py:make", place / "state.pt").sha256 == hashlib.sha256(parts).hexdigest()
