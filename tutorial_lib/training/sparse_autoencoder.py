"""The sparse autoencoder of UNIQUE at its full setting: shipped, in the cache, or trained now.

As published (`tutorial_lib.image_quality.autoencoder`): 100,000 patches of ImageNet, whitened together, 192-400-192, 200
iterations of L-BFGS. The authors take 100 patches from each of 1,000 images. We take 50 from each of 2,000 images of Tiny
ImageNet: those have 64 x 64 pixels, made small by somebody else already, so they are not halved again, and each has no
more than 64 patches.

    python -m tutorial_lib train unique --seed 0
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_lib.data import load_images
from tutorial_lib.image_quality.autoencoder import SparseAutoencoder, cost_and_gradient, fit_autoencoder
from tutorial_lib.image_quality.patches import random_patches, whiten
from tutorial_lib.reproducible import source_hash
from tutorial_lib.storage import Damaged, cache_folder, locked, set_aside
from tutorial_lib.training.trained import SHIPPED

__all__ = ["SHIPPED_SEEDS", "ship", "shipped_file", "sparse_autoencoder"]

SHIPPED_SEEDS = (0, 1, 2)
"""Seeds whose weights come with the library."""

SETTINGS: Mapping[str, Any] = {"images": 2000, "patches_per_image": 50, "iterations": 200}


def sparse_autoencoder(seed: int = 0, progress: bool = False) -> SparseAutoencoder:
    """The autoencoder of a seed: from the library, else from the cache, else trained now (minutes) and kept.

    Args:
        seed: of the images, the patches and the initial weights.
        progress: show a bar while training.

    Raises:
        DataUnavailable: it must be trained, and Tiny ImageNet is not on this machine.
    """
    if seed < 0:
        raise ValueError(f"seed must be a whole number from 0 on, got {seed}")
    file = shipped_file(seed)
    return SparseAutoencoder.load(file if file.is_file() else _cached(seed, progress))


def shipped_file(seed: int) -> Path:
    """Where the library's own weights would be."""
    return SHIPPED / f"unique_seed{seed}.npz"


def ship(seed: int, progress: bool = False) -> Path:
    """Put a trained autoencoder among the weights of the library, in half precision; trained first if need be."""
    trained = _cached(seed, progress)
    record = SparseAutoencoder.read_record(trained)
    record["command"] = f"python -m tutorial_lib train unique --seed {seed} --ship"
    SparseAutoencoder.load(trained).save(shipped_file(seed), half=True, record=record)
    return shipped_file(seed)


def _cached(seed: int, progress: bool) -> Path:
    """The file in the cache; trained if it is not there."""
    source = source_hash("image_quality/autoencoder.py", "image_quality/patches.py", "image_quality/colour.py")
    key = hashlib.sha256(json.dumps([dict(SETTINGS), source]).encode()).hexdigest()[:12]
    file = cache_folder() / "sparse_autoencoders" / f"unique_seed{seed}_{key}.npz"
    with locked(file.with_suffix(".lock")):
        if file.is_file():
            try:
                SparseAutoencoder.load(file)
                return file
            except Damaged:
                set_aside(file)
        trained, record = _train(seed, progress)
        trained.save(file, record=record)
    return file


def _train(seed: int, progress: bool) -> tuple[SparseAutoencoder, dict[str, Any]]:
    everything = load_images("tiny_imagenet")
    images = everything.sample(min(SETTINGS["images"], len(everything)), seed=seed)
    patches = random_patches(images.images, SETTINGS["patches_per_image"], seed, half=False)
    white = whiten(patches).astype(np.float32)
    trained = fit_autoencoder(white, iterations=SETTINGS["iterations"], seed=seed, progress=progress)
    cost, _ = cost_and_gradient(trained, white)
    active = trained.hidden(white).mean()
    record = {"seed": seed, **SETTINGS, "data": f"{everything.name}: {everything.note}", "patches": white.shape[1]}
    return trained, record | {"cost": cost, "mean_activity": float(active)}
