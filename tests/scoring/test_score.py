"""A table of scores is what the detectors say one image at a time, whatever broke, was killed or was done twice."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib import scoring
from tutorial_lib.__main__ import main
from tutorial_lib.detectors import KNN, Energy
from tutorial_lib.scoring import score as scoring_run
from tutorial_lib.scoring import table as scoring_table
from tutorial_lib.storage import locked


@pytest.fixture(autouse=True)
def few_rows_in_a_block(monkeypatch):
    for module in (scoring_table, scoring_run):
        monkeypatch.setattr(module, "BLOCK", 16)


def rows_of(path):
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def run(place, out, *more, images="new", fit="normal"):
    fitting = ["--fit", str(place / fit)] if fit else []
    return main(
        [
            "score",
            "--model",
            str(place / "net.pt2"),
            "--images",
            str(place / images),
            "--out",
            str(out),
            *fitting,
            *more,
        ]
    )


def test_every_row_is_what_the_detector_says_of_that_image_alone(place, tmp_path):
    assert run(place, tmp_path / "s.csv", "--detectors", "energy,KNN:k=3", "--batch", "7") == 0
    network = scoring.open_network(place / "net.pt2")

    def image(name):
        return torch.from_numpy(np.array(Image.open(name)))[None, None]

    order = np.random.default_rng(0).permutation(120)
    names = sorted((place / "normal").rglob("*.png"))
    fitted, held_out = ([names[i] for i in sorted(part)] for part in (order[:80], order[80:]))
    knn = KNN(network.model, k=3).fit(torch.cat([image(name) for name in fitted]))
    normal = [float(knn.predict(image(name))[0]) for name in held_out]
    rows = rows_of(tmp_path / "s.csv")
    assert [row["path"] for row in rows] == sorted(
        p.relative_to(place / "new").as_posix() for p in (place / "new").rglob("*.png")
    )
    for row in rows[::9]:
        one = image(place / "new" / row["path"])
        assert float(row["score_energy"]) == pytest.approx(Energy(network.model).predict(one)[0], rel=1e-4)
        assert float(row["score_knn:k=3"]) == pytest.approx(knn.predict(one)[0], abs=1e-5)
        share = (1 + sum(value >= float(row["score_knn:k=3"]) for value in normal)) / 41
        assert float(row["tail_knn:k=3"]) == pytest.approx(share, abs=1.01 / 41)
        with torch.no_grad():
            probabilities = network.model(one).softmax(dim=1)[0]
        assert int(row["prediction"]) == int(probabilities.argmax())
        assert float(row["confidence"]) == pytest.approx(float(probabilities.max()), rel=1e-4)


def test_strange_images_have_small_tails(place, tmp_path):
    run(place, tmp_path / "s.csv", "--detectors", "complexity:strange=complex")
    strange, ordinary = [], []
    for row in rows_of(tmp_path / "s.csv"):
        tail = float(row["tail_complexity:strange=complex"])
        (strange if row["path"].startswith("strange") else ordinary).append(tail)
    assert max(strange) == pytest.approx(1 / 121) and np.mean(ordinary) > 0.3


def test_broken_files_are_rows_with_a_reason(place, tmp_path, capsys):
    folder = tmp_path / "images"
    shutil.copytree(place / "new" / "0", folder / "a")
    (folder / "a" / "text.png").write_text("no image")
    (folder / "a" / "empty.png").touch()
    whole = next((folder / "a").glob("0*.png")).read_bytes()
    (folder / "a" / "half.png").write_bytes(whole[: len(whole) // 2])
    Image.new("L", (9, 9)).save(folder / "a" / "large.png")
    (folder / "a" / "notes.txt").write_text("not looked at")
    assert (
        main(["score", "--model", str(place / "net.pt2"), "--images", str(folder), "--out", str(tmp_path / "t.csv")])
        == 0
    )
    rows = {row["path"]: row for row in rows_of(tmp_path / "t.csv")}
    assert len(rows) == 24 and "4 of 24 images have no score" in capsys.readouterr().err
    for name in ("text", "empty", "half", "large"):
        row = rows[f"a/{name}.png"]
        assert row["error"] and not row["prediction"] and not row["score_energy"]
    assert "the network takes 8x8" in rows["a/large.png"]["error"]
    assert json.loads((tmp_path / "t.json").read_text())["images"]["broken"] == 4


def test_an_answer_that_is_not_finite_is_a_row_too(place, tmp_path):
    network = scoring.open_network(place / "net.py:make", place / "state.pt")

    def of_dark_images(module, arguments, logits):
        dark = arguments[0].flatten(1).mean(1) < 0.25
        return torch.where(dark[:, None], torch.nan, logits)

    network.model.register_forward_hook(of_dark_images)
    detectors = scoring.named_detectors(["energy"], network.model)
    source = scoring.open_source(place / "new")
    outcome = scoring.score_images(network, detectors, source, tmp_path / "s.csv")
    errors = [row["error"] for row in rows_of(tmp_path / "s.csv")]
    assert 0 < outcome.broken < 80 and set(errors) == {"", "the network's answer is not finite"}


def test_an_array_and_a_pattern_are_scored_like_the_folder(place, tmp_path):
    names = sorted((place / "new" / "0").glob("*.png"))
    np.save(tmp_path / "images.npy", np.stack([np.array(Image.open(name)) for name in names]))
    assert run(place, tmp_path / "folder.csv", images="new/0", fit=None) == 0
    for where, out in ((tmp_path / "images.npy", "array.csv"), (place / "new" / "0" / "*.png", "pattern.csv")):
        assert (
            main(["score", "--model", str(place / "net.pt2"), "--images", str(where), "--out", str(tmp_path / out)])
            == 0
        )
    numbers = [
        [[row[c] for c in ("prediction", "confidence", "score_energy")] for row in rows_of(tmp_path / name)]
        for name in ("folder.csv", "array.csv", "pattern.csv")
    ]
    assert numbers[0] == numbers[1] == numbers[2]


def test_a_stopped_run_goes_on_and_gives_the_same_table(place, tmp_path, monkeypatch):
    run(place, tmp_path / "whole.csv")
    write, written = scoring_table.Parts.write, []

    def write_two(self, number, block):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(number)
        write(self, number, block)

    monkeypatch.setattr(scoring_table.Parts, "write", write_two)
    assert run(place, tmp_path / "s.csv") == 130
    assert not (tmp_path / "s.csv").exists() and len(list((tmp_path / "s.csv.parts").glob("*.npz"))) == 2
    monkeypatch.setattr(scoring_table.Parts, "write", write)
    assert run(place, tmp_path / "s.csv", "--detectors", "energy") == 1  # other settings do not go on with it
    assert run(place, tmp_path / "s.csv") == 0
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert json.loads((tmp_path / "s.json").read_text())["resumed"] == 32
    assert not (tmp_path / "s.csv.parts").exists() and not (tmp_path / "s.csv.lock").exists()


def test_a_finished_table_is_not_made_twice_and_never_overwritten(place, tmp_path, capsys):
    run(place, tmp_path / "s.csv")
    before = (tmp_path / "s.csv").stat().st_mtime_ns
    assert run(place, tmp_path / "s.csv") == 0 and "nothing to do" in capsys.readouterr().out
    assert run(place, tmp_path / "s.csv", "--detectors", "energy") == 1
    assert "from something else" in capsys.readouterr().err and (tmp_path / "s.csv").stat().st_mtime_ns == before
    assert run(place, tmp_path / "s.csv", "--detectors", "energy", "--restart") == 0


def test_a_kill_between_the_table_and_the_file_beside_it(place, tmp_path, monkeypatch):
    remove = scoring_table.Parts.remove
    monkeypatch.setattr(scoring_table.Parts, "remove", lambda self: None)
    run(place, tmp_path / "s.csv")
    monkeypatch.setattr(scoring_table.Parts, "remove", remove)
    (tmp_path / "s.json").unlink()
    assert run(place, tmp_path / "s.csv") == 0
    assert json.loads((tmp_path / "s.json").read_text())["resumed"] == 80 and not (tmp_path / "s.csv.parts").exists()


def test_somebody_elses_file_is_not_overwritten(place, tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert run(place, tmp_path / "config.csv") == 1
    assert "config.json is there already" in capsys.readouterr().err and (tmp_path / "config.json").read_text() == "{}"


def test_two_processes_do_not_write_one_table(place, tmp_path, capsys):
    with locked(tmp_path / "s.csv.lock"):
        assert run(place, tmp_path / "s.csv", "--restart") == 1
    assert "another process is writing this table" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_process_goes_on(place, tmp_path):
    """SIGKILL in the middle of 2,100 images; nothing of what was written is computed again."""
    images = np.random.default_rng(0).integers(0, 256, (2100, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-m", "tutorial_lib", "score", "--model", str(place / "net.pt2"), "--batch", "1"]
    command += [
        "--images",
        str(tmp_path / "images.npy"),
        "--out",
        str(tmp_path / "s.csv"),
        "--detectors",
        "energy,odin",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (tmp_path / "s.csv.parts" / "00000000.npz").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "s.csv").exists()
    subprocess.run([*command[:7], "64", *command[8:]], check=True, stderr=subprocess.DEVNULL)
    rows = rows_of(tmp_path / "s.csv")
    assert [row["path"] for row in rows] == [f"{number:04d}" for number in range(2100)]
    assert json.loads((tmp_path / "s.json").read_text())["resumed"] >= 1024


def test_parquet_holds_the_same_as_csv(place, tmp_path):
    pytest.importorskip("pyarrow")
    for name in ("s.csv", "s.parquet"):
        assert run(place, tmp_path / name) == 0
    both = [scoring.read_table(tmp_path / name) for name in ("s.csv", "s.parquet")]
    assert both[0].keys() == both[1].keys()
    for name, column in both[0].items():
        np.testing.assert_array_equal(column, both[1][name])


def test_the_contact_sheet_shows_the_ends(place, tmp_path):
    detectors = "complexity:strange=complex"
    run(place, tmp_path / "s.csv", "--detectors", detectors, "--sheet", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    strangest = page.split("Strangest</h2>")[1].split("</ul>")[0]
    assert strangest.count("<b>strange/") == 20 and strangest.count("data:image/png") == 24
    assert "Most ordinary" in page and "src='http" not in page
    assert "Most disagreed" not in page, "one detector cannot"
    run(place, tmp_path / "t.csv", "--detectors", f"{detectors},energy", "--sheet", str(tmp_path / "page.html"))
    assert "Most disagreed" in (tmp_path / "page.html").read_text()


def test_ends_are_found_by_rank():
    scores = {"a": np.array([0.0, 5.0, np.nan, 2.0, 9.0]), "b": np.array([0.0, 300.0, 1.0, 200.0, 100.0])}
    ends = scoring.ends_of(scores, count=2)
    assert ends.strangest == [1, 4] and ends.ordinary[0] == 0 and ends.disagreed[0] == 4
    assert np.isnan(ends.strangeness[2])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--detectors", "knns"], "did you mean 'knn'"),
        (["--detectors", "purview"], "needs more than a classifier"),
        (["--detectors", "knn:neighbours=3"], "it has k"),
        (["--detectors", "energy,energy"], "named twice"),
        (["--out", "scores.xlsx"], ".csv or a .parquet"),
        (["--mean", "0.5,0.5"], "mean and std need 1 number"),
        (["--size", "8x8x8"], "must be N or HxW"),
        (["--images", "nowhere"], "there is no folder"),
        (["--weights", "w.pt"], "leave --weights out"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(place, tmp_path, monkeypatch, capsys, more, says):
    monkeypatch.chdir(tmp_path)
    try:
        status = run(place, "scores.csv", *more, fit="normal")
    except SystemExit as stop:
        status = stop.code
    assert status in (1, 2) and says in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "scores.csv").exists()


def test_detectors_that_learn_ask_for_normal_images(place, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(place, tmp_path / "s.csv", "--detectors", "knn", fit=None)
    assert "give --fit" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(place, tmp_path / "s.csv", fit="new/strange")
    assert "at least 60 normal ones" in capsys.readouterr().err


def test_every_usable_detector_scores_an_exported_network(place, tmp_path):
    assert run(place, tmp_path / "s.csv", "--detectors", ",".join(scoring.USABLE)) == 0
    columns = scoring.read_table(tmp_path / "s.csv")
    for name in scoring.USABLE:
        assert np.isfinite(columns[f"score_{name}"]).all() and (columns[f"tail_{name}"] > 0).all()


def test_a_detector_that_cannot_look_at_a_network_says_why(place, tmp_path, capsys):
    arguments = [
        "score",
        "--model",
        str(place / "net.pt"),
        "--images",
        str(place / "new"),
        "--out",
        str(tmp_path / "s.csv"),
    ]
    with pytest.raises(SystemExit):
        main([*arguments, "--fit", str(place / "normal"), "--detectors", "activationdensity"])
    assert "use .pt2 or module.py:factory" in capsys.readouterr().err
