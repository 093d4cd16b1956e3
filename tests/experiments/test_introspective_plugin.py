"""Introspection as a plug-in: the numbers are the networks', the differences are between equals, nothing is made up."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tutorial_lib.experiments import introspective_plugin as experiment
from tutorial_lib.experiments import introspective_recognition
from tutorial_lib.introspection import second_network, views_of
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row, provenance
from tutorial_lib.results.stored import stored_rows
from tutorial_lib.runs.registry import EXPERIMENTS
from tutorial_lib.studies import load_study
from tutorial_lib.training.robust import KINDS, robust_classifier


@pytest.fixture(scope="module")
def results():
    """Two kinds of first network, second ones trained for a moment, few conditions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "second_network", lambda *args, epochs: second_network(*args, epochs=2))
        patch.setattr(experiment, "VIEWS", 1)
        patch.setattr(introspective_recognition, "corruption_names", lambda channels, family: ["gaussian_noise", "fog"])
        grid = [cell for cell in experiment.cells("digits", [0]) if cell.settings["first"] in ("plain", "denoised")]
        return grid, [experiment.compute(cell, torch.device("cpu")) for cell in grid]


@pytest.fixture(scope="module")
def rows(results):
    source = provenance("python -m tutorial_lib run introspective_plugin --study digits")
    return [
        Row.of(measured, source, experiment=cell.experiment, study=cell.study, seed=cell.seed)
        for cell, result in zip(*results, strict=True)
        for measured in result.measurements
    ]


def test_one_look_is_the_first_network(rows):
    study = load_study("digits")
    for kind in ("plain", "denoised"):
        (seen,) = views_of(robust_classifier(study, kind), study.test.images)
        accuracy = (seen.logits.argmax(1) == study.test.labels).double().mean().item()
        (row,) = [
            r
            for r in rows
            if (r.protocol, r.method, r.condition, r.metric) == (kind, "feed_forward", "known", "accuracy")
        ]
        assert row.value == pytest.approx(accuracy)
        assert row.n == len(study.test)


def test_every_method_has_a_row_for_every_level(rows):
    for kind in ("plain", "denoised"):
        for method in experiment.METHODS:
            found = [r.condition for r in rows if (r.protocol, r.method, r.metric) == (kind, method, "ece")]
            assert found == ["known", *(f"corrupted/{level}" for level in range(1, 6))]


def test_counts_of_recognised_images_give_the_accuracies(results, rows):
    for cell, result in zip(*results, strict=True):
        for name, counts in result.arrays.items():
            method, tries = name.removesuffix("/right"), 10  # two corruptions, five levels
            mine = [
                r.value
                for r in rows
                if (r.protocol, r.method, r.metric) == (cell.settings["first"], method, "accuracy")
                and "corrupted" in r.condition
            ]
            assert counts.mean() / tries == pytest.approx(np.mean(mine))


def test_a_temperature_changes_no_answer_and_fits_validation_images(rows):
    for level in (0, 3, 5):
        assert experiment.gains(rows, "plain", experiment.TEMPERATURE, level=level) == [0.0]
    study = load_study("digits")
    model = study.classifier()
    answer = experiment._temperature(study, model)[experiment.TEMPERATURE]
    (seen,) = views_of(model, study.validation.images)
    losses = [F.cross_entropy(z.double(), study.validation.labels).item() for z in (answer(seen), seen.logits)]
    assert losses[0] <= losses[1]


def test_where_nothing_is_wrong_there_is_no_temperature():
    study, model = load_study("digits"), load_study("digits").classifier()
    (seen,) = views_of(model, study.validation.images)
    right = seen.logits.argmax(1) == study.validation.labels
    study._loaded["validation"] = study.validation.subset(right)
    torch.testing.assert_close(
        experiment._temperature(study, model)[experiment.TEMPERATURE](seen), seen.logits.double()
    )


def test_gains_are_differences_on_the_same_network(rows):
    (gain,) = experiment.gains(rows, "plain", "control_features", level=3)
    value = {(r.protocol, r.method): r.value for r in rows if (r.condition, r.metric) == ("corrupted/3", "accuracy")}
    assert gain == pytest.approx(100 * (value["plain", "control_features"] - value["plain", "feed_forward"]))
    (question,) = experiment.gains(rows, "plain", "introspective_ce", level=3, over="control_features")
    assert question == pytest.approx(100 * (value["plain", "introspective_ce"] - value["plain", "control_features"]))


def test_the_table_stands_beside_the_published_one_and_says_what_was_not_run(rows):
    text = experiment.table(rows)
    assert len(read_published("introspective_plugin")) == 12
    for kind in experiment.PUBLISHED:
        feed_forward, introspective = experiment.published_accuracy(kind)
        (line,) = [
            line for line in text.splitlines() if line.startswith(f"| {KINDS[kind]} ") and "published" not in line
        ][:1]
        assert f"{feed_forward:.2f}" in line
        assert f"{introspective - feed_forward:.2f}" in line
        assert ("not run" in line) == (kind != "plain")
    assert experiment.command("digits") in text
    assert experiment.published_accuracy("denoised") is None


def test_cells_of_cifar10_are_those_that_need_no_new_training():
    assert {cell.settings["first"] for cell in experiment.cells("cifar10", [0])} == {"plain", "denoised"}
    assert {cell.settings["first"] for cell in experiment.cells("cifar10_full", [0])} == set(KINDS)
    assert {cell.settings["network"] for cell in experiment.cells("cifar10_full", [0])} == {"resnet20"}
    assert "cifar10_full" in experiment.command("cifar10")


def test_second_networks_take_their_settings():
    study = load_study("digits")
    small = partial(experiment.second_networks, study, "lenet", study.classifier(), views=1, epochs=1)
    one, again, other = (small(seed, ("control_refit",))["control_refit"] for seed in (0, 0, 1))
    (seen,) = views_of(study.classifier(), study.test.images[:20])
    torch.testing.assert_close(one.predict_logits(*seen), again.predict_logits(*seen))
    assert not np.allclose(one.predict_logits(*seen), other.predict_logits(*seen))


def test_it_is_registered():
    assert "introspective_plugin" in EXPERIMENTS


def test_on_photographs_the_plug_gains_behind_a_denoiser_what_a_last_layer_trained_again_gains():
    """What chapter 13 says at full scale: nothing on plain networks, and behind a denoiser no more than the controls."""
    rows = stored_rows("introspective_plugin", "cifar10")
    plain = experiment.gains(rows, "plain", "introspective_ce")
    assert len(plain) >= 3 and max(plain) < 0.5
    asked, features, refit, balanced = (
        experiment.gains(rows, "denoised", method)
        for method in ("introspective_ce", "control_features", "control_refit", "feed_forward_balanced")
    )
    assert len(asked) >= 3
    for gain, others in zip(asked, zip(features, refit, balanced, strict=True), strict=True):
        assert gain > 2 and max(others[:2]) > gain - 0.5 and others[2] > gain
    question = experiment.gains(rows, "denoised", "introspective_ce", over="control_features")
    assert max(np.abs(question)) < 1
