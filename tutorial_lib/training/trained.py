"""Trained classifiers of a study: those that come with the library, those in the cache, and those that are trained now.

A cached network lies in ``models/STUDY_NETWORK_seedN_KEY`` in the cache folder. KEY is a hash of all that its
weights depend on: the settings, the training images, and the source of the models and of the trainer (without
comments and docstrings).
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import numbers
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutorial_lib.data.files import cache_folder
from tutorial_lib.models import Classifier, build
from tutorial_lib.reproducible import one_thread, seeded, source_hash
from tutorial_lib.studies import Study
from tutorial_lib.training.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from tutorial_lib.training.classifier import TrainingConfig, accuracy, augment, train_classifier

__all__ = ["SHIPPED", "cached_folder", "recipe", "ship", "shipped_file", "trained_classifier", "untrained_classifier"]

#: Folder of the weights that come with the library.
SHIPPED = Path(__file__).resolve().parents[1] / "weights"

#: A training of more images than this (epochs times training images) says what it will cost, and can be resumed.
#: A smaller one is over in seconds and runs in one thread: for such small steps more threads gain nothing, and on a
#: busy machine they wait for each other longer than they work.
LONG = 100_000


def recipe(study: Study, network: str, seed: int = 0) -> TrainingConfig:
    """How ``network`` is trained on ``study``."""
    return TrainingConfig(**study.recipes.get(network, study.recipes[""]), seed=seed)


def shipped_file(study: Study, network: str, seed: int) -> Path:
    """Where the library's own weights would be."""
    return SHIPPED / f"{study.name}_{network}_seed{seed}.pt"


def trained_classifier(study: Study, network: str, seed: int, progress: bool) -> Classifier:
    """See :meth:`tutorial_lib.studies.Study.classifier`; the model is on the CPU, in evaluation mode."""
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0 on, got {seed!r}")
    with torch.random.fork_rng(devices=[]):  # these weights are only a form to fill
        model = build(network, study.num_classes, study.image_shape)
    config = recipe(study, network, int(seed))
    state = _shipped(study, network, config)
    if state is not None:
        return _with_weights(model, state)
    folder = cached_folder(study, network, config)
    state = _cached(folder)
    if state is None:
        with _only_one(folder) as alone:
            state = _cached(folder)  # another process may have made it while this one waited
            if state is None:
                _train(study, network, config, folder, progress, resumable=alone)
                state = load_checkpoint(folder / "model.pt")[0]
    return _with_weights(model, state)


def ship(study: Study, network: str, seed: int, command: str, checkpoint: Path | None = None) -> Path:
    """Put a trained network among the weights that come with the library, in half precision; returns the file.

    Rounding moves a weight by one part in 2,000 at most. Of the digits' networks it changed no answer on test images
    and no probability by more than .003, far less than another seed does.

    The record beside it says what made it: the command, the settings, the accuracy on validation and test images.

    Args:
        study, network, seed: what was trained.
        command: the command that made it.
        checkpoint: where it lies; its place in the cache when left out.

    Raises:
        CheckpointError: it is not there, or damaged.
        ValueError: it was trained with other settings than the study's recipe, so that nobody would be given it.
    """
    config = recipe(study, network, seed)
    state, record = load_checkpoint(checkpoint or cached_folder(study, network, config) / "model.pt")
    if TrainingConfig(**record["config"]) != config:
        raise ValueError(
            f"{checkpoint} was trained with {record['config']}; the recipe is {dataclasses.asdict(config)}"
        )
    halved = {name: v.half().float() if v.is_floating_point() else v for name, v in state.items()}
    model = _with_weights(build(network, study.num_classes, study.image_shape), halved)
    record |= {"command": command, "test_accuracy": accuracy(model, study.test), "test_images": len(study.test)}
    return save_checkpoint(shipped_file(study, network, seed), state, record, half=True)


def _shipped(study: Study, network: str, config: TrainingConfig) -> dict[str, Any] | None:
    """The library's own weights, if they are there and were made by this training."""
    file = shipped_file(study, network, config.seed)
    if not file.exists():
        return None
    state, record = load_checkpoint(file)
    return state if TrainingConfig(**record["config"]) == config else None


def untrained_classifier(study: Study, network: str | None = None, seed: int = 0) -> Classifier:
    """The network that `trained_classifier` starts from: its initial weights, and the study's normalisation.

    Torch's random state is left as it was.
    """
    mean, std = study.normalisation or channel_statistics(study.train.images)
    with seeded(seed):
        return build(network or study.network, study.num_classes, study.image_shape, mean, std)


def cached_folder(study: Study, network: str, config: TrainingConfig) -> Path:
    """The folder in the cache for exactly this training."""
    content = hashlib.sha256()
    settings = [study.image_shape, study.normalisation, study.num_classes, network, dataclasses.asdict(config)]
    content.update(json.dumps(settings).encode())
    content.update(study.train.images.contiguous().numpy().data)
    content.update(study.train.labels.contiguous().numpy().data)
    content.update(_source().encode())
    return cache_folder() / "models" / f"{study.name}_{network}_seed{config.seed}_{content.hexdigest()[:12]}"


def _source() -> str:
    """The code that decides what a classifier becomes."""
    return source_hash(
        "models", "training/classifier.py", without=("models/predict.py", "models/autoencoder.py", "models/plane.py")
    )


def _with_weights(model: Classifier, state: dict[str, Any]) -> Classifier:
    model.load_state_dict(state)
    return model.eval()


def _cached(folder: Path) -> dict[str, Any] | None:
    if not folder.exists():
        return None
    try:
        return load_checkpoint(folder / "model.pt")[0]
    except CheckpointError as error:
        warnings.warn(f"{error}; it is only a cache, so the network is trained again", RuntimeWarning, stacklevel=4)
        # out of the way, so that the new folder can take its place in one step
        folder.rename(folder.with_name(f"{folder.name}.damaged{time.time_ns()}"))
        return None


@contextmanager
def _only_one(folder: Path) -> Iterator[bool]:
    """Let one process train while others wait; yields whether that could be arranged (Windows has no such locks)."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: two processes may train the same network; the renaming below keeps the result whole
        yield False
        return
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go when the process ends, however it ends
        yield True


def _train(study: Study, network: str, config: TrainingConfig, folder: Path, progress: bool, resumable: bool) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    long = config.epochs * len(study.train) > LONG
    resume_from = folder.with_name(folder.name + "_unfinished.pt") if long and resumable else None
    with one_thread(not long), seeded(config.seed):
        model = untrained_classifier(study, network, config.seed).to(device)
        if long:
            print(
                f"training {network} on {study.name}: {config.epochs} epochs of {len(study.train):,} images, "
                f"{_estimate(model, study.train.images, config)} on this {device.type}; kept in {folder}",
                file=sys.stderr,
                flush=True,
            )
        history = train_classifier(model, study.train, study.validation, config, device, progress, resume_from)
    record = {
        "study": study.name,
        "network": network,
        "config": dataclasses.asdict(config),
        "history": dataclasses.asdict(history),
        "validation_accuracy": accuracy(model, study.validation),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    unfinished = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    save_checkpoint(unfinished / "model.pt", model.state_dict(), record)
    try:
        unfinished.rename(folder)
    except OSError:  # another process was faster, and what it made is the same
        if not folder.exists():
            raise
        for file in unfinished.iterdir():
            file.unlink()
        unfinished.rmdir()


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel in the units of [0, 1] images, over about 10,000 images at most.

    Computed in whole numbers from how often each of the 256 values occurs, so that the last digit does not depend on
    the order in which a processor adds.

    Args:
        images: ``uint8`` (N, C, H, W).

    >>> channel_statistics(torch.tensor([0, 255, 0, 255], dtype=torch.uint8).view(1, 1, 2, 2))
    ((0.5,), (0.5773502691896257,))
    """
    means, deviations = [], []
    for channel in images[:: max(1, len(images) // 10_000)].unbind(1):
        counts = torch.bincount(channel.flatten(), minlength=256).tolist()
        n = sum(counts)
        total = sum(count * value for value, count in enumerate(counts))
        squares = sum(count * value**2 for value, count in enumerate(counts))
        means.append(total / (255 * n))
        deviations.append(math.sqrt((n * squares - total**2) / (n * (n - 1))) / 255)
    return tuple(means), tuple(deviations)


def _estimate(model: Classifier, images: Tensor, config: TrainingConfig) -> str:
    """How long the training will take, from two steps on a copy of the model; the first one warms up."""
    twin = copy.deepcopy(model).train()
    device = next(twin.parameters()).device
    first = torch.arange(config.batch_size)
    batch = augment(images, first, config.shift, config.flip, torch.Generator().manual_seed(0)).to(device)
    for _ in range(2):
        start = time.perf_counter()
        twin(batch).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    minutes = seconds * config.epochs * len(images) / config.batch_size / 60
    return f"about {minutes:.0f} minutes" if minutes < 100 else f"about {minutes / 60:.0f} hours"
