"""PSNR and SSIM against scikit-image and against loops over windows."""

import math

import numpy as np
import pytest
import torch

from tutorial_lib.data.corruptions import corrupt
from tutorial_lib.image_quality import psnr, ssim, ssim_map
from tutorial_lib.image_quality.colour import luma, to_ycbcr, to_ygcr
from tutorial_lib.image_quality.fidelity import gaussian_window


def pictures(channels=3, count=2, size=24):
    """Smooth random pictures and noisy copies, uint8."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 4, 4, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(size, size + 5), mode="bilinear")
    images = (255 * images).to(torch.uint8)
    return images, corrupt(images, "gaussian_noise", 2, generator, family="cifar10_c")


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_is_that_of_scikit_image(channels):
    metrics = pytest.importorskip("skimage.metrics")
    reference, distorted = pictures(channels)
    for x, y, ours in zip(reference, distorted, ssim(reference, distorted), strict=True):
        peer = metrics.structural_similarity(
            x.numpy() / 255,
            y.numpy() / 255,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=1,
        )
        assert ours == pytest.approx(peer, abs=1e-12)


def test_psnr_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    reference, distorted = pictures()
    for x, y, ours in zip(reference, distorted, psnr(reference, distorted), strict=True):
        assert ours == pytest.approx(metrics.peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=255))


def test_colours_are_those_of_scikit_image():
    color = pytest.importorskip("skimage.color")
    image = pictures()[0].numpy() / 255
    ours = to_ycbcr(image)
    np.testing.assert_allclose(ours * 255, color.rgb2ycbcr(image, channel_axis=1), atol=1e-9)
    mixed = to_ygcr(image)
    np.testing.assert_array_equal(mixed[:, [0, 2]], ours[:, [0, 2]])
    np.testing.assert_array_equal(mixed[:, 1], image[:, 1])
    # Full-range luma is the Y of studio range, stretched.
    np.testing.assert_allclose(luma(image), (ours[:, 0] * 255 - 16) / 219, atol=1e-5)


def test_a_window_of_ssim_by_hand():
    reference, distorted = pictures(channels=1, count=1)
    window = np.outer(gaussian_window(), gaussian_window())
    assert window.sum() == pytest.approx(1)
    assert window[5, 5] / window[5, 8] == pytest.approx(math.exp(9 / (2 * 1.5**2)))
    for top, left in ((0, 0), (3, 7), (13, 18)):
        x, y = (i[0, 0, top : top + 11, left : left + 11].numpy() / 255 for i in (reference, distorted))
        mean_x, mean_y = (window * x).sum(), (window * y).sum()
        variance_x, variance_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
        covariance = (window * (x - mean_x) * (y - mean_y)).sum()
        light = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
        form = (2 * covariance + 9e-4) / (variance_x + variance_y + 9e-4)
        assert ssim_map(reference, distorted)[0, 0, top, left] == pytest.approx(light * form, abs=1e-12)


def test_perfect_copies_and_closed_forms():
    reference, _ = pictures()
    assert np.isinf(psnr(reference, reference)).all()
    np.testing.assert_allclose(ssim(reference, reference), 1)
    shifted = torch.full((1, 3, 12, 12), 0.5), torch.full((1, 3, 12, 12), 0.25)
    assert psnr(*shifted)[0] == pytest.approx(20 * math.log10(4))
    flat = (2 * 0.125 + 1e-4) / (0.3125 + 1e-4)
    assert ssim(*shifted)[0] == pytest.approx(flat)


def test_uint8_and_float_and_single_images_agree():
    reference, distorted = pictures()
    for measure in (psnr, ssim):
        together = measure(reference, distorted)
        np.testing.assert_allclose(measure(reference.double() / 255, distorted.double() / 255), together, atol=1e-9)
        alone = [measure(reference[i : i + 1], distorted[i : i + 1])[0] for i in range(2)]
        np.testing.assert_allclose(alone, together, rtol=1e-12)
        assert measure(reference, distorted, "luma")[0] != together[0]


def test_what_cannot_be_compared_is_refused():
    reference, distorted = pictures()
    with pytest.raises(ValueError, match="repeat a reference"):
        psnr(reference[:1], distorted)
    with pytest.raises(ValueError, match="11 x 11"):
        ssim(reference[..., :8], distorted[..., :8])
    with pytest.raises(ValueError, match="'rgb' or 'luma'"):
        ssim(reference, distorted, "lab")
    with pytest.raises(ValueError, match="must lie in"):
        psnr(reference.float(), distorted.float())


def test_extremes():
    black = torch.zeros(1, 1, 11, 11, dtype=torch.uint8)
    assert str(psnr(black, 255 - black)) == "[0.]" and psnr(black, black).tolist() == [np.inf]
    assert ssim(black, black).tolist() == [1.0] == ssim(255 - black, 255 - black).tolist()
    assert ssim(black, 255 - black)[0] == pytest.approx(0.01**2 / (1 + 0.01**2))
