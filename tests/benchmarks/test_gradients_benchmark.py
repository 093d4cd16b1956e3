"""The benchmark of gradient features: its clock, its ways, its command, and the results that come with the library."""

from __future__ import annotations

import time

import pytest
import torch

from tutorial_lib.__main__ import main
from tutorial_lib.benchmarks import gradients, networks, peers
from tutorial_lib.benchmarks.timing import interleaved
from tutorial_lib.figures.gradients_as_features import cost
from tutorial_lib.gradients import squared_norms
from tutorial_lib.results.rows import read_rows

CPU = torch.device("cpu")


def test_ratios_of_known_durations(monkeypatch):
    """A clock that we turn ourselves: three ticks against two are 1.5, whatever else the machine does."""
    now = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def takes(ticks):
        def run():
            now[0] += ticks

        return run

    seconds, ratios = interleaved(takes(2), {"slow": takes(3), "fast": takes(1)}, seconds=100, device=CPU)
    assert seconds == 2
    assert (ratios["slow"].median, ratios["slow"].low, ratios["slow"].high) == (1.5, 1.5, 1.5)
    assert ratios["fast"].median == 0.5
    assert ratios["fast"].rounds == ratios["slow"].rounds >= 3


def test_a_disturbed_round_does_not_move_the_median(monkeypatch):
    now, calls = [0.0], [0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def disturbed():
        calls[0] += 1
        now[0] += 90 if calls[0] == 5 else 3  # the timed call of the second round

    def baseline():
        now[0] += 2

    _, ratios = interleaved(baseline, {"method": disturbed}, seconds=100, device=CPU)
    assert ratios["method"].median == 1.5


def test_the_second_of_two_calls_is_timed(monkeypatch):
    """A method that is slow whenever another was called before it."""
    now, last = [0.0], [None]
    monkeypatch.setattr(time, "process_time", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def takes(name, ticks):
        def run():
            now[0] += ticks if last[0] == name else 10 * ticks
            last[0] = name

        return run

    seconds, ratios = interleaved(
        takes("baseline", 2), {"one": takes("one", 3), "other": takes("other", 1)}, seconds=1000, device=CPU
    )
    assert (seconds, ratios["one"].median, ratios["other"].median) == (2, 1.5, 0.5)


@pytest.mark.parametrize("name", ["small_cnn", "resnet20", "vit"])
@pytest.mark.filterwarnings("ignore")
def test_every_way_finds_the_same_norms(name):
    """What is timed is the same question: each way against ours, in float64."""
    model, x = networks.network(name).double(), networks.images(2).double()
    wanted, _ = squared_norms(model, x)
    found = gradients.possible(gradients.ways(model, peers.PEERS), x)
    assert {"loop", "vmap"} <= set(found)
    for method, run in found.items():
        norms = run(x).detach()
        assert torch.allclose(norms, wanted.to(norms.dtype), rtol=1e-6, atol=0), method


def test_a_library_that_is_not_installed_is_left_out(monkeypatch):
    def missing(model):
        raise ImportError("no module named backpack")

    monkeypatch.setitem(peers.PEERS, "BackPACK", missing)
    assert set(gradients.ways(networks.network("small_cnn"), ["loop", "BackPACK"])) == {"loop"}


def test_command(tmp_path, capsys, monkeypatch):
    arguments = "benchmark gradients --quick --networks small_cnn --batches 2 --seconds 0 --threads 1 --out"
    monkeypatch.setattr("sys.argv", ["tutorial_lib", *arguments.split(), "FOLDER"])
    threads = torch.get_num_threads()
    try:
        assert main([*arguments.split(), str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "| small_cnn, N=2" in printed and "one pass" in printed
    rows = read_rows(tmp_path / "gradients_cpu.csv")
    assert {row.metric for row in rows} >= {"seconds", "ratio", "ratio, lower quartile", "ratio, upper quartile"}
    assert all(row.command.startswith("python -m tutorial_lib benchmark gradients") and row.versions for row in rows)
    assert not any("FOLDER" in row.command for row in rows)
    assert "1 threads" in rows[0].device
    assert (tmp_path / "gradients_cpu.svg").read_text().lstrip().startswith("<?xml")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--networks", "vgg"], "unknown network 'vgg'; there are resnet18, resnet20"),
        (["--batches", "zero"], "must be a whole number from 1 on, got zero"),
        (["--batches", "0"], "must be a whole number from 1 on, got 0"),
    ],
)
def test_bad_arguments_are_said(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["benchmark", "gradients", *arguments])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_figure_without_rows_says_what_to_run():
    with pytest.raises(ValueError, match="python -m tutorial_lib benchmark gradients"):
        cost({})


def test_stored_results_hold_what_chapter_4_says():
    """The one pass is ahead of every other way from eight images on, and needs no more memory than the plain step."""
    rows = gradients.results()
    for network, by_method in gradients.ratios(rows, "norms").items():
        ours = by_method.pop(gradients.OURS)
        for method, by_batch in by_method.items():
            behind = [n for n, ratio in by_batch.items() if n >= 8 and ratio <= ours[n]]
            assert not behind, f"{method} is ahead on {network} at N={behind}"
    memory = {(row.study, row.method): row.value for row in rows if row.metric == "extra memory, MB"}
    for network in {study for study, _ in memory}:
        assert memory[network, gradients.OURS] <= memory[network, gradients.PLAIN]
        assert memory[network, "vmap"] > 1.5 * memory[network, gradients.OURS]
    assert all(row.command and row.commit and "threads" in row.device for row in rows)
