"""Harmless and harmful changes, changes that are equal to PSNR, and the scale of JPEG qualities."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from tutorial_lib.image_quality import CHANGES, changed, jpeg_equivalent, jpeg_scale, matched, psnr, reference_images
from tutorial_lib.image_quality.changes import STRENGTHS


@pytest.fixture(scope="module")
def photograph():
    return reference_images(["flower"], size=64)


def test_every_change_changes_and_keeps_the_form(photograph):
    for name in CHANGES:
        copy = changed(photograph, name)
        assert copy.shape == photograph.shape and copy.dtype == torch.uint8
        assert 5 < psnr(photograph, copy)[0] < 50, name
    assert torch.equal(changed(photograph, "noisy"), changed(photograph, "noisy"))


def test_changes_by_hand(photograph):
    moved = changed(photograph, "moved")
    assert torch.equal(moved[..., 1:], photograph[..., :-1]) and torch.equal(moved[..., 0], photograph[..., 0])
    assert torch.equal(changed(photograph, "brighter"), (photograph.int() + 8).clamp(max=255).to(torch.uint8))
    grey = changed(photograph, "grey")
    assert torch.equal(grey[:, 0], grey[:, 2])
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert ((photograph[0] * weights).sum(0) - grey[0, 0]).abs().max() <= 1
    rows = (changed(photograph, "scratched") == 0).all(dim=3).all(dim=1)[0]
    assert rows.nonzero().flatten().tolist() == [19, 32, 45]


def test_names_and_types_are_checked(photograph):
    with pytest.raises(ValueError, match="moved"):
        changed(photograph, "mooved")
    with pytest.raises(ValueError, match="uint8"):
        changed(photograph / 255, "moved")
    with pytest.raises(ValueError, match="jpeg"):
        matched(photograph, "jpg", 25)
    with pytest.raises(ValueError, match="one photograph"):
        matched(photograph.expand(2, -1, -1, -1), "jpeg", 25)


def test_the_jpeg_scale_is_pillows(photograph):
    scale = jpeg_scale(photograph, (10, 80))
    stored = io.BytesIO()
    Image.fromarray(photograph[0].permute(1, 2, 0).numpy()).save(stored, "JPEG", quality=80)
    np.testing.assert_array_equal(scale[1].permute(1, 2, 0), np.asarray(Image.open(stored)))


def test_a_jpeg_is_as_bad_as_itself(photograph):
    on_scale = psnr(photograph.expand(9, -1, -1, -1), jpeg_scale(photograph))
    np.testing.assert_allclose(jpeg_equivalent(on_scale, on_scale), (5, 10, 20, 30, 50, 70, 80, 90, 95))
    assert jpeg_equivalent([np.inf, -1.0], on_scale).tolist() == [95, 5]
    dented = [0.2, 0.1, 0.4]  # a better file with a lower value adds nothing
    np.testing.assert_allclose(jpeg_equivalent([0.15, 0.3, 0.4], dented, (10, 20, 30)), [10, 25, 30])
    with pytest.raises(ValueError, match="one number for each"):
        jpeg_equivalent([1.0], [1.0, 2.0], (10, 20, 30))


@pytest.mark.parametrize("name", STRENGTHS)
def test_matched_changes_have_the_psnr_asked_for(photograph, name):
    copy, found = matched(photograph, name, 22.0)
    assert found == pytest.approx(psnr(photograph, copy)[0])
    assert found == pytest.approx(22, abs=3 if name in ("moved", "jpeg", "pixelated") else 0.2)


@pytest.mark.parametrize("target", [0.0, -3.0, float("nan"), float("inf")])
def test_a_target_that_is_no_number_of_decibels_is_refused(photograph, target):
    with pytest.raises(ValueError, match="finite number of dB"):
        matched(photograph, "noise", target)
