"""Studies: honest splits, shifts of one shape, clear errors."""

import itertools
from dataclasses import replace

import pytest
import torch

import tutorial_lib
from tutorial_lib.data import DataUnavailable, ImageSet, load_images
from tutorial_lib.data.embedded import digits
from tutorial_lib.studies import STUDIES, Study, load_study

EVERYWHERE = ("photographs", "rotated", "inverted", "noise")


@pytest.fixture(scope="module")
def study():
    return load_study("digits")


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_DATA", str(tmp_path))
    return tmp_path


def contents(images: ImageSet) -> set[bytes]:
    return {image.numpy().tobytes() for image in images.images}


def real(name):
    study = load_study(name)
    try:
        _ = study.train
    except DataUnavailable as error:
        pytest.skip(str(error).splitlines()[0] + " " + str(error).splitlines()[1])
    return study


# --- splits -----------------------------------------------------------------------------------------------------------


def test_digits_are_split_by_image(study):
    splits = (study.train, study.validation, study.test)
    assert [len(split) for split in splits] == [794, 216, 433]
    for one, other in itertools.combinations(splits, 2):
        assert not set(one.source.tolist()) & set(other.source.tolist())
        assert not contents(one) & contents(other)  # the 1,797 images are all different
    everything = digits()
    known = everything.subset(everything.labels < 8)
    assert sorted(itertools.chain(*(split.source.tolist() for split in splits))) == known.source.tolist()


def test_source_leads_back_to_the_original(study):
    everything = digits()
    for split in (study.train, study.validation, study.test, study.shift("unseen_classes")):
        original = everything.subset(split.source)
        assert torch.equal(original.images, split.images)
        assert torch.equal(original.labels, split.labels)


def test_every_class_has_its_share_of_every_split(study):
    total = digits().labels.bincount()[:8].double()
    for split, share in ((study.train, 0.55), (study.validation, 0.15), (study.test, 0.30)):
        counts = split.labels.bincount(minlength=8).double()
        assert len(counts) == 8
        assert (counts - share * total).abs().max() <= 1.5


def test_classes_8_and_9_are_never_in_distribution(study):
    assert study.class_names == tuple("01234567")
    for split in (study.train, study.validation, study.test):
        assert split.labels.max() == 7
        assert split.class_names == study.class_names
    unseen = study.shift("unseen_classes")
    assert set(unseen.labels.tolist()) == {8, 9}
    assert [unseen.class_names[label] for label in (8, 9)] == ["8", "9"]
    assert not contents(unseen) & (contents(study.train) | contents(study.validation) | contents(study.test))


def test_the_order_is_not_sorted_by_class(study):
    for split in (study.train, study.validation, study.test):
        assert (split.labels.diff() != 0).double().mean() > 0.5


@pytest.mark.parametrize("name", STUDIES[1:])
def test_official_splits(name):
    study = real(name)
    splits = (study.train, study.validation, study.test)
    assert len(study.validation) == 5_000
    assert torch.equal(study.test.images, load_images(name, "test").images)
    published = load_images(name, "train")
    assert torch.equal(torch.cat([study.train.images, study.validation.images]), published.images)
    for one, other in itertools.combinations(splits, 2):
        assert not set(one.source.tolist()) & set(other.source.tolist())
        if name in ("cifar10", "mnist"):  # whose images are all different
            assert not contents(one) & contents(other)
    for split in splits:
        counts = split.labels.bincount(minlength=10).double()
        assert counts.min() > 0.7 * len(split) / 10
        assert split.image_shape == study.image_shape
        assert split.class_names == study.class_names


# --- shifts -----------------------------------------------------------------------------------------------------------


def test_every_study_meets_the_four_shifts_that_need_no_other_data():
    for name in STUDIES:
        study = load_study(name)
        assert set(EVERYWHERE) <= set(study.shift_names)
        assert study.shift_names[0] == "photographs"
        assert all(shift.kind in ("far", "near", "covariate") for shift in study.shifts.values())
        assert all(shift.description for shift in study.shifts.values())


def test_shifts_have_the_shape_of_the_study(study):
    assert study.shift_names == ("photographs", "unseen_classes", "rotated", "inverted", "noise")
    for name in study.shift_names:
        images = study.shift(name)
        assert images.image_shape == study.image_shape == (1, 8, 8)
        assert images.name == name
        assert len(images) >= 300
        assert study.shift(name) is images


@pytest.mark.parametrize("name", STUDIES)
def test_every_shift_that_is_there_has_the_shape_of_the_study(name):
    study = load_study(name)
    for shift in study.available_shifts():
        if name != "digits" and shift in ("rotated", "inverted", "noise"):
            continue  # made of the test images, which may not be there
        images = study.shift(shift)
        assert images.image_shape == study.image_shape, shift
        assert images.images.float().std() > 10, shift
        if study.shifts[shift].data_set is not None:
            data_set = load_images(study.shifts[shift].data_set)
            assert len(images) == len(data_set)
            assert images.note.startswith(data_set.note)


def test_a_photograph_is_no_digit_and_has_two_sources(study):
    photographs = study.shift("photographs")
    assert set(photographs.source.tolist()) == {0, 1}
    assert photographs.class_names == ("china", "flower")


def test_rotated_is_an_exact_quarter_turn(study):
    rotated = study.shift("rotated")
    assert torch.equal(rotated.images.rot90(-1, (2, 3)), study.test.images)
    assert torch.equal(rotated.images[0, 0, :, 0], study.test.images[0, 0, 0].flip(0)), "to the left"
    assert torch.equal(rotated.labels, study.test.labels)
    assert torch.equal(rotated.source, study.test.source)


def test_inverted_exchanges_light_and_dark(study):
    assert torch.equal(
        study.shift("inverted").images.int() + study.test.images.int(), torch.full((433, 1, 8, 8), 255).int()
    )


def test_noise_is_uniform_and_independent(study):
    pixels = study.shift("noise").images.flatten(1).double()
    assert len(pixels) == len(study.test)
    assert pixels.mean().item() == pytest.approx(127.5, abs=2)
    assert pixels.std().item() == pytest.approx(256 / 12**0.5, rel=0.02)
    assert set(pixels.flatten().tolist()) == set(range(256))
    correlation = torch.corrcoef(pixels.T) - torch.eye(64)
    assert correlation.abs().max() < 0.25
    assert len(contents(study.shift("noise"))) == len(study.test)


def test_all_of_it_is_the_same_in_another_load(study):
    again = load_study("digits")
    assert again is not study
    for name in ("train", "validation", "test"):
        one, other = getattr(study, name), getattr(again, name)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.source, other.source)
    state = torch.get_rng_state()
    for name in study.shift_names:
        assert torch.equal(study.shift(name).images, again.shift(name).images)
    assert torch.equal(state, torch.get_rng_state()), "a study must not touch the global random state"


def test_no_two_studies_share_what_they_have_loaded():
    one = load_study("digits")
    _ = one.train
    assert load_study("digits")._loaded == {}


# --- names and errors -------------------------------------------------------------------------------------------------


def test_the_default_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("TUTORIAL_STUDY", raising=False)
    assert load_study().name == "digits"
    monkeypatch.setenv("TUTORIAL_STUDY", "")
    assert load_study().name == "digits"
    monkeypatch.setenv("TUTORIAL_STUDY", "cifar10")
    assert load_study().name == "cifar10"
    assert load_study("mnist").name == "mnist"
    monkeypatch.setenv("TUTORIAL_STUDY", "cifar")
    with pytest.raises(
        ValueError, match=r"no study 'cifar' \(from the environment variable TUTORIAL_STUDY\); did you mean"
    ):
        load_study()


def test_a_wrong_name_is_guessed():
    with pytest.raises(ValueError, match="there is no study 'cifr10'; did you mean 'cifar10'"):
        load_study("cifr10")
    with pytest.raises(ValueError, match="there are digits, mnist, cifar10, svhn"):
        load_study("olives")


def test_a_wrong_shift_is_guessed(study):
    with pytest.raises(ValueError, match="digits has no shift 'photos'; did you mean 'photographs'"):
        study.shift("photos")


@pytest.mark.parametrize("name", STUDIES[1:])
def test_a_study_without_data_is_an_error_only_when_they_are_needed(nothing, name):
    study = load_study(name)
    assert study.num_classes == 10
    assert len(study.image_shape) == 3
    assert study.available_shifts() == EVERYWHERE
    assert len(study.shift_names) > 7
    for ask in (lambda: study.train, lambda: study.test, lambda: study.classifier(seed=12345)):
        with pytest.raises(DataUnavailable, match=f"the complete train split of {name} is not on this machine"):
            ask()
    missing = next(shift for shift in study.shifts.values() if shift.data_set)
    with pytest.raises(DataUnavailable, match=f"{missing.data_set} is not on this machine"):
        study.shift(missing.name)


def test_available_shifts_are_those_that_load():
    study = load_study("cifar10")
    for name, shift in study.shifts.items():
        if shift.data_set is None:
            continue
        if name in study.available_shifts():
            study.shift(name)
        else:
            with pytest.raises(DataUnavailable):
                study.shift(name)


def test_a_shift_of_the_wrong_shape_is_refused(study):
    crooked = replace(study, image_shape=(1, 9, 9))
    with pytest.raises(RuntimeError, match=r"shift rotated has the shape \(1, 8, 8\), not \(1, 9, 9\)"):
        crooked.shift("rotated")


def test_what_a_study_says_of_itself(study):
    assert repr(study) == "Study('digits': Handwritten digits 0 to 7; 8 classes, images 1x8x8, lenet)"
    assert tutorial_lib.load_study is load_study
    assert isinstance(study, Study)
