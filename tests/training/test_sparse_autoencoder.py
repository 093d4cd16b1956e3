"""The sparse autoencoder by its seed: trained once and kept, shipped in half precision with what made it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tutorial_lib.__main__ import main
from tutorial_lib.data import ImageSet
from tutorial_lib.image_quality import SparseAutoencoder, random_patches, whiten
from tutorial_lib.training import sparse_autoencoder as module


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Four made-up images, three iterations, an empty cache and no shipped weights; counts the trainings."""
    pixels = torch.randint(256, (6, 3, 24, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = ImageSet(
        "tiny_imagenet", pixels, torch.zeros(6, dtype=torch.long), ("thing",), torch.arange(6), note="made up"
    )
    trained = []

    def counted(patches, **settings):
        trained.append(patches)
        return fit(patches, units=5, **settings)

    fit = module.fit_autoencoder
    monkeypatch.setattr(module, "fit_autoencoder", counted)
    monkeypatch.setattr(module, "load_images", lambda name: replace(images))
    monkeypatch.setattr(module, "SETTINGS", {"images": 4, "patches_per_image": 20, "iterations": 3})
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path / "cache"))
    return images, trained


def test_trained_once_on_patches_whitened_together(small):
    images, trained = small
    first = module.sparse_autoencoder(seed=1)
    again = module.sparse_autoencoder(seed=1)
    np.testing.assert_array_equal(first.encoder, again.encoder)
    assert len(trained) == 1 and first.encoder.shape == (5, 192)
    expected = whiten(random_patches(images.sample(4, seed=1).images, 20, 1, half=False))
    np.testing.assert_allclose(trained[0], expected, atol=1e-6)
    assert not np.array_equal(first.encoder, module.sparse_autoencoder(seed=2).encoder)


def test_a_damaged_one_is_trained_again(small, tmp_path):
    first = module.sparse_autoencoder()
    (file,) = (tmp_path / "cache").rglob("*.npz")
    file.write_bytes(file.read_bytes()[:100])
    np.testing.assert_array_equal(module.sparse_autoencoder().encoder, first.encoder)
    assert len(small[1]) == 2


def test_the_command_ships(small, capsys):
    assert main(["train", "unique", "--seed", "3", "--ship"]) == 0
    file = module.shipped_file(3)
    assert str(file) in capsys.readouterr().out
    record = SparseAutoencoder.read_record(file)
    assert record["command"] == "python -m tutorial_lib train unique --seed 3 --ship"
    assert (record["patches"], record["seed"], record["data"]) == (80, 3, "tiny_imagenet: made up")
    np.testing.assert_array_equal(module.sparse_autoencoder(3).encoder, SparseAutoencoder.load(file).encoder)
    assert len(small[1]) == 1
    assert main(["train", "unique", "--seed", "3", "--ship"]) == 1
    assert "delete it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "unique", "--network", "lenet"])


def test_a_seed_is_not_negative():
    with pytest.raises(ValueError, match="from 0 on"):
        module.sparse_autoencoder(-1)


@pytest.mark.parametrize("seed", module.SHIPPED_SEEDS)
def test_shipped_weights_are_of_the_full_setting(seed):
    file = module.shipped_file(seed)
    assert file.stat().st_size < 400_000
    assert module.sparse_autoencoder(seed).encoder.shape == (400, 192)
    record = SparseAutoencoder.read_record(file)
    assert record["command"] == f"python -m tutorial_lib train unique --seed {seed} --ship"
    assert {name: record[name] for name in module.SETTINGS} == dict(module.SETTINGS) and record["patches"] == 100_000
    assert record["mean_activity"] == pytest.approx(0.035, abs=0.003)  # what sparsity asks for


def test_none_is_shipped_unsaid():
    assert {file.name for file in module.SHIPPED.glob("unique_*")} == {
        module.shipped_file(seed).name for seed in module.SHIPPED_SEEDS
    }
