"""The active learning experiment: twins are twins, rows are the runs, and differences are between equals."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutorial_lib.active_learning import Budget, mean_interval, mean_over_rounds, paired_difference
from tutorial_lib.experiments import active_learning as experiment
from tutorial_lib.introspection import IntrospectiveClassifier
from tutorial_lib.models.predict import predict_logits
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Measurement, Row, provenance
from tutorial_lib.results.stored import stored_rows
from tutorial_lib.runs.registry import EXPERIMENTS, experiment_named
from tutorial_lib.studies import load_study

PLAN = experiment.Plan("digits", "lenet", Budget(8, 4, 2), 4, 8, 1e-3, second_steps=10, pool=40, test=20)


@pytest.fixture(scope="module")
def results():
    """Every strategy by one look, and two of them by the others; a few steps, few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "PLANS", {"digits": PLAN})
        patch.setattr(experiment, "PASSES", 3)
        grid = {(c.settings["look"], c.settings["strategy"]): c for c in experiment.cells("digits", [3])}
        wanted = [k for k in grid if k[0] == "feed_forward" or k[1] in ("random", "bald")]
        return {key: experiment.compute(grid[key], torch.device("cpu")).measurements for key in wanted}


def accuracy(measurements: list[Measurement], condition: str) -> float:
    (value,) = [m.value for m in measurements if (m.condition, m.metric) == (condition, "accuracy")]
    return value


def test_a_run_has_every_round_on_both_test_sets_and_its_flips(results):
    for (look, strategy), measurements in results.items():
        assert {m.condition for m in measurements if m.metric == "accuracy"} == {
            f"{test}/{labels}" for test in experiment.TESTS for labels in (8, 12)
        }
        assert {m.condition for m in measurements if m.metric == "negative_flips"} == set(experiment.TESTS)
        assert {(m.method, m.variant, m.challenging_data) for m in measurements} == {(strategy, look, "none")}


def test_all_strategies_of_a_look_begin_alike(results):
    for look in experiment.LOOKS:
        starts = {accuracy(m, "clean/8") for (of, _), m in results.items() if of == look}
        assert len(starts) == 1


def test_noise_is_the_mean_of_five_levels_of_the_same_images():
    sets = experiment.test_sets(load_study("digits"), 30)
    clean, noise = sets["clean"], sets["gaussian_noise"]
    assert len(noise) == 5 * len(clean) == 150
    assert torch.equal(noise.labels.view(5, 30), clean.labels.expand(5, 30))
    distance = (noise.images.view(5, 30, -1).float() - clean.images.view(30, -1).float()).abs().mean((1, 2))
    assert (distance.diff() > 0).all()


def test_a_second_look_is_trained_on_the_first_network_of_the_same_seed():
    study = load_study("digits")
    some = study.train.subset(range(12))
    one = experiment.train_with(PLAN, study, "feed_forward")(some.images, some.labels, 5)
    for look in ("introspective", "control_features"):
        two = experiment.train_with(PLAN, study, look)(some.images, some.labels, 5)
        assert isinstance(two, IntrospectiveClassifier)
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.first.parameters(), strict=True))
        assert two.network.inputs == ("features" if look == "control_features" else "gradients")
        assert len(two.network.validation_loss) == 1  # ten steps, an epoch of ten
    sharp = experiment.train_with(PLAN, study, "control_temperature")(some.images, some.labels, 5)
    torch.testing.assert_close(predict_logits(sharp, some), predict_logits(one, some) / experiment.TEMPERATURE)
    with pytest.raises(ValueError, match="no look 'third'"):
        experiment.train_with(PLAN, study, "third")


# ----------------------------------------------------------------------------------------------------------------------
# What is made of rows, on rows made up

CURVES = {  # accuracy of two rounds, by look, strategy and seed
    ("feed_forward", "random"): [(0.2, 0.4), (0.3, 0.5), (0.2, 0.6)],
    ("feed_forward", "margin"): [(0.2, 0.5), (0.3, 0.7), (0.2, 0.6)],
    ("introspective", "random"): [(0.3, 0.5), (0.3, 0.5), (0.2, 0.6)],
    ("introspective", "margin"): [(0.3, 0.7), (0.3, 0.7), (0.2, 0.5)],
    ("control_features", "random"): [(0.3, 0.5), (0.2, 0.5), (0.2, 0.6)],
}


@pytest.fixture(scope="module")
def rows():
    source = provenance("python -m tutorial_lib run active_learning --study digits")
    found = []
    for (look, strategy), seeds in CURVES.items():
        for seed, curve in enumerate(seeds):
            measured = [Measurement(strategy, "clean", "negative_flips", 0.05, 10, variant=look)]
            for test in experiment.TESTS:
                for labels, value in zip((50, 20), reversed(curve), strict=True):  # in any order
                    measured.append(Measurement(strategy, f"{test}/{labels}", "accuracy", value, 10, variant=look))
            found += [Row.of(m, source, experiment="active_learning", study="digits", seed=seed) for m in measured]
    return found


def test_histories_are_the_curves(rows):
    runs = experiment.histories(rows, "margin", "introspective")
    assert [run.seed for run in runs] == [0, 1, 2]
    assert [tuple(run.accuracy("gaussian_noise")) for run in runs] == CURVES["introspective", "margin"]
    assert runs[0].labelled().tolist() == [20, 50]


def test_the_difference_to_the_twin_is_that_of_the_library(rows):
    runs, twins = (experiment.histories(rows, name) for name in ("margin", "random"))
    assert experiment.to_twin(rows, "margin") == paired_difference(runs, twins, "clean")
    assert experiment.to_twin(rows, "margin").value == pytest.approx(0.05)
    differences = [
        mean_over_rounds(a, "clean") - mean_over_rounds(b, "clean") for a, b in zip(runs, twins, strict=True)
    ]
    assert experiment.pair_noise(rows, "margin") == pytest.approx(np.std(differences, ddof=1))


def test_a_gain_is_taken_apart_into_answers_and_choice(rows):
    whole = experiment.look_gain(rows, "margin")
    answers = experiment.look_gain(rows, "random")
    np.testing.assert_allclose(whole, [0.15, 0, -0.05])
    np.testing.assert_allclose(answers, [0.1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(experiment.choice_gain(rows, "margin"), np.subtract(whole, answers))
    part = [row for row in rows if (row.method, row.seed) != ("random", 0)]  # a part of a grid: its twin is not there
    assert experiment.to_twin(part, "margin").value == pytest.approx(0.05)
    assert "Margin" in str(experiment.table([row for row in rows if row.method == "margin"]))
    alone = [row for row in rows if row.method == "random" or row.seed == 0]  # one pair: nothing to say of luck
    assert "standard deviation" not in str(experiment.table(alone))
    np.testing.assert_allclose(experiment.choice_gain(part, "margin"), np.subtract(whole, answers)[1:])


def test_table_has_ours_and_the_published_gains(rows):
    text = str(experiment.table(rows))
    strategies, clean, noise = [line for line in text.splitlines() if line.startswith("| Margin")]
    assert "+5.0 ± 12.4 " in strategies and "*" not in strategies
    assert "+0.1 / +0.4" in clean and "+1.4 / +1.0" in noise  # .381 - .380, .373 - .369; .265 - .251, ...
    assert [entry.strip() for entry in clean.split("|")[5:7]] == ["–", "–"]  # no rows of the control
    one_seed = experiment.table([row for row in rows if row.seed == 0])
    assert "+5.0 " in one_seed and "standard deviation" not in one_seed


def test_the_published_table_is_whole():
    published = read_published("active_learning")
    assert len(published) == 40
    assert {row["strategy"] for row in published} == set(experiment.TITLES.values()) - {"Random"}
    assert {row["test_set"] for row in published} == set(experiment.TESTS.values())
    gains = {}
    for test in experiment.TESTS.values():
        two, one = (
            np.mean([r["value"] for r in published if (r["test_set"], r["inference"]) == (test, inference)])
            for inference in ("introspective", "feed-forward")
        )
        gains[test] = two - one
    assert gains["original"] == pytest.approx(0.0023, abs=5e-4)
    assert gains["gaussian_noise"] == pytest.approx(0.0118, abs=5e-4)


def test_it_is_registered_and_every_run_has_its_twin():
    assert tuple(experiment.PLANS) == EXPERIMENTS["active_learning"].studies
    for study in experiment.PLANS:
        grid = experiment_named("active_learning").cells(study, [0, 1])
        runs = {(c.settings["look"], c.settings["strategy"], c.seed) for c in grid}
        assert len(runs) == len(grid) == 2 * 4 * 6
        assert all((look, "random", seed) in runs for look, _, seed in runs)


# What chapter 14 says of the rows that come with the library: one test per paragraph.


def leaves_zero_out(interval):
    return not interval.low <= 0 <= interval.high


def test_what_is_said_of_twenty_pairs_of_digits():
    rows = stored_rows("active_learning", "digits")
    assert len(experiment.histories(rows, "random")) >= 20
    leads = {name: experiment.to_twin(rows, name) for name in experiment.TITLES if name != "random"}
    assert {name for name, lead in leads.items() if lead.low > 0} == {"margin", "badge", "least_confidence"}
    assert leads["bald"].value < 0 and not leaves_zero_out(leads["entropy"])
    assert experiment.to_twin(rows, "entropy", "clean", "last_round").low > 0
    for name, lead in leads.items():
        assert abs(lead.value) < 2 * experiment.pair_noise(rows, name), f"a single pair could have shown {name}"
    clean, noisy = (experiment.mean_accuracy(rows, "random", test) for test in experiment.TESTS)
    assert (
        clean - noisy < 0.02 < 0.1 < experiment.published_accuracy() - experiment.published_accuracy("gaussian_noise")
    )


def test_what_is_said_of_a_second_look_at_digits():
    rows = stored_rows("active_learning", "digits")
    gains = {name: mean_interval(experiment.look_gain(rows, name)) for name in experiment.TITLES}
    in_print = np.mean([gain for name in experiment.TITLES for gain in experiment.published_gains(name)])
    assert gains["random"].low > 0 and gains["random"].value > in_print
    for name in ("margin", "badge"):
        assert gains[name].value <= gains["random"].value + 0.002
    for name in ("entropy", "bald"):
        assert gains[name].value > gains["random"].value + 0.01
        by_features = mean_interval(experiment.look_gain(rows, name, look="control_features"))
        assert by_features.value < gains[name].value
    over = {}
    for name in ("entropy", "bald"):
        sharper = np.array(experiment.look_gain(rows, name, look="control_temperature"))
        over[name] = mean_interval(np.array(experiment.look_gain(rows, name)) - sharper)
    assert not leaves_zero_out(over["entropy"]) and over["bald"].low > 0


def test_what_is_said_of_ten_pairs_of_mnist():
    rows = stored_rows("active_learning", "mnist")
    assert len(experiment.histories(rows, "random")) >= 10
    for strategy in ("margin", "badge", "least_confidence"):
        for test in experiment.TESTS:
            assert experiment.to_twin(rows, strategy, test).low > 0, (strategy, test)
    for strategy in ("entropy", "bald"):
        assert not leaves_zero_out(experiment.to_twin(rows, strategy))
    for study in ("digits", "mnist"):  # these two can't be told apart
        ours = stored_rows("active_learning", study)
        margin, badge = (experiment.histories(ours, name) for name in ("margin", "badge"))
        assert not leaves_zero_out(paired_difference(margin, badge, "clean")), study
    assert mean_interval(experiment.look_gain(rows, "random")).value > 0
    for strategy in ("margin", "badge", "entropy"):
        assert not leaves_zero_out(mean_interval(experiment.look_gain(rows, strategy))), strategy
    assert mean_interval(experiment.choice_gain(rows, "bald")).low > 0
    twice = experiment.mean_accuracy(rows, "bald", look="introspective")
    assert twice < experiment.mean_accuracy(rows, "margin")


def test_on_photographs_nobody_can_be_told_from_dice_by_one_look_or_by_two():
    rows = stored_rows("active_learning", "cifar10")
    assert len(experiment.histories(rows, "random")) >= 3
    strategies = sorted(set(experiment.TITLES) - {"random"})
    for look in ("feed_forward", "introspective"):
        for strategy in strategies:
            assert not leaves_zero_out(experiment.to_twin(rows, strategy, look=look)), (look, strategy)
    for strategy in ("entropy", "bald"):
        assert not leaves_zero_out(experiment.to_twin(rows, strategy, "gaussian_noise", look="introspective"))
        assert not leaves_zero_out(mean_interval(experiment.look_gain(rows, strategy)))
    told = [
        (strategy, test)
        for strategy in strategies
        for test in experiment.TESTS
        if leaves_zero_out(mean_interval(experiment.look_gain(rows, strategy, test)))
    ]
    assert told == [("bald", "gaussian_noise"), ("entropy", "gaussian_noise")], (
        "the chapter says which, and doubts them"
    )
    margin = experiment.to_twin(rows, "margin")
    assert margin.high < experiment.to_twin(stored_rows("active_learning", "mnist"), "margin").low
    clean, noisy = (experiment.mean_accuracy(rows, "random", test) for test in experiment.TESTS)
    assert abs(clean - experiment.published_accuracy()) < 0.05 and clean - noisy < 0.02
    for test in experiment.TESTS:
        assert abs(mean_interval(experiment.look_gain(rows, "random", test)).value) < 0.005
    assert all(gain > 0 for name in strategies for gain in experiment.published_gains(name, "gaussian_noise"))
