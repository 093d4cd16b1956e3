"""Painted lesions: as severe as they say, where they belong, and the same for the same generator."""

import numpy as np
import pytest
import scipy.integrate
import torch

from tutorial_lib.data.embedded import digits, photographs
from tutorial_lib.data.lesions import KINDS, OPACITY, SHARE, lesion_mask, paint_lesions


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def healthy():
    """300 digits, 8x8 grey, float32."""
    return digits().float()[:300]


def test_the_mask_is_a_gaussian_averaged_over_each_pixel():
    severity, centre = 0.3, (3.4, 4.1)
    variance = severity * SHARE * 64 / (2 * np.pi * OPACITY)
    mask = lesion_mask(torch.tensor([severity]), torch.tensor([centre]), 8, 8)[0]

    def height(column, row):
        return OPACITY * np.exp(-((row - centre[0]) ** 2 + (column - centre[1]) ** 2) / (2 * variance))

    for row, column in ((3, 4), (3, 5), (2, 2), (6, 4)):
        mean, _ = scipy.integrate.dblquad(height, row, row + 1, column, column + 1)
        assert mask[row, column].item() == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("side", [8, 28])
def test_severity_is_area(side):
    severity = torch.tensor([0.01, 0.1, 0.25, 0.5])
    mask = lesion_mask(severity, torch.full((4, 2), side / 2 + 0.2), side, side)
    torch.testing.assert_close(mask.sum((1, 2)), severity * SHARE * side**2, rtol=2e-3, atol=0)
    assert mask.max() <= OPACITY


def test_spots_are_light_gaps_are_dark_and_zero_is_healthy(healthy):
    for kind, sign in (("spot", 1), ("gap", -1)):
        ill = paint_lesions(healthy, 0.5, seeded(), kind)
        change = sign * (ill.images - healthy)
        assert (change > -1e-6).all()
        assert (change.sum((1, 2, 3)) > 0.3).float().mean() > 0.95, "hardly any lesion shows"
        assert (ill.kind == KINDS.index(kind)).all()
    assert torch.equal(paint_lesions(healthy, 0.0, seeded()).images, healthy)


def test_lesions_lie_on_or_near_the_strokes(healthy):
    for kind, least in (("gap", 0.5), ("spot", 0.3)):
        ill = paint_lesions(healthy, 1.0, seeded(), kind)
        rows, columns = ill.centre.long().T
        there = healthy[torch.arange(len(healthy)), 0, rows, columns]
        if kind == "gap":
            assert there.mean() > least > healthy.mean()
        else:
            assert there.mean() < least
            around = torch.nn.functional.max_pool2d(healthy, 3, 1, 1)[torch.arange(len(healthy)), 0, rows, columns]
            assert (around > 0.1).float().mean() > 0.97


def test_the_same_lesion_grows_with_its_severity(healthy):
    small, large = (paint_lesions(healthy, severity, seeded(3)) for severity in (0.2, 0.8))
    assert torch.equal(small.centre, large.centre) and torch.equal(small.kind, large.kind)
    shown = [(ill.images - healthy).abs().sum((1, 2, 3)) for ill in (small, large)]
    assert (shown[1] >= shown[0] - 1e-6).all()
    assert 0.4 < small.kind.double().mean() < 0.6


def test_generator_decides_and_images_stay_as_they_were(healthy):
    before = healthy.clone()
    severity = torch.linspace(0, 1, len(healthy))
    one, same, other = (paint_lesions(healthy, severity, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.images, same.images) and not torch.equal(one.images, other.images)
    assert torch.equal(healthy, before)
    whole = one.images * 255
    torch.testing.assert_close(whole, whole.round(), atol=1e-3, rtol=0)


def test_reference_values(healthy):
    ill = paint_lesions(healthy[:2], torch.tensor([0.4, 0.9]), seeded(7), torch.tensor([0, 1]))
    torch.testing.assert_close(ill.centre, torch.tensor([[2.65921, 0.65689], [3.20709, 3.62974]]), atol=1e-4, rtol=0)
    rows = (ill.images[:, 0].sum(2) * 255).round().int()  # sums of the pixels of a row, in 255ths
    spot, gap = [482, 1107, 948, 742, 538, 563, 685, 462], [417, 377, 232, 302, 283, 491, 587, 584]
    assert (rows - torch.tensor([spot, gap])).abs().max() <= 1


def test_colour_images_get_grey_lesions():
    patches = photographs(size=32, channels=3).float()[:6]
    ill = paint_lesions(patches, 1.0, seeded(), "gap", eight_bit=False)
    mask = lesion_mask(ill.severity, ill.centre, 32, 32)[:, None]
    torch.testing.assert_close(ill.images, patches * (1 - mask))


def test_bad_input_is_named(healthy):
    few = healthy[:3]
    for arguments, message in (
        ((few, 1.5, seeded()), "severity must lie in"),
        ((few, float("nan"), seeded()), "severity must lie in"),
        ((few, torch.tensor([0.1, 0.2]), seeded()), "severity must be one number, or one an image"),
        ((few, 0.1, seeded(), "blot"), "no lesion of kind 'blot'"),
        ((few, 0.1, seeded(), torch.tensor([0, 1, 2])), "kind must index"),
        ((2 * few, 0.1, seeded()), r"must lie in \[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            paint_lesions(*arguments)
    with pytest.raises(TypeError, match="as_float"):
        paint_lesions((255 * few).to(torch.uint8), 0.1, seeded())
    with pytest.raises(TypeError, match="generator must be"):
        paint_lesions(few, 0.1, 0)
