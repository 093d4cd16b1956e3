"""The experiment on attacks: sides that share no photograph, honest rows, a ladder that starts with the oblivious attack."""

import dataclasses

import numpy as np
import pytest
import torch

from tutorial_lib import detectors
from tutorial_lib.experiments import adversarial
from tutorial_lib.experiments.adversarial import ATTACKS, LADDER, Contest, attacks, differentiable
from tutorial_lib.experiments.comparison import Comparison, Task, caught, scored
from tutorial_lib.metrics import auroc
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row, provenance
from tutorial_lib.results.stored import stored_rows
from tutorial_lib.runs.experiment import Cell

SMALL = adversarial.Budget(48 / 255, 12 / 255, images=60, ladder=12, searches=2, steps=8, rungs=3)


@pytest.fixture(scope="module")
def contest(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUTORIAL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setitem(adversarial.BUDGETS, "digits", SMALL)
        yield Contest("digits", "lenet", 0, torch.device("cpu"))


@pytest.fixture(scope="module")
def rows(contest):
    """All rows of some cells."""
    settings = (
        {"protocol": "attacks"},
        {"protocol": "decimals"},
        {"method": "msp"},
        {"method": "control_logits"},
        {"method": "msp", "protocol": "ladder"},
        {"method": "purview", "protocol": "ladder"},
    )
    source, found = provenance("test"), []
    for chosen in settings:
        cell = Cell("adversarial", "digits", 0, {"network": "lenet", **chosen})
        for measured in adversarial.compute(cell, torch.device("cpu")).measurements:
            found.append(Row.of(measured, source, experiment="adversarial", study="digits"))
    return found


def of(rows, **columns):
    return [row for row in rows if all(getattr(row, name) == value for name, value in columns.items())]


def test_the_published_table_is_whole():
    published = read_published("adversarial")
    assert len(published) == 84
    assert {row["condition"] for row in published} == set(ATTACKS)
    assert {row["method"] for row in published} == set(adversarial.AS_PUBLISHED)
    assert all(0.4 < row["value"] <= 1 for row in published)
    (row,) = read_published("adversarial", network="resnet", condition="pgd", method="purview")
    assert row["value"] == 0.9582
    assert row["challenging_data"] == "same"


def test_no_photograph_is_on_both_sides(contest):
    assert not set(contest.held_out.source.tolist()) & set(contest.known.source.tolist())
    for attack in attacks(SMALL).values():
        fooled = contest.fooled(attack, contest.known, "x")
        assert set(fooled.source.tolist()) <= set(contest.known.source.tolist())


def test_attacked_images_are_whole_grey_levels_and_fool(contest):
    for name, attack in attacks(SMALL).items():
        fooled = contest.fooled(attack, contest.known, name)
        assert fooled.images.dtype == torch.uint8
        with torch.no_grad():
            assert (contest.model(fooled.float()).argmax(1) != fooled.labels).all()


def test_an_attack_comes_from_the_cache_as_it_was_made(contest, monkeypatch):
    attack = attacks(SMALL)["pgd"]
    first = contest.attacked(attack, contest.known)
    monkeypatch.setattr(type(attack), "__call__", lambda *arguments: pytest.fail("made again"))
    again = contest.attacked(attack, contest.known)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.fooled, again.fooled)
    with pytest.raises(pytest.fail.Exception):
        contest.attacked(dataclasses.replace(attack, steps=3), contest.known)


def test_rows_say_what_was_seen(rows):
    assert {row.challenging_data for row in of(rows, method="msp", protocol="")} == {"none"}
    seen = {(row.condition, row.challenging_data) for row in of(rows, method="control_logits", protocol="")}
    for name in ATTACKS:
        assert {(name, "same"), (name, "other"), (f"{name}/noise", "same")} <= seen
    assert {("pgd/half", "other"), ("pgd/double", "other")} <= seen
    assert all(row.value <= 1 for row in rows if row.metric == "auroc")


def test_noise_does_less_than_the_attack(rows):
    for name in ("bim", "pgd"):
        (fooled,) = of(rows, method=name, metric="fooled")
        (by_chance,) = of(rows, method=name, metric="fooled_by_noise_of_the_same_size")
        assert by_chance.value < 0.5 * fooled.value
    (size,) = of(rows, method="pgd", metric="linf")
    assert size.value <= 48 / 255 + 1e-6


def test_decimals_give_unrounded_images_away(rows):
    for variant, expected in (("rounded", 0.5), ("unrounded", 1.0)):
        (row,) = of(rows, protocol="decimals", method="decimals", variant=variant, metric="auroc")
        assert row.value == pytest.approx(expected, abs=0.05)


def test_the_ladder_counts_what_is_fooled_and_not_caught(rows):
    for method, rungs in (("msp", 5), ("purview", 7)):
        conditions = list(dict.fromkeys(row.condition for row in of(rows, protocol="ladder", method=method)))
        assert conditions == list(LADDER)[:rungs]
        for rung in conditions:
            value = {row.metric: row.value for row in of(rows, protocol="ladder", method=method, condition=rung)}
            assert value["undetected"] == pytest.approx(value["fooled"] * (1 - value.get("caught_at_5_percent", 1)))
    (seen,) = {row.challenging_data for row in of(rows, protocol="ladder", method="purview", condition="oblivious")}
    assert seen == "same"


def test_the_table_shows_every_block(rows):
    text = adversarial.table(rows)
    for said in ("what the attacks do", "Learned from known images alone", "published protocol", "rung by rung", "PGD"):
        assert said in text


def test_a_detector_in_torch_scores_as_the_detector_does(contest):
    images = contest.known.float()[:12]
    strange = contest.fooled(attacks(SMALL)["bim"], contest.held_out, "bim")
    purview = detectors.Purview(contest.model).fit(contest.held_out, strange)
    density = detectors.GradientDensity(contest.model).fit(contest.held_out)
    for detector, tolerance in ((purview, 5e-2), (density, 5e-2)):
        found = differentiable(detector)(images).detach().numpy()
        np.testing.assert_allclose(found, detector.predict(images), rtol=tolerance, atol=tolerance)
    with pytest.raises(TypeError, match="no differentiable form of MSP"):
        differentiable(detectors.MSP(contest.model))


def test_features_taken_once_give_what_fit_and_predict_give(contest):
    made = attacks(SMALL)
    names = ("bim", "semantic")
    learn = {name: contest.fooled(made[name], contest.held_out, name) for name in names}
    test = {name: contest.fooled(made[name], contest.known, name) for name in names}
    images = Comparison(contest.train, contest.held_out, contest.known, learn, test)
    tasks = [Task(("bim",), ("bim",)), Task(("semantic",), ("bim",), "other")]
    method = adversarial.METHODS["purview"]
    for task, name, scores_in, scores_out in scored(method, contest.model, 0, images, tasks):
        detector = method.make(contest.model, 0).fit(contest.held_out, learn[task.learn[0]])
        expected = auroc(detector.predict(contest.known), detector.predict(test[name]))
        assert auroc(scores_in, scores_out) == pytest.approx(expected, abs=0.02)


def test_share_caught_at_a_false_alarm_rate():
    known = np.arange(1000.0)
    assert caught(known, np.array([900.0, 960.0, 2000.0, 2000.0])) == 0.75
    assert (known > np.quantile(known, 0.95, method="higher")).mean() <= 0.05


# What chapter 9 says of photographs, of each network and not of their mean.


def stored_areas(method, seen, condition, protocol=""):
    rows = of(stored_rows("adversarial", "cifar10"), method=method, condition=condition, metric="auroc")
    areas = [row.value for row in rows if (row.challenging_data, row.protocol) == (seen, protocol)]
    assert len(areas) >= 2
    return np.array(areas)


def test_on_photographs_activation_norms_are_ahead_of_gradient_norms():
    for seen in ("same", "other"):
        gradients, activations = (
            np.array(adversarial.mean_over_attacks("cifar10", name, seen))
            for name in ("purview", "control_activations")
        )
        assert (activations > gradients + 0.01).all(), seen


def test_on_photographs_only_attacks_with_a_twin_are_seen_as_well_when_left_out():
    for name in ATTACKS:
        lost = stored_areas("purview", "same", name) - stored_areas("purview", "other", name)
        assert (lost < 0.03).all() if name in ("bim", "pgd") else (lost > 0.03).all(), name


def test_on_photographs_whoever_follows_the_detector_is_not_caught_but_overshoots():
    for method in ("purview", "gradient_density"):
        before, after = adversarial.caught_on(method, ["oblivious", "selective"], "cifar10")
        assert len(before) == len(after) >= 2 and min(before) > 0.3 and max(after) == 0
    assert (stored_areas("purview", "other", "selective", "ladder") < 0.05).all()
