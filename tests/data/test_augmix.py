"""AugMix: its operations against torchvision and slow loops, its mixtures against what they must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as theirs

from tutorial_lib.data import augmix as module
from tutorial_lib.data.augmix import OPERATIONS, augmix, auto_contrast, equalize, posterize, solarize
from tutorial_lib.data.embedded import photographs


@pytest.fixture(scope="module")
def photos():
    return photographs(size=32, channels=3).images[:6]


def grey(images):
    return (images * 255).round().to(torch.uint8)


def test_operations_on_grey_levels_are_torchvisions(photos):
    images, count = photos.float() / 255, len(photos)
    apart = grey(auto_contrast(images)).int() - theirs.autocontrast(photos).int()
    assert apart.abs().max() <= 1  # theirs cuts off, ours rounds
    bits = torch.full((count,), 3.0)
    torch.testing.assert_close(grey(posterize(images, bits)), theirs.posterize(photos, 3))
    limit = torch.full((count,), 128 / 255)
    torch.testing.assert_close(grey(solarize(images, limit)), theirs.solarize(photos, 128))


def test_equalized_levels_are_shares_of_darker_pixels(photos):
    channel = photos[0, 0]
    darker = np.array([[(channel.numpy() < value).sum() for value in row] for row in channel.numpy()])
    expected = np.round(255 * darker / darker.max())
    np.testing.assert_allclose(equalize(photos.float() / 255)[0, 0] * 255, expected, atol=1e-3)
    flat = torch.full((1, 1, 4, 4), 51 / 255)
    torch.testing.assert_close(equalize(flat), flat)
    torch.testing.assert_close(auto_contrast(flat), flat)


def test_moves_are_torchvisions(photos):
    images = photos.float() / 255
    third = torch.full((len(images),), 0.3)
    plus = torch.ones(len(images))
    turned = OPERATIONS["rotate"](images, third, plus)  # nine degrees
    both = (turned - theirs.rotate(images, 9.0, theirs.InterpolationMode.BILINEAR)).abs().mean()
    other = (turned - theirs.rotate(images, -9.0, theirs.InterpolationMode.BILINEAR)).abs().mean()
    assert min(both, other) < 1e-3
    moved = OPERATIONS["shift_x"](images, torch.full_like(third, 3 / 32), plus)  # one pixel of 32
    torch.testing.assert_close(moved[..., :-1], images[..., 1:], atol=1e-4, rtol=0)
    assert not moved[..., -1].any()


def test_no_operation_is_a_corruption_of_the_test():
    assert len(OPERATIONS) == 9
    assert not set(OPERATIONS) & {"contrast", "brightness", "saturate", "gaussian_noise"}


def test_every_image_gets_a_mixture_of_its_own_and_the_seed_decides(photos):
    same = photos[:1].expand(40, -1, -1, -1)
    mixed = augmix(same, torch.Generator().manual_seed(0))
    assert mixed.shape == same.shape
    assert 0 <= mixed.min() and mixed.max() <= 1
    assert len(mixed.flatten(1).unique(dim=0)) == 40
    torch.testing.assert_close(augmix(same, torch.Generator().manual_seed(0)), mixed)
    assert not torch.equal(augmix(same, torch.Generator().manual_seed(1)), mixed)


def test_without_operations_an_image_is_mixed_with_itself(photos, monkeypatch):
    monkeypatch.setattr(module, "OPERATIONS", {"nothing": lambda images, strength, sign: images})
    mixed = augmix(photos, torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed, photos.float() / 255, atol=1e-6, rtol=0)


def test_shares_are_uniform_on_the_simplex():
    shares = module._dirichlet(20_000, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(shares.sum(1), torch.ones(20_000, dtype=torch.float64))
    assert shares.mean(0) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert float(shares[:, 0].var()) == pytest.approx(1 / 18, rel=0.05)  # of Dirichlet(1, 1, 1)
