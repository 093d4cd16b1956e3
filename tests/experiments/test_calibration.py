"""The calibration experiment: its numbers are those of the library, its files keep what the figures need."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tutorial_lib.calibration import confidence_and_correct, ece, negative_log_likelihood
from tutorial_lib.data.corruptions import corrupt
from tutorial_lib.experiments import calibration
from tutorial_lib.models.predict import predict_logits
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row, provenance
from tutorial_lib.runs.registry import EXPERIMENTS, experiment_named
from tutorial_lib.studies import load_study


@pytest.fixture(scope="module")
def result():
    (cell, _) = calibration.cells("digits", [0])
    return calibration.compute(cell, torch.device("cpu"))


@pytest.fixture(scope="module")
def numbers(result):
    return {(m.series, m.condition, m.metric): m.value for m in result.measurements}


def test_numbers_are_those_of_the_classifier_on_the_test_set(numbers):
    study = load_study("digits")
    probabilities = predict_logits(study.classifier("lenet"), study.test.images).double().softmax(1)
    assert numbers["lenet", "known", "ece"] == pytest.approx(ece(probabilities, study.test.labels))
    assert numbers["lenet", "known", "nll"] == pytest.approx(negative_log_likelihood(probabilities, study.test.labels))
    hazy = corrupt(study.test.sample(433, seed=0).float(), "haze", 3)
    right = predict_logits(study.classifier("lenet"), hazy).argmax(1) == study.test.sample(433, seed=0).labels
    assert numbers["lenet", "haze/3", "accuracy"] == pytest.approx(right.double().mean().item())


def test_temperature_changes_confidence_and_never_accuracy(numbers):
    conditions = {condition for _, condition, metric in numbers if metric == "accuracy"}
    assert len(conditions) == 1 + 7 * 5  # known, and five levels of the seven corruptions that grey images can have
    for condition in conditions:
        scaled = "lenet/" + calibration.SCALED
        assert numbers[scaled, condition, "accuracy"] == numbers["lenet", condition, "accuracy"]
        assert numbers[scaled, condition, "confidence"] != numbers["lenet", condition, "confidence"]


def test_intervals_belong_to_the_known_images_only(numbers):
    assert (
        numbers["lenet", "known", "ece_low"] < numbers["lenet", "known", "ece"] < numbers["lenet", "known", "ece_high"]
    )
    assert {condition for _, condition, metric in numbers if metric.startswith("ece_")} == {"known"}


def test_stored_confidences_give_the_same_error(result, numbers):
    for condition in ("known", "noise/3"):
        correct = result.arrays[f"{condition}/correct"]
        for part, method in (("confidence", "lenet"), ("scaled", "lenet/" + calibration.SCALED)):
            confidence = calibration.from_stored(result.arrays[f"{condition}/{part}"])
            confidence_and_correct(confidence, correct)  # still in [0, 1]
            # one bin: no confidence can change its bin by rounding
            assert ece(confidence, correct, 1) == pytest.approx(
                abs(numbers[method, condition, "confidence"] - numbers[method, condition, "accuracy"]), abs=1e-5
            )
    assert not any(name.startswith("noise/1") for name in result.arrays)


def test_corrupted_images_are_the_same_every_time(result):
    again = calibration.compute(calibration.cells("digits", [0])[0], torch.device("cpu"))
    assert again.measurements == result.measurements


def test_table_stands_beside_the_published_numbers(result):
    source = provenance("python -m tutorial_lib run calibration --study digits --seeds 1")
    rows = [
        Row.of(measurement, source, experiment="calibration", study="digits") for measurement in result.measurements
    ]
    assert "Guo" not in calibration.table(rows)  # nobody published on these digits
    text = calibration.table([dataclasses.replace(row, study="cifar10") for row in rows])
    ours = {row.metric: row.value for row in rows if (row.series, row.condition) == ("lenet", "known")}
    line = next(line for line in text.splitlines() if line.startswith("| LeNet "))
    assert f"{100 * ours['ece']:.2f}" in line and f"{ours['nll']:.3f}" in line
    (line,) = [line for line in text.splitlines() if line.startswith("| ResNet-110 (Guo")]
    assert [entry.strip() for entry in line.split("|")[2:-1]] == ["6.21", "4.6", "0.83", "0.3285", "0.2102"]


def test_errors_by_level_start_with_the_known_images(result, numbers):
    source = provenance("python -m tutorial_lib run calibration --study digits --seeds 1")
    rows = [
        Row.of(measurement, source, experiment="calibration", study="digits") for measurement in result.measurements
    ]
    errors, names = calibration.errors_by_level(rows, "lenet")
    assert errors.shape == (7, 6) and "decolor" not in names
    assert (errors[:, 0] == numbers["lenet", "known", "ece"]).all()
    assert errors[names.index("haze"), 5] == numbers["lenet", "haze/5", "ece"]
    twice = rows + [dataclasses.replace(row, seed=1, value=0.0) for row in rows]
    np.testing.assert_allclose(calibration.errors_by_level(twice, "lenet")[0], errors / 2)


def test_published_rows_carry_their_source():
    rows = read_published("calibration")
    assert all(row["source"] and row["value"] >= 0 for row in rows)
    assert {row["dataset"] for row in rows} == {"CIFAR-10", "CIFAR-100", "SVHN"}
    with pytest.raises(ValueError, match="no column"):
        read_published("calibration", data="CIFAR-10")
    with pytest.raises(ValueError, match="no published row"):
        read_published("calibration", dataset="ImageNet")
    with pytest.raises(FileNotFoundError, match="calibration"):
        read_published("nobody")


def test_it_can_be_run_by_name():
    assert "calibration" in EXPERIMENTS
    assert experiment_named("calibration") is calibration.EXPERIMENT
