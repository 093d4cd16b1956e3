"""The experiment of chapter 15: its numbers are those of the measures, and the published table stands whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutorial_lib.data.errors import DataUnavailable
from tutorial_lib.experiments import image_quality as experiment
from tutorial_lib.image_quality import (
    CHANGES,
    LiveCrops,
    OpinionDatabase,
    agreement,
    changed,
    psnr,
    reference_images,
    significance_flag,
)
from tutorial_lib.image_quality.autoencoder import initial_autoencoder
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row, provenance
from tutorial_lib.runs.experiment import Cell
from tutorial_lib.runs.registry import EXPERIMENTS, experiment_named

NAMES = ("china", "flower")
FAST = ("psnr", "unique_introspective", "control_patches")


def rows_of(cell, result):
    source = provenance("python -m tutorial_lib run image_quality --study ladder")
    return [
        Row.of(measured, source, experiment=cell.experiment, study=cell.study, seed=cell.seed)
        for measured in result.measurements
    ]


@pytest.fixture(scope="module")
def small():
    """Two small photographs, and an autoencoder that was never trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "sparse_autoencoder", lambda seed: initial_autoencoder(192, 8, seed))
        patch.setattr(experiment, "_photographs", lambda: (reference_images(NAMES, size=40), NAMES))
        patch.setattr(experiment, "FEW", NAMES[:1])
        made = experiment._ladders.__wrapped__
        patch.setattr(experiment, "_ladders", lambda corruptions: made(False))
        yield


@pytest.fixture(scope="module")
def rows(small):
    grid = [cell for cell in experiment.cells("ladder", [0]) if cell.settings["method"] in FAST]
    return [row for cell in grid for row in rows_of(cell, experiment.compute(cell, torch.device("cpu")))]


def test_methods_without_a_seed_are_measured_once():
    grid = experiment.cells("ladder", [2, 5])
    once = [c.settings["method"] for c in grid if not experiment.METHODS[c.settings["method"]].seeded]
    assert sorted(once) == sorted(name for name, method in experiment.METHODS.items() if not method.seeded)
    assert len({cell.key for cell in grid}) == len(grid) == 3 + 2 * 4
    assert [c.seed for c in grid if c.settings.get("corruptions")] == [2] * 7


def test_harmless_beside_harmful_by_loops(small, rows):
    references, _ = experiment._photographs()
    right, pairs = 0.0, 0
    for photograph in references.split(1):
        value = {name: psnr(photograph, changed(photograph, name))[0] for name in CHANGES}
        for mild in (name for name, change in CHANGES.items() if change.harmless):
            for bad in (name for name, change in CHANGES.items() if not change.harmless):
                right += value[mild] > value[bad]
                pairs += 1
    assert experiment.values_of(rows, "psnr", "pairs_right", "harmless") == [pytest.approx(right / pairs)]
    by_change = [
        experiment.values_of(rows, "psnr", "pairs_right", "harmless", name)[0]
        for name, change in CHANGES.items()
        if change.harmless
    ]
    assert np.mean(by_change) == pytest.approx(right / pairs)


def test_every_protocol_has_its_rows(rows):
    conditions = {}
    for row in rows:
        conditions.setdefault(row.protocol, set()).add(row.condition)
    classical = {"blur", "jpeg", "noise", "contrast"}
    assert conditions["ladder"] == conditions["faint"] == {"all", *classical}
    assert conditions["level"] == classical
    assert conditions["jpeg"] == set(CHANGES) and conditions["harmless"] == {"all", *CHANGES}
    assert all(5 <= row.value <= 95 for row in rows if row.protocol == "jpeg")


def test_flags_are_those_of_the_library(rows):
    mean = {
        name: np.mean(experiment.values_of(rows, name, "srcc", "level", "blur"))
        for name in ("psnr", "unique_introspective")
    }
    expected = significance_flag(mean["psnr"], mean["unique_introspective"], 10)
    assert experiment.flags(rows, "level", "blur", "srcc")["psnr"] == expected


def test_one_metric_for_every_distortion(rows):
    head, _, *body = experiment.consistency_table(rows, digits=3).splitlines()
    assert [entry.strip() for entry in head.strip("|").split("|")] == ["", "blur", "jpeg", "noise", "contrast"]
    (value,) = experiment.values_of(rows, "psnr", "srcc", "level", "jpeg")
    flag = experiment.flags(rows, "level", "jpeg", "srcc")["psnr"]
    assert body[0].strip("|").split("|")[2].strip() == f"{value:.3f} ({flag})"


def test_crops_keep_to_their_photograph_and_distortion(small, monkeypatch):
    references = reference_images(NAMES, size=40)
    noisy = [changed(references, name) for name in ("jpeg_95", "noisy", "dark")]
    crops = LiveCrops(
        references,
        torch.cat(noisy),
        np.array([0, 1, 0, 1, 0, 1]),
        ("jpeg",) * 6,
        NAMES,
        np.array([40.0, 39.0, 30.0, 31.0, 20.0, 20.5]),
        np.ones(6),
    )
    monkeypatch.setattr(experiment, "load_live_crops", lambda: crops)
    cell = Cell("image_quality", "live_crops", 0, {"method": "psnr"})
    rows = rows_of(cell, experiment.compute(cell, torch.device("cpu")))
    assert experiment.values_of(rows, "psnr", "pairs_right", "ladder", "jpeg") == [1]
    plcc = agreement(crops.quality(psnr), crops.psnr_full).plcc
    assert experiment.values_of(rows, "psnr", "plcc", "level", "jpeg") == [pytest.approx(plcc)]
    assert not any(row.metric == "outlier_ratio" for row in rows)  # no observers, no deviations


def test_a_database_fills_the_published_table(small, monkeypatch, tmp_path):
    from PIL import Image

    references = reference_images(NAMES, size=32)
    paths = {"reference": [], "distorted": []}
    for number, name in enumerate([*list(CHANGES)[:4]] * 2):
        photograph = references[number % 2][None]
        for kind, image in (("reference", photograph), ("distorted", changed(photograph, name))):
            paths[kind].append(tmp_path / f"{kind}{number}.png")
            Image.fromarray(image[0].permute(1, 2, 0).numpy()).save(paths[kind][-1])
    opinions = np.linspace(1, 8, 8)
    database = OpinionDatabase(
        "TID2013",
        tuple(paths["reference"]),
        tuple(paths["distorted"]),
        ("some",) * 8,
        opinions,
        np.full(8, 0.3),
        higher_is_better=True,
    )
    monkeypatch.setattr(experiment, "DATABASES", experiment.DATABASES | {"tid2013": ("TID2013", lambda: database)})
    cell = Cell("image_quality", "tid2013", 0, {"method": "psnr"})
    rows = rows_of(cell, experiment.compute(cell, torch.device("cpu")))
    expected = agreement(database.quality(psnr, progress=False), opinions, np.full(8, 0.3))
    assert {row.metric: row.value for row in rows} == pytest.approx(
        {metric: getattr(expected, metric) for metric in experiment.CRITERIA}
    )
    text = experiment.published_table(rows)
    line = next(line for line in text.splitlines() if line.startswith("| PSNR, ours") and "needs it" not in line)
    assert f"{expected.plcc:.3f}" in line
    assert "--study multi_live" in text and "--study tid2013" not in text


def test_the_published_table_stands_whole():
    printed = read_published("image_quality")
    assert len(printed) == 90
    text = experiment.published_table()
    for row in printed:
        line = next(
            line
            for block in text.split("\n\n")
            if block.startswith(f"| {row['database']}")
            for line in block.splitlines()
            if line.startswith(f"| {row['estimator']}, published ")
        )
        assert f"{row['value']:.3f}" in line
    assert text.count("needs it") == 2 * 5 * len(experiment.METHODS)


def test_without_the_files_one_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    for study in ("tid2013", "live_crops", "multi_live"):
        with pytest.raises(DataUnavailable, match=str(tmp_path)):
            experiment.compute(Cell("image_quality", study, 0, {"method": "psnr"}), torch.device("cpu"))


def test_table_names_every_method_that_was_measured(rows):
    text = experiment.table(rows)
    for name in FAST:
        assert f"| {experiment.METHODS[name].title} " in text
    assert all(change.description in text for change in CHANGES.values())


def test_a_run_that_is_not_finished_has_a_table(rows):
    early = [row for row in rows if row.method == "psnr"]
    assert "| PSNR " in experiment.table(early)
    assert experiment.flags(early, "level", "blur", "srcc") == {}


def test_it_is_registered():
    assert "image_quality" in EXPERIMENTS
    assert experiment_named("image_quality").studies[0] == "ladder"
