"""The benchmark of GradCON: its command, its table, and the results that come with the library."""

import re

import pytest
import torch

from tutorial_lib.__main__ import main
from tutorial_lib.benchmarks import gradcon
from tutorial_lib.results.rows import read_rows


def test_command(tmp_path, capsys, monkeypatch):
    arguments = "benchmark gradcon --quick --seconds 0 --batches 4 --threads 1 --out"
    monkeypatch.setattr("sys.argv", ["tutorial_lib", *arguments.split(), "FOLDER"])
    threads = torch.get_num_threads()
    try:
        assert main([*arguments.split(), str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    rows = read_rows(tmp_path / "gradcon_cpu.csv")
    assert {row.condition for row in rows} == {"training step", "ten training steps", "scores"}
    assert all(row.value > 0 and row.n == 4 and row.study == "1x8x8" for row in rows)
    assert all(row.command.startswith("python -m tutorial_lib benchmark gradcon") for row in rows)
    printed = capsys.readouterr().out
    for title in gradcon.PAIRS:
        line = next(line for line in printed.splitlines() if line.startswith(f"| 1x8x8, N=4: {title} "))
        ours, theirs, faster = (float(number) for number in re.findall(r"\d+\.\d+", line))
        assert faster == pytest.approx(theirs / ours, rel=0.1)


def test_networks_are_not_for_this_one(capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "gradcon", "--networks", "resnet20"])
    assert "--networks is for gradients" in capsys.readouterr().err


def test_stored_results_say_what_the_library_says():
    """Faster than the published scheme at its own size; side by side faster on 8x8 and slower on 28x28."""
    found = {(row.study, row.condition, row.method): row.value for row in gradcon.results() if row.metric == "ratio"}
    for images in ("1x28x28", "3x28x28"):
        for question in ("training step", "scores"):
            ours, published = gradcon.PAIRS[question]
            assert found[images, question, ours] < found[images, question, published]
    ten = {key[0]: value for key, value in found.items() if key[2] == gradcon.SIDE_BY_SIDE}
    alone = {key[0]: value for key, value in found.items() if key[2] == "one after the other"}
    assert ten["1x8x8"] < alone["1x8x8"] / 2
    assert ten["1x28x28"] > alone["1x28x28"]
