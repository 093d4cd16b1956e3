"""What a newcomer tries first, and where it went wrong once: each mistake is said in one line that says what to do."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib import scoring
from tutorial_lib.__main__ import main, parser
from tutorial_lib.scoring import identity
from tutorial_lib.scoring import normal as scoring_normal
from tutorial_lib.scoring import score as scoring_run
from tutorial_lib.scoring import table as scoring_table
from tutorial_lib.scoring.contact_sheet import _thumbnail
from tutorial_lib.storage import locked

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


@pytest.mark.parametrize("head", ["nosuch", "normalize"])
def test_another_last_layer_of_the_librarys_own_classifier_is_refused(tmp_path, head):
    (tmp_path / "ours.py").write_text(
        "import torch\nfrom tutorial_lib.models import build\n\n"
        "def make():\n    torch.manual_seed(0)\n    network = build('lenet', num_classes=3, image_shape=(1, 8, 8))\n"
        "    network.config = {'input_size': [1, 8, 8]}\n    return network\n"
    )
    assert not scoring.open_network(tmp_path / "ours.py:make").without_features
    scoring.open_network(tmp_path / "ours.py:make", head="head")
    with pytest.raises(ValueError, match=f"'{head}' is not the last linear layer"):
        scoring.open_network(tmp_path / "ours.py:make", head=head)


def test_a_table_by_another_last_layer_is_not_this_very_run(place):
    source = scoring.open_source(place / "new")
    plans = [
        scoring.plan_of(scoring.open_network(place / "net.pt2", head=head), source, ["knn"], None, 1.0)
        for head in (None, "7")
    ]
    assert plans[1] == {**plans[0], "head": "7"}, "and a table that was begun without one goes on"


# --- detectors that cannot look ---------------------------------------------------------------------------------------


def test_what_torchscript_cannot_show_is_left_out_and_said(place, tmp_path, capsys):
    words = command(place / "net.pt", place / "new", tmp_path / "s.csv", "--fit", place / "normal")
    assert main(words) == 0
    assert "without activationdensity: no hook can listen to a TorchScript network's layers" in capsys.readouterr().err
    scores = [name for name in scoring.read_table(tmp_path / "s.csv") if name.startswith("score_")]
    assert scores == ["score_msp", "score_energy", "score_knn", "score_brightness"]


def test_detectors_that_were_named_and_cannot_look_are_named_before_images_are_read(
    place, tmp_path, monkeypatch, capsys
):
    for module in (scoring_run, scoring_normal):
        monkeypatch.setattr(module, "read_batches", lambda *_: pytest.fail("images were read"))
    words = command(place / "net.pt", place / "new", tmp_path / "s.csv", "--fit", place / "normal")
    status, line = said(capsys, [*words, "--detectors", "energy,activationdensity,knn:k=3,layerdensity"])
    assert status == 2 and "activationdensity, layerdensity cannot look at" in line and "(energy, knn:k=3 can)" in line


# --- images -----------------------------------------------------------------------------------------------------------


def test_sixteen_bits_are_scaled_wherever_images_are_read(tmp_path):
    Image.fromarray(np.full((8, 8), 257 * 100, dtype=np.uint16)).save(tmp_path / "deep.png")
    Image.fromarray(np.full((8, 8), True)).save(tmp_path / "two.png")
    source = scoring.open_source(tmp_path)
    assert source.image(0).mode.startswith("I;16"), "or this test says nothing"
    assert source.pixels(0).shape == (1, 8, 8) and set(source.pixels(0).flatten().tolist()) == {100}
    assert source.pixels(1).shape == (1, 8, 8) and set(source.pixels(1).flatten().tolist()) == {255}
    picture = base64.b64decode(_thumbnail(source, 0).partition("base64,")[2])
    assert set(np.asarray(Image.open(io.BytesIO(picture))).flatten().tolist()) == {100}


def locked_away(monkeypatch, *folders):
    """These folders cannot be listed; the mode of a folder does not stop root."""
    scandir = os.scandir

    def refuse(path):
        if not isinstance(path, int) and os.path.abspath(path) in map(str, folders):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)


def test_a_folder_that_cannot_be_listed_is_a_row_with_the_reason(place, tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    for name in ("a/1.png", "a/deep/2.png", "b/3.png"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 90).save(images / name)
    locked_away(monkeypatch, images / "a" / "deep", images / "b")
    source = scoring.open_source(images)
    assert source.names == ["a/1.png", "a/deep/", "b/"] and source.folders() == ["a", "a", "b"]
    assert main(command(place / "net.pt2", images, tmp_path / "s.csv")) == 0
    table = scoring.read_table(tmp_path / "s.csv")
    assert [text[:16] for text in table["error"]] == ["", "PermissionError:", "PermissionError:"]
    assert np.isfinite(table["score_energy"]).tolist() == [True, False, False]
    locked_away(monkeypatch, images)
    status, line = said(capsys, command(place / "net.pt2", images, tmp_path / "t.csv"))
    assert status == 1 and line == f"Permission denied: {images}"


def test_the_commonest_reason_is_said(place, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    (images / "1.png").write_text("no image")
    for number in range(2, 6):
        Image.new("L", (9, 9) if number < 5 else (8, 8), 90).save(images / f"{number}.png")
    assert main(command(place / "net.pt2", images, tmp_path / "s.csv")) == 0
    *_, count, reason = capsys.readouterr().err.splitlines()
    assert "4 of 5 images have no score" in count and reason.startswith("3 of them: ValueError: the image is 9x9")


def test_no_score_at_all_is_a_failure(place, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        (images / f"{number}.png").write_text("no image")
    words = command(place / "net.pt2", images, tmp_path / "s.csv", "--sheet", tmp_path / "s.html")
    for _ in range(2):  # made, and found as it was made
        status, line = said(capsys, words)
        assert status == 1 and "none of 3 images has a score" in line and "cannot identify image file" in line
    assert len(scoring.read_table(tmp_path / "s.csv")["path"]) == 3 and (tmp_path / "s.html").exists()


def test_one_file_is_an_image_or_refused(place, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "array.npz").touch()
    for name in ("notes.txt", "array.npz"):
        with pytest.raises(ValueError, match=f"{name} is neither an image .* nor an array"):
            scoring.open_source(tmp_path / name)
    for name in ("a[1].png", "a1.png"):
        Image.new("L", (8, 8)).save(tmp_path / name)
    assert scoring.open_source(tmp_path / "a[1].png").names == ["a[1].png"]
    assert scoring.open_source(tmp_path / "a[0-9].png").names == ["a1.png"]
    monkeypatch.chdir(tmp_path)
    assert scoring.open_source("a[1].png").image(0).size == (8, 8)


@pytest.mark.parametrize(
    "option",
    ["--images", "--fit", "--model", "--weights", "--out", "--sheet", "--calibration", "--head", "--detectors"],
)
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_text_names_nothing(place, tmp_path, capsys, option, text):
    words = command(place / "net.pt2", place / "new", tmp_path / "s.csv", option, text)
    status, line = said(capsys, words)
    assert status == 2 and f"argument {option}: must not be empty" in line and not (tmp_path / "s.csv").exists()


def test_an_empty_text_names_nothing_to_the_functions_either(place):
    with pytest.raises(ValueError, match="have no name"):
        scoring.open_source("")
    with pytest.raises(ValueError, match="has no name"):
        scoring.open_network("")


def test_a_comma_names_no_detector(place, tmp_path, capsys):
    status, line = said(capsys, command(place / "net.pt2", place / "new", tmp_path / "s.csv", "--detectors", ","))
    assert status == 2 and "name at least one detector" in line


# --- runs that were stopped, and what is already there ----------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch):
    for module in (scoring_table, scoring_run):
        monkeypatch.setattr(module, "BLOCK", 16)


def stopped(words, monkeypatch, blocks):
    """The same command, stopped by Ctrl+C after some blocks."""
    write, written = scoring_table.Parts.write, []

    def write_some(self, number, block):
        if len(written) == blocks:
            raise KeyboardInterrupt
        written.append(number)
        write(self, number, block)

    with monkeypatch.context() as patch:
        patch.setattr(scoring_table.Parts, "write", write_some)
        assert main(words) == 130


@pytest.mark.parametrize("damage", ["empty", "cut off", "another file", "no scores", "too short"])
def test_a_damaged_block_is_computed_again(place, tmp_path, monkeypatch, small_blocks, damage):
    assert main(command(place / "net.pt2", place / "new", tmp_path / "whole.csv")) == 0
    words = command(place / "net.pt2", place / "new", tmp_path / "s.csv")
    stopped(words, monkeypatch, 3)
    block = tmp_path / "s.csv.parts" / "00000001.npz"
    content = block.read_bytes()
    if damage in ("empty", "cut off", "another file"):
        block.write_bytes({"empty": b"", "cut off": content[: len(content) // 2], "another file": b"words"}[damage])
    else:
        with np.load(block) as arrays:
            rows = {name: values[:5] if damage == "too short" else values for name, values in arrays.items()}
        np.savez(block, **{name: values for name, values in rows.items() if damage == "too short" or name != "scores"})
    assert main(words) == 0
    assert (tmp_path / "s.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert json.loads((tmp_path / "s.json").read_text())["resumed"] == 32


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe"])
def test_a_damaged_plan_is_named(place, tmp_path, monkeypatch, capsys, small_blocks, content):
    words = command(place / "net.pt2", place / "new", tmp_path / "s.csv")
    stopped(words, monkeypatch, 1)
    (tmp_path / "s.csv.parts" / "plan.json").write_bytes(content)
    status, line = said(capsys, words)
    assert status == 1 and "plan.json is damaged" in line and "--restart" in line
    assert main([*words, "--restart"]) == 0


def test_what_differs_is_said(place, tmp_path, monkeypatch, capsys, small_blocks):
    words = command(place / "net.pt2", place / "new", tmp_path / "s.csv")
    main(words)
    status, line = said(capsys, [*words, "--detectors", "energy"])
    assert status == 1 and "is there already, from something else: a run that was begun with another detectors;" in line
    (tmp_path / "s.json").write_text("[]")
    status, line = said(capsys, words)
    assert status == 1 and "from something else; name another --out" in line


def test_a_run_that_cannot_be_gone_on_with_is_refused_before_the_fit(
    place, tmp_path, monkeypatch, capsys, small_blocks
):
    words = command(place / "net.pt2", place / "new", tmp_path / "s.csv", "--fit", place / "normal")
    stopped(words, monkeypatch, 1)
    with monkeypatch.context() as patch:
        patch.setattr(scoring_normal, "read_batches", lambda *_: pytest.fail("normal images were read"))
        status, line = said(capsys, [*words, "--seed", "1"])
        assert status == 1 and "begun with another fit" in line
        with locked(tmp_path / "s.csv.lock"):
            status, line = said(capsys, words)
        assert status == 1 and "another process" in line
    assert main(words) == 0


def test_a_fit_that_fails_leaves_nothing_behind(place, tmp_path, capsys):
    words = command(place / "net.pt2", place / "new", tmp_path / "s.csv", "--fit")
    assert said(capsys, [*words, str(place / "new" / "strange")])[0] == 2
    assert not list(tmp_path.iterdir()) and main([*words, str(place / "normal")]) == 0


def test_the_fit_tells_how_far_it_is(place):
    network = scoring.open_network(place / "net.pt2")
    detectors = scoring.named_detectors(["knn:k=2"], network.model)
    told: list[int] = []
    scoring.fit_to_normal(network, detectors, scoring.open_source(place / "normal"), 100, progress=told.append)
    assert sum(told) == 100 and len(told) > 1


def test_normal_images_among_those_to_be_scored_are_warned_of(place, tmp_path, capsys):
    os.symlink(place / "normal" / "0", tmp_path / "linked")
    words = command(place / "net.pt2", tmp_path / "linked", tmp_path / "s.csv", "--fit", place / "normal")
    assert main(words) == 0
    assert "warning: 40 of the 120 files of --fit are among --images" in capsys.readouterr().err
    assert main(command(place / "net.pt2", place / "new", tmp_path / "t.csv", "--fit", place / "normal")) == 0
    assert "warning" not in capsys.readouterr().err
    array = np.random.default_rng(0).integers(0, 256, (90, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", array)
    words = command(place / "net.pt2", tmp_path / "x.npy", tmp_path / "u.csv", "--fit", tmp_path / "x.npy")
    assert main(words) == 0 and "are among --images" in capsys.readouterr().err


class Closed(io.StringIO):
    """What nobody reads any more."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("name", ["score", "calibrate"])
def test_a_reader_that_has_gone_does_not_stop_the_work(place, tmp_path, monkeypatch, name):
    out = tmp_path / ("s.csv" if name == "score" else "c.json")
    more = ["--fit", str(place / "normal"), "--sheet", str(tmp_path / "s.html")] if name == "score" else []
    images = place / ("new" if name == "score" else "normal")
    parsed = parser().parse_args([name, *command(place / "net.pt2", images, out, *more)[1:]])

    def mostly_right(source, network, classes):
        (batch,) = scoring.read_batches(source, network.preprocessing, range(120), 120)
        answers = network.model(batch.images).argmax(1).numpy()
        return np.where(np.arange(120) % 5, answers, (answers + 1) % 3)

    monkeypatch.setattr(scoring, "folder_labels", mostly_right)
    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(BrokenPipeError):
        parsed.run(parsed)
    assert out.exists() and (not more or (tmp_path / "s.html").exists())


def test_a_decoders_warning_names_the_image(place, tmp_path, monkeypatch, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(5):
        Image.new("L", (8, 8), 90 + number).save(images / f"{number}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert main(command(place / "net.pt2", images, tmp_path / "s.csv", "--workers", "1")) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "exceeds limit" in line]
    assert [line[:7] for line in lines] == ["0.png: ", "1.png: ", "2.png: ", "and 2 m"]
    assert scoring.read_table(tmp_path / "s.csv")["error"] == [""] * 5


# --- configs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"input_size": 224}, "input_size is 224; it must be [channels, height, width]"),
        ({"input_size": [1, 8]}, "input_size is [1, 8]; it must be [channels, height, width]"),
        ({"input_size": [1, 8, "x"]}, "input_size is [1, 8, 'x']"),
        ({"input_size": [1, 8, 8.5]}, "input_size is [1, 8, 8.5]"),
        ({"input_size": [1, 8, 0]}, "input_size is [1, 8, 0]"),
        ({"input_size": None}, "input_size is None"),
        ({"input_size": [1, 8, 100_000]}, "between 1 and 10,000 pixels"),
        ({"mean": 0.5}, "mean is 0.5; it must be a list"),
        ({"mean": 0}, "mean is 0; it must be a list"),
        ({"std": ["x"]}, "std is ['x']; it must be a list"),
        ({"std": [0.1, 0.2]}, "mean and std need 1 number"),
        ({"crop_pct": 0}, "crop_pct is 0; it must be a number above 0"),
        ({"crop_pct": "x"}, "crop_pct is 'x'"),
        ({"crop_pct": float("inf")}, "crop_pct is inf"),
        ({"crop_pct": 1e-9}, "resize of images must lie between"),
        ({"interpolation": ["bicubic"]}, "interpolation is one of"),
        ({"label_names": 5}, "must be a list, got 5"),
    ],
)
@pytest.mark.parametrize("way", ["beside TorchScript", "beside code"])
def test_a_wrong_value_in_a_config_is_said(place, own, capsys, change, says, way):
    config = {"input_size": [1, 8, 8], "mean": [0.5], "std": [0.25], **change}
    (own / "config.json").write_text(json.dumps(config))
    if way == "beside code":
        code = (own / "own.py").read_text()
        (own / "own.py").write_text("".join(line for line in code.splitlines(True) if "network.config" not in line))
        model = own / "own.py:make"
    else:
        torch.jit.save(torch.jit.load(place / "net.pt"), own / "plain.pt")
        model = own / "plain.pt"
    status, line = said(capsys, command(model, place / "new", own / "s.csv"))
    assert status == 2 and says in line


@pytest.mark.parametrize("content", [b'{"a": "\xff"}', b"{", b"[1]"])
def test_a_config_that_is_no_json_in_utf8_is_named(place, own, capsys, content):
    torch.jit.save(torch.jit.load(place / "net.pt"), own / "plain.pt")
    (own / "plain.json").write_bytes(content)
    status, line = said(capsys, command(own / "plain.pt", place / "new", own / "s.csv"))
    assert status == 1 and "plain.json" in line
    (own / "folder").mkdir()
    (own / "folder" / "config.json").write_bytes(content)
    (own / "folder" / "model.safetensors").touch()
    status, line = said(capsys, command(own / "folder", place / "new", own / "s.csv"))
    assert status == 1 and "config.json" in line


@pytest.mark.parametrize("config", [{}, {"architecture": 5}, {"architecture": "resnet18", "model_args": [1]}])
def test_a_folder_that_is_not_timms_is_said(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match="config.json must hold timm's architecture"):
        scoring.open_network(tmp_path)


def test_a_folder_without_a_name_is_a_folder(tmp_path, monkeypatch, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "1.png")
    monkeypatch.chdir(tmp_path)
    status, line = said(capsys, command(".", ".", "s.csv"))
    assert status == 1 and "timm's layout" in line


def test_a_size_that_fills_the_memory_is_refused(place, tmp_path, capsys):
    for option in ("--size", "--resize"):
        status, line = said(capsys, command(place / "net.pt2", place / "new", tmp_path / "s.csv", option, "100000"))
        assert status == 2 and "must lie between 1 and 10,000 pixels, got" in line


@pytest.mark.parametrize("name", ["config.json", "own.json"])
def test_a_config_beside_the_code_is_read_and_not_hidden(place, own, capsys, name):
    code = (own / "own.py").read_text()
    (own / "own.py").write_text("".join(line for line in code.splitlines(True) if "network.config" not in line))
    with pytest.raises(ValueError, match="put a config.json"):
        scoring.open_network(own / "own.py:make")
    (own / name).write_text(json.dumps({"input_size": [1, 8, 8], "mean": [0.5], "std": [0.25]}))
    assert scoring.open_network(own / "own.py:make").preprocessing.mean == (0.5,)
    out = (own / name).with_suffix(".csv")
    status, line = said(capsys, command(own / "own.py:make", place / "new", out, "--restart"))
    assert status == 1 and "keeps its config" in line


def test_what_the_code_says_itself_comes_before_a_config_beside_it(own):
    (own / "config.json").write_text(json.dumps({"input_size": [1, 8, 8], "mean": [0.1], "std": [0.1]}))
    assert scoring.open_network(own / "own.py:make").preprocessing.mean == (0.5,)


def test_torchscript_fails_in_one_sentence(place, tmp_path, capsys):
    words = command(place / "net.pt", place / "new", tmp_path / "s.csv", "--size", "2")
    status, line = said(capsys, words)
    assert status == 2 and "Kernel size can't be greater" in line and "Traceback" not in line and len(line) < 400
