"""The open-set protocol: four classes for the network, two for H, the others for the test; nobody meets twice."""

import pytest
import torch

from tutorial_lib import load_study
from tutorial_lib.experiments.open_set import open_set


@pytest.fixture(scope="module")
def study():
    return load_study("digits")


@pytest.mark.parametrize("seed", range(4))
def test_classes_are_divided(study, seed):
    division = open_set(study, seed)
    known = {int(name) for name in division.study.class_names}
    pretended, unknown = set(division.pretended.labels.tolist()), set(division.unknown.labels.tolist())
    assert (len(known), len(pretended), len(unknown)) == (4, 2, 2)
    assert known | pretended | unknown == set(range(8))


def test_images_are_divided_as_their_study_divides_them(study):
    division = open_set(study, 0)
    small = division.study
    for name in ("train", "validation", "test"):
        ours, whole = getattr(small, name), getattr(study, name)
        assert set(ours.source.tolist()) <= set(whole.source.tolist())
        place = {source: i for i, source in enumerate(whole.source.tolist())}
        for label, source in zip(ours.labels.tolist(), ours.source.tolist(), strict=True):
            assert small.class_names[label] == study.class_names[whole.labels[place[source]]]
    assert set(division.pretended.source.tolist()) <= set(study.validation.source.tolist())
    assert set(division.unknown.source.tolist()) <= set(study.test.source.tolist())


def test_another_seed_another_division(study):
    assert len({open_set(study, seed).study.class_names for seed in range(6)}) > 3


def test_what_was_made_of_test_images_follows_them(study):
    small = open_set(study, 0).study
    assert torch.equal(small.shift("inverted").images, 255 - small.test.images)


def test_too_few_classes_are_refused(study):
    few = open_set(study, 0).study
    with pytest.raises(ValueError, match="4 classes; the open-set protocol needs more than 6"):
        open_set(few, 0)


def test_nothing_is_read_before_it_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="cifar10"):
        open_set(load_study("cifar10"), 0)
