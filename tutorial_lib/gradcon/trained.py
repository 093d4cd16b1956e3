"""Autoencoders that have been trained once stay in the cache folder.

A file's name holds a hash of all that the weights depend on: the images, the settings, and the source of the network,
the constraint and the trainer (without comments and docstrings).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from tutorial_lib.data.files import cache_folder
from tutorial_lib.data.images import ImageSet
from tutorial_lib.gradcon.constraint import ALPHA, GradientConstraint
from tutorial_lib.gradcon.training import AutoencoderConfig, AutoencoderHistory, train_autoencoder
from tutorial_lib.models.autoencoder import Autoencoder, build_autoencoder
from tutorial_lib.reproducible import source_hash
from tutorial_lib.storage import locked
from tutorial_lib.training.checkpoints import CheckpointError, load_checkpoint, save_checkpoint

__all__ = ["TrainedAutoencoder", "trained_autoencoder"]


@dataclass(frozen=True)
class TrainedAutoencoder:
    """An autoencoder in evaluation mode, its constraint with the average gradient, and how the training went."""

    model: Autoencoder
    constraint: GradientConstraint
    history: AutoencoderHistory


def trained_autoencoder(
    images: ImageSet,
    kind: str = "cae",
    alpha: float = ALPHA,
    config: AutoencoderConfig | None = None,
    validation: ImageSet | None = None,
    width: float = 1.0,
    progress: bool = False,
    device: torch.device | str = "cpu",
) -> TrainedAutoencoder:
    """An autoencoder trained on normal images: from the cache if it was trained before, else trained now and kept
    there.

    A training that was stopped goes on where it was; another process that asks for the same one waits for it.

    Args:
        images: what is normal.
        kind: ``"cae"`` or ``"vae"``.
        alpha: weight of the gradient constraint; with 0 it is an ordinary autoencoder, whose average gradient is kept
            all the same.
        config: settings, seed included; the seed is also that of the initial weights.
        validation: normal images that choose the epoch, see `train_autoencoder`.
        width: of the network, see `tutorial_lib.models.autoencoder.build_autoencoder`.
        progress: show a bar while training.
        device: where to train, and where the model lies afterwards.
    """
    config = config or AutoencoderConfig()
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(config.seed)
        model = build_autoencoder(kind, images.image_shape, width)
    constraint = GradientConstraint(model, alpha)
    path = _path(images, validation, model, alpha, config)
    found = _read(path)
    if found is None:
        with locked(path.with_suffix(".lock")):
            found = _read(path)  # it may have come while this process waited
            if found is None:
                unfinished = path.with_name(f"{path.stem}_unfinished.bin")
                history = train_autoencoder(model, images, constraint, config, unfinished, progress, validation, device)
                state = {"model": model.state_dict(), "constraint": constraint.state_dict()}
                save_checkpoint(
                    path, state, {"config": dataclasses.asdict(config), "history": dataclasses.asdict(history)}
                )
                found = load_checkpoint(path)
    state, record = found
    model.load_state_dict(state["model"])
    constraint.load_state_dict(state["constraint"])
    return TrainedAutoencoder(model.to(device).eval(), constraint.to(device), AutoencoderHistory(**record["history"]))


def _path(
    images: ImageSet, validation: ImageSet | None, model: Autoencoder, alpha: float, config: AutoencoderConfig
) -> Path:
    content = hashlib.sha256()
    content.update(
        json.dumps([model.kind, model.image_shape, model.widths, alpha, dataclasses.asdict(config)]).encode()
    )
    for part in (images, validation):
        content.update(b"none" if part is None else part.images.contiguous().numpy().tobytes())
    content.update(_source().encode())
    constrained = "_grad" if alpha > 0 else ""
    name = f"{images.name}_{model.kind}{constrained}_seed{config.seed}_{content.hexdigest()[:12]}.pt"
    return cache_folder() / "autoencoders" / name


def _read(path: Path):  # type: ignore[no-untyped-def]
    try:
        return load_checkpoint(path)
    except CheckpointError:  # absent, or damaged: it is only a cache, and is made again
        return None


def _source() -> str:
    """The code that decides what an autoencoder becomes."""
    return source_hash("models/autoencoder.py", "gradcon/constraint.py", "gradcon/training.py")
