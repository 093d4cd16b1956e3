"""The eight corruptions: against independent computations, by their properties, and pinned to stored values."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image

from tutorial_lib.data import as_float
from tutorial_lib.data.corruptions import (
    CORRUPTIONS,
    LEVELS,
    apply,
    corrupt,
    corruption_names,
    cure,
    disk_kernel,
    gaussian_kernel,
    motion_blur,
)
from tutorial_lib.data.embedded import digits, photographs
from tutorial_lib.data.resize import resize

NAMES = ("noise", "lens_blur", "gaussian_blur", "dirty_lens", "exposure", "snow", "haze", "decolor")
RANDOM = ("noise", "snow")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def colour():
    """40 patches of photographs, 32x32 RGB, float32."""
    return photographs(size=32, channels=3).float()[::13]


@pytest.fixture(scope="module")
def grey():
    """200 digits, 8x8 grey, float32."""
    return digits().float()[:200]


def test_the_eight_and_only_the_eight():
    assert tuple(CORRUPTIONS) == NAMES
    assert corruption_names(3) == NAMES
    assert corruption_names(1) == NAMES[:-1]
    assert tuple(name for name in NAMES if CORRUPTIONS[name].random) == RANDOM


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", LEVELS)
def test_form_of_the_result(colour, grey, name, level):
    for images in (colour, grey, grey.double(), resize(digits().images[:4], (28, 28)).float() / 255, colour[..., :20]):
        before = images.clone()
        result = corrupt(images, name, level, seeded())
        assert result.shape == images.shape
        assert result.dtype == images.dtype
        assert result.min() >= 0
        assert result.max() <= 1
        assert torch.equal(images, before), "the clean images were changed"
        whole = result * 255
        assert torch.allclose(whole, whole.round(), atol=1e-3), "not on whole 255ths"


@pytest.mark.parametrize("name", NAMES)
def test_each_level_is_farther_from_the_clean_image(colour, grey, name):
    for images in (colour, grey, resize(digits().images[:200], (28, 28)).float() / 255):
        if name not in corruption_names(images.shape[1]):
            continue
        distance = [(corrupt(images, name, level, seeded()) - images).pow(2).mean().sqrt().item() for level in LEVELS]
        assert distance[0] > 0.001, "level 1 does nothing"
        assert all(b > 1.02 * a for a, b in zip(distance, distance[1:], strict=False)), distance


@pytest.mark.parametrize("name", NAMES)
def test_same_generator_same_images(colour, name):
    first = corrupt(colour, name, 3, seeded(1))
    assert torch.equal(first, corrupt(colour, name, 3, seeded(1)))
    assert torch.equal(first, corrupt(colour, name, 3, seeded(2))) == (name not in RANDOM)


@pytest.mark.parametrize("name", RANDOM)
def test_no_two_images_get_the_same_noise(colour, name):
    same = colour[:1].repeat(20, 1, 1, 1)
    result = corrupt(same, name, 3, seeded())
    assert len({image.numpy().tobytes() for image in result}) == 20


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_depend_on_the_images_around_it(colour, name, monkeypatch):
    whole = corrupt(colour, name, 4, seeded(), eight_bit=False)
    # in two parts, going on with the same generator
    generator = seeded()
    parts = [corrupt(part, name, 4, generator, eight_bit=False) for part in (colour[:7], colour[7:])]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=0, atol=1e-6)
    # other neighbours
    strangers = torch.rand(colour.shape, generator=seeded(9))
    strangers[5] = colour[5]
    torch.testing.assert_close(corrupt(strangers, name, 4, seeded(), eight_bit=False)[5], whole[5], rtol=0, atol=1e-6)
    # other internal batches
    monkeypatch.setattr(apply, "BATCH", 3)
    torch.testing.assert_close(corrupt(colour, name, 4, seeded(), eight_bit=False), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_global_random_state_is_not_touched(grey, name):
    state = torch.get_rng_state()
    corrupt(grey, name, 2, seeded())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", NAMES)
def test_another_device_gives_the_same_images(colour, name):
    there = corrupt(colour.cuda(), name, 3, seeded(), eight_bit=False)
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), corrupt(colour, name, 3, seeded(), eight_bit=False), rtol=0, atol=1e-4)
    corrupt(colour.cuda(), name, 3, torch.Generator("cuda").manual_seed(0))


# --- against independent computations -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_noise_has_the_stated_standard_deviation(level):
    grey = torch.full((100, 3, 32, 32), 0.5)
    added = (corrupt(grey, "noise", level, seeded(), eight_bit=False) - 0.5).flatten()
    assert added.std().item() == pytest.approx((0.04, 0.06, 0.08, 0.09, 0.10)[level - 1], rel=0.01)
    assert added.mean().item() == pytest.approx(0, abs=5e-4)
    # normal, and independent from pixel to pixel and from image to image
    assert (added.abs() < added.std()).double().mean().item() == pytest.approx(0.6827, abs=0.005)
    images = added.view(100, -1)
    assert torch.corrcoef(torch.stack([images[:, :-1].flatten(), images[:, 1:].flatten()]))[0, 1].abs() < 0.01
    assert torch.corrcoef(images[:2])[0, 1].abs() < 0.07


@pytest.mark.parametrize("level", LEVELS)
def test_gaussian_blur_is_scipys(colour, level):
    sigma = (0.4, 0.6, 0.8, 1.0, 1.3)[level - 1]
    ours = corrupt(colour.double(), "gaussian_blur", level, eight_bit=False)
    scipys = scipy.ndimage.gaussian_filter(colour.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4)
    np.testing.assert_allclose(ours.numpy(), scipys, atol=1e-12)


@pytest.mark.parametrize("level", LEVELS)
def test_gaussian_blur_of_a_small_image_is_the_blur_of_its_squares(grey, level):
    """8x8 pixels as 4x4 squares on a 32-pixel grid, blurred there by scipy and averaged back."""
    sigma = (0.4, 0.6, 0.8, 1.0, 1.3)[level - 1]
    fine = grey.double().numpy().repeat(4, axis=2).repeat(4, axis=3)
    blurred = scipy.ndimage.gaussian_filter(fine, (0, 0, sigma, sigma), mode="nearest", truncate=4)
    back = blurred.reshape(200, 1, 8, 4, 8, 4).mean((3, 5))
    np.testing.assert_allclose(
        corrupt(grey.double(), "gaussian_blur", level, eight_bit=False).numpy(), back, atol=1e-12
    )


def test_blur_lengths_scale_with_the_image():
    assert len(gaussian_kernel(1.3)) == 2 * 5 + 1
    large = torch.zeros(1, 1, 96, 96, dtype=torch.float64)
    large[..., 48, 48] = 1
    spread = corrupt(large, "gaussian_blur", 4, eight_bit=False)[0, 0].numpy()  # sigma 1 at 32 pixels
    position = np.arange(96) - 48
    assert math.sqrt((spread.sum(0) * position**2).sum()) == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize("radius", [0.3, 0.5, 0.7, 1.0, 1.3, 1.6, 2.0, 4.2])
def test_disk_kernel_against_the_geometry_of_the_circle(radius):
    kernel = disk_kernel(radius)
    area = math.pi * radius**2
    assert kernel.sum().item() == pytest.approx(1, abs=1e-12)
    assert torch.allclose(kernel, kernel.T)
    assert torch.allclose(kernel, kernel.flip(0))
    assert kernel.shape[0] // 2 == max(0, math.ceil(radius - 0.5))
    # column sums are areas of vertical slices of the disk, known in closed form
    reach = kernel.shape[0] // 2

    def left_of(x):
        x = min(max(x, -radius), radius)
        return x * math.sqrt(radius**2 - x**2) + radius**2 * math.asin(x / radius) + area / 2

    slices = [(left_of(c + 0.5) - left_of(c - 0.5)) / area for c in range(-reach, reach + 1)]
    np.testing.assert_allclose(kernel.sum(0).numpy(), slices, atol=0.003)


@pytest.mark.parametrize("level", LEVELS)
def test_lens_blur_is_a_convolution_with_the_disk(colour, level):
    kernel = disk_kernel((0.7, 1.0, 1.3, 1.6, 2.0)[level - 1]).numpy()
    scipys = scipy.ndimage.convolve(colour.double().numpy(), kernel[None, None], mode="nearest")
    np.testing.assert_allclose(
        corrupt(colour.double(), "lens_blur", level, eight_bit=False).numpy(), scipys, atol=1e-12
    )


@pytest.mark.parametrize("name", ["lens_blur", "gaussian_blur"])
@pytest.mark.parametrize("size", [8, 16, 28, 32, 64])
def test_blur_keeps_a_flat_image(name, size):
    flat = torch.full((1, 3, size, size), 0.3, dtype=torch.float64)
    torch.testing.assert_close(corrupt(flat, name, 5, eight_bit=False), flat, rtol=0, atol=1e-12)


def test_exposure_multiplies_and_clips():
    images = torch.tensor([0.0, 0.1, 0.25, 0.4, 0.9]).view(1, 1, 1, 5)
    for level, gain in zip(LEVELS, (1.3, 1.6, 2.0, 2.6, 3.5), strict=True):
        expected = [min(1.0, gain * value) for value in (0.0, 0.1, 0.25, 0.4, 0.9)]
        assert corrupt(images, "exposure", level, eight_bit=False).flatten().tolist() == pytest.approx(expected)


def test_haze_is_thicker_at_the_top():
    images = torch.full((1, 1, 3, 2), 0.2)
    for level, share in zip(LEVELS, (0.85, 0.70, 0.55, 0.40, 0.25), strict=True):
        rows = corrupt(images, "haze", level, eight_bit=False)[0, 0, :, 0].tolist()
        assert rows == pytest.approx([0.2 * t + 0.9 * (1 - t) for t in (share - 0.1, share, share + 0.1)])


def test_decolor_ends_in_pillows_grey(colour):
    pixels = (colour * 255).round().to(torch.uint8)
    grey = corrupt(as_float(pixels), "decolor", 5)
    assert torch.equal(grey[:, 0], grey[:, 1])
    assert torch.equal(grey[:, 0], grey[:, 2])
    for image, mine in zip(pixels, grey, strict=True):
        pillow = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L"))
        assert np.abs(pillow.astype(float) - 255 * mine[0].numpy()).max() <= 1.001
    halfway = corrupt(colour, "decolor", 2, eight_bit=False)
    torch.testing.assert_close(halfway, 0.6 * colour + 0.4 * corrupt(colour, "decolor", 5, eight_bit=False))


def test_decolor_leaves_grey_images_as_they_are(grey):
    for level in LEVELS:
        torch.testing.assert_close(corrupt(grey, "decolor", level), grey)


def test_dirty_lens_is_one_lens_for_all_images(colour):
    black, white = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)
    opacity = 1 - (corrupt(white, "dirty_lens", 5, eight_bit=False) - corrupt(black, "dirty_lens", 5, eight_bit=False))
    assert opacity.min() >= 0
    assert 0.45 < opacity.max() <= 0.6
    assert opacity.min() < 0.02, "somewhere the lens is clean"
    grime = corrupt(black, "dirty_lens", 5, eight_bit=False)
    mixed = corrupt(colour, "dirty_lens", 5, eight_bit=False)
    torch.testing.assert_close(mixed, colour * (1 - opacity) + grime, rtol=0, atol=1e-6)
    # smooth: neighbouring pixels differ by little
    assert opacity.diff(dim=3).abs().max() < 0.15


def test_motion_blur_trails_in_the_direction_it_is_given():
    point = torch.zeros(2, 1, 32, 32, dtype=torch.float64)
    point[:, :, 8, 8] = 1
    right, down = motion_blur(point, 5, 2.0, torch.tensor([0.0, math.pi / 2], dtype=torch.float64))
    weights = torch.exp(-0.5 * (torch.arange(11, dtype=torch.float64) / 2.0) ** 2)
    weights /= weights.sum()
    torch.testing.assert_close(right[0, 8, 8:19], weights, rtol=0, atol=1e-9)
    torch.testing.assert_close(down[0, 8:19, 8], weights, rtol=0, atol=1e-9)
    assert right.sum().item() == pytest.approx(1)


@pytest.mark.parametrize("level", LEVELS)
def test_snow_on_black_is_a_veil_and_flakes(level):
    """The veil is (1 - mix) / 2 everywhere; the flakes come on top and the picture turned by 180° has them as well."""
    mix = (0.95, 0.90, 0.90, 0.85, 0.80)[level - 1]
    flakes = corrupt(torch.zeros(50, 1, 32, 32), "snow", level, seeded(), eight_bit=False) - (1 - mix) / 2
    assert flakes.min().item() >= -1e-6
    inside = flakes + (1 - mix) / 2 < 1  # where nothing was clipped
    turned = flakes.rot90(2, (2, 3))
    both = inside & inside.rot90(2, (2, 3))
    torch.testing.assert_close(flakes[both], turned[both], rtol=0, atol=1e-5)


def test_share_of_pixels_that_start_as_flakes():
    """At level 1 a pixel is a flake where a normal number (0.1, 0.2) exceeds 0.6: 2.5 standard deviations."""
    from scipy.stats import norm

    constants = (0.10, 0.2, 1.00, 0.60, 0, 1, 1.0)  # no motion, no veil
    flakes = cure.snow(torch.zeros(400, 1, 32, 32), constants, list(range(400)))
    share = (flakes > 0).double().mean().item()
    either = 1 - (1 - norm.sf(2.5)) ** 2  # a flake here or at the point opposite
    assert share == pytest.approx(either, rel=0.05)


# --- pinned ---------------------------------------------------------------------------------------------------------


def pattern(channels, size):
    """A smooth, coloured picture written as a formula, twice with different phases."""
    y, x = torch.meshgrid(torch.arange(size) / size, torch.arange(size) / size, indexing="ij")
    phases = torch.arange(2 * channels).view(2, channels, 1, 1)
    return (0.5 + 0.45 * torch.sin(6 * x + 2 * phases) * torch.cos(4 * y + phases)).float()


#: Mean, standard deviation and one value (second image, last channel, row 1/4, column 1/2) of the corrupted pattern.
PINNED = {
    ("noise", 3, 32, 1): (0.50001, 0.22751, 0.63635),
    ("noise", 3, 32, 3): (0.50011, 0.23540, 0.59115),
    ("noise", 3, 32, 5): (0.50015, 0.24084, 0.56855),
    ("noise", 1, 8, 3): (0.49744, 0.23050, 0.58748),
    ("lens_blur", 3, 32, 1): (0.49985, 0.22399, 0.68074),
    ("lens_blur", 3, 32, 3): (0.49985, 0.22213, 0.67915),
    ("lens_blur", 3, 32, 5): (0.49985, 0.21904, 0.67644),
    ("lens_blur", 1, 8, 3): (0.50415, 0.21762, 0.67049),
    ("gaussian_blur", 3, 32, 1): (0.49985, 0.22451, 0.68117),
    ("gaussian_blur", 3, 32, 3): (0.49985, 0.22153, 0.67862),
    ("gaussian_blur", 3, 32, 5): (0.49985, 0.21622, 0.67392),
    ("gaussian_blur", 1, 8, 3): (0.50415, 0.21718, 0.67009),
    ("dirty_lens", 3, 32, 1): (0.49042, 0.21469, 0.67444),
    ("dirty_lens", 3, 32, 3): (0.47155, 0.19490, 0.66024),
    ("dirty_lens", 3, 32, 5): (0.44325, 0.16766, 0.63893),
    ("dirty_lens", 1, 8, 3): (0.47587, 0.19542, 0.66243),
    ("exposure", 3, 32, 1): (0.63369, 0.26742, 0.88601),
    ("exposure", 3, 32, 3): (0.81766, 0.26092, 1.00000),
    ("exposure", 3, 32, 5): (0.92380, 0.18639, 1.00000),
    ("exposure", 1, 8, 3): (0.82313, 0.26197, 1.00000),
    ("snow", 3, 32, 1): (0.54693, 0.22083, 0.70318),
    ("snow", 3, 32, 3): (0.60653, 0.22046, 0.74714),
    ("snow", 3, 32, 5): (0.70555, 0.20367, 0.82047),
    ("snow", 1, 8, 3): (0.63310, 0.23458, 0.76355),
    ("haze", 3, 32, 1): (0.55993, 0.19310, 0.72488),
    ("haze", 3, 32, 3): (0.67997, 0.12665, 0.79042),
    ("haze", 3, 32, 5): (0.80002, 0.06247, 0.85596),
    ("haze", 1, 8, 3): (0.68222, 0.13057, 0.78821),
    ("decolor", 3, 32, 1): (0.49989, 0.19353, 0.62714),
    ("decolor", 3, 32, 3): (0.49996, 0.14384, 0.51833),
    ("decolor", 3, 32, 5): (0.50003, 0.12898, 0.40952),
}


@pytest.mark.parametrize(("name", "channels", "size", "level"), list(PINNED))
def test_pinned(name, channels, size, level):
    result = corrupt(pattern(channels, size), name, level, seeded(7), eight_bit=False)
    found = (result.mean().item(), result.std().item(), result[1, -1, size // 4, size // 2].item())
    assert found == pytest.approx(PINNED[name, channels, size, level], abs=2e-4)


# --- what people get wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0, 6, -1, 2.5, "3", None, True])
def test_wrong_level(grey, level):
    with pytest.raises(ValueError, match="level must be a whole number from 1 to 5"):
        corrupt(grey, "haze", level)


def test_level_zero_is_explained(grey):
    with pytest.raises(ValueError, match="take the clean images"):
        corrupt(grey, "haze", 0)


def test_wrong_name_is_guessed(grey):
    with pytest.raises(ValueError, match="did you mean 'gaussian_blur'"):
        corrupt(grey, "gausian_blur", 1)
    with pytest.raises(ValueError, match="there are noise, lens_blur"):
        corrupt(grey, "rain", 1)


@pytest.mark.parametrize("name", NAMES)
def test_bytes_in_bytes_out(name):
    pixels = photographs(size=32, channels=3).images[:6]
    stored = corrupt(pixels, name, 3, seeded())
    assert stored.dtype == torch.uint8
    in_float = corrupt(as_float(pixels), name, 3, seeded())
    assert torch.equal(stored, (in_float * 255).round().to(torch.uint8))


@pytest.mark.parametrize("images", [torch.full((1, 1, 8, 8), 1.5), torch.zeros(1, 8, 8), torch.zeros(0, 1, 8, 8)])
def test_images_out_of_range_or_shape(images):
    with pytest.raises(ValueError, match="images"):
        corrupt(images, "haze", 1)


@pytest.mark.parametrize("name", RANDOM)
def test_randomness_is_an_argument(grey, name):
    with pytest.raises(ValueError, match=f"{name} draws random numbers; pass generator"):
        corrupt(grey, name, 1)


@pytest.mark.parametrize("name", RANDOM)
def test_a_seed_is_no_generator(grey, name):
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got 0; pass generator="):
        corrupt(grey, name, 1, 0)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RANDOM])
def test_the_others_need_no_generator(grey, name):
    assert torch.equal(corrupt(grey, name, 2), corrupt(grey, name, 2, seeded()))
