"""The experiment of chapters 2 and 3: its grid, one cell by hand, and what the stored rows must say for the chapters."""

import functools

import numpy as np
import pytest
import torch

from tutorial_lib.experiments import single_pass_vs_ensembles as experiment
from tutorial_lib.experiments.single_pass_vs_ensembles import over_seeds, stored
from tutorial_lib.metrics import auroc
from tutorial_lib.models import build
from tutorial_lib.models.predict import predict_features, predict_logits
from tutorial_lib.results.published import read_published
from tutorial_lib.studies import load_study
from tutorial_lib.training import trained
from tutorial_lib.uncertainty.class_gaussians import ClassGaussians
from tutorial_lib.uncertainty.deep_ensemble import DeepEnsemble
from tutorial_lib.uncertainty.moons import PointsNetwork, fit_points, moved, two_moons

CPU = torch.device("cpu")


def test_the_grid():
    digits = experiment.cells("digits", range(5))
    assert len({cell.key for cell in digits}) == len(digits) == 7 * 5 + 1
    assert len(experiment.cells("mnist", range(3))) == 7 * 3, (
        "side by side is for networks that do not fill a processor"
    )
    assert len(experiment.cells("moons", range(2))) == 2 * 7 * 2
    large = experiment.cells("cifar10", range(3))
    assert len({cell.key for cell in large}) == len(large) == 2 + 5 + 4 + 1
    alone = {(c.settings["network"], c.seed) for c in large if c.settings["group"] == "alone"}
    assert alone == {("resnet20", 1), ("resnet20", 2), ("airbench", 0), ("airbench", 1)}


def test_an_ensemble_answers_with_the_mean_of_its_members_and_nobody_is_asked_twice(monkeypatch):
    asked = []
    real = experiment.predict_logits
    monkeypatch.setattr(experiment, "predict_logits", lambda model, images: asked.append(1) or real(model, images))
    torch.manual_seed(0)
    members = [build("lenet", 10, (1, 8, 8)).eval() for _ in range(3)]
    softmax = [experiment._softmax(member) for member in members]
    images = torch.rand(5, 1, 8, 8)
    together = experiment._mean(softmax)(images)
    by_hand = torch.stack([member(images).double().softmax(1) for member in members]).mean(0)
    torch.testing.assert_close(together, by_hand, rtol=0, atol=1e-6)
    asked_as_one = predict_logits(DeepEnsemble(members).eval(), images).double().softmax(1)
    torch.testing.assert_close(together, asked_as_one, rtol=0, atol=1e-6)
    experiment._mean(softmax[:2])(images)
    assert len(asked) == 3
    experiment._mean(softmax)(images.clone())
    assert len(asked) == 6, "other images are other images, whatever they hold"


def test_the_length_of_the_features_by_hand():
    """Networks of the digits have few features, so that distances can be computed one by one."""
    study = load_study("digits")
    cell = experiment.Cell(experiment.NAME, "digits", 0, {"group": "length", "network": "lenet"})
    found = {(m.method, m.condition): m.value for m in experiment.compute(cell, CPU).measurements}
    model = study.classifier("lenet", seed=0)

    def lengths(images):
        return [float(row.norm()) for row in predict_features(model, images)]

    strangers = study.shift("photographs").images
    known, strange = lengths(study.test.images), lengths(strangers)
    pairs = [(s < k) + 0.5 * (s == k) for s in strange for k in known]
    assert found["feature length", "photographs"] == pytest.approx(np.mean(pairs), abs=1e-6)
    directions = predict_features(model, study.train.images).double()
    directions = directions / directions.norm(dim=1, keepdim=True)
    density = ClassGaussians.fit(directions, study.train.labels)

    def unit(images):
        features = predict_features(model, images).double()
        return -density.log_density(features / features.norm(dim=1, keepdim=True))

    assert found["DDU", "photographs"] == pytest.approx(auroc(unit(study.test.images), unit(strangers)), abs=1e-6)


def test_a_cell_of_the_moons_by_hand(monkeypatch):
    monkeypatch.setattr(experiment, "MOONS", 200)
    monkeypatch.setattr(experiment, "fit_points", functools.partial(fit_points, epochs=3))
    (cell,) = [
        c for c in experiment.cells("moons", [1]) if dict(c.settings) == {"network": "plain", "useless_axis": True}
    ]
    found = {(m.method, m.condition): m.value for m in experiment.compute(cell, CPU).measurements}
    train, test = two_moons(200, 1, True), two_moons(500, 1001, True)
    network = fit_points(PointsNetwork(3, residual=False, seed=1), train, epochs=3, seed=1)
    with torch.no_grad():
        h = network.features(train.x).double()
        means = torch.stack([h[train.y == c].mean(0) for c in (0, 1)])

        def nearest(x):
            return (network.features(x).double()[:, None] - means).norm(dim=2).amin(1)

        expected = auroc(nearest(test.x), nearest(moved(test.x, 0.5)))
        right = (network(test.x).argmax(1) == test.y).double().mean().item()
    assert found["distance to class means", "moved by 0.5"] == pytest.approx(expected, abs=2e-3)
    assert found["", "known"] == pytest.approx(right)


def test_held_out_classes_are_never_trained_on():
    study = load_study("digits")
    smaller, strangers = experiment._without_last_classes(study)
    assert smaller.num_classes == 6 and int(smaller.train.labels.max()) == 5
    assert set(strangers.labels.tolist()) == {6, 7}
    assert len(smaller.validation) + len(strangers) == len(study.validation)


def test_ambiguous_images_are_added_to_the_training_images_alone():
    study = load_study("digits")
    mixed = experiment.with_ambiguous(study)
    assert len(mixed.train) == len(study.train) + len(study.train) // 2
    assert torch.equal(mixed.test.images, study.test.images)


def test_the_published_rows_are_there():
    (dropout,) = read_published(
        "single_pass_vs_ensembles", dataset="CIFAR-10-C", method="MC dropout", metric="accuracy_percent"
    )
    (one,) = read_published(
        "single_pass_vs_ensembles", dataset="CIFAR-10-C", method="one network", metric="accuracy_percent"
    )
    assert (dropout["value"], one["value"]) == (70.0, 76.1)


def test_five_seeds_of_everything_are_stored():
    for study in ("digits", "moons"):
        by_row = {}
        for row in stored(study):
            by_row.setdefault((row.series, row.condition, row.metric), set()).add(row.seed)
        assert all(seeds == set(range(5)) for key, seeds in by_row.items() if "training" not in key[0])


def test_what_chapter_3_says_of_two_moons():
    """The softmax points the wrong way, distances do not need their cures; along a useless axis class means are blind."""
    networks = ("plain", "residual")
    for condition in ("blob", "ring"):
        assert np.mean(over_seeds("moons", network="residual", method="softmax entropy", condition=condition)) < 0.25
        for network in networks:
            assert np.mean(over_seeds("moons", network=network, method="density", condition=condition)) > 0.9
        assert np.mean(over_seeds("moons", network="DUQ, penalty 0", method="kernel", condition=condition)) > 0.9
    half = {"condition": "moved by 0.5", "metric": "auroc"}
    for network in networks:
        means = np.mean(over_seeds("moons", network=network, method="distance to class means", **half))
        density = np.mean(over_seeds("moons", network=network, method="density", **half))
        assert means < 0.65 and (network == "plain" or density > means + 0.1)


def test_what_chapter_2_says_of_members():
    def mean(size, metric="nll", condition="known"):
        return np.mean(over_seeds("digits", method="members", variant=str(size), metric=metric, condition=condition))

    assert mean(5) < mean(1) and mean(5, "auroc_entropy", "unseen_classes") > mean(1, "auroc_entropy", "unseen_classes")
    for size in ("5", "20"):
        (ratio,) = over_seeds("digits", method="training", metric="time_ratio", variant=size)
        assert 0 < ratio < 1.2


def test_the_table_names_every_method():
    text = experiment.table([*stored("digits"), *stored("moons")])
    for word in ("ensemble of 10", "MC dropout, after every layer", "DUQ, penalty chosen", "DDU, bounded", "SNGP"):
        assert word in text
    assert "residual, bound .65: density" in text and "auroc nan" not in text


def test_nobody_knows_how_long_a_network_that_ships_took_here():
    """Reading it from the disk takes 0.02 s; that is no time of training."""
    assert stored("cifar10", condition="cost", metric="batch_seconds")
    assert not stored("cifar10", condition="cost", metric="training_seconds")
    here = stored("digits", condition="cost", metric="training_seconds", method="one network")
    assert here and min(row.value for row in here) > 0.1


def test_what_is_at_hand_is_not_trained():
    digits = load_study("digits")
    assert trained.is_at_hand(digits, "lenet", 0) == trained.shipped_file(digits, "lenet", 0).exists()
    assert not trained.is_at_hand(digits, "lenet", 987654)


# CIFAR-10: what chapters 2 and 3 say of the networks that ship and of a fast one, of every training


def test_several_networks_on_photographs_as_chapter_2_says():
    assert {row.n for row in stored("cifar10", metric="ece", condition="known")} == {10_000}
    for network, together, better_calibrated in (
        ("resnet20", "ensemble of 3", True),
        ("airbench", "ensemble of 2", False),
    ):

        def several_less_one(metric, condition="known", network=network, together=together):
            which = {"network": network, "metric": metric, "condition": condition}
            (several,) = over_seeds("cifar10", method=together, **which)
            return several - np.mean(over_seeds("cifar10", method="one network", **which))

        assert several_less_one("accuracy") > 0.005 and several_less_one("nll") < -0.01
        assert (several_less_one("ece") < 0) == better_calibrated and abs(several_less_one("ece")) > 0.01
        assert several_less_one("ece", "noise/3") < -0.03


def told_on_photographs(network, method, variant="", metric="auroc_epistemic", only=None):
    """AUROC of each training, on one kind or in the mean over all."""
    kinds = {row.condition for row in stored("cifar10", metric="auroc_entropy", method="one network")} - {"ambiguous"}
    assert len(kinds) == 10
    which = {"network": network, "method": method, "variant": variant, "metric": metric}
    return np.mean([over_seeds("cifar10", condition=kind, **which) for kind in ([only] if only else kinds)], axis=0)


def test_a_density_turns_round_on_another_network_as_chapter_3_says():
    entropy, density, unit, length, process = (
        {network: told_on_photographs(network, *which) for network in ("resnet20", "airbench")}
        for which in (
            ("one network", "", "auroc_entropy"),
            ("DDU", "on top"),
            ("DDU", experiment.UNIT),
            (experiment.LENGTH, "short is strange"),
            ("SNGP", "on top"),
        )
    )
    assert {network: len(found) for network, found in density.items()} == {"resnet20": 3, "airbench": 2}
    three = told_on_photographs("resnet20", "ensemble of 3", metric="auroc_entropy")

    numbers = told_on_photographs("resnet20", "DDU", "on top", only="svhn")
    of_three = told_on_photographs("resnet20", "ensemble of 3", metric="auroc_entropy", only="svhn")
    of_one = told_on_photographs("resnet20", "one network", metric="auroc_entropy", only="svhn")
    assert numbers.min() > of_three.max() > of_one.max()
    assert (density["resnet20"] < entropy["resnet20"] - 0.03).all()

    assert told_on_photographs("airbench", "DDU", "on top", only="svhn").max() < 0.4
    assert density["airbench"].max() < 0.5
    assert (np.abs(length["airbench"] - entropy["airbench"]) < 0.02).all()
    for network in ("resnet20", "airbench"):
        assert (unit[network] > density[network] + 0.05).all()

    assert unit["resnet20"].min() > max(three.max(), process["resnet20"].max())
    assert (entropy["airbench"] > np.maximum(unit["airbench"], process["airbench"])).all()
    assert told_on_photographs("resnet20", "DDU", "untrained") < density["resnet20"].min() - 0.05
    assert told_on_photographs("resnet20", "DDU", "untrained", only="svhn") < 0.5
    accuracy = {"metric": "accuracy", "condition": "known", "method": "one network"}
    fast, small = (over_seeds("cifar10", network=network, **accuracy) for network in ("airbench", "resnet20"))
    assert min(fast) > max(small)


# MNIST: what chapters 2 and 3 say of it, one test for each of them.


def told_by(study, metric, **which):
    """Mean AUROC over the kinds of stranger, one number for each seed."""
    rows = [row for row in stored(study, metric=metric, **which) if row.condition != "ambiguous"]
    by_seed = {}
    for row in rows:
        by_seed.setdefault(row.seed, []).append(row.value)
    assert {len(values) for values in by_seed.values()} == {9}
    return np.array([np.mean(values) for _, values in sorted(by_seed.items())])


def test_three_seeds_of_mnist_are_stored():
    by_row = {}
    for row in stored("mnist"):
        by_row.setdefault((row.series, row.condition, row.metric), set()).add(row.seed)
    assert by_row and all(seeds == {0, 1, 2} for key, seeds in by_row.items() if "training" not in key[0])
    assert {row.n for row in stored("mnist", metric="nll")} == {10_000}


def test_what_chapter_2_says_of_mnist():
    lenet = {"network": "lenet"}
    one, two, five = (
        told_by("mnist", "auroc_entropy", method=name, **lenet)
        for name in ("one network", "ensemble of 2", "ensemble of 5")
    )
    assert (two > one).all() and (five > one).all()
    for metric, better in (("nll", -1), ("ece", 1)):  # the likelihood gains, the calibration loses
        alone, together = (
            np.array(over_seeds("mnist", method=name, condition="known", metric=metric, **lenet))
            for name in ("one network", "ensemble of 5")
        )
        assert (better * (together - alone) > 0).all(), metric
    on_top = told_by("mnist", "auroc_epistemic", method="DDU", variant="on top", **lenet)
    assert on_top.mean() < one.mean()
    apart = {"condition": "ambiguous against photographs", "variant": "mutual_information", "method": "ensemble of 5"}
    assert min(over_seeds("mnist", **apart)) > max(over_seeds("digits", **apart))


def test_what_chapter_3_says_of_mnist():
    residual = {"network": "resnet20"}
    softmax = told_by("mnist", "auroc_entropy", method="one network", **residual)
    density = told_by("mnist", "auroc_epistemic", method="DDU", variant="unbounded", **residual)
    bounded = told_by("mnist", "auroc_epistemic", method="DDU", variant="bounded", **residual)
    assert density.min() > 0.99 > 0.8 > softmax.min() and np.ptp(softmax) > 0.1, "the softmax is a matter of luck"
    assert abs(bounded.mean() - density.mean()) < 0.01
    ways = {"method": "DDU", "condition": "ambiguous against photographs"}
    assert min(over_seeds("mnist", variant="density", **ways)) > max(
        over_seeds("mnist", variant="softmax_entropy", **ways)
    )
    known = stored("mnist", metric="accuracy", condition="known", **residual)
    assert min(row.value for row in known if row.variant != "untrained") > 0.99
    assert np.ptp(told_by("mnist", "auroc_entropy", method="DDU", variant="bounded", **residual)) > 0.05
    on_top = told_by("mnist", "auroc_epistemic", method="DDU", variant="on top", network="lenet")
    assert on_top.mean() < told_by("mnist", "auroc_entropy", method="one network", network="lenet").mean()
    cost = {"condition": "cost", "metric": "batch_seconds"}
    large = np.mean(over_seeds("mnist", method="DDU", variant="unbounded", **residual, **cost))
    assert large > np.mean(over_seeds("mnist", method="ensemble of 5", network="lenet", **cost))


def test_far_strangers_are_told_by_a_density_that_was_never_trained():
    """The cheapest control of chapter 3's distances: what training adds is seen near by."""
    initial, learned = (
        {"method": "DDU", "network": "resnet20", "variant": name} for name in ("untrained", "unbounded")
    )
    for study in ("digits", "mnist"):
        assert max(over_seeds(study, condition="known", metric="accuracy", **initial)) < 0.3
    score = {"metric": "auroc_epistemic"}
    for kind in ("photographs", "textures", "noise"):
        assert min(over_seeds("mnist", condition=kind, **score, **initial)) > 0.98, kind
    for near in ("rotated", "ambiguous"):
        before, after = (over_seeds("mnist", condition=near, **score, **which) for which in (initial, learned))
        assert (np.subtract(after, before) > 0.03).all(), near
