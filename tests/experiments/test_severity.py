"""The experiment behind chapter 7: its wards keep their parts apart, it measures what it says, its stored rows hold."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from tutorial_lib.data.images import ImageSet
from tutorial_lib.data.lesions import KINDS
from tutorial_lib.data.olives import BIOMARKERS, OlivesScans
from tutorial_lib.detectors.gradcon import autoencoder_scores
from tutorial_lib.detectors.trivial import control_scores
from tutorial_lib.experiments import severity as experiment
from tutorial_lib.gradcon import MODELS
from tutorial_lib.results.stored import stored_arrays, stored_rows
from tutorial_lib.runs.experiment import Cell
from tutorial_lib.runs.registry import experiment_named
from tutorial_lib.severity import spearman
from tutorial_lib.studies import load_study
from tutorial_lib.training.autoencoder import AutoencoderConfig
from tutorial_lib.training.contrastive import ContrastiveConfig
from tutorial_lib.training.trained import trained_autoencoder


@pytest.fixture(scope="module")
def ward():
    return experiment.ward("digits", 0)


@pytest.fixture(scope="module")
def model(ward):
    return trained_autoencoder(ward.healthy, config=AutoencoderConfig(epochs=3), widths=(8, 2))


def rows_of(images) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_no_healthy_image_is_seen_again(ward):
    study = load_study("digits")
    zeros = [part.subset(part.labels == experiment.ANATOMY) for part in (study.train, study.validation, study.test)]
    train, patients, test = (rows_of(part.float()) for part in zeros)
    assert rows_of(ward.healthy) | rows_of(ward.held_out) == train
    assert not rows_of(ward.healthy) & rows_of(ward.held_out)
    assert rows_of(ward.pool[ward.pool_truth == 0]) == patients
    for lesioned, clean in ward.graded.values():
        assert rows_of(clean) == test and len(lesioned.images) == len(clean)
    for healthy, _ in ward.contrasts.values():
        assert rows_of(healthy) == test


def test_patients_are_as_ill_as_the_ward_says(ward):
    assert 0.2 < (ward.pool_truth == 0).double().mean() < 0.3
    for kind in KINDS:
        assert (ward.graded[kind][0].kind == KINDS.index(kind)).all()
    for task in ward.tasks.values():
        assert len(task.images) == experiment.SETTINGS["digits"].labelled
        assert set(task.labels.tolist()) == set(task.test_labels.tolist()) == {0, 1}
        assert rows_of(task.images) <= rows_of(ward.pool)
        assert not rows_of(task.test_images) & rows_of(ward.pool)


def test_another_seed_draws_other_lesions(ward):
    again, other = experiment.ward("digits", 0), experiment.ward("digits", 1)
    assert torch.equal(again.pool, ward.pool) and not torch.equal(other.pool, ward.pool)
    assert torch.equal(other.healthy, ward.healthy)


def test_scores_are_compared_as_the_rows_say(ward, model):
    found = {
        (m.series, m.condition, m.metric): m
        for m in experiment.graded_and_told(ward, "cae_grad", partial(autoencoder_scores, model))
    }
    assert len(found) == 3 * (3 + len(experiment.SEVERITIES))
    lesioned, clean = ward.graded["gap"]
    scores = autoencoder_scores(model, lesioned.images)["gradient"]
    assert found["cae_grad/gradient", "gap", "spearman"].value == spearman(scores, lesioned.severity)
    known, strange = ward.contrasts["severity 0.5"]
    healthy, ill = autoencoder_scores(model, known)["combined"], autoencoder_scores(model, strange)["combined"]
    truth = np.r_[np.zeros(len(healthy)), np.ones(len(ill))]
    expected = roc_auc_score(truth, np.r_[healthy, ill])
    assert found["cae_grad/combined", "severity 0.5", "auroc"].value == pytest.approx(expected)
    controls = experiment.graded_and_told(ward, "", lambda images: control_scores(images, ward.healthy))
    assert {m.series for m in controls} == {
        f"{name}/control" for name in ("brightness", "complexity", "mean image", "nearest healthy")
    }


def test_probes_answer_every_question_for_every_label(ward, model):
    small = replace(
        ward,
        pool=ward.pool[:200],
        pool_truth=ward.pool_truth[:200],
        tasks={"severe": replace(ward.tasks["severe"], test_images=ward.tasks["severe"].test_images[:100],
                                 test_labels=ward.tasks["severe"].test_labels[:100])},
    )  # fmt: skip
    settings = replace(experiment.SETTINGS["digits"], encoder=ContrastiveConfig(steps=3, batch_size=32))
    found = {
        (m.series, m.condition, m.metric): m for m in experiment.probed(small, model, settings, 0, torch.device("cpu"))
    }
    methods = {f"bins/{b}" for b in experiment.BINS} | {
        "true/10", "random/10", "recon/10", "simclr", "untrained", "pixels", "supervised",
    }  # fmt: skip
    assert {key[0] for key in found} == methods
    for method in methods:
        for metric in ("accuracy", "auroc"):
            measured = found[method, "severe", metric]
            assert 0 <= measured.value <= 1 and measured.n == 100 and measured.challenging_data == "same"
    assert found["bins/2", "pool", "companions"].value == pytest.approx(31 * 99 / 199)
    assert found["true/10", "pool", "label_spearman"].value > 0.95


def test_cells_and_registry():
    assert experiment_named("severity") is experiment.EXPERIMENT
    cells = experiment.cells("digits", [0, 1])
    assert [cell.settings["model"] for cell in cells] == list(MODELS) * 2
    for study in experiment.EXPERIMENT.studies:
        assert study in experiment.SETTINGS


def test_a_cell_from_end_to_end(monkeypatch):
    quick = replace(
        experiment.SETTINGS["digits"], autoencoder=AutoencoderConfig(epochs=2), encoder=ContrastiveConfig(steps=2)
    )
    monkeypatch.setattr(experiment, "SETTINGS", {"digits": quick})
    monkeypatch.setattr(experiment, "BINS", (2,))
    result = experiment.compute(Cell("severity", "digits", 0, {"model": "cae_grad"}), torch.device("cpu"))
    keys = [(m.series, m.condition, m.metric) for m in result.measurements]
    assert len(keys) == len(set(keys))
    assert ("visible change", "lesions", "spearman") in keys and ("brightness/control", "lesions", "spearman") in keys
    assert len(result.arrays["lesions/severity"]) == len(result.arrays["lesions/combined"])
    images = result.arrays["severity 0.1/healthy/images"]
    assert images.dtype == np.uint8 and images.shape == (12, 1, 8, 8)
    plain = experiment.compute(Cell("severity", "digits", 0, {"model": "vae"}), torch.device("cpu"))
    assert not plain.arrays and "vae/latent" in {m.series for m in plain.measurements}


def test_x_rays_of_the_healthy_and_the_ill(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    random = np.random.default_rng(0)
    content = {}
    for split, count in (("train", 4_708), ("val", 524), ("test", 624)):
        content[f"{split}_images"] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        content[f"{split}_labels"] = (np.arange(count) % 4 > 0).astype(np.uint8)[:, None]
    np.savez(tmp_path / "pneumoniamnist.npz", **content)
    sums = {"28209eda62fecd6e6a2d98b1501bb15f": ""}
    monkeypatch.setattr("tutorial_lib.data.files.md5_of", lambda path: next(iter(sums)))
    ward = experiment.ward("pneumonia_mnist", 0)
    normal = content["train_labels"][:, 0] == 0
    assert rows_of(ward.healthy[:, 0]) | rows_of(ward.held_out[:, 0]) == rows_of(
        torch.from_numpy(content["train_images"][normal])
    )
    assert len(ward.pool) == (~normal).sum() + 524 and not rows_of(ward.pool) & rows_of(ward.healthy)
    task = ward.tasks["pneumonia"]
    assert task.labels.bincount().tolist() == [50, 50] and len(task.test_images) == 624
    assert [len(side) for side in ward.contrasts["pneumonia"]] == [156, 468]


def test_biomarkers_of_olives(monkeypatch):
    """The ward of those who have OLIVES, from scans that stand in for its files."""
    generator = torch.Generator().manual_seed(0)

    def scans(split="test", limit=None, **_):
        count = {"unlabelled": 30, "train": 24, "test": 12}[split]
        found = torch.randint(0, 2, (count, 5), generator=generator)
        found[:2] = torch.tensor([[0] * 5, [1] * 5])  # both answers are there
        images = torch.randint(0, 256, (count, 1, 28, 28), generator=generator).to(torch.uint8)
        return OlivesScans(images, found, ("someone",) * count, ("somewhere",) * count)

    pixels = torch.randint(0, 256, (20, 1, 28, 28), generator=generator).to(torch.uint8)
    healthy = ImageSet("healthy_oct", pixels, torch.zeros(20, dtype=torch.int64), ("healthy",), torch.arange(20))
    monkeypatch.setattr(experiment, "load_olives", scans)
    monkeypatch.setattr(experiment, "load_healthy_oct", lambda limit: healthy)
    ward = experiment.ward("olives", 0)
    assert len(ward.healthy) == 18 and len(ward.held_out) == 2 and len(ward.pool) == 30
    assert list(ward.tasks) == list(ward.contrasts) == list(BIOMARKERS)
    for name, task in ward.tasks.items():
        assert len(task.images) == 24 and len(task.test_images) == 12
        assert [len(side) for side in ward.contrasts[name]] == task.test_labels.bincount().tolist()


# What chapter 7 says about the stored rows


@pytest.fixture(scope="module")
def digits_rows():
    return stored_rows("severity", "digits")


def mean(rows, method, condition, metric):
    return float(np.mean(experiment.over_seeds(rows, method, condition, metric)))


def test_stored_scores_order_the_ill_and_a_lookup_does_it_better(digits_rows):
    for kind in ("lesions", "spot", "gap"):
        for score in ("cae/reconstruction", "cae_grad/reconstruction", "cae_grad/combined", "vae_grad/combined"):
            assert 0.3 < mean(digits_rows, score, kind, "spearman") < 0.75
        best = max(mean(digits_rows, f"{model}/{score}", kind, "spearman") for model, score in experiment.SCORES)
        assert mean(digits_rows, "nearest healthy/control", kind, "spearman") > best
        assert mean(digits_rows, "visible change", kind, "spearman") > 0.85


def test_the_constraint_gives_the_gradient_its_meaning(digits_rows):
    assert abs(mean(digits_rows, "cae/gradient", "lesions", "spearman")) < 0.15
    assert mean(digits_rows, "cae_grad/gradient", "lesions", "spearman") > 0.25


def test_brightness_takes_sides(digits_rows):
    assert mean(digits_rows, "brightness/control", "spot", "spearman") > 0.5
    assert mean(digits_rows, "brightness/control", "gap", "spearman") < -0.3
    assert abs(mean(digits_rows, "brightness/control", "lesions", "spearman")) < 0.1


def test_true_bins_help_and_those_of_the_score_do_not_beat_simclr(digits_rows):
    severe = {m: mean(digits_rows, m, "severe", "auroc") for m in ("true/10", "bins/10", "simclr", "random/10")}
    assert severe["true/10"] > severe["simclr"] + 0.05
    assert severe["random/10"] < severe["bins/10"] < severe["simclr"]
    assert mean(digits_rows, "bins/10", "kind", "auroc") > mean(digits_rows, "simclr", "kind", "auroc")
    assert mean(digits_rows, "pixels", "kind", "auroc") > 0.95


def test_panels_hold_every_seed(digits_rows):
    found = experiment.panels(digits_rows, "auroc", {"severe?": "severe"}, {"SimCLR": "simclr"})
    assert len(found["severe?"]["SimCLR"]) == len({row.seed for row in digits_rows}) >= 3
    with pytest.raises(ValueError, match="no stored auroc of none"):
        experiment.panels(digits_rows, "auroc", {"severe?": "severe"}, {"none": "nothing"})


def test_bins_references_and_companions_are_those_of_the_rows(digits_rows):
    values, references, companions = experiment.by_number_of_bins(digits_rows, {"severe?": "severe"})
    assert values["severe?"][10] == experiment.over_seeds(digits_rows, "bins/10", "severe", "auroc")
    assert references["severe?"]["true bins"] == experiment.over_seeds(digits_rows, "true/10", "severe", "auroc")
    assert list(companions) == list(experiment.BINS) and sorted(companions.values()) == list(companions.values())[::-1]
    assert companions[200] < 1 < companions[50]


def test_table_shows_both_questions(digits_rows):
    text = experiment.table(digits_rows)
    assert "rank correlation with the known severity" in text and "| bins/10" in text and "±" in text


@pytest.fixture(scope="module")
def xray_rows():
    return stored_rows("severity", "pneumonia_mnist")


def test_on_x_rays_the_gradient_is_in_front_and_the_lookup_is_a_coin(xray_rows):
    def told(method):
        return mean(xray_rows, method, "pneumonia", "auroc")

    assert told("cae_grad/gradient") > 0.7 > 0.6 > told("cae/gradient")
    assert told("cae_grad/reconstruction") < 0.5 and abs(told("nearest healthy/control") - 0.5) < 0.1
    assert 1 - told("complexity/control") > max(told(f"{model}/{score}") for model, score in experiment.SCORES)


def test_on_x_rays_no_label_of_the_score_beats_random_bins_simclr_or_pixels(xray_rows):
    """Within the spread of seeds; the diagnosis itself as bins is above all of them."""
    values, references, _ = experiment.by_number_of_bins(xray_rows, {"ill?": "pneumonia"})
    pixels = experiment.panels(xray_rows, "auroc", {"ill?": "pneumonia"}, {"pixels": "pixels"})["ill?"]["pixels"]
    plain = [
        references["ill?"]["SimCLR"],
        references["ill?"]["random bins"],
        pixels,
        values["ill?"][10],
        values["ill?"][200],
    ]
    means = [np.mean(seeds) for seeds in plain]
    spread = max(np.std(seeds, ddof=1) for seeds in plain)
    assert max(means) - min(means) < 2 * spread
    assert np.mean(references["ill?"]["true bins"]) > max(means) + 0.03


def test_share_of_the_ill_grows_with_the_gradient_score(xray_rows):
    stored = stored_arrays("severity", "pneumonia_mnist")
    healthy, ill = (stored[f"cae_grad/pneumonia/{side}/gradient"] for side in ("healthy", "ill"))
    assert (len(healthy), len(ill)) == (234, 390)
    truth = np.r_[np.zeros(234), np.ones(390)][np.r_[healthy, ill].argsort(kind="stable")]
    share = [part.mean() for part in np.array_split(truth, 10)]
    assert share[0] < 0.35 and share[-1] > 0.9 and all(b > a - 0.05 for a, b in zip(share, share[1:], strict=False))
    for side in ("healthy", "ill"):
        assert stored[f"cae_grad/pneumonia/{side}/images"].shape == (12, 1, 28, 28)
