"""MSP and ODIN on second looks: the numbers are the detectors', the published table stands beside them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from tutorial_lib.detectors import MSP
from tutorial_lib.experiments import introspective_ood as experiment
from tutorial_lib.introspection import second_network
from tutorial_lib.metrics import auroc
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row, provenance
from tutorial_lib.results.stored import stored_rows
from tutorial_lib.runs.registry import EXPERIMENTS
from tutorial_lib.studies import load_study


@pytest.fixture(scope="module")
def results():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "second_network", partial(second_network, epochs=3))
        patch.setattr(experiment, "VIEWS", 1)
        grid = {cell.settings["output"]: cell for cell in experiment.cells("digits", [0])}
        return {o: experiment.compute(grid[o], torch.device("cpu")) for o in ("feed_forward", "introspective_ce")}


def test_one_look_is_the_detector_on_the_network(results):
    study = load_study("digits")
    detector = MSP(study.classifier())
    scores = detector.predict(study.test.images), detector.predict(study.shift("photographs").images[:1000])
    (found,) = [
        m.value
        for m in results["feed_forward"].measurements
        if (m.method, m.condition, m.metric) == ("msp", "photographs", "auroc")
    ]
    if len(study.shift("photographs")) <= experiment.STRANGE:
        assert found == pytest.approx(auroc(*scores))
    np.testing.assert_allclose(results["feed_forward"].arrays["msp/known"], scores[0])


def test_scores_that_are_kept_give_the_rows(results):
    for output, result in results.items():
        for measured in result.measurements:
            assert measured.variant == output
            assert measured.challenging_data == "none"
            if measured.metric == "auroc":
                kept = (result.arrays[f"{measured.method}/{name}"] for name in ("known", measured.condition))
                assert auroc(*kept) == pytest.approx(measured.value)


def test_published_table_is_whole_and_stands_beside_cifar10():
    assert len(read_published("introspective_ood")) == 48
    source = provenance("python -m tutorial_lib run introspective_ood --study cifar10")
    made_up = [
        Row(
            method="msp", condition="svhn", metric=metric, value=0.5, n=10, variant="feed_forward", network="resnet20",
            experiment="introspective_ood", study="cifar10", **vars(source),
        )
        for metric in experiment.METRICS
    ]  # fmt: skip
    text = experiment.table(made_up)
    (row,) = read_published(
        "introspective_ood", method="MSP", inference="introspective", ood_dataset="SVHN", metric="AUROC"
    )
    assert f"{row['value']:g}" in text


def test_one_published_cell_is_impossible_and_one_number_is_printed_twice():
    found = experiment.suspects()
    assert set(found) == {
        ("ODIN", "introspective", "Textures"),
        ("MSP", "feed-forward", "SVHN"),
        ("MSP", "feed-forward", "Places365"),
    }
    assert "AUROC 91.9 beside FPR 9.31" in found["ODIN", "introspective", "Textures"]
    text = str(experiment.published_table())
    assert "9.31 / 6.12 / 91.90 (?)" in text
    assert text.count("(?)") == 2 * len(found)


def test_our_own_curves_seldom_fail_the_test_that_the_published_cell_fails():
    ours = experiment.below_least(stored_rows("introspective_ood", "digits"))
    assert len(ours) % (len(experiment.DETECTORS) * len(experiment.OUTPUTS)) == 0
    assert np.mean(np.array(ours) > 0) < 0.05  # a curve need not be concave, but most are nearly so


def test_gains_are_paired_by_network():
    source = provenance("python -m tutorial_lib run introspective_ood --study digits")
    rows = [
        Row(
            method="msp", condition="noise", metric="auroc", value=value, n=10, variant=variant, seed=seed,
            network="lenet", experiment="introspective_ood", study="digits", **vars(source),
        )
        for variant, seed, value in (
            ("feed_forward", 0, 0.5), ("feed_forward", 1, 0.75), ("introspective_ce", 1, 0.5),
            ("introspective_ce", 0, 0.75),
        )
    ]  # fmt: skip
    gains = experiment.auroc_gains(rows, "msp", "introspective_ce")
    assert sorted(gains["noise"]) == [-25.0, 25.0]


def test_it_is_registered():
    assert "introspective_ood" in EXPERIMENTS


def test_on_photographs_the_question_makes_strangers_harder_to_see():
    """What chapter 13 says of the stored rows: of the mean over strangers, and of house numbers."""
    rows = stored_rows("introspective_ood", "cifar10")
    mean = {}
    for detector in ("msp", "odin"):
        for output in ("introspective_ce", "control_features"):
            gains = experiment.auroc_gains(rows, detector, output)
            mean[detector, output] = np.mean(list(gains.values()))
        assert mean[detector, "introspective_ce"] < -1
        assert mean[detector, "introspective_ce"] < mean[detector, "control_features"]
    features, asked = (
        experiment.auroc_gains(rows, "odin", o)["svhn"] for o in ("control_features", "introspective_ce")
    )
    assert max(features) > 5 > 3 > max(asked), "the gain of the printed size is without the question"
    assert min(features) < 0, "and not on every network"


def test_on_photographs_each_network_says_so_but_of_house_numbers():
    rows = stored_rows("introspective_ood", "cifar10")
    for detector in ("msp", "odin"):
        asked, features = (experiment.auroc_gains(rows, detector, o) for o in ("introspective_ce", "control_features"))
        each = np.mean(list(asked.values()), axis=0)
        assert len(each) >= 2 and (each < -1).all() and (each < np.mean(list(features.values()), axis=0)).all()
        assert max(asked["textures"]) < 0 and np.ptp(asked["textures"]) < 3
        assert min(asked["svhn"]) < 0 < max(asked["svhn"])


def test_on_photographs_the_fpr_of_house_numbers_falls_with_the_question_and_without():
    found = {}
    for row in stored_rows("introspective_ood", "cifar10"):
        if (row.method, row.condition, row.metric) == ("odin", "svhn", "fpr_at_95_tpr_in"):
            found.setdefault(row.variant, []).append(row.value)
    once, asked, features = (np.array(found[o]) for o in ("feed_forward", "introspective_ce", "control_features"))
    assert len(once) >= 2 and (asked < once - 0.1).all() and (features < once - 0.1).all()
    assert (features - asked).min() < 0 < (features - asked).max(), "the networks do not agree which falls further"
