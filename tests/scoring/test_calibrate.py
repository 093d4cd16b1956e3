"""Calibration of one's own network: what a slow count says, and folders that are classes or are not."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from tutorial_lib import scoring
from tutorial_lib.__main__ import main
from tutorial_lib.scoring import calibrate_logits


def overconfident(count, factor, seed=0):
    """Logits (N, 3) that are ``factor`` times too large, and labels drawn from the right ones."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 2, (count, 3))
    right = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (generator.uniform(size=(count, 1)) > right.cumsum(1)).sum(1)
    return torch.from_numpy(logits * factor), labels


def test_the_temperature_is_the_factor_and_the_error_goes_away():
    logits, labels = overconfident(6000, factor=3.0)
    found = calibrate_logits(logits, labels, risk=0.2)
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    assert found.ece_before > 3 * found.ece_after and found.ece_after < 1.5 * found.chance
    assert "does not help" not in str(found)
    assert found.nll_after < found.nll_before and (found.n_fit, found.n) == (3000, 3000)
    order = np.random.default_rng(0).permutation(6000)
    rest = np.sort(order[3000:])
    probabilities = (logits[rest] / found.temperature).softmax(1).numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels[rest]
    assert found.accuracy == pytest.approx(right.mean())
    answered = confidence >= found.threshold.threshold
    assert found.threshold.wrong == (~right[answered]).sum() and found.threshold.bound <= 0.2
    assert found.threshold.answered == pytest.approx(answered.mean())


def test_a_temperature_from_a_handful_of_mistakes_is_told():
    logits = torch.eye(3, dtype=torch.float64)[torch.arange(60) % 3] * 9
    labels = np.arange(60) % 3
    fit = np.sort(np.random.default_rng(0).permutation(60)[:30])
    labels[fit[:2]] = (labels[fit[:2]] + 1) % 3
    found = calibrate_logits(logits, labels)
    assert found.wrong_fit == 2 and found.nll_after > found.nll_before
    assert "2 of them answered wrongly" in str(found) and "a temperature of 1 is better" in str(found)


def test_the_command_writes_what_score_can_use(place, tmp_path, capsys):
    out = tmp_path / "c.json"
    arguments = ["--model", str(place / "net.pt2"), "--out", str(out)]
    network = scoring.open_network(place / "net.pt2")
    images = tmp_path / "labelled"
    for number, path in enumerate(sorted((place / "new").rglob("[0-9]*.png"))):
        batch = next(scoring.read_batches(scoring.open_source(path.parent), network.preprocessing, [0], 1))
        answer = int(network.model(batch.images).argmax()) if number % 4 else number % 3  # a quarter by chance
        target = images / str(answer) / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    for name in "012":
        (images / name).mkdir(exist_ok=True)
    try:
        status = main(["calibrate", *arguments, "--images", str(images), "--bins", "5"])
    except SystemExit:
        pytest.skip(capsys.readouterr().err.splitlines()[-1])
    assert status == 0
    said, record = capsys.readouterr().out, json.loads(out.read_text())
    found = record["calibration"]
    assert "5 bins" in said and f"n = {found['n']}" in said and record["model"]["sha256"] == network.sha256
    table = tmp_path / "s.csv"
    arguments = ["--images", str(place / "new"), "--out", str(table), "--calibration", str(out)]
    assert main(["score", "--model", str(place / "net.pt2"), *arguments]) == 0
    columns = scoring.read_table(table)
    assert json.loads(table.with_suffix(".json").read_text())["temperature"] == found["temperature"]
    assert np.isfinite(columns["confidence"]).all()
    with pytest.raises(SystemExit):
        main(["score", "--model", f"{place / 'net.py'}:make", "--weights", str(place / "state.pt"), *arguments])
    assert "another network" in capsys.readouterr().err


def test_folders_are_classes_or_it_is_said(place, tmp_path):
    network = scoring.open_network(place / "net.pt2")
    source = scoring.open_source(place / "normal")
    labels = scoring.folder_labels(source, network)
    assert labels.tolist() == [int(name.split("/")[0]) for name in source.names]
    with pytest.raises(ValueError, match="no class '0'"):
        scoring.folder_labels(source, network, ["zero", "one", "two"])
    with pytest.raises(ValueError, match="3 classes, but 2 names"):
        scoring.folder_labels(source, network, ["0", "1"])
    with pytest.raises(ValueError, match="a folder for each class"):
        scoring.folder_labels(scoring.open_source(place / "normal" / "0"), network)
    with pytest.raises(ValueError, match="4 folders, the network 3 classes without names"):
        scoring.folder_labels(scoring.open_source(place / "new"), network)


def test_the_half_that_measures_has_no_part_in_the_temperature():
    logits, labels = overconfident(400, factor=2.0)
    rest = np.random.default_rng(0).permutation(400)[200:]
    other = labels.copy()
    other[rest] = (other[rest] + 1) % 3
    found, changed = calibrate_logits(logits, labels), calibrate_logits(logits, other)
    assert changed.temperature == found.temperature and changed.wrong_fit == found.wrong_fit
    assert changed.accuracy < found.accuracy - 0.2


def test_chance_is_what_a_perfectly_calibrated_network_shows_in_95_of_100_sets():
    logits, labels = overconfident(600, factor=2.0)
    found = calibrate_logits(logits, labels, bins=10)
    rest = np.sort(np.random.default_rng(0).permutation(600)[300:])
    confidence = (logits[rest] / found.temperature).softmax(1).numpy().max(1)
    place = np.minimum((confidence * 10).astype(int), 9)
    generator, errors = np.random.default_rng(7), []
    for _ in range(1000):
        right = generator.uniform(size=300) < confidence
        gaps = np.bincount(place, right - confidence, minlength=10)
        errors.append(np.abs(gaps).sum() / 300)
    assert found.chance == pytest.approx(np.quantile(errors, 0.95), rel=0.1)
    assert found.chance > 1.2 * np.quantile(errors, 0.5)


def test_answers_that_are_not_finite_are_named_and_left_out(place, tmp_path):
    network = scoring.open_network(place / "net.py:make", place / "state.pt")

    def of_dark_images(module, arguments, logits):
        dark = arguments[0].flatten(1).mean(1) < 0.25
        return torch.where(dark[:, None], torch.nan, logits)

    source = scoring.open_source(place / "normal")
    answers = network.model(next(scoring.read_batches(source, network.preprocessing, range(120), 120)).images)
    labels = answers.argmax(1).numpy()
    labels[::5] = (labels[::5] + 1) % 3
    network.model.register_forward_hook(of_dark_images)
    found = scoring.calibrate(network, source, labels)
    assert 0 < len(found.unread) == 120 - found.n - found.n_fit
    assert set(found.unread.values()) == {"the network's answer is not finite"}
