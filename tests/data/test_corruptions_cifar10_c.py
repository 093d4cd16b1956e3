"""The nineteen corruptions of CIFAR-10-C: against independent computations, by their properties, pinned; and its files."""

import io

import numpy as np
import pytest
import scipy.ndimage
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image

from tutorial_lib import load_study
from tutorial_lib.data import DataDamaged, DataUnavailable
from tutorial_lib.data.corruptions import (
    CIFAR10_C,
    CORRUPTIONS,
    LEVELS,
    apply,
    corrupt,
    corruption_names,
    load_cifar10_c,
)
from tutorial_lib.data.corruptions.blurs import soft_disk_kernel
from tutorial_lib.data.corruptions.weather import clouds
from tutorial_lib.data.embedded import digits, photographs
from tutorial_lib.data.resize import resize

NAMES = tuple(CIFAR10_C)
RANDOM = tuple(name for name in NAMES if CIFAR10_C[name].random)
NOT_IN_ORDER = ("elastic_transform", "glass_blur")
"""Level 5 need not change more than level 1, by the published constants: there it moves less, or blurs what it moved."""


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def changed(images, name, level, seed=0, **more):
    return corrupt(images, name, level, seeded(seed), family="cifar10_c", **more)


@pytest.fixture(scope="module")
def colour():
    """30 patches of photographs, 32x32 RGB, float32."""
    return photographs(size=32, channels=3).float()[::17][:30]


@pytest.fixture(scope="module")
def grey():
    """100 digits, 8x8 grey, float32."""
    return digits().float()[:100]


def test_the_nineteen_of_the_files():
    assert len(NAMES) == 19
    assert corruption_names(3, "cifar10_c") == NAMES
    assert set(corruption_names(1, "cifar10_c")) == set(NAMES) - {"saturate"}
    assert set(NAMES) & set(CORRUPTIONS) == {"gaussian_blur", "snow"}


@pytest.mark.parametrize("name", NAMES)
def test_form_of_the_result(colour, grey, name):
    large, odd = resize((colour[:2] * 255).to(torch.uint8), (48, 64)).float() / 255, colour[:3, :, :, :20]
    for images in (colour, grey, grey[:4].double(), large, odd, (colour[:3] * 255).round().to(torch.uint8)):
        before = images.clone()
        for level in (1, 5):
            result = changed(images, name, level)
            assert result.shape == images.shape
            assert result.dtype == images.dtype
            assert torch.equal(images, before), "the clean images were changed"
            if result.is_floating_point():
                assert 0 <= result.min() <= result.max() <= 1
                assert torch.allclose(result * 255, (result * 255).round(), atol=1e-3), "not on whole 255ths"


@pytest.mark.parametrize("name", NAMES)
def test_distance_to_the_clean_image(colour, grey, name):
    for images in (colour, grey):
        if images is grey and name == "saturate":
            continue
        distance = [(changed(images, name, level) - images).pow(2).mean().sqrt().item() for level in LEVELS]
        assert min(distance) > 0.001
        # neighbouring levels need not be in order: the constants change what is done, not only how much of it
        if name not in NOT_IN_ORDER:
            assert distance[4] > 1.02 * distance[0], distance


@pytest.mark.parametrize("name", NAMES)
def test_randomness_belongs_to_the_image(colour, name, monkeypatch):
    whole = changed(colour, name, 4, eight_bit=False)
    assert torch.equal(whole, changed(colour, name, 4, eight_bit=False))
    assert torch.equal(whole, changed(colour, name, 4, seed=1, eight_bit=False)) == (name not in RANDOM)
    generator = seeded()
    parts = [corrupt(part, name, 4, generator, False, "cifar10_c") for part in (colour[:7], colour[7:])]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-5)
    monkeypatch.setattr(apply, "BATCH", 4)
    torch.testing.assert_close(changed(colour, name, 4, eight_bit=False), whole, rtol=0, atol=1e-5)
    if name in RANDOM:
        same = changed(colour[:1].repeat(8, 1, 1, 1), name, 4)
        assert len({image.numpy().tobytes() for image in same}) == 8


@pytest.mark.parametrize("name", ["gaussian_noise", "impulse_noise", "speckle_noise"])
def test_levels_are_nested(name):
    """Level 5 is level 1, only more so: where level 1 moved a value up, level 5 does not move it down."""
    flat = torch.full((4, 3, 32, 32), 0.5)
    first, fifth = (changed(flat, name, level, eight_bit=False) - 0.5 for level in (1, 5))
    assert (first * fifth >= 0).all()
    assert (fifth.abs() >= first.abs() - 1e-6).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_another_device_gives_the_same_images(colour, name):
    there = changed(colour.cuda(), name, 3, eight_bit=False)
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), changed(colour, name, 3, eight_bit=False), rtol=0, atol=1e-3)


def test_accuracy_falls_from_level_to_level():
    """Over all corruptions, and for no single one is the most severe level easier than the mildest."""
    study = load_study("digits")
    model, images, labels = study.classifier(), study.test.float(), study.test.labels
    accuracy = {}
    names = corruption_names(1, "cifar10_c")
    for name in names:
        for level in (1, 3, 5):
            with torch.no_grad():
                answers = model(changed(images, name, level)).argmax(1)
            accuracy[name, level] = (answers == labels).double().mean().item()
    means = [np.mean([accuracy[name, level] for name in names]) for level in (1, 3, 5)]
    with torch.no_grad():
        clean = (model(images).argmax(1) == labels).double().mean().item()
    assert clean > means[0] > means[1] > means[2]


# --- against independent computations -------------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "photons"), [(1, 500), (3, 100), (5, 50)])
def test_shot_noise_is_poisson(level, photons):
    """The variance of a Poisson number is its mean, at every level, and so is the third moment about it."""
    flat = torch.full((60, 1, 32, 32), 0.4)
    counted = (changed(flat, "shot_noise", level, eight_bit=False) * photons).double()
    assert torch.allclose(counted, counted.round(), atol=1e-3)
    mean = 0.4 * photons
    assert counted.mean().item() == pytest.approx(mean, rel=0.01)
    assert counted.var().item() == pytest.approx(mean, rel=0.03)
    assert (counted - mean).pow(3).mean().item() == pytest.approx(mean, rel=0.6, abs=60)


@pytest.mark.parametrize(("level", "amount"), [(1, 0.01), (5, 0.07)])
def test_impulse_noise_strikes_the_stated_share(level, amount):
    flat = torch.full((100, 3, 32, 32), 0.5)
    struck = changed(flat, "impulse_noise", level, eight_bit=False)
    assert (struck == 0).double().mean().item() == pytest.approx(amount / 2, rel=0.1)
    assert (struck == 1).double().mean().item() == pytest.approx(amount / 2, rel=0.1)


def test_speckle_noise_grows_with_light():
    added = changed(torch.full((50, 1, 32, 32), 0.25), "speckle_noise", 3, eight_bit=False) - 0.25
    assert added.std().item() == pytest.approx(0.25 * 0.12, rel=0.02)


@pytest.mark.parametrize("level", LEVELS)
def test_gaussian_blur_is_scipys(colour, level):
    sigma = (0.4, 0.6, 0.7, 0.8, 1.0)[level - 1]
    expected = scipy.ndimage.gaussian_filter(colour.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4)
    np.testing.assert_allclose(changed(colour.double(), "gaussian_blur", level, eight_bit=False), expected, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_defocus_blur_is_a_disk_with_a_soft_edge(colour, level):
    """The disk of the original, on its 17x17 grid, softened by scipy's 3x3 Gaussian, convolved by scipy."""
    radius, softness = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[level - 1]
    y, x = np.mgrid[-8:9, -8:9]
    disk = (x**2 + y**2 <= radius**2).astype(float)
    disk /= disk.sum()
    soft = scipy.ndimage.gaussian_filter(disk, softness, mode="constant", radius=1)
    expected = scipy.ndimage.convolve(colour.double().numpy(), soft[None, None], mode="nearest")
    np.testing.assert_allclose(changed(colour.double(), "defocus_blur", level, eight_bit=False), expected, atol=1e-9)
    assert soft_disk_kernel(radius, softness).sum().item() == pytest.approx(1)


@pytest.mark.parametrize("level", [1, 4])
def test_zoom_blur_is_the_mean_of_enlargements(colour, level):
    """By scipy's interpolation, one image and one factor at a time."""
    largest = (1.06, 1.11, 1.16, 1.21, 1.26)[level - 1]
    factors = np.arange(1, largest - 1e-9, 0.01)
    image = colour[0].double().numpy()
    total = image.copy()
    for factor in factors:
        matrix = np.eye(2) / factor
        offset = np.full(2, 15.5) * (1 - 1 / factor)
        for channel in range(3):
            total[channel] += scipy.ndimage.affine_transform(image[channel], matrix, offset, order=1, mode="nearest")
    expected = total / (len(factors) + 1)
    np.testing.assert_allclose(
        changed(colour[:1].double(), "zoom_blur", level, eight_bit=False)[0], expected, atol=1e-9
    )


def test_glass_shows_a_neighbour(colour):
    """With no blur every pixel's colour is that of a pixel no more than one away."""
    from tutorial_lib.data.corruptions.blurs import glass_blur

    image = colour[:1]
    shown = glass_blur(image, (0.01, 1, 1), [5])[0]
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), mode="replicate")
    around = torch.stack([padded[0, :, i : i + 32, j : j + 32] for i in range(3) for j in range(3)])
    assert (around - shown).abs().amax(dim=1).amin(dim=0).max() < 1e-6
    assert not torch.equal(shown, image[0])


@pytest.mark.parametrize("level", LEVELS)
def test_brightness_and_saturation_are_those_of_the_colour_wheel(colour, level):
    """matplotlib's conversion to hue, saturation and value and back."""
    wheel = rgb_to_hsv(colour.permute(0, 2, 3, 1).double().numpy())
    brighter = wheel.copy()
    brighter[..., 2] = np.clip(wheel[..., 2] + (0.05, 0.1, 0.15, 0.2, 0.3)[level - 1], 0, 1)
    found = changed(colour.double(), "brightness", level, eight_bit=False).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, hsv_to_rgb(brighter), atol=1e-6)
    gain, shift = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))[level - 1]
    wheel[..., 1] = np.clip(wheel[..., 1] * gain + shift, 0, 1)
    found = changed(colour.double(), "saturate", level, eight_bit=False).permute(0, 2, 3, 1)
    np.testing.assert_allclose(found, hsv_to_rgb(wheel), atol=1e-6)


def test_contrast_shrinks_the_spread_about_the_mean(colour):
    for level, kept in zip(LEVELS, (0.75, 0.5, 0.4, 0.3, 0.15), strict=True):
        found = changed(colour.double(), "contrast", level, eight_bit=False)
        torch.testing.assert_close(found.mean((2, 3)), colour.double().mean((2, 3)), rtol=0, atol=1e-9)
        torch.testing.assert_close(found.std((2, 3)), kept * colour.double().std((2, 3)), rtol=1e-9, atol=1e-9)


def test_pixelate_averages_boxes():
    """24 boxes on 32 pixels: each is 4/3 pixels wide; the first holds pixel 0 and a third of pixel 1."""
    ramp = torch.arange(32, dtype=torch.float64).view(1, 1, 1, 32).expand(1, 1, 32, 32) / 32
    found = changed(ramp, "pixelate", 4, eight_bit=False)[0, 0, 0] * 32
    boxes = [(0 + 1 / 3) / (4 / 3), (1 * 2 / 3 + 2 * 2 / 3) / (4 / 3), (2 / 3 + 3) / (4 / 3)]
    assert found[:4].tolist() == pytest.approx([boxes[0], boxes[1], boxes[1], boxes[2]], abs=1e-9) or found[
        :4
    ].tolist() == pytest.approx([boxes[0], boxes[1], boxes[2], boxes[2]], abs=1e-9)
    assert len(found.unique()) == 24


@pytest.mark.parametrize("level", LEVELS)
def test_jpeg_is_pillows(colour, level):
    pixels = (colour * 255).round().to(torch.uint8)
    found = changed(pixels, "jpeg_compression", level)
    for image, mine in zip(pixels[:5], found[:5], strict=True):
        stored = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(
            stored, format="JPEG", quality=(80, 65, 58, 50, 40)[level - 1]
        )
        assert np.array_equal(np.asarray(Image.open(stored)), mine.permute(1, 2, 0).numpy())


def test_elastic_level_1_is_an_affine_map():
    """A coordinate ramp goes through an affine map as a ramp: its slopes are the same everywhere inside."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    ramp = torch.stack([x, y, x + y])[None].double() / 64
    inside = changed(ramp, "elastic_transform", 1, eight_bit=False)[0, :, 8:24, 8:24]
    for dim in (1, 2):
        slope = inside.diff(dim=dim)
        assert (slope.amax((1, 2)) - slope.amin((1, 2))).max() < 1e-6
    stretched = changed(ramp, "elastic_transform", 4, eight_bit=False)[0, :, 8:24, 8:24].diff(dim=1)
    assert (stretched.amax((1, 2)) - stretched.amin((1, 2))).max() > 1e-3


def test_clouds_have_the_slope_of_a_plasma_fractal():
    """Power at frequency f goes as f^-2(1 + log2 decay): fitted on the mean spectrum of many fields."""
    decay = 2.0
    white = torch.randn(200, 1, 32, 32, generator=seeded(), dtype=torch.float64)
    field = clouds(white, decay)
    assert (field.amin((1, 2, 3)) == 0).all()
    assert (field.amax((1, 2, 3)) == 1).all()
    field = field / field.std((2, 3), keepdim=True)
    power = torch.fft.fft2(field).abs().square().mean(dim=(0, 1))[0, 1:12].log()
    slope = np.polyfit(np.log(np.arange(1, 12)), power.numpy(), 1)[0]
    assert slope == pytest.approx(-4, abs=0.15)


def test_fog_keeps_the_brightest_at_most_as_bright(colour):
    for level in LEVELS:
        found = changed(colour, "fog", level, eight_bit=False)
        assert (found.amax((1, 2, 3)) <= colour.amax((1, 2, 3)) + 1e-6).all()
    assert found.std((2, 3)).mean() != colour.std((2, 3)).mean()


def test_spatter_is_water_then_mud():
    black, white = torch.zeros(20, 3, 32, 32), torch.ones(20, 3, 32, 32)
    water = changed(black, "spatter", 2, eight_bit=False)
    wet = water.amax(1) > 0.02
    assert 0.01 < wet.double().mean() < 0.5
    assert (water[:, 2][wet] > water[:, 0][wet]).all(), "water is bluish"
    mud = changed(white, "spatter", 5, eight_bit=False)
    covered = mud.amin(1) < 0.9
    assert 0.05 < covered.double().mean() < 0.6
    assert (mud[:, 0][covered] > mud[:, 2][covered]).all(), "mud is brown"


def test_rounded_and_not_cut_off():
    """What CIFAR-10-C does costs half a grey level on average; rounding costs nothing."""
    images = photographs(size=32, channels=3).images[:60].clamp(80, 176)  # nothing is clipped
    shift = (changed(images, "gaussian_noise", 1).double() - images.double()).mean().item()
    assert abs(shift) < 0.1


# --- pinned ---------------------------------------------------------------------------------------------------------


def pattern(channels, size):
    """A smooth, coloured picture written as a formula, twice with different phases."""
    y, x = torch.meshgrid(torch.arange(size) / size, torch.arange(size) / size, indexing="ij")
    phases = torch.arange(2 * channels).view(2, channels, 1, 1)
    return (0.5 + 0.45 * torch.sin(6 * x + 2 * phases) * torch.cos(4 * y + phases)).float()


def found(name, channels, size, level):
    """Mean, standard deviation and one value (second image, last channel, row 1/4, column 1/2)."""
    result = changed(pattern(channels, size), name, level, seed=7, eight_bit=False)
    return (result.mean().item(), result.std().item(), result[1, -1, size // 4, size // 2].item())


#: At 32x32 RGB, levels 1 and 5, and 8x8 grey, level 3.
PINNED = {
    ("gaussian_noise", 3, 32, 1): (0.50001, 0.22751, 0.63635),
    ("gaussian_noise", 3, 32, 5): (0.50015, 0.24084, 0.56855),
    ("gaussian_noise", 1, 8, 3): (0.49744, 0.23050, 0.58748),
    ("shot_noise", 3, 32, 1): (0.49982, 0.22670, 0.67800),
    ("shot_noise", 3, 32, 5): (0.49747, 0.24158, 0.72000),
    ("shot_noise", 1, 8, 3): (0.50602, 0.24347, 0.75000),
    ("impulse_noise", 3, 32, 1): (0.50202, 0.22959, 0.68154),
    ("impulse_noise", 3, 32, 5): (0.50217, 0.25310, 0.68154),
    ("impulse_noise", 1, 8, 3): (0.49944, 0.23982, 0.67957),
    ("defocus_blur", 3, 32, 1): (0.49985, 0.22451, 0.68117),
    ("defocus_blur", 3, 32, 5): (0.49985, 0.22137, 0.67849),
    ("defocus_blur", 1, 8, 3): (0.50415, 0.22124, 0.67378),
    ("glass_blur", 3, 32, 1): (0.49964, 0.22507, 0.75861),
    ("glass_blur", 3, 32, 5): (0.50105, 0.22271, 0.73453),
    ("glass_blur", 1, 8, 3): (0.50419, 0.21462, 0.66430),
    ("motion_blur", 3, 32, 1): (0.49985, 0.22311, 0.64449),
    ("motion_blur", 3, 32, 5): (0.49987, 0.21621, 0.55702),
    ("motion_blur", 1, 8, 3): (0.50282, 0.20937, 0.69341),
    ("zoom_blur", 3, 32, 1): (0.49977, 0.22464, 0.68155),
    ("zoom_blur", 3, 32, 5): (0.49935, 0.22399, 0.68121),
    ("zoom_blur", 1, 8, 3): (0.51094, 0.21775, 0.69144),
    ("snow", 3, 32, 1): (0.54693, 0.22083, 0.70318),
    ("snow", 3, 32, 5): (0.70555, 0.20367, 0.82047),
    ("snow", 1, 8, 3): (0.63310, 0.23458, 0.76355),
    ("frost", 3, 32, 1): (0.65993, 0.21893, 0.84790),
    ("frost", 3, 32, 5): (0.74092, 0.17412, 0.88546),
    ("frost", 1, 8, 3): (0.76750, 0.17820, 0.89085),
    ("fog", 3, 32, 1): (0.49649, 0.18516, 0.66623),
    ("fog", 3, 32, 5): (0.48792, 0.13553, 0.63153),
    ("fog", 1, 8, 3): (0.49109, 0.13918, 0.64438),
    ("brightness", 3, 32, 1): (0.53534, 0.23679, 0.73154),
    ("brightness", 3, 32, 5): (0.66358, 0.26828, 0.98154),
    ("brightness", 1, 8, 3): (0.64989, 0.22039, 0.82957),
    ("contrast", 3, 32, 1): (0.49985, 0.16875, 0.63680),
    ("contrast", 3, 32, 5): (0.49985, 0.03420, 0.52940),
    ("contrast", 1, 8, 3): (0.50415, 0.09119, 0.57733),
    ("elastic_transform", 3, 32, 1): (0.49874, 0.22467, 0.62784),
    ("elastic_transform", 3, 32, 5): (0.49936, 0.22447, 0.56230),
    ("elastic_transform", 1, 8, 3): (0.50710, 0.22318, 0.67198),
    ("pixelate", 3, 32, 1): (0.49984, 0.22513, 0.68182),
    ("pixelate", 3, 32, 5): (0.49985, 0.22339, 0.70998),
    ("pixelate", 1, 8, 3): (0.50468, 0.20701, 0.56577),
    ("jpeg_compression", 3, 32, 1): (0.49960, 0.22073, 0.67843),
    ("jpeg_compression", 3, 32, 5): (0.49768, 0.22077, 0.70588),
    ("jpeg_compression", 1, 8, 3): (0.50502, 0.22847, 0.68235),
    ("speckle_noise", 3, 32, 1): (0.49958, 0.22655, 0.63534),
    ("speckle_noise", 3, 32, 5): (0.49618, 0.24069, 0.52752),
    ("speckle_noise", 1, 8, 3): (0.49380, 0.22539, 0.58569),
    ("gaussian_blur", 3, 32, 1): (0.49985, 0.22451, 0.68117),
    ("gaussian_blur", 3, 32, 5): (0.49985, 0.21968, 0.67699),
    ("gaussian_blur", 1, 8, 3): (0.50415, 0.21902, 0.67176),
    ("spatter", 3, 32, 1): (0.51153, 0.22820, 0.68154),
    ("spatter", 3, 32, 5): (0.42591, 0.22066, 0.68154),
    ("spatter", 1, 8, 3): (0.61407, 0.22587, 0.75569),
    ("saturate", 3, 32, 1): (0.64267, 0.15547, 0.68154),
    ("saturate", 3, 32, 5): (0.35608, 0.31292, 0.68154),
}


@pytest.mark.parametrize(("name", "channels", "size", "level"), list(PINNED))
def test_pinned(name, channels, size, level):
    tolerance = 1.1 / 255 if name in ("jpeg_compression", "shot_noise") else 3e-4  # versions of libjpeg, of torch
    assert found(name, channels, size, level) == pytest.approx(PINNED[name, channels, size, level], abs=tolerance)


# --- the published files --------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Three images at five levels in the form of the files; a value says which image and which level it is."""
    pixels = np.zeros((15, 32, 32, 3), dtype=np.uint8)
    for level in range(5):
        for image in range(3):
            pixels[5 * 0 + 3 * level + image] = 10 * (level + 1) + image
    np.save(tmp_path / "fog.npy", pixels)
    np.save(tmp_path / "labels.npy", np.tile([4, 0, 9], 5).astype(np.uint8))
    return tmp_path


def test_a_level_is_a_part_of_the_file(files):
    part = load_cifar10_c("fog", 4, files)
    assert part.images.shape == (3, 3, 32, 32)
    assert part.images[:, 0, 0, 0].tolist() == [40, 41, 42]
    assert part.labels.tolist() == [4, 0, 9]
    assert part.source.tolist() == [0, 1, 2]
    assert part.class_names[9] == "truck"
    assert "cut off" in part.note


def test_files_that_are_not_there_or_damaged(files):
    with pytest.raises(DataUnavailable, match=r"snow\.npy is not on this machine(.|\n)*zenodo"):
        load_cifar10_c("snow", 1, files)
    np.save(files / "snow.npy", np.zeros((14, 32, 32, 3), dtype=np.uint8))
    with pytest.raises(DataDamaged, match="five equal parts"):
        load_cifar10_c("snow", 1, files)
    with pytest.raises(ValueError, match="did you mean 'fog'"):
        load_cifar10_c("fogg", 1, files)
    with pytest.raises(ValueError, match="level must be"):
        load_cifar10_c("fog", 0, files)


# --- what people get wrong ------------------------------------------------------------------------------------------


def test_a_name_of_the_other_family_is_pointed_to(colour):
    with pytest.raises(ValueError, match="pass family='cifar10_c'"):
        corrupt(colour, "fog", 1, seeded())
    with pytest.raises(ValueError, match="pass family='cure'"):
        changed(colour, "haze", 1)
    with pytest.raises(ValueError, match="did you mean 'cifar10_c'"):
        corrupt(colour, "fog", 1, seeded(), family="cifar10c")


@pytest.mark.parametrize("name", RANDOM)
def test_randomness_is_an_argument(grey, name):
    with pytest.raises(ValueError, match=f"{name} draws random numbers; pass generator"):
        corrupt(grey, name, 1, family="cifar10_c")
