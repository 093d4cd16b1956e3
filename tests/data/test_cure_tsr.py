"""CURE-TSR through its own file names, on tiny files written for the test."""

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.data.corruptions import CORRUPTIONS
from tutorial_lib.data.cure_tsr import CHALLENGES, CureName, load_cure_tsr, parse_name
from tutorial_lib.data.errors import DataUnavailable


def write(folder, name, colour, side=10):
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((side, side + 3, 3), colour, dtype=np.uint8)).save(folder / name)


@pytest.fixture
def signs(tmp_path):
    train, test = tmp_path / "CURE-TSR" / "Real_Train", tmp_path / "CURE-TSR" / "Real_Test"
    for split in (train, test):
        for index in (1, 2):
            write(split / "ChallengeFree", f"01_14_00_00_{index:04d}.bmp", (10 * index, 0, 0), side=8 + index)
            write(split / "ChallengeFree", f"01_02_00_00_{index:04d}.bmp", (0, 10 * index, 0))
            write(split / "Haze-5", f"01_02_12_05_{index:04d}.bmp", (0, 10 * index, 200))
    write(test / "Haze-4", "01_02_12_04_0001.bmp", (0, 0, 150))
    write(test / "Haze-4", "thumbnail.bmp", (9, 9, 9))
    (test / "Haze-4" / "01_02_12_04_0002.txt").write_text("no image")
    return tmp_path


def test_names():
    assert parse_name("01_14_12_05_0027") == CureName(1, 14, 12, 5, 27)
    for other in ("01_14_12_05", "thumbnail", "01_14_12_05_0027_copy", "1_14_12_05_0027"):
        assert parse_name(other) is None


def test_the_eight_conditions_are_called_as_ours_are():
    assert set(CORRUPTIONS) < set(CHALLENGES)
    assert sorted(CHALLENGES.values()) == list(range(1, 13))


def test_signs_come_in_one_size_and_in_the_order_of_their_names(signs, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA", str(signs))
    clean = load_cure_tsr("train")
    assert clean.images.shape == (4, 3, 28, 28)
    assert clean.labels.tolist() == [1, 1, 13, 13]  # sign types count from 1
    assert clean.images[:, :, 14, 14].tolist() == [[0, 10, 0], [0, 20, 0], [10, 0, 0], [20, 0, 0]]
    haze = load_cure_tsr("train", "haze", 5, folder=signs / "CURE-TSR")
    assert haze.images[:, 2, 0, 0].tolist() == [200, 200]
    assert haze.source.tolist() == clean.source.tolist()[:2]  # an image and its corrupted copy
    assert len(load_cure_tsr("test", "haze", 4, side=16).images) == 1
    assert haze.name == "cure_tsr_haze_5" and "resized to 28x28" in haze.note


def test_what_is_not_there_is_named(signs, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA", str(signs))
    with pytest.raises(DataUnavailable, match=r"under rain, level 2(.|\n)*01_04_09_02_0001.bmp(.|\n)*TUTORIAL_DATA"):
        load_cure_tsr("test", "rain", 2)
    monkeypatch.setenv("TUTORIAL_DATA", str(signs / "nothing"))
    with pytest.raises(DataUnavailable, match="no challenge"):
        load_cure_tsr()
    for arguments, says in (
        (("validation",), "train or test"),
        (("test", "hase", 1), "did you mean 'haze'"),
        (("test", "haze", 6), "1 to 5"),
        (("test", "haze"), "1 to 5"),
        (("test", None, 2), "0 without a challenge"),
    ):
        with pytest.raises(ValueError, match=says):
            load_cure_tsr(*arguments)


def test_the_experiment_runs_on_such_files(tmp_path, monkeypatch):
    """From names to rows: every sign in haze is told from a clean one by an autoencoder trained on clean ones."""
    from tutorial_lib.experiments import gradcon_condition as experiment

    generator = np.random.default_rng(0)
    for split in ("Real_Train", "Real_Test"):
        folder = tmp_path / "CURE-TSR" / split
        folder.mkdir(parents=True)
        for index in range(12):
            pixels = generator.integers(0, 60, (28, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"01_01_00_00_{index:04d}.bmp")
            if split == "Real_Test":
                for name in CORRUPTIONS:
                    for level in range(1, 6):
                        file = f"01_01_{CHALLENGES[name]:02d}_{level:02d}_{index:04d}.bmp"
                        Image.fromarray(pixels + np.uint8(20 * level)).save(folder / file)
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(experiment.RECIPES, "cure_tsr", experiment.ConditionRecipe(epochs=20, images=100, width=0.1))
    cell = experiment.cells("cure_tsr", [0])[1]
    result = experiment.compute(cell, torch.device("cpu"))
    found = {(m.series, m.condition): m.value for m in result.measurements if m.metric == "auroc"}
    assert len(found) == 3 * 8 * 5
    assert found["cae_grad/recon", "haze/5"] == found["cae_grad/recon", "noise/5"]  # the same pixels here
    assert {m.n for m in result.measurements if m.metric == "auroc"} == {24}
