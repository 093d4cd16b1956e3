"""The form of images and the checks at its door."""

import math

import pytest
import torch

from tutorial_lib.data import ImageSet, as_float, check_images


def image_set(count=6, classes=3):
    pixels = torch.arange(count * 16, dtype=torch.uint8).view(count, 1, 4, 4)
    return ImageSet("grid", pixels, torch.arange(count) % classes, tuple("abc"[:classes]), 10 + torch.arange(count))


@pytest.mark.parametrize("value", range(256))
def test_as_float_maps_every_byte_to_its_255th(value):
    assert as_float(torch.tensor([value], dtype=torch.uint8)).item() == pytest.approx(value / 255, abs=1e-7)


def test_as_float_keeps_floating_point_and_its_gradient():
    images = torch.rand(2, 1, 4, 4, requires_grad=True)
    as_float(images).sum().backward()
    assert torch.equal(images.grad, torch.ones_like(images))
    assert as_float(images.double(), torch.float64).dtype == torch.float64


@pytest.mark.parametrize("wrong", [torch.ones(2, dtype=torch.int64), torch.ones(2, dtype=torch.bool), [0.5], None])
def test_as_float_refuses_other_things(wrong):
    with pytest.raises(TypeError, match="images must be"):
        as_float(wrong)


def test_check_images_lets_both_forms_pass_untouched():
    for images in (torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.rand(1, 3, 5, 7), torch.rand(1, 1, 4, 4).double()):
        assert check_images(images) is images
    check_images(torch.zeros(1, 1, 5, 7), channels=1, size=(5, 7))
    check_images(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))  # both ends belong to the range


@pytest.mark.parametrize(
    ("images", "arguments", "says"),
    [
        (torch.zeros(1, 8, 8), {}, r"shape \(N, C, H, W\).*unsqueeze"),
        (torch.zeros(8, 8), {}, r"shape \(N, C, H, W\)"),
        (torch.zeros(0, 1, 8, 8), {}, "empty"),
        (torch.zeros(1, 1, 0, 8), {}, "empty"),
        (torch.zeros(1, 8, 8, 3), {}, "permute"),
        (torch.zeros(1, 2, 8, 8), {}, "1 or 3 channels, got 2"),
        (torch.zeros(1, 3, 8, 8), {"channels": 1}, "1 channels, got 3"),
        (torch.zeros(1, 1, 8, 8), {"size": 32}, "32x32 pixels, got 8x8"),
        (torch.full((1, 1, 2, 2), math.nan), {}, "NaN"),
        (torch.full((1, 1, 2, 2), math.inf), {}, "NaN or infinite"),
        (torch.full((1, 1, 2, 2), -0.01), {}, r"\[0, 1\].*do not normalise"),
        (torch.full((1, 1, 2, 2), 200.0), {}, "divide by 255"),
    ],
)
def test_check_images_says_what_is_wrong(images, arguments, says):
    with pytest.raises(ValueError, match=says):
        check_images(images, **arguments)


def test_one_bad_value_among_many_is_found():
    images = torch.rand(50, 3, 8, 8)
    images[37, 2, 5, 1] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        check_images(images)


@pytest.mark.parametrize("wrong", [torch.zeros(1, 1, 2, 2, dtype=torch.int32), [[1]], "digits"])
def test_check_images_refuses_other_types(wrong):
    with pytest.raises(TypeError, match="images must be"):
        check_images(wrong)


def test_subset_keeps_images_labels_and_sources_together():
    images = image_set()
    for chosen in (torch.tensor([4, 1]), [4, 1]):
        part = images.subset(chosen)
        assert torch.equal(part.images, images.images[[4, 1]])
        assert part.labels.tolist() == [1, 1]
        assert part.source.tolist() == [14, 11]
    assert images.subset(images.labels == 2).source.tolist() == [12, 15]
    assert len(images.subset([])) == 0
    with pytest.raises(ValueError, match="indices must be a list of places or a mask, got 5"):
        images.subset(5)


def test_at_most_is_the_set_itself_or_a_sample():
    images = image_set(20)
    assert images.at_most(20) is images and images.at_most(99) is images
    assert torch.equal(images.at_most(5, seed=2).source, images.sample(5, seed=2).source)


def test_sample_draws_without_replacement_and_repeats_itself():
    images = image_set(20)
    first = images.sample(15, seed=3)
    assert len(set(first.source.tolist())) == 15
    assert torch.equal(first.source, images.sample(15, seed=3).source)
    assert not torch.equal(first.source, images.sample(15, seed=4).source)
    state = torch.get_rng_state()
    images.sample(2)
    assert torch.equal(state, torch.get_rng_state()), "sampling must not touch the global random state"
    for n in (0, 21, -1):
        with pytest.raises(ValueError, match="cannot draw"):
            images.sample(n)


def test_an_image_set_refuses_parts_that_do_not_fit():
    good = image_set()
    with pytest.raises(TypeError, match="uint8"):
        ImageSet("float", good.float(), good.labels, good.class_names, good.source)
    with pytest.raises(TypeError, match="labels must be an int64 tensor"):
        ImageSet("short", good.images, good.labels[:-1], good.class_names, good.source)
    with pytest.raises(TypeError, match="source must be an int64 tensor"):
        ImageSet("int32", good.images, good.labels, good.class_names, good.source.int())
    with pytest.raises(ValueError, match="labels run from 0 to 2, but there are 2 class names"):
        ImageSet("names", good.images, good.labels, ("a", "b"), good.source)


def test_float_is_in_the_unit_interval():
    images = image_set().float()
    assert images.dtype == torch.float32
    assert images.min() >= 0
    assert images.max() <= 1
