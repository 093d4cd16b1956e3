"""The out-of-distribution experiment: what is learned from is never what is tested on."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tutorial_lib.experiments import out_of_distribution as module
from tutorial_lib.experiments.experiment import Cell
from tutorial_lib.metrics import auroc
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
    cell = Cell(module.NAME, "digits", 0, {"network": "lenet", "method": method})
    result = module.compute(cell, torch.device("cpu"))
    supervised = module.METHODS[method].wants == "challenging"
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
    short.fit_features(short.features(known), short.features(strange))
    np.testing.assert_allclose(short.predict_features(short.features(study.test)), plain, rtol=1e-6)


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
