"""What strangers bring: half-broken folders, odd networks, wrong files. Each ends in one sentence, or in a row with a reason."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib import scoring
from tutorial_lib.__main__ import main
from tutorial_lib.scoring import normal as scoring_normal
from tutorial_lib.scoring import score as scoring_run
from tutorial_lib.scoring.normal import finite_answers, tail_probability
from tutorial_lib.scoring.sources import read_batches

ODD = """
import torch
from torch import nn

CONFIG = {"input_size": [1, 8, 8], "mean": [0.5], "std": [0.25]}

class Odd(nn.Module):
    config = CONFIG

    def __init__(self, last, classes=3):
        super().__init__(), torch.manual_seed(0)
        self.body, self.last = nn.Sequential(nn.Flatten(), nn.Linear(64, classes)), last

    def forward(self, images):
        return self.last(self.body(images))

def probabilities():
    return Odd(nn.Softmax(1))

def log_probabilities():
    return Odd(nn.LogSoftmax(1))

def one():
    return Odd(nn.Identity(), 1)

def nothing_finite():
    network = Odd(nn.Identity())
    network.body[1].weight.data.fill_(float("nan"))
    return network

def half():
    return Odd(nn.Identity()).half()

def breaks():
    raise RuntimeError("its weights are elsewhere")

def leaves():
    raise SystemExit(3)
"""


@pytest.fixture
def odd(tmp_path):
    (tmp_path / "odd.py").write_text(ODD)
    (tmp_path / "torn.py").write_text("def make(:\n")
    return tmp_path


def refused(capsys, *arguments) -> tuple[int, str]:
    """Exit status and the last line of a command that was not done."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    return status, capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("odd.py", "name the function that returns it: --model .*odd.py:factory"),
        ("odd.py:CONFIG", "no function 'CONFIG'; there are probabilities"),
        ("odd.py:probabilities", "probabilities, not with logits"),
        ("odd.py:one", "one logit for each image"),
        ("odd.py:nothing_finite", "nothing finite"),
        ("odd.py:half", r"weights are torch.float16; return network.float\(\)"),
        ("odd.py:breaks", "odd.py, line 35 raises RuntimeError: its weights are elsewhere"),
        ("odd.py:leaves", "odd.py, line 38 raises SystemExit"),
        ("torn.py:make", "torn.py raises SyntaxError"),
        ("w.safetensors", "weights alone"),
        ("net.onnx", "no gradients"),
        ("nowhere.onnx", "no file and no network of torchvision; for"),
    ],
)
def test_a_network_that_cannot_be_used_is_said(odd, model, says):
    (odd / "w.safetensors").touch(), (odd / "net.onnx").touch()
    with pytest.raises(ValueError, match=says):
        scoring.open_network(odd / model if model[:3] != "now" else model)


def test_log_probabilities_are_logits(odd):
    assert scoring.open_network(odd / "odd.py:log_probabilities").classes == 3


def test_options_that_would_be_passed_over_are_refused(place, odd):
    with pytest.raises(ValueError, match="leave --num-classes out"):
        scoring.open_network(place / "net.pt2", num_classes=7)
    with pytest.raises(ValueError, match="leave --weights out"):
        scoring.open_network(odd, place / "state.pt")
    with pytest.raises(ValueError, match=r"units of images in \[0, 1\]"):
        scoring.open_network(place / "net.pt2", overrides=scoring.Overrides(mean=(128.0,), std=(64.0,)))


def test_a_folder_as_people_have_them(tmp_path):
    (tmp_path / "there").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "there" / "a.png")
    top = tmp_path / "top"
    (top / "dir.png").mkdir(parents=True)
    Image.new("L", (8, 8)).save(top / "dir.png" / "in.png")
    os.symlink("/nowhere/at/all", top / "gone.png")
    os.symlink(tmp_path / "there", top / "linked")
    os.symlink(top, top / "round")
    os.symlink(tmp_path, top / "up")
    source = scoring.open_source(top)
    assert source.names == ["dir.png/in.png", "gone.png", "linked/a.png"]
    network = scoring.Preprocessing((8, 8), 1)
    (batch,) = read_batches(source, network, range(3), 3)
    assert batch.indices == [0, 2] and batch.errors[1].startswith("FileNotFoundError")
    before = source.digest()
    Image.new("L", (8, 9)).save(tmp_path / "there" / "a.png")
    assert scoring.open_source(top).digest() != before


def test_names_that_are_no_text_are_scored_like_others(place, tmp_path):
    folder = os.fsencode(tmp_path / "images")
    os.mkdir(folder)
    try:
        for name in (b"caf\xe9.png", b'a,b "c"\nd.png'):
            with open(os.path.join(folder, name), "wb") as stream:
                Image.new("L", (8, 8), 90).save(stream, "PNG")
    except OSError as error:
        if error.errno not in (errno.EILSEQ, errno.EINVAL):
            raise
        pytest.skip("this file system takes names in UTF-8 only")
    command = ["--model", place / "net.pt2", "--images", tmp_path / "images", "--out", tmp_path / "s.csv"]
    assert main([str(c) for c in ("score", *command, "--sheet", tmp_path / "s.html")]) == 0
    table = scoring.read_table(tmp_path / "s.csv")
    assert sorted(table["path"]) == ['a,b "c"\nd.png', r"caf\udce9.png"] and np.isfinite(table["score_energy"]).all()


def score_command(place, tmp_path, *more):
    return ["score", "--model", place / "net.pt2", "--images", place / "new", "--out", tmp_path / "s.csv", *more]


@pytest.mark.parametrize(
    ("more", "status", "says"),
    [
        (["--detectors", "knn:k=many", "--fit", "normal"], 2, "knn:k=many has a setting of the wrong kind"),
        (["--sheet", "page.txt"], 2, "is an .html file"),
        (["--sheet", "folder.html"], 1, "this is a folder"),
        (["--out", "folder.csv"], 1, "this is a folder"),
        (["--out", "file/s.csv"], 1, "cannot write file/s.csv: Not a directory"),
        (["--calibration", "list.json"], 2, "not what `calibrate` writes"),
        (["--calibration", "empty.json"], 2, "not what `calibrate` writes"),
        (["--calibration", "cold.json"], 2, "which must be positive"),
        (["--fit", "normal", "--fit-limit", "9"], 2, "of which 9 may be taken (--fit-limit); at least 20"),
    ],
)
def test_what_would_fail_after_the_work_fails_before_it(place, tmp_path, monkeypatch, capsys, more, status, says):
    monkeypatch.chdir(tmp_path)
    for name in ("folder.html", "folder.csv"):
        (tmp_path / name).mkdir()
    sha256 = scoring.open_network(place / "net.pt2").sha256
    (tmp_path / "file").touch(), (tmp_path / "list.json").write_text("[1]"), (tmp_path / "empty.json").touch()
    (tmp_path / "cold.json").write_text(json.dumps({"model": {"sha256": sha256}, "calibration": {"temperature": -1}}))
    monkeypatch.setattr(scoring_run, "read_batches", lambda *_: pytest.fail("images were read"))
    more = [place / "normal" if word == "normal" else word for word in more]
    detectors = [] if "--detectors" in more else ["--detectors", "energy"]
    assert (status, True) == (lambda s, line: (s, says in line))(
        *refused(capsys, *score_command(place, tmp_path, *detectors, *more))
    )


def test_a_networks_config_is_not_hidden(place, tmp_path, capsys):
    for name in ("net.csv", "config.csv"):
        command = ["score", "--model", place / "net.pt2", "--images", place / "new", "--out", place / name, "--restart"]
        status, said = refused(capsys, *command)
        assert status == 1 and "keeps its config" in said and not (place / name).exists()


@pytest.mark.parametrize(
    ("more", "status", "says"),
    [
        (["--out", "c.txt"], 2, "a .json file"),
        (["--out", "other.json"], 1, "from something else"),
        (["--classes", "twice.txt"], 2, "two of the network's classes are called 'a'"),
        (["--classes", "array.npy"], 2, "no text in UTF-8"),
        (["--classes", "more.txt"], 2, "3 classes, but 4 names"),
    ],
)
def test_calibrate_finds_out_first(place, tmp_path, monkeypatch, capsys, more, status, says):
    monkeypatch.chdir(tmp_path)
    for name in "ab":
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), 20 * number).save(tmp_path / "images" / name / f"{number}.png")
    (tmp_path / "other.json").write_text('{"mine": 1}')
    (tmp_path / "twice.txt").write_text("a\na\nb\n")
    (tmp_path / "more.txt").write_text("a\nb\nc\nd\n")
    np.save(tmp_path / "array.npy", np.zeros(3))
    found = refused(capsys, "calibrate", "--model", place / "net.pt2", "--images", "images", *more)
    assert found[0] == status and says in found[1]
    assert (tmp_path / "other.json").read_text() == '{"mine": 1}'


BRIGHTNESS = """
import torch
from torch import nn

class Three(nn.Module):
    config = {"input_size": [1, 8, 8]}

    def __init__(self):
        super().__init__()
        self.normalize = nn.Identity()
        self.mean, self.fc = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(1, 3)
        self.fc.weight.data = torch.tensor([[-24.0], [0.0], [24.0]])
        self.fc.bias.data = torch.tensor([8.0, 1.0, -16.0])

    def forward(self, images):
        return self.fc(self.mean(images))

def make():
    return Three()

def named():
    network = Three()
    network.config = {**Three.config, "label_names": ["dark", "middle", "bright"]}
    return network
"""


@pytest.mark.parametrize("names", ["numbers", "a file of names", "the network's names"])
def test_folders_without_one_class_are_calibrated_and_it_is_said(tmp_path, capsys, names):
    (tmp_path / "net.py").write_text(BRIGHTNESS)
    folders = ["0", "2"] if names == "numbers" else ["dark", "bright"]
    for number in range(40):
        bright = number % 2 if number % 8 else 1 - number % 2  # one in eight is labelled wrongly
        path = tmp_path / "images" / folders[bright] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 230 if number % 2 else 20).save(path)
    (tmp_path / "names.txt").write_bytes("\ufeffdark\r\nmiddle \r\nbright\r\n\r\n".encode())
    factory = "named" if names == "the network's names" else "make"
    command = [
        "calibrate",
        "--model",
        f"{tmp_path / 'net.py'}:{factory}",
        "--normalized",
        "--images",
        tmp_path / "images",
    ]
    command += ["--classes", tmp_path / "names.txt"] if names == "a file of names" else []
    assert main([str(c) for c in [*command, "--out", tmp_path / "c.json"]]) == 0
    assert "2 of the network's 3 classes; nothing below is about the others" in capsys.readouterr().err
    found = json.loads((tmp_path / "c.json").read_text())["calibration"]
    assert found["accuracy"] == pytest.approx(0.875, abs=0.1) and found["temperature"] > 2


def test_numbers_are_classes_of_a_network_with_names_too(tmp_path):
    (tmp_path / "net.py").write_text(BRIGHTNESS)
    network = scoring.open_network(tmp_path / "net.py:named", overrides=scoring.Overrides(normalized=True))
    for folder in ("02", "00"):
        (tmp_path / "images" / folder).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "images" / folder / "a.png")
    assert scoring.folder_labels(scoring.open_source(tmp_path / "images"), network).tolist() == [0, 2]


def test_normal_folders_mean_the_same_as_labelled_ones(tmp_path):
    """Their classes are the network's, in the network's order, not in that of the alphabet."""
    (tmp_path / "net.py").write_text(BRIGHTNESS)
    network = scoring.open_network(tmp_path / "net.py:named", overrides=scoring.Overrides(normalized=True))
    for folder, grey in (("bright", 230), ("dark", 20), ("middle", 90)):
        (tmp_path / "images" / folder).mkdir(parents=True)
        for number in range(30):
            Image.new("L", (8, 8), grey + number % 5).save(tmp_path / "images" / folder / f"{number}.png")
    source = scoring.open_source(tmp_path / "images")
    given = []

    class Watch:
        requires_fit = True

        def needs_to_fit(self):
            return ()

        needs = needs_to_fit

        def fit_from(self, evidence, labels):
            given.append(labels)

        def predict_from(self, evidence):
            return np.zeros(len(evidence))

    order = sorted(np.random.default_rng(0).permutation(90)[:60])
    found = scoring_normal.fit_to_normal(network, {"watch": Watch()}, source)
    place = {"dark": 0, "middle": 1, "bright": 2}
    assert found.record["labels"] == "folders"
    assert given[0].tolist() == [place[source.names[i].split("/")[0]] for i in order]


def test_normal_images_without_a_finite_answer_are_left_out_and_named(place):
    network = scoring.open_network(place / "net.py:make", place / "state.pt")

    def of_dark_images(module, arguments, logits):
        dark = arguments[0].flatten(1).mean(1) < 0.25
        return torch.where(dark[:, None], torch.nan, logits)

    network.model.register_forward_hook(of_dark_images)
    detectors = scoring.named_detectors(["energy", "knn:k=2"], network.model)
    source = scoring.open_source(place / "normal")
    found = scoring.fit_to_normal(network, detectors, source)
    (everything,) = read_batches(source, network.preprocessing, range(120), 120)
    dark = (everything.images.float() / 255).flatten(1).mean(1) < 0.25
    assert 0 < int(dark.sum()) == len(found.record["unread"])
    assert found.record["fitted"] + found.record["held_out"] == 120 - int(dark.sum())
    seen, kept, strange = finite_answers(network, everything, source, [scoring_run.LOGITS], 64)
    assert kept == np.flatnonzero(~dark.numpy()).tolist() and len(strange) == int(dark.sum())
    assert bool(seen[scoring_run.LOGITS].isfinite().all())


def test_what_is_no_number_gets_no_tail_and_no_threshold():
    assert tail_probability([1.0, 2.0], [np.nan, np.inf]).tolist()[1] == pytest.approx(1 / 3)
    assert np.isnan(tail_probability([1.0, 2.0], [np.nan])[0])
    with pytest.raises(ValueError, match="1 of 41 held-out scores are NaN"):
        scoring.alarm_threshold([*range(40), np.nan], 0.1)
    with pytest.raises(ValueError, match="NaN"):
        scoring.answer_threshold([0.5, np.nan], [True, True], 0.1)
    for values in ([np.nan], [1.5], [-0.1]):
        with pytest.raises(ValueError, match=r"\[0, 1\]"):
            scoring.wealth(values)
    with pytest.raises(ValueError, match="finite"):
        scoring.control_chart([1.0, np.nan], [1.0])


def test_small_shares_are_said_as_they_are():
    assert "at most 0.01 % wrong" in str(scoring.answer_threshold([0.5] * 9, [True] * 9, 0.0001))


def test_classes_that_are_called_by_numbers_are_found_by_name(tmp_path):
    """A network may call its first class "2"; then the folder 2 is that class, and not the third."""
    (tmp_path / "net.py").write_text(BRIGHTNESS.replace('["dark", "middle", "bright"]', '["2", "0", "1"]'))
    network = scoring.open_network(tmp_path / "net.py:named", overrides=scoring.Overrides(normalized=True))
    for folder in "012":
        (tmp_path / "images" / folder).mkdir(parents=True)
        Image.new("L", (8, 8)).save(tmp_path / "images" / folder / "a.png")
    assert scoring.folder_labels(scoring.open_source(tmp_path / "images"), network).tolist() == [1, 2, 0]
