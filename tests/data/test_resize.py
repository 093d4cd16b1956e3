"""Embedded images as scikit-learn has them; changes of size and colour against Pillow and what aliasing would show."""

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.data.embedded import digits, photographs
from tutorial_lib.data.resize import fit, resize, to_channels


@pytest.mark.parametrize("size", [(32, 32), (28, 28), (16, 24), (96, 96)])
def test_resize_agrees_with_pillow(size):
    images = photographs(size=64, channels=3).images[:8]
    ours = resize(images, size)
    for image, mine in zip(images, ours, strict=True):
        pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BICUBIC)
        difference = np.abs(np.asarray(pillow).astype(int) - mine.permute(1, 2, 0).numpy().astype(int))
        # Pillow rounds and clips between its two passes, which shows at a few sharp edges when enlarging
        assert (difference > 1).mean() < 1e-3
        assert difference.max() <= 6


def test_shrinking_a_fine_pattern_gives_grey_and_not_a_coarse_pattern():
    stripes = (torch.arange(64) % 2 * 255).to(torch.uint8).expand(1, 1, 64, 64)
    small = resize(stripes, (24, 24)).float()
    assert small.std() < 10, "without antialiasing the standard deviation is near 100"
    assert small.mean() == pytest.approx(127.5, abs=2)


def test_overshoot_is_clipped_not_wrapped():
    edge = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    edge[..., 4:] = 255
    large = resize(edge, (32, 32))[0, 0, 16]
    assert (large.int().diff() >= 0).all()


def test_grey_is_pillows_grey_to_one_level():
    images = photographs(size=32, channels=3).images[:10]
    ours = to_channels(images, 1)
    for image, mine in zip(images, ours, strict=True):
        pillow = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.abs(pillow.astype(int) - mine[0].numpy().astype(int)).max() <= 1


def test_three_equal_channels_of_a_grey_image():
    images = digits().images[:3]
    colour = to_channels(images, 3)
    assert colour.shape == (3, 3, 8, 8)
    for channel in range(3):
        assert torch.equal(colour[:, channel], images[:, 0])
    assert torch.equal(to_channels(colour, 1), images)
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        to_channels(images, 4)


def test_fit_says_what_it_did_and_does_nothing_when_it_fits():
    images = digits()
    assert fit(images, (1, 8, 8)) is images
    resized = fit(images, (3, 32, 32))
    assert resized.image_shape == (3, 32, 32)
    assert resized.note == "8x8 grey resized to 32x32 RGB (bicubic, antialiased)"
    assert torch.equal(resized.labels, images.labels)
    assert fit(resized, (1, 32, 32)).note == resized.note + "; RGB turned grey"


def test_digits_are_scikit_learns_counts_of_sixteen():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = digits()
    for count in range(17):
        found = images.images[:, 0].numpy()[bunch.images == count]
        assert len(found) > 0
        assert set(found.tolist()) == {int(255 * count / 16 + 0.5)}
    np.testing.assert_array_equal(images.labels.numpy(), bunch.target)


def test_photograph_patches_are_averages_and_know_their_photograph():
    from sklearn.datasets import load_sample_image

    patches = photographs(size=8, channels=3)
    assert patches.source.tolist() == [0] * 260 + [1] * 260
    assert torch.equal(patches.labels, patches.source)
    for name, first in (("china", 0), ("flower", 260)):
        photograph = load_sample_image(f"{name}.jpg").astype(float)
        corner = photograph[32:64, 64:96].reshape(8, 4, 8, 4, 3).mean((1, 3))  # second row, third column of 20
        mine = patches.images[first + 22].permute(1, 2, 0).numpy()
        assert np.abs(mine - corner).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(
    "arguments", [{"channels": 2}, {"size": 8, "patch": 12}, {"size": 0}, {"size": 8, "patch": 432}]
)
def test_photographs_refuses_what_it_cannot_cut(arguments):
    with pytest.raises(ValueError, match="must be"):
        photographs(**arguments)
