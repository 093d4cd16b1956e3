"""The recognition experiment: its numbers are those of the networks, and the differences are between equals."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from tutorial_lib.calibration import ece
from tutorial_lib.experiments import introspective_recognition as experiment
from tutorial_lib.introspection import second_network, views_of
from tutorial_lib.metrics import mean_interval
from tutorial_lib.results.rows import Row, provenance
from tutorial_lib.results.stored import stored_rows
from tutorial_lib.runs.experiment import Cell
from tutorial_lib.runs.registry import EXPERIMENTS, experiment_named
from tutorial_lib.studies import load_study


@pytest.fixture(scope="module")
def results():
    """Two second networks on one first network, trained for a moment only, on few conditions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "second_network", partial(second_network, epochs=3))
        patch.setattr(experiment, "VIEWS", 2)
        patch.setattr(experiment, "corruption_names", lambda channels, family: ["gaussian_noise"])
        grid = [cell for cell in experiment.cells("digits", [0]) if cell.settings["second"] < 2]
        return grid, [experiment.compute(cell, torch.device("cpu")) for cell in grid]


@pytest.fixture(scope="module")
def rows(results):
    grid, found = results
    source = provenance("python -m tutorial_lib run introspective_recognition --study digits")
    return [
        Row.of(measured, source, experiment=cell.experiment, study=cell.study, seed=cell.seed)
        for cell, result in zip(grid, found, strict=True)
        for measured in result.measurements
    ]


def test_one_look_is_the_classifier(rows):
    study = load_study("digits")
    test = study.test.sample(min(experiment.TEST_IMAGES, len(study.test)), seed=0)
    (seen,) = views_of(study.classifier(), test.images)
    (row,) = [r for r in rows if (r.method, r.condition, r.metric) == ("feed_forward", "known", "ece")]
    assert row.value == pytest.approx(ece(seen.logits.double().softmax(1), test.labels))
    (row,) = [r for r in rows if (r.method, r.condition, r.metric) == ("feed_forward", "known", "accuracy")]
    assert row.value == pytest.approx((seen.logits.argmax(1) == test.labels).double().mean().item())


def test_every_method_is_measured_under_every_condition_once_per_second_network(rows):
    for method in experiment.METHODS:
        for condition in ("known", *(f"corrupted/{level}" for level in range(1, 6))):
            variants = [r.variant for r in rows if (r.method, r.condition, r.metric) == (method, condition, "nll")]
            assert variants == ([""] if method.startswith("feed_forward") else ["0", "1"])


def test_single_corruptions_have_rows_for_some_methods_and_one_second_network(rows):
    single = {(r.method, r.variant) for r in rows if r.condition == "gaussian_noise/3"}
    assert single == {(m, "" if m.startswith("feed_forward") else "0") for m in experiment.DETAILED}


def test_temperature_leaves_accuracy_alone(rows):
    value = {(r.method, r.condition, r.variant): r.value for r in rows if r.metric == "accuracy"}
    for method in ("feed_forward", "introspective_ce"):
        for (name, condition, variant), accuracy in list(value.items()):
            if name == method and not condition.startswith("gaussian"):
                assert value[method + experiment.TEMPERATURE, condition, variant] == accuracy


def test_differences_are_means_over_corruptions_and_second_networks(rows):
    accuracy = {
        method: np.mean(
            [r.value for r in rows if r.method == method and r.metric == "accuracy" and "corrupted" in r.condition]
        )
        for method in ("feed_forward", "control_features")
    }
    (difference,) = experiment.differences(rows, "control_features", "accuracy")
    assert difference == pytest.approx(accuracy["control_features"] - accuracy["feed_forward"])
    (at_level,) = experiment.mean_over_conditions(rows, "feed_forward", "accuracy", level=3).values()
    (row,) = [r for r in rows if (r.method, r.condition, r.metric) == ("feed_forward", "gaussian_noise/3", "accuracy")]
    assert at_level == row.value


def test_stored_answers_are_those_of_the_rows(results, rows):
    arrays = results[1][0].arrays
    for method in ("feed_forward", "introspective_ce"):
        right = arrays[f"gaussian_noise/3/{method}/answer"] == arrays["gaussian_noise/3/label"]
        (row,) = [
            r
            for r in rows
            if (r.method, r.condition, r.metric) == (method, "gaussian_noise/3", "accuracy") and r.variant in ("", "0")
        ]
        assert right.mean() == pytest.approx(row.value)
    assert not results[1][1].arrays  # of the first second networks only


def test_table_names_every_method(rows):
    text = experiment.table(rows)
    assert all(f"| {title} " in text for title in experiment.METHODS.values())


def test_it_is_registered():
    assert "introspective_recognition" in EXPERIMENTS
    assert isinstance(experiment_named("introspective_recognition").cells("digits", [0])[0], Cell)


def test_on_photographs_the_batch_knows_more_than_a_second_look():
    """What chapter 12 says of the stored rows, of every first network."""
    rows = stored_rows("introspective_recognition", "cifar10")
    gains = {name: experiment.differences(rows, name, "accuracy") for name in experiment.METHODS}
    dearer = {name: experiment.differences(rows, name, "ece") for name in experiment.METHODS}
    assert all(gain > 0.03 for gain in gains["feed_forward_balanced"])
    assert all(error < -0.03 for error in dearer["feed_forward_balanced"])
    for name in ("introspective_ce", "introspective_mse", "control_features"):
        assert all(gain < 0.01 for gain in gains[name]), name
    for name in ("introspective_ce", "control_random"):  # as many inputs, with a question and without
        assert all(error > 0.03 for error in dearer[name]), name


def test_on_photographs_the_questions_own_share_is_small_and_a_temperature_takes_off_more():
    rows = stored_rows("introspective_recognition", "cifar10")
    gains = {name: np.array(experiment.differences(rows, name, "accuracy")) for name in experiment.METHODS}
    share = gains["introspective_ce"] - gains["control_features"]
    assert np.abs(share).max() < 0.01 and mean_interval(share).low < 0 < mean_interval(share).high
    assert all(gain < 0 for gain in gains["introspective_ce"])  # more than not asking, less than one look
    error = {name: np.array(experiment.differences(rows, name, "ece")) for name in experiment.METHODS}
    assert (error["feed_forward_temperature"] < error["control_refit"]).all()
    clean = {name: experiment.differences(rows, name, "accuracy", level=0) for name in experiment.METHODS}
    assert all(np.mean(values) <= 0 for values in clean.values() if values)
    one_look = experiment.mean_over_conditions(rows, "feed_forward", "accuracy")
    assert all(0.64 < value < 0.70 for value in one_look.values())  # as much room as the published 0.6789
