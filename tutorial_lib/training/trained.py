"""Trained classifiers of a study: those that come with the library, those in the cache, and those that are trained now.

A cached network lies in ``models/STUDY_NETWORK_seedN_KEY`` in the cache folder. KEY is a hash of all that its
weights depend on: the settings, the training images, and the source of the models and of the trainer (without
comments and docstrings).
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import hashlib
import json
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
from tutorial_lib.data.images import as_float
from tutorial_lib.models import Classifier, build
from tutorial_lib.studies import Study
from tutorial_lib.training.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from tutorial_lib.training.classifier import TrainingConfig, accuracy, augment, train_classifier

__all__ = ["SHIPPED", "cached_folder", "recipe", "ship", "shipped_file", "trained_classifier"]

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
    shipped = shipped_file(study, network, seed)
    if shipped.exists():
        return _with_weights(model, load_checkpoint(shipped)[0])
    config = recipe(study, network, int(seed))
    folder = cached_folder(study, network, config)
    state = _cached(folder)
    if state is None:
        with _only_one(folder) as alone:
            state = _cached(folder)  # another process may have made it while this one waited
            if state is None:
                _train(study, network, config, folder, progress, resumable=alone)
                state = load_checkpoint(folder / "model.pt")[0]
    return _with_weights(model, state)


def ship(study: Study, network: str, seed: int, command: str) -> Path:
    """Put a network from the cache among the weights that come with the library, in half precision; returns the file.

    The record beside it says what made it: the command, the settings, the accuracy on validation and test images.
    """
    state, record = load_checkpoint(cached_folder(study, network, recipe(study, network, seed)) / "model.pt")
    halved = {name: v.half().float() if v.is_floating_point() else v for name, v in state.items()}
    model = _with_weights(build(network, study.num_classes, study.image_shape), halved)
    record |= {"command": command, "test_accuracy": accuracy(model, study.test), "test_images": len(study.test)}
    return save_checkpoint(shipped_file(study, network, seed), state, record, half=True)


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
    """The code that decides what is trained and how, without comments and docstrings."""
    library = Path(__file__).parents[1]
    others = ("predict.py", "autoencoder.py")  # neither decides what a classifier becomes
    models = sorted(path for path in (library / "models").glob("*.py") if path.name not in others)
    files = [library / "training" / "classifier.py", *models]
    return "\n".join(f"{file.name}: {_without_docstrings(file.read_text(encoding='utf-8'))}" for file in files)


def _without_docstrings(source: str) -> str:
    """The syntax tree as text.

    >>> _without_docstrings("def f():\\n    'One.'\\n    return 1") == _without_docstrings("def f(): return 1  # one")
    True
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


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
    mean, std = study.normalisation or _measured(study.train.images)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    long = config.epochs * len(study.train) > LONG
    resume_from = folder.with_name(folder.name + "_unfinished.pt") if long and resumable else None
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    try:
        if not long:
            torch.set_num_threads(1)
        torch.random.default_generator.manual_seed(config.seed)  # the CPU's: CUDA's random state is left alone
        model = build(network, study.num_classes, study.image_shape, mean, std).to(device)
        if long:
            print(
                f"training {network} on {study.name}: {config.epochs} epochs of {len(study.train):,} images, "
                f"{_estimate(model, study.train.images, config)} on this {device.type}; kept in {folder}",
                file=sys.stderr,
                flush=True,
            )
        history = train_classifier(model, study.train, study.validation, config, device, progress, resume_from)
    finally:
        torch.set_rng_state(random_state)
        torch.set_num_threads(threads)
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


def _measured(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, over about 10,000 images at most."""
    pixels = as_float(images[:: max(1, len(images) // 10_000)])
    return tuple(pixels.mean((0, 2, 3)).tolist()), tuple(pixels.std((0, 2, 3)).tolist())


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
