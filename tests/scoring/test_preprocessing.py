"""Pixels are those that torchvision's own transforms make, before they normalise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from tutorial_lib.models import Normalize
from tutorial_lib.scoring import Preprocessing
from tutorial_lib.scoring.preprocessing import from_config, from_torchvision


def picture(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("how", [InterpolationMode.BILINEAR, InterpolationMode.BICUBIC])
@pytest.mark.parametrize("size", [(40, 40), (31, 57), (64, 35), (20, 90)])
@pytest.mark.parametrize(("resize", "crop"), [(32, 28), (24, 24), (24, 31)])
def test_pixels_are_torchvisions(how, size, resize, crop):
    transforms = ImageClassification(crop_size=crop, resize_size=resize, interpolation=how)
    preprocessing = from_torchvision(transforms, "torchvision")
    image = picture(*size)
    ours = Normalize(preprocessing.mean, preprocessing.std)(preprocessing.prepare(image)[None])[0]
    torch.testing.assert_close(ours, transforms(image), rtol=1e-5, atol=1e-5)


def test_timms_config_is_read():
    config = {
        "input_size": (3, 240, 240),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": [0.1] * 3,
        "std": [1] * 3,
    }
    found = from_config(config, "timm")
    assert found == Preprocessing((240, 240), 3, 266, "bicubic", (0.1,) * 3, (1.0,) * 3, "timm")
    squashed = from_config({**config, "input_size": (3, 240, 120), "crop_mode": "squash"}, "timm")
    assert squashed.resize == (266, 133) and squashed.prepare(picture(50, 90)).shape == (3, 240, 120)
    with pytest.raises(ValueError, match="border"):
        from_config({**config, "crop_mode": "border"}, "timm")
    with pytest.raises(ValueError, match="input_size"):
        from_config({}, "timm")


def test_modes_of_images():
    grey, colour = Preprocessing((4, 4), 1), Preprocessing((4, 4), 3)
    deep = Image.fromarray(np.full((4, 4), 257 * 100, dtype=np.uint16))
    assert set(grey.prepare(deep).flatten().tolist()) == {100}
    every = np.linspace(0, 65535, 16).round().astype(np.uint16).reshape(4, 4)
    expected = [round(255 * value / 65535) for value in every.flatten().tolist()]  # white is 255, not 256, which is 0
    assert grey.prepare(Image.fromarray(every)).flatten().tolist() == expected
    clear = Image.new("RGBA", (4, 4), (10, 20, 30, 0))
    assert colour.prepare(clear)[:, 0, 0].tolist() == [10, 20, 30]
    palette = Image.new("RGB", (4, 4), (255, 0, 0)).quantize(2)
    assert colour.prepare(palette)[:, 0, 0].tolist() == [255, 0, 0]
    with pytest.raises(ValueError, match="32-bit"):
        grey.prepare(Image.fromarray(np.zeros((4, 4), dtype=np.float32)))
    with pytest.raises(ValueError, match="5x6, the network takes 4x4"):
        grey.prepare(Image.new("L", (6, 5)))


@pytest.mark.parametrize(
    "settings",
    [
        {"size": (0, 4)},
        {"channels": 2},
        {"interpolation": "sinc"},
        {"mean": (0.5,)},
        {"mean": (0.5,), "std": (0.5,), "channels": 3},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError):
        Preprocessing(**{"size": (4, 4), "channels": 1, **settings})
