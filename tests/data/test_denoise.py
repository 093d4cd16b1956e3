"""Non-local means against a slow loop, and against what a denoiser is for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tutorial_lib.data.denoise import non_local_means
from tutorial_lib.data.embedded import photographs


def slowly(image, strength, patch, search):
    """One image (C, H, W), pixel by pixel."""
    channels, height, width = image.shape
    reach, half = search // 2, patch // 2
    padded = np.pad(image, [(0, 0), *[(reach + half, reach + half)] * 2], mode="reflect")

    def around(y, x):
        y, x = y + reach + half, x + reach + half
        return padded[:, y - half : y + half + 1, x - half : x + half + 1]

    out = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            found = [
                (np.exp(-np.square(around(y, x) - around(v, u)).mean() / strength**2), around(v, u)[:, half, half])
                for v in range(y - reach, y + reach + 1)
                for u in range(x - reach, x + reach + 1)
            ]
            out[:, y, x] = sum(w * value for w, value in found) / sum(w for w, _ in found)
    return out


@pytest.mark.parametrize(("channels", "patch", "search"), [(1, 3, 7), (3, 3, 5), (1, 1, 3)])
def test_it_is_the_loop_over_pixels(channels, patch, search):
    image = torch.rand(1, channels, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = slowly(image[0].numpy(), 0.3, patch, search)
    np.testing.assert_allclose(non_local_means(image, 0.3, patch, search)[0], expected, rtol=1e-6, atol=1e-9)


def test_it_takes_noise_away_and_leaves_edges():
    clean = photographs(size=32, channels=3).images[:16].float() / 255
    noisy = (clean + 0.08 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert (non_local_means(noisy) - clean).square().mean() < 0.7 * (noisy - clean).square().mean()
    edge = torch.zeros(1, 1, 8, 8)
    edge[..., 4:] = 1
    torch.testing.assert_close(non_local_means(edge), edge, atol=1e-6, rtol=0)


def test_it_can_be_differentiated_and_takes_bytes():
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    non_local_means(images).square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert non_local_means(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)).dtype == torch.float32


def test_bad_settings_are_refused():
    image = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match="strength must be positive"):
        non_local_means(image, 0.0)
    with pytest.raises(ValueError, match="patch must be odd"):
        non_local_means(image, patch=2)
    with pytest.raises(ValueError, match="too small"):
        non_local_means(image, search=15)
