"""The benchmark of scoring a folder: its command, in short, and the results that come with the library."""

import pytest
import torch

from tutorial_lib.__main__ import main
from tutorial_lib.benchmarks import scoring
from tutorial_lib.results.rows import read_rows


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """What ``--quick`` writes on a machine without data, and what it prints."""
    folder = tmp_path_factory.mktemp("benchmark")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTORIAL_DATA", str(folder))
        patch.setattr(scoring.Plan, "quick", classmethod(lambda cls: cls(160, 64, every=64)))
        try:
            assert main(["benchmark", "scoring", "--quick", "--threads", "1", "--out", str(folder)]) == 0
        finally:
            torch.set_num_threads(threads)
    return read_rows(folder / "scoring_cpu.csv")


def test_command(quick):
    values = {(row.condition, row.method, row.metric): row.value for row in quick}
    assert {row.study for row in quick} == {"digits"}, "repeated, where CIFAR-10 is not there"
    for question, n in (("logits", 160), ("gradients", 64)):
        assert {row.n for row in quick if row.condition == question} == {n}
        method = ", ".join(scoring.QUESTIONS[question])
        speed, plain = (values[question, name, "images per second"] for name in (method, scoring.PLAIN))
        assert values[question, method, "ratio"] == pytest.approx(speed / plain, rel=1e-6)
        assert 0 < values[question, method, "ratio"] < 2
    assert 0 < values["gradients", scoring.ENGINE, "ratio"] < 1  # a backward pass is not free


def test_the_table_shows_what_was_measured(quick):
    values = {(row.condition, row.method, row.metric): row.value for row in quick}
    text = str(scoring.table(quick))
    line = next(line for line in text.splitlines() if line.startswith("| gradientsum, 64 images"))
    ratio, engine = (values["gradients", name, "ratio"] for name in ("gradientsum", scoring.ENGINE))
    shown = [cell.strip() for cell in line.strip("| ").split("|")]
    assert shown[2:4] == [f"{ratio:.2f}", f"{ratio / engine:.2f}"]
    assert "| msp, energy, 160 images" in text


@pytest.mark.parametrize(
    "option", ["--networks resnet20", "--batches 4", "--seconds 3", "--only-memory", "--no-memory"]
)
def test_options_of_the_others_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        main(["benchmark", "scoring", *option.split()])
    assert f"{option.split()[0]} is not for scoring" in capsys.readouterr().err


def test_stored_results_keep_what_is_promised():
    """50,000 files; logit scores at 0.8 of a plain pass and more, gradient scores at 0.9 of the engine; memory that stays."""
    rows = scoring.results()
    values = {(row.condition, row.method, row.metric): row for row in rows}
    logits, gradients = (", ".join(scoring.QUESTIONS[question]) for question in ("logits", "gradients"))
    assert values["logits", logits, "ratio"].n == 50_000
    assert values["logits", logits, "ratio"].value >= 0.8
    engine = values["gradients", scoring.ENGINE, "ratio"].value
    assert values["gradients", gradients, "ratio"].value / engine >= 0.9
    for row in rows:
        assert row.command == "python -m tutorial_lib benchmark scoring --threads 1" and "+" not in row.commit
        if row.metric == "growth MB":
            assert row.value < 50, row
