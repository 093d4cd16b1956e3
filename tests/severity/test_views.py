"""Random views: what may change does, what may not does not."""

import pytest
import torch

from tutorial_lib.data.embedded import digits
from tutorial_lib.severity import Views, random_views


@pytest.fixture(scope="module")
def images():
    return digits().float()[:400]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_nothing_allowed_nothing_changed(images):
    torch.testing.assert_close(random_views(images, Views(1.0, False, 0.0), seeded()), images)


def test_views_are_images_and_the_generator_decides(images):
    one, same, other = (random_views(images, Views(0.3), seeded(seed)) for seed in (0, 0, 1))
    assert one.shape == images.shape and one.min() >= 0 and one.max() <= 1
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_flip_mirrors_half_of_them(images):
    views = random_views(images, Views(1.0, True, 0.0), seeded())
    mirrored = torch.isclose(views, images.flip(3), atol=1e-5).all(-1).all(-1).all(-1)
    kept = torch.isclose(views, images, atol=1e-5).all(-1).all(-1).all(-1)
    assert (mirrored | kept).all() and 0.4 < mirrored.float().mean() < 0.6


def test_a_crop_shows_as_much_of_the_picture_as_it_may():
    """On a picture whose grey is its place, the span of grey in a view is the share of the side that it shows."""
    ramp = torch.linspace(0, 1, 64).view(1, 1, 1, 64).expand(500, 1, 64, 64)
    across = random_views(ramp, Views(0.25, False, 0.0), seeded())
    width = across[:, 0, 0, -1] - across[:, 0, 0, 0]
    down = random_views(ramp.transpose(2, 3).contiguous(), Views(0.25, False, 0.0), seeded())
    height = down[:, 0, -1, 0] - down[:, 0, 0, 0]
    area = width * height
    assert area.min() > 0.23 and area.max() < 1.01 and 0.5 < area.mean() < 0.7
    ratio = (width / height)[area < 0.7]
    assert ratio.min() > 0.73 and ratio.max() < 1.37


def test_jitter_changes_four_in_five_and_only_their_brightness_and_contrast(images):
    views = random_views(images, Views(1.0, False, 0.4), seeded())
    kept = torch.isclose(views, images, atol=1e-6).flatten(1).all(1)
    assert 0.14 < kept.float().mean() < 0.27
    order = images[~kept][0].flatten().argsort(stable=True)
    assert (views[~kept][0].flatten()[order].diff() >= -1e-6).all(), "the order of the greys has changed"


def test_bad_settings_are_named():
    for arguments, message in (((0.0,), "smallest_crop"), ((1.2,), "smallest_crop"), ((1.0, False, 1.0), "jitter")):
        with pytest.raises(ValueError, match=message):
            Views(*arguments)
