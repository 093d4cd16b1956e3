"""Two sides: what is learned from and what is tested on share no source, no neighbour and no image."""

import itertools
from dataclasses import replace

import pytest
import torch

from tutorial_lib.data import DATASETS, ImageSet, load_images
from tutorial_lib.data.splits import pixel_digests, two_sides


def made_up(count=4_000, neighbours=0, first=0):
    """Images that are all different."""
    pixels = torch.arange(count, dtype=torch.int32).view(torch.uint8).view(count, 1, 2, 2)
    numbers = torch.arange(first, first + count)
    return ImageSet("made up", pixels, torch.zeros(count, dtype=torch.int64), ("any",), numbers, "", neighbours)


def between(one, other):
    """The smallest difference of two sources, by comparing all pairs."""
    return min(int((one.source - number).abs().min()) for number in other.source)


@pytest.mark.parametrize("neighbours", [0, 1, 6, 50])
def test_nothing_learned_is_a_neighbour_of_anything_tested(neighbours):
    images = made_up(neighbours=neighbours, first=73_257)
    learn, test = two_sides(images, 0.4)
    assert between(learn, test) > neighbours
    assert len(learn) + len(test) >= 0.85 * len(images)  # what is lost lies at the ends of blocks
    assert len(learn) / (len(learn) + len(test)) == pytest.approx(0.4, abs=0.1)


def test_one_house_is_on_one_side():
    """Numbers of one to six digits, crop after crop, as in SVHN: whose houses would be cut, image by image?"""
    lengths = torch.randint(1, 7, (1_200,), generator=torch.Generator().manual_seed(0))
    house = torch.arange(1_200).repeat_interleave(lengths)
    images = made_up(len(house), neighbours=6)
    learn, test = two_sides(images, 0.4)
    assert not set(house[learn.source].tolist()) & set(house[test.source].tolist())
    learn, test = two_sides(replace(images, neighbours=0), 0.4)
    cut = torch.isin(house[test.source], house[learn.source])
    assert cut.double().mean() > 0.8


def test_a_sample_is_divided_where_the_whole_is():
    images = made_up(neighbours=6)
    (learn, test), (some_learn, some_test) = two_sides(images, 0.4), two_sides(images.sample(1_000, seed=0), 0.4)
    assert set(some_test.source.tolist()) <= set(test.source.tolist())
    assert not set(some_learn.source.tolist()) & set(test.source.tolist())
    assert len(some_learn) >= 0.25 * 0.9 * len(learn)


def test_the_same_picture_is_never_on_both_sides_and_is_tested_once():
    images = made_up(500)
    twice = torch.cat([images.images[:300], images.images[:200]])
    learn, test = two_sides(replace(images, images=twice), 0.4)
    seen, asked = pixel_digests(learn), pixel_digests(test)
    assert not set(seen) & set(asked)
    assert len(set(asked)) == len(asked)
    assert set(seen) | set(asked) == set(pixel_digests(images)[:300])


def test_what_was_made_of_an_image_is_on_its_side():
    images = replace(made_up(neighbours=50), images=torch.randint(0, 255, (4_000, 1, 2, 2), dtype=torch.uint8))
    turned = replace(images, name="turned", images=images.images.rot90(1, (2, 3)))
    for one, other in zip(two_sides(images, 0.4), two_sides(turned, 0.4), strict=True):
        assert torch.equal(one.source, other.source)


def test_patches_of_two_photographs_are_cut_between_them():
    learn, test = two_sides(load_images("photographs"), 0.4)
    assert set(learn.source.tolist()) == {0}
    assert set(test.source.tolist()) == {1}


def test_too_few_images_are_an_error():
    with pytest.raises(ValueError, match="20 images of made up cannot be divided into two sides; take more of them"):
        two_sides(made_up(20, neighbours=6), 0.4)


def test_digests_tell_images_apart():
    digests = pixel_digests(made_up(1_000))
    assert len(set(digests)) == 1_000
    assert pixel_digests(made_up(1_000)) == digests


# --- the data sets themselves -----------------------------------------------------------------------------------------

HERE = [name for name, data_set in DATASETS.items() if data_set.there()]


@pytest.mark.parametrize("name", HERE)
def test_of_every_set_that_is_here(name):
    learn, test = two_sides(load_images(name), 0.4)
    assert not set(learn.source.tolist()) & set(test.source.tolist())
    assert not set(pixel_digests(learn)) & set(pixel_digests(test))
    assert len(set(pixel_digests(test))) == len(test)
    if learn.neighbours:
        assert between(learn, test) > learn.neighbours
    assert min(len(learn), len(test)) > 0.25 * len(load_images(name))


#: Pictures that two splits share, as published: one X-ray is among the first two, and nothing that is tested is learned.
SHARED = {("pneumonia_mnist", "train", "validation"): 1}


@pytest.mark.parametrize("name", [name for name in HERE if len(DATASETS[name].splits) > 1 and name != "textures"])
def test_published_splits_share_no_picture(name):
    """Data sets that have more than one; the textures' "all" holds their test images by its name."""
    there = {s: load_images(name, s) for s in DATASETS[name].splits if DATASETS[name].found(s) is not None}
    digests = {split: set(pixel_digests(images)) for split, images in there.items()}
    for one, other in itertools.combinations(digests, 2):
        assert len(digests[one] & digests[other]) == SHARED.get((name, one, other), 0), (one, other)


def test_houses_and_writers_come_in_a_row():
    """What `neighbours` is for: how much oftener than by chance the most similar image is one of the next ones."""
    assert {name for name, data_set in DATASETS.items() if data_set.neighbours} == {"mnist", "svhn"}
    for name in ("mnist", "svhn"):
        if name not in HERE:
            continue
        images = load_images(name)
        images = images.subset(torch.arange(max(0, len(images) - 2_000), len(images)))  # MNIST's first half is mixed
        pixels = images.float().flatten(1)
        pixels = torch.nn.functional.normalize(pixels - pixels.mean(dim=1, keepdim=True))
        similar = (pixels @ pixels.T).fill_diagonal_(-1).argmax(dim=1)
        near = ((similar - torch.arange(len(images))).abs() <= images.neighbours).double().mean()
        assert near > 3 * 2 * images.neighbours / len(images), name
