"""The experiment behind chapter 4: it measures what it says, and what the chapter says of its stored rows holds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from tutorial_lib.experiments import gradients_as_features as experiment
from tutorial_lib.results.rows import select
from tutorial_lib.results.stored import stored_rows
from tutorial_lib.studies import load_study

LIMIT = 24


@pytest.fixture(scope="module")
def study():
    return load_study("digits")


@pytest.fixture(scope="module")
def model(study):
    return experiment.NETWORKS["untrained"](study, 0)


@pytest.fixture(scope="module")
def measured(model, study):
    found = list(experiment.measure(model, study, experiment.QUESTIONS, limit=LIMIT))
    values = {(m.series, m.condition, m.metric): m.value for m in found}
    assert len(values) == len(found)
    return values


def images(image_set) -> torch.Tensor:
    return (image_set if len(image_set) <= LIMIT else image_set.sample(LIMIT, seed=0)).float()


def one_by_one(model, pictures: torch.Tensor) -> dict[str, np.ndarray]:
    """Squared norms under all ones, BCE, by the ordinary gradient of one image after the other."""
    rows = []
    for image in pictures.split(1):
        z = model(image)
        loss = F.binary_cross_entropy_with_logits(z, torch.ones_like(z), reduction="sum")
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        rows.append([float(g.double().square().sum()) for g in gradients])
    return dict(zip((name for name, _ in model.named_parameters()), np.array(rows).T, strict=True))


@pytest.mark.parametrize("shift", ["photographs", "noise"])
def test_sum_last_layer_and_factors_are_those_of_a_loop(model, study, measured, shift):
    known, strange = (one_by_one(model, images(s)) for s in (study.test, study.shift(shift)))
    labels = np.r_[np.zeros(LIMIT), np.ones(LIMIT)]

    def expected(score):
        return roc_auc_score(labels, np.r_[score(known), score(strange)])

    found = {metric: measured["ones/bce", shift, metric] for metric in ("auroc_sum", "auroc_last_layer")}
    assert found["auroc_sum"] == pytest.approx(expected(lambda v: sum(v.values())))
    assert found["auroc_last_layer"] == pytest.approx(expected(lambda v: v["head.weight"]))
    u, h = measured["ones/bce", shift, "auroc_logit_gradient"], measured["any", shift, "auroc_activation"]
    assert u == pytest.approx(expected(lambda v: v["head.bias"]))
    assert h == pytest.approx(expected(lambda v: v["head.weight"] / v["head.bias"]))


def test_every_question_shift_and_metric_is_there(study, measured):
    metrics = {"auroc_sum", "auroc_last_layer", "auroc_logit_gradient", "auroc_unusual"}
    expected = {(q.name, s, m) for q in experiment.QUESTIONS for s in study.shift_names for m in metrics}
    expected |= {("any", s, m) for s in study.shift_names for m in ("auroc_activation", "auroc_confidence")}
    assert set(measured) == expected
    assert all(0 <= value <= 1 for value in measured.values())


def test_unusual_is_the_mahalanobis_distance_of_log_norms():
    generator = torch.Generator().manual_seed(0)
    known = (torch.randn(4000, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0])).exp()
    score = experiment._unusual(known)
    v = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]).double().exp()
    torch.testing.assert_close(score(v), torch.tensor([3.0, 0.0]).double(), rtol=0.15, atol=0.02)


def test_spread_holds_quantiles_of_every_weight(model, study):
    found = experiment.spread(model, study, limit=LIMIT)
    norms = one_by_one(model, images(study.test))
    weights = [np.log10(norms[name]) for name, parameter in model.named_parameters() if parameter.dim() > 1]
    expected = np.quantile(np.array(weights).T, experiment.QUANTILES, axis=0)
    np.testing.assert_allclose(found["known"], expected, rtol=1e-4, atol=1e-4)
    assert set(found) == {"known", *study.shift_names}


def test_untrained_means_initial_weights(study):
    assert torch.equal(*(experiment.NETWORKS["untrained"](study, 0).head.weight for _ in range(2)))
    one, two = (experiment.NETWORKS["untrained"](study, seed).head.weight for seed in (0, 1))
    assert not torch.equal(one, two)


def test_only_the_digits_take_all_networks():
    assert len(experiment.cells("digits", [0, 1])) == 2 * len(experiment.NETWORKS)
    assert [cell.settings["network"] for cell in experiment.cells("mnist", [0])] == ["own"]


# What chapter 4 says about the stored rows


def values(study: str, network: str, shift: str, question: str = "ones/bce", metric: str = "auroc_sum") -> list[float]:
    return experiment.over_seeds(study, network, shift, question, metric)


def test_rows_stand_on_networks_that_know_their_digits():
    for study, network, least in (("mnist", "own", 0.985), ("digits", "own", 0.97), ("digits", "ResNet-20", 0.97)):
        assert min(values(study, network, "known", "any", "accuracy")) > least


@pytest.mark.parametrize("shift", ["photographs", "cifar10", "tiny_imagenet", "textures"])
def test_on_mnist_natural_images_have_smaller_norms_under_all_ones_and_larger_under_the_prediction(shift):
    assert max(values("mnist", "own", shift)) < 0.2
    assert min(values("mnist", "own", shift, "predicted/ce")) > 0.9


def test_on_mnist_letters_go_the_other_way():
    assert min(values("mnist", "own", "notmnist")) > 0.5


@pytest.mark.parametrize("shift", ["noise", "photographs"])
def test_the_seed_of_a_residual_network_decides_the_direction(shift):
    """What the page says: one half lies between the seeds, and they are far apart. True of an earlier three as well."""
    found = values("digits", "ResNet-20", shift)
    assert min(found) < 0.5 < max(found) and max(found) - min(found) > 0.3


def test_on_cifar10_house_numbers_and_digits_lie_on_different_sides():
    assert min(values("cifar10", "own", "svhn")) > 0.7
    assert max(values("cifar10", "own", "mnist")) < 0.2


def test_opposite_labels_agree_where_weight_decay_has_emptied_the_sum_of_the_rows():
    shipped = load_study("cifar10").classifier().head.weight
    assert shipped.sum(0).norm() < 0.02 * shipped.norm()
    for shift in ("svhn", "textures", "mnist", "noise"):
        ones, zeros = (values("cifar10", "own", shift, f"{label}/bce")[0] for label in ("ones", "zeros"))
        assert ones == pytest.approx(zeros, abs=0.01)


def test_networks_that_learned_nothing_tell_photographs_from_digits():
    assert max(values("digits", "untrained", "photographs")) < 0.2


def test_the_unusual_profile_points_one_way_everywhere():
    rows = select(stored_rows(experiment.NAME, "mnist"), metric="auroc_unusual", series="own/ones/bce")
    assert min(row.value for row in rows) > 0.5


def test_stored_spread_is_of_the_layers_of_the_network():
    known, strange = experiment.stored_spread("mnist")
    assert known.shape == (3, 5) and (known.diff(dim=0) >= 0).all()
    assert {"photographs", "notmnist"} <= set(strange)


def test_table_names_every_shift():
    text = experiment.table(stored_rows(experiment.NAME, "digits"))
    first_columns = [line.split("|")[1].strip() for line in text.splitlines()]
    assert "own: ones/bce" in first_columns and "own: confidence" in first_columns and "photographs" in text
    assert text._repr_html_().count("<table") == 1  # a notebook shows it as a table
