"""UNIQUE's pieces against loops, autograd and scipy; the whole against what must hold."""

import cmath

import numpy as np
import pytest
import scipy.stats
import torch

from tutorial_lib.data.corruptions import corrupt
from tutorial_lib.image_quality import (
    RandomFilters,
    SparseAutoencoder,
    Unique,
    WhitenedPatches,
    cost_and_gradient,
    fit_autoencoder,
    patches_of,
    random_patches,
    whiten,
)
from tutorial_lib.image_quality.autoencoder import initial_autoencoder
from tutorial_lib.image_quality.colour import to_ygcr
from tutorial_lib.image_quality.unique import decoder_gradient, log_odds, spearman_quality, unit_weights
from tutorial_lib.storage import Damaged


def pictures(count=2, height=48, width=64):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    grain = 0.1 * torch.rand(images.shape, generator=generator)
    return (255 * (0.9 * images + grain)).to(torch.uint8)


@pytest.fixture
def small():
    """An autoencoder with 6 inputs and 4 units, and 9 patches."""
    generator = np.random.default_rng(0)
    return initial_autoencoder(6, 4, seed=1), generator.normal(size=(6, 9))


@pytest.fixture(scope="module")
def trained():
    return fit_autoencoder(whiten(random_patches(pictures(4), 60, 0, half=False)), 12, iterations=8, progress=False)


def test_patches_by_loops():
    images = pictures(1, 21, 34)
    planes = to_ygcr(images.numpy() / 255)[0]
    by_hand = [
        [planes[c, 8 * i + y, 8 * j + x] for c in range(3) for y in range(8) for x in range(8)]
        for i in range(2)
        for j in range(4)
    ]
    (ours,) = patches_of(images, half=False)
    np.testing.assert_allclose(ours.T, by_hand, atol=1e-12)


def test_half_is_half_of_each_side():
    assert patches_of(pictures(1, 48, 64))[0].shape == (192, 3 * 4)
    flat = torch.full((1, 3, 32, 32), 100, dtype=torch.uint8)
    assert np.ptp(patches_of(flat)[0], axis=1).max() < 1e-6
    with pytest.raises(ValueError, match="room for two patches"):
        patches_of(pictures(1, 16, 16))


def test_whitened_patches_have_the_covariance_that_zca_promises():
    generator = np.random.default_rng(0)
    patches = generator.normal(size=(5, 5)) @ generator.normal(size=(5, 300)) + 3
    white = whiten(patches, epsilon=0.1)
    np.testing.assert_allclose(white.mean(axis=1), 0, atol=1e-12)
    covariance = np.cov(patches, bias=True)
    np.testing.assert_allclose(
        np.cov(white, bias=True), covariance @ np.linalg.inv(covariance + 0.1 * np.eye(5)), atol=1e-9
    )
    # ZCA, not PCA: the matrix is symmetric, so a patch stays as near to itself as it can.
    root = np.linalg.inv(np.real(scipy_sqrtm(covariance + 0.1 * np.eye(5))))
    np.testing.assert_allclose(white, root @ (patches - patches.mean(axis=1, keepdims=True)), atol=1e-9)


def scipy_sqrtm(matrix):
    import scipy.linalg

    return scipy.linalg.sqrtm(matrix)


def test_cost_and_gradient_against_loops_and_autograd(small):
    autoencoder, patches = small
    cost, gradient = cost_and_gradient(autoencoder, patches, 0.1, 5.0, 0.003)
    w1, b1, w2, b2 = (torch.tensor(part, requires_grad=True) for part in autoencoder.parts())
    total, active = 0, 0
    for patch in torch.tensor(patches.T):
        hidden = torch.sigmoid(w1 @ patch + b1)
        total = total + ((w2 @ hidden + b2 - patch) ** 2).sum() / 2 / 9
        active = active + hidden / 9
    total = total + 0.003 / 2 * ((w1**2).sum() + (w2**2).sum())
    for share in active:
        total = total + 5 * (0.1 * torch.log(0.1 / share) + 0.9 * torch.log(0.9 / (1 - share)))
    total.backward()
    assert cost == pytest.approx(total.item())
    for ours, leaf in zip(gradient.parts(), (w1, b1, w2, b2), strict=True):
        np.testing.assert_allclose(ours, leaf.grad, atol=1e-10)


def test_training_goes_down_and_makes_units_sparse(trained):
    patches = whiten(random_patches(pictures(4), 60, 0, half=False))
    start = initial_autoencoder(192, 12, seed=0)
    assert cost_and_gradient(trained, patches)[0] < 0.5 * cost_and_gradient(start, patches)[0]
    assert trained.hidden(patches).mean() < 0.2 < start.hidden(patches).mean()


def test_weights_on_disk(tmp_path, trained):
    trained.save(tmp_path / "weights.npz")
    again = SparseAutoencoder.load(tmp_path / "weights.npz")
    for ours, theirs in zip(trained.parts(), again.parts(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-9)
    content = (tmp_path / "weights.npz").read_bytes()
    (tmp_path / "weights.npz").write_bytes(content[:200])
    with pytest.raises(Damaged, match="train again"):
        SparseAutoencoder.load(tmp_path / "weights.npz")
    with pytest.raises(ValueError, match="do not fit"):
        SparseAutoencoder(np.zeros((4, 6)), np.zeros(4), np.zeros((4, 6)), np.zeros(6))


def test_the_decoders_gradient_is_autograds(small):
    autoencoder, patches = small
    decoder = torch.tensor(autoencoder.decoder, requires_grad=True)
    hidden = torch.tensor(autoencoder.hidden(patches))
    error = decoder @ hidden + torch.tensor(autoencoder.decoder_bias)[:, None] - torch.tensor(patches)
    ((error**2).sum() / 2 / 9).backward()
    np.testing.assert_allclose(decoder_gradient(autoencoder, patches), decoder.grad, atol=1e-12)


def test_log_odds_by_loops(small):
    autoencoder, patches = small
    gradient = 3 * decoder_gradient(autoencoder, patches)
    weights = np.array([1.0, 2.0, 1.0, 2.0])
    ours = log_odds(gradient, patches, weights)
    assert ours.shape == (8, 9)
    signs = set()
    for unit in range(4):
        for place in range(9):
            y = sum(gradient[i, unit] * patches[i, place] for i in range(6))
            signs.add(y / (1 - y) > 0)
            logarithm = cmath.log(complex(y / (1 - y)))
            assert ours[unit, place] == pytest.approx(weights[unit] * abs(logarithm))
            assert ours[4 + unit, place] == pytest.approx(weights[unit] * cmath.phase(logarithm))
    assert signs == {True, False}


def test_log_odds_at_the_edges_are_finite():
    ours = log_odds(np.array([[1.0]]), np.array([[0.0, 1.0, 0.5]]), np.ones(1))
    assert np.isfinite(ours).all()
    assert ours[0, 2] == 0


def test_kurtosis_is_scipys():
    generator = np.random.default_rng(0)
    gradient = np.concatenate([generator.standard_t(3, size=(64, 40)), 50 * generator.random((128, 40))])
    expected = np.where(scipy.stats.kurtosis(gradient[:64], axis=0, fisher=False) > 3, 2, 1)
    assert set(expected) == {1, 2}
    np.testing.assert_array_equal(unit_weights(gradient), expected)


def test_pooling_is_scipys_with_ties():
    generator = np.random.default_rng(0)
    first = generator.random((5, 40)) * 0.1
    second = first + 0.03 * generator.random((5, 40))
    cut = [np.where(r < 0.025, 0, r).ravel() for r in (first, second)]
    assert (cut[0] == 0).sum() > 20
    assert spearman_quality(first, second) == pytest.approx(abs(scipy.stats.spearmanr(*cut).statistic) ** 10)
    assert spearman_quality(first, np.zeros_like(first)) == 0
    with pytest.raises(ValueError, match="NaN"):
        spearman_quality(first, np.where(second == second[0, 0], np.nan, second))
    assert spearman_quality(first + 1, second + 1) == pytest.approx(  # nobody is silent
        abs(scipy.stats.spearmanr(first.ravel(), second.ravel()).statistic) ** 10
    )


@pytest.mark.parametrize("introspective", [False, True])
def test_unique_on_pictures(trained, introspective):
    unique = Unique(trained, introspective, half=False)
    images = pictures()
    np.testing.assert_allclose(unique(images, images), 1)
    worse = [
        unique(images, corrupt(images, "gaussian_noise", level, torch.Generator().manual_seed(0), family="cifar10_c"))
        for level in (1, 3, 5)
    ]
    for image in range(2):
        assert 1 > worse[0][image] > worse[1][image] > worse[2][image] >= 0
    np.testing.assert_allclose(unique(images.flip(0), images.flip(0)), 1)
    alone = unique(images[1:], corrupt(images, "contrast", 3, family="cifar10_c")[1:])
    together = unique(images, corrupt(images, "contrast", 3, family="cifar10_c"))
    assert alone[0] == pytest.approx(together[1])
    with pytest.raises(ValueError, match="one shape"):
        unique(images, images[..., :32])


def test_a_brighter_copy_is_a_perfect_one(trained):
    images = (pictures() // 2).double() / 255
    np.testing.assert_allclose(Unique(trained)(images, images + 0.3), 1, atol=1e-3)


def test_a_flat_grey_picture_has_little_quality_looking_forward(trained):
    images = pictures(1)
    flat = torch.full_like(images, 128)
    assert Unique(trained)(images, flat)[0] < 0.01
    assert Unique(trained)(flat, images)[0] < 0.01
    introspective = Unique(trained, introspective=True)
    assert 0 <= introspective(images, flat)[0] < 1 and 0 <= introspective(flat, images)[0] < 1


def test_whitened_patches_compare_what_they_say():
    images = pictures()
    noisy = corrupt(images, "gaussian_noise", 5, torch.Generator().manual_seed(0), family="cifar10_c")
    ours = WhitenedPatches(half=False)(images, noisy)
    for image in range(2):
        whites = [whiten(patches_of(one[image : image + 1], half=False)[0]).ravel() for one in (images, noisy)]
        assert ours[image] == pytest.approx(scipy.stats.spearmanr(*whites).statistic ** 10)


def test_random_filters_are_of_the_gradients_lengths(trained):
    images = pictures(1)
    (patches,) = patches_of(images, half=False)
    (of_copy,) = patches_of(images.flip(3), half=False)
    lengths = np.linalg.norm(decoder_gradient(trained, whiten(patches)), axis=0)
    filters = np.random.default_rng(5).normal(size=(192, 12))
    filters *= lengths / np.linalg.norm(filters, axis=0)
    weights = unit_weights(filters)
    by_hand = [log_odds(filters, whiten(p), weights) for p in (patches, of_copy)]
    ours = RandomFilters(trained, seed=5, half=False)
    assert ours(images, images.flip(3))[0] == pytest.approx(spearman_quality(*by_hand))
    assert ours(images, images)[0] == pytest.approx(1)


def test_precision_is_that_of_the_patches(small):
    autoencoder, patches = small
    single = SparseAutoencoder(*(part.astype(np.float32) for part in autoencoder.parts()))
    cost, gradient = cost_and_gradient(single, patches.astype(np.float32))
    exact_cost, exact = cost_and_gradient(autoencoder, patches)
    assert gradient.encoder.dtype == np.float32 and cost == pytest.approx(exact_cost, rel=1e-5)
    for ours, theirs in zip(gradient.parts(), exact.parts(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_chunks_are_parts_of_one_sum(small, monkeypatch):
    from tutorial_lib.image_quality import autoencoder as module

    whole_cost, whole = cost_and_gradient(*small)
    monkeypatch.setattr(module, "CHUNK", 2)
    cost, gradient = cost_and_gradient(*small)
    assert cost == pytest.approx(whole_cost)
    for ours, theirs in zip(gradient.parts(), whole.parts(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_what_made_the_weights_is_kept_beside_them(tmp_path, trained):
    trained.save(tmp_path / "half.npz", half=True, record={"seed": 3, "cost": 0.5})
    assert SparseAutoencoder.read_record(tmp_path / "half.npz") == {"seed": 3, "cost": 0.5}
    np.testing.assert_allclose(
        SparseAutoencoder.load(tmp_path / "half.npz").encoder, trained.encoder, rtol=1e-3, atol=1e-6
    )
    trained.save(tmp_path / "bare.npz")
    assert SparseAutoencoder.read_record(tmp_path / "bare.npz") == {}


@pytest.mark.parametrize("shade", [0, 90, 255])
def test_a_perfect_copy_of_a_flat_picture_is_perfect(trained, shade):
    flat = torch.full((1, 3, 48, 64), shade, dtype=torch.uint8)
    for measure in (Unique(trained), Unique(trained, introspective=True), WhitenedPatches(), RandomFilters(trained)):
        assert measure(flat, flat).tolist() == [1.0]
        assert measure(flat, 255 - flat)[0] == pytest.approx(1)  # evenly brighter or darker: as the docstring has it
    assert WhitenedPatches()(flat, pictures(1)).tolist() == [0.0] == WhitenedPatches()(pictures(1), flat).tolist()


def test_autoencoders_of_other_inputs_and_no_patches_are_refused(trained):
    for measure in (Unique, RandomFilters):
        with pytest.raises(ValueError, match="takes 100 numbers, a patch has 192"):
            measure(initial_autoencoder(100, 20))
    with pytest.raises(ValueError, match="M >= 1"):
        fit_autoencoder(np.zeros((192, 0)), units=5, progress=False)
