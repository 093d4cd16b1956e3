"""The out-of-distribution experiment: what is learned from is never what is tested on."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tutorial_lib.experiments import out_of_distribution as module
from tutorial_lib.metrics import auroc, detection_accuracy
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Measurement, Provenance, Row
from tutorial_lib.results.stored import stored_arrays, stored_rows
from tutorial_lib.runs.experiment import Cell
from tutorial_lib.studies import load_study


@pytest.fixture(scope="module")
def study():
    return load_study("digits")


@pytest.mark.parametrize("name", load_study("digits").shift_names)
def test_no_source_image_is_on_both_sides(study, name):
    learned, tested = (set(side.source.tolist()) for side in module.challenging_sides(study.shift(name)))
    assert learned and tested and not learned & tested


def test_what_was_made_of_an_image_is_on_its_side(study):
    sides = [
        module.challenging_sides(images) for images in (study.test, study.shift("rotated"), study.shift("inverted"))
    ]
    for side in (0, 1):
        assert len({tuple(sorted(parts[side].source.tolist())) for parts in sides}) == 1


def test_shares_are_about_those_announced():
    images = load_study("digits").test
    many = replace(images, **{"source": torch.arange(len(images)) * 7919})
    learned, tested = module.challenging_sides(many)
    assert len(learned) + len(tested) == len(images)
    assert abs(len(learned) / len(images) - module.FIT_SHARE) < 0.05


@pytest.mark.parametrize("method", ["energy", "purview"])
def test_a_cell_measures_what_its_arrays_say(method):
    cell = Cell(module.NAME, "digits", 0, {"network": "lenet", "method": method}, module.VERSION)
    result = module.compute(cell, torch.device("cpu"))
    supervised = method == "purview"
    assert {m.challenging_data for m in result.measurements} == ({"same", "other"} if supervised else {"none"})
    for m in result.measurements:
        if m.metric == "auroc":
            prefix = f"{m.challenging_data}/{m.condition}" if supervised else m.condition
            known = result.arrays[f"{prefix}/known" if supervised else "known"]
            assert m.value == pytest.approx(
                auroc(known, result.arrays[prefix]), abs=1e-4
            )  # arrays are in single precision
            assert m.n == len(known) + len(result.arrays[prefix])


def test_features_once_or_images_each_time_give_the_same_scores(study):
    """The experiment goes through the network once for all second stages; ``fit`` and ``predict`` do each time."""
    from sklearn.linear_model import LogisticRegression

    from tutorial_lib.detectors import Purview

    model = study.classifier()
    known, strange = study.validation, study.shift("noise")
    plain = Purview(model, LogisticRegression(C=0.1, max_iter=5000)).fit(known, strange).predict(study.test.images)
    short = Purview(model, LogisticRegression(C=0.1, max_iter=5000))
    short.fit_from(short.observe(known), short.observe(strange))
    np.testing.assert_allclose(short.predict_from(short.observe(study.test)), plain, rtol=1e-6)


def test_published_numbers_are_those_of_the_paper():
    path = Path(module.__file__).parent / "published" / "out_of_distribution.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6 * 5 * 3  # pairs, methods, metrics
    assert {row["method"] for row in rows} <= set(module.METHODS)
    ours = [
        row
        for row in rows
        if (row["study"], row["condition"], row["method"], row["metric"]) == ("cifar10", "svhn", "purview", "auroc")
    ]
    assert [float(row["value"]) for row in ours] == [0.9984]  # slide 88 of the tutorial


# --- tables -----------------------------------------------------------------------------------------------------------


HERE = Provenance("c", "c", "v", "d")


def row(method, condition, value, study="cifar10", metric="auroc", seed=0, seen="none", network="", protocol=""):
    network = network or load_study(study).network
    measured = Measurement(method, condition, metric, value, 100, seen, network=network, protocol=protocol)
    return Row.of(measured, HERE, experiment=module.NAME, study=study, seed=seed)


def line(text, *words):
    """The one line of a text that holds all words, cut at its bars."""
    [found] = [line for line in text.splitlines() if all(word in line for word in words)]
    return [entry.strip() for entry in found.strip("|").split("|")]


def test_the_table_stands_beside_the_published_one():
    rows = [
        row("purview", "svhn", 0.9123, seen="same"),
        row("purview", "svhn", 0.1, seen="other"),  # another protocol than the published one
        row("purview", "svhn", 0.8, metric="aupr_out", seen="same"),
        row("msp", "svhn", 0.75, metric="detection_accuracy"),
    ]
    blocks = module.beside_published(rows, "cifar10").split("\n\n")
    assert module.table(rows).startswith(blocks[0])
    measures = {blocks[n].split(" in %")[0]: blocks[n + 1] for n in (0, 2, 4)}
    auroc, accuracy, aupr = (measures[f"cifar10: {name}"] for name in ("AUROC", "Detection accuracy", "AUPR"))
    titles = line(auroc, "Method")
    printed = {
        (r["method"], r["condition"], r["metric"]): f"{100 * r['value']:.1f}"
        for r in read_published(module.NAME, study="cifar10")
    }
    published, ours, of_lsun = (titles.index(f"{name}") for name in ("svhn, published", "svhn, ours", "lsun, ours"))
    purview = line(auroc, "Purview")
    assert purview[1] == "this very set"
    assert purview[published] == printed["purview", "svhn", "auroc"] == "99.8" and purview[ours] == "91.2"
    assert purview[of_lsun] == "–" and purview[of_lsun - 1] == "99.9"  # the images are not here
    assert line(aupr, "Purview")[published : ours + 1] == [printed["purview", "svhn", "aupr"], "80.0"]
    assert line(accuracy, "Maximum softmax")[published : ours + 1] == [
        printed["msp", "svhn", "detection_accuracy"],
        "75.0",
    ]
    assert line(auroc, "Gradient fusion")[1:4] == ["no stranger", "–", "–"]  # nobody has printed it


def test_forward_and_backward_fills_itself_in():
    rows = [
        row("gradient_density", "noise", 0.9, "digits"),
        row("gradient_density", "rotated", 0.7, "digits"),
        row("gradient_density", "noise", 0.8, "digits", seed=1),
        row("gradient_density", "rotated", 0.8, "digits", seed=1),
        row("gradient_density", "unknown_classes", 0.6, "digits", protocol="open_set"),
        row("gradient_density", "noise", 0.1, "digits", protocol="open_set"),  # far strangers do not count here
        row("purview", "noise", 0.5, "digits", seen="same"),
    ]
    assert module.means_by_seed(rows, "digits", "lenet", "gradient_density") == pytest.approx([0.8, 0.8])
    text = module.forward_and_backward(rows)
    found = dict(zip(line(text, "Method"), line(text, "Density of gradient norms"), strict=True))
    assert found["pass"] == "backward" and found["digits, LeNet"] == "80.0 ± 0.0"
    assert found["unseen digits, LeNet of four classes"] == "60.0" and found["MNIST, LeNet"] == module.NOT_RUN
    assert line(text, "GradPCA, last layer")[3] == "–"  # not of the grid on a second network
    assert "--save" in text


def test_protocols_and_networks_have_blocks_of_their_own():
    rows = [
        row("energy", "noise", 0.9, "digits"),
        row("energy", "noise", 0.7, "digits", seed=1),
        row("purview", "noise", 0.6, "digits", seen="same"),
        row("purview", "noise", 0.5, "digits", seen="other"),
        row("purview", "unknown_classes", 0.55, "digits", seen="other", protocol="open_set"),
        row("energy", "noise", 0.65, "digits", network="resnet20"),
    ]
    titles, tables = (module.table(rows).split("\n\n")[start::2] for start in (0, 1))
    assert [title.split(":")[0] for title in titles] == ["digits"] * 3 + [
        "digits, a network of four classes",
        "digits, resnet20",
    ]
    assert line(tables[0], "Energy")[1:] == ["80.0 ± 14.1", "80.0"] and "2 seeds" in titles[0]
    assert line(tables[3], "Method")[1] == "unknown_classes" and line(tables[3], "Purview")[1] == "55.0"
    assert line(tables[4], "Energy")[1] == "65.0"


# --- the rows that come with the library ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    """AUROC by study, network, condition, challenging data, protocol and method: its mean over seeds."""
    found = {}
    for row in stored_rows(module.NAME):
        if row.metric == "auroc":
            place = (row.study, row.network, row.condition, row.challenging_data, row.protocol)
            found.setdefault(place, {}).setdefault(row.method, []).append(row.value)
    return {place: {m: float(np.mean(values)) for m, values in methods.items()} for place, methods in found.items()}


RIVALS = ("msp", "energy", "knn")
SHIPPED = ["digits", "cifar10"]
KNOWN_ONLY = [("digits", "lenet"), ("digits", "resnet20"), ("mnist", "lenet"), ("cifar10", "resnet20")]


def over_sets(shipped, study, network, method):
    """AUROC of a method on every set, by name; empty where it has no rows yet."""
    places = [place for place in shipped if place[:2] == (study, network) and place[3:] == ("none", "")]
    return {place[2]: shipped[place][method] for place in places if method in shipped[place]}


def mean(shipped, study, network, method):
    return float(np.mean(list(over_sets(shipped, study, network, method).values())))


def ours(shipped, study, network):
    """Ours that have rows for these images."""
    return [name for name in ("gradient_fusion", "activation_fusion") if over_sets(shipped, study, network, name)]


@pytest.mark.parametrize(("study", "network"), KNOWN_ONLY)
def test_one_vote_each_is_never_far_behind_the_best_rival_of_a_set(shipped, study, network):
    """The best, chosen for that very set by who knows the answers; one vote each has to be told nothing."""
    for name in ours(shipped, study, network):
        fusion = over_sets(shipped, study, network, name)
        assert len(fusion) >= 5
        for condition, value in fusion.items():
            best = max(over_sets(shipped, study, network, rival)[condition] for rival in RIVALS)
            assert value > best - 0.03, (name, condition)


@pytest.mark.parametrize(("study", "network"), KNOWN_ONLY)
def test_no_rival_is_as_good_on_average(shipped, study, network):
    for name in ours(shipped, study, network):
        for rival in RIVALS:
            assert mean(shipped, study, network, name) > mean(shipped, study, network, rival), (name, rival)


@pytest.mark.parametrize(("study", "network"), KNOWN_ONLY)
def test_a_forward_pass_has_what_the_gradient_norms_have(shipped, study, network):
    """The control wins: the density, and the fusion with it, on activations and on gradients."""
    if "activation_fusion" not in ours(shipped, study, network):
        pytest.skip("rows of version 4 are not made yet")
    for kind in ("density", "fusion"):
        forward, backward = (mean(shipped, study, network, f"{which}_{kind}") for which in ("activation", "gradient"))
        assert forward > backward - 0.002, kind


def test_the_sum_of_norms_points_the_wrong_way_on_most_sets(shipped):
    for study in SHIPPED:
        large = [
            m["gradient_sum_large"] for place, m in shipped.items() if "gradient_sum_large" in m and place[0] == study
        ]
        assert sum(value < 0.5 for value in large) > len(large) / 2


@pytest.mark.parametrize("study", SHIPPED)
def test_what_has_seen_the_set_is_flattered(shipped, study):
    """Purview fitted on the set that it is tested on, and on all the others."""
    places = [place for place in shipped if place[0] == study and place[3] == "same"]
    same = np.mean([shipped[place]["purview"] for place in places])
    other = np.mean([shipped[(*place[:3], "other", "")]["purview"] for place in places])
    assert same > other + 0.02


@pytest.mark.parametrize("study", SHIPPED)
def test_stored_scores_give_the_stored_rows(study):
    arrays, network = stored_arrays(module.NAME, study), load_study(study).network
    rows = [
        row
        for row in stored_rows(module.NAME, study)
        if (row.network, row.seed, row.protocol) == (network, 0, "")
        and f"{row.method}/{network}/{row.condition}" in arrays
    ]
    main = {name for name, method in module.METHODS.items() if not method.ablation}
    assert len({row.method for row in rows}) >= 12 and {row.method for row in rows} <= main
    for row in rows:
        known, strange = (arrays[f"{row.method}/{network}/{name}"] for name in ("known", row.condition))
        assert row.n == len(known) + len(strange)
        measure = {"auroc": auroc, "detection_accuracy": detection_accuracy}.get(row.metric)
        if measure:
            assert measure(known, strange) == pytest.approx(row.value, abs=0.003), row.label  # half precision


def test_rows_come_from_a_clean_checkout():
    for row in stored_rows(module.NAME):
        assert len(row.commit) == 12 and "+" not in row.commit
        begins, *options = row.command.split(" --")
        assert begins == f"python -m tutorial_lib run {module.NAME}" and f"study {row.study}" in options
        assert {option.split()[0] for option in options} <= {"study", "seeds", "from-seed", "only"}
        assert row.metric in module.METRICS, "no cell measures this any more"


# --- what chapter 8 says of photographs, of each network and not of their mean ------------------------------------------


def on_photographs(method, seen="none", condition=""):
    areas = module.means_by_seed(
        stored_rows(module.NAME), "cifar10", "resnet20", method, condition=condition, seen=seen
    )
    assert len(areas) >= 2
    return np.array(areas)


def test_on_photographs_no_density_wins_in_the_mean_and_the_votes_do():
    rivals = np.array([on_photographs(name) for name in ("energy", "odin", "knn")])
    assert (on_photographs("gradient_density") < rivals).all()
    for fusion in ("gradient_fusion", "activation_fusion"):
        assert (on_photographs(fusion) > rivals + 0.01).all(), fusion
    for fitted in ("purview", "control_logits", "control_activations"):
        assert (on_photographs("activation_fusion") > on_photographs(fitted, "other")).all(), fitted


def test_on_photographs_the_backward_pass_adds_where_energy_is_ahead():
    assert (on_photographs("layer_density") > on_photographs("activation_density") + 0.003).all()
    for kind in ("tiny_imagenet", "rotated", "inverted"):
        forward, both, energy = (
            on_photographs(name, condition=kind) for name in ("activation_density", "layer_density", "energy")
        )
        assert (both > forward + 0.01).all() and (energy > both + 0.03).all(), kind


def test_on_photographs_activation_norms_are_ahead_where_the_set_was_seen_and_not_surely_where_it_was_not():
    assert (on_photographs("control_activations", "same") > on_photographs("purview", "same") + 0.01).all()
    unseen = on_photographs("control_activations", "other") - on_photographs("purview", "other")
    assert unseen.min() < 0 < unseen.max()
