"""Trained networks by what made them: those that come with the library, those in the cache, and those trained now.

A cached network lies in a folder ``NAME_seedN_KEY`` of the cache. KEY is a hash of all that its weights depend on: the
settings, the training images, and the source of the models and of the trainer (without comments and docstrings).
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import numbers
import os
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tutorial_lib.data.images import ImageSet, as_float
from tutorial_lib.gradcon.constraint import ALPHA, GradientConstraint
from tutorial_lib.models import Classifier, build
from tutorial_lib.models.airbench import Whitening, whiten
from tutorial_lib.models.autoencoder import Autoencoder, build_autoencoder
from tutorial_lib.models.predict import device_of, preserved
from tutorial_lib.reproducible import one_thread, seeded, source_hash
from tutorial_lib.storage import cache_folder, locked
from tutorial_lib.training.autoencoder import AutoencoderConfig, AutoencoderHistory, train_autoencoder
from tutorial_lib.training.checkpoints import CheckpointError, load_checkpoint, save_checkpoint
from tutorial_lib.training.classifier import TrainingConfig, accuracy, augment, train_classifier
from tutorial_lib.training.loop import fingerprint, is_long
from tutorial_lib.training.precision import autocast

__all__ = [
    "SHIPPED",
    "Task",
    "TrainedAutoencoder",
    "cached_folder",
    "channel_statistics",
    "is_at_hand",
    "kept",
    "recipe",
    "ship",
    "shipped_file",
    "trained_autoencoder",
    "trained_classifier",
    "untrained_classifier",
]

#: Folder of the weights that come with the library.
SHIPPED = Path(__file__).resolve().parents[1] / "weights"

WHITENED = 5000
"""Training images whose patches set a first layer that whitens, see `tutorial_lib.models.airbench`."""

Stored = tuple[dict[str, Any], dict[str, Any]]  # tensors, and the record of what made them


class Task(Protocol):
    """What a classifier is trained for; a `tutorial_lib.studies.Study` is one."""

    name: str
    network: str
    image_shape: tuple[int, int, int]
    recipes: Mapping[str, Mapping[str, Any]]
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None

    @property
    def num_classes(self) -> int: ...

    @property
    def train(self) -> ImageSet: ...

    @property
    def validation(self) -> ImageSet: ...

    @property
    def test(self) -> ImageSet: ...


# ----------------------------------------------------------------------------------------------------------------------
# Classifiers


def recipe(study: Task, network: str, seed: int = 0) -> TrainingConfig:
    """How ``network`` is trained on ``study``."""
    return TrainingConfig(**study.recipes.get(network, study.recipes[""]), seed=seed)


def shipped_file(study: Task, network: str, seed: int) -> Path:
    """Where the library's own weights would be."""
    return SHIPPED / f"{study.name}_{network}_seed{seed}.pt"


def is_at_hand(study: Task, network: str, seed: int) -> bool:
    """Whether the weights come with the library or lie in the cache, so that nothing is trained."""
    if shipped_file(study, network, seed).exists():
        return True
    return cached_folder(study, network, recipe(study, network, seed)).is_dir()


def trained_classifier(study: Task, network: str, seed: int, progress: bool) -> Classifier:
    """See :meth:`tutorial_lib.studies.Study.classifier`; the model is on the CPU, in evaluation mode."""
    if not isinstance(seed, numbers.Integral) or seed < 0:
        raise ValueError(f"seed must be a whole number from 0 on, got {seed!r}")
    config = recipe(study, network, int(seed))
    model = _form(study, network)
    state = _shipped(study, network, config)
    if state is None:
        folder = cached_folder(study, network, config)
        state, _ = kept(folder, lambda state: _train(study, network, config, folder, progress, state))
    return _with_weights(model, state)


def untrained_classifier(study: Task, network: str | None = None, seed: int = 0) -> Classifier:
    """The network that `trained_classifier` starts from: its initial weights, and the study's normalisation.

    A first layer that whitens is set by the first `WHITENED` training images.

    Torch's random state is left as it was.
    """
    mean, std = study.normalisation or channel_statistics(study.train.images)
    with seeded(seed):
        model = build(network or study.network, study.num_classes, study.image_shape, mean, std)
    for layer in model.modules():
        if isinstance(layer, Whitening):
            whiten(layer, model.normalize(study.train.images[:WHITENED]))
    return model


def ship(study: Task, network: str, seed: int, command: str, checkpoint: Path | None = None) -> Path:
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
    model = _with_weights(_form(study, network), halved)
    record |= {"command": command, "test_accuracy": accuracy(model, study.test), "test_images": len(study.test)}
    return save_checkpoint(shipped_file(study, network, seed), state, record, half=True)


def cached_folder(study: Task, network: str, config: TrainingConfig) -> Path:
    """The folder in the cache for exactly this training."""
    settings = [study.image_shape, study.normalisation, study.num_classes, network, dataclasses.asdict(config)]
    key = _key(settings, _classifier_source(), study.train.images, study.train.labels)
    return cache_folder() / "models" / f"{study.name}_{network}_seed{config.seed}_{key}"


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


def _form(study: Task, network: str) -> Classifier:
    """A network of the right shape, to be filled with weights."""
    with seeded(0):
        return build(network, study.num_classes, study.image_shape)


def _with_weights(model: Classifier, state: dict[str, Any]) -> Classifier:
    model.load_state_dict(state)
    return model.eval()


def _shipped(study: Task, network: str, config: TrainingConfig) -> dict[str, Any] | None:
    """The library's own weights, if they are there and were made by this training."""
    file = shipped_file(study, network, config.seed)
    if not file.exists():
        return None
    state, record = load_checkpoint(file)
    return state if TrainingConfig(**record["config"]) == config else None


def _classifier_source() -> str:
    """The code that decides what a classifier becomes."""
    others = ("models/predict.py", "models/inputs.py", "models/autoencoder.py", "models/plane.py")
    training = ("training/classifier.py", "training/lookahead.py", "training/loop.py", "training/precision.py")
    return source_hash("models", *training, without=others)


def _train(
    study: Task, network: str, config: TrainingConfig, folder: Path, progress: bool, resume_from: Path
) -> Stored:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    long = is_long(config.epochs, study.train.images)
    model = untrained_classifier(study, network, config.seed).to(device)
    if long:
        print(
            f"training {network} on {study.name}: {config.epochs} epochs of {len(study.train):,} images, "
            f"{_estimate(model, study.train.images, config)} on this {device.type}; kept in {folder}",
            file=sys.stderr,
            flush=True,
        )
    with one_thread(not long), seeded(config.seed):
        history = train_classifier(
            model, study.train, study.validation, config, device, progress, resume_from if long else None
        )
        validated = accuracy(model, study.validation)
    record = {
        "study": study.name,
        "network": network,
        "config": dataclasses.asdict(config),
        "history": dataclasses.asdict(history),
        "validation_accuracy": validated,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    return model.state_dict(), record


def _estimate(model: Classifier, images: Tensor, config: TrainingConfig) -> str:
    """How long the training will take, from two steps on a copy of the model; the first one warms up."""
    twin = copy.deepcopy(model).train()
    device = next(twin.parameters()).device
    first = torch.arange(config.batch_size)
    batch = augment(images, first, config.shift, config.flip, torch.Generator().manual_seed(0)).to(device)
    for _ in range(2):
        start = time.perf_counter()
        with autocast(config.precision, device):
            logits = twin(batch)
        logits.float().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    minutes = seconds * config.epochs * len(images) / config.batch_size / 60
    if minutes < 1.5:
        return "about a minute or less"
    return f"about {minutes:.0f} minutes" if minutes < 100 else f"about {minutes / 60:.0f} hours"


# ----------------------------------------------------------------------------------------------------------------------
# Autoencoders


@dataclass(frozen=True)
class TrainedAutoencoder:
    """What was learned from normal images.

    Attributes:
        model: in evaluation mode.
        constraint: holds the average gradient of the training.
        history: how the training went.
    """

    model: Autoencoder
    constraint: GradientConstraint
    history: AutoencoderHistory

    def reconstruct(self, images: Tensor) -> Tensor:
        """Reconstructions (N, C, H, W) in (0, 1) of ``uint8`` or float images, on the CPU."""
        with preserved(self.model), torch.no_grad():
            parts = [self.model(as_float(part).to(device_of(self.model))) for part in images.split(512)]
        return torch.cat(parts).cpu()


def trained_autoencoder(
    images: ImageSet | Tensor,
    kind: str = "cae",
    alpha: float = ALPHA,
    config: AutoencoderConfig | None = None,
    validation: ImageSet | Tensor | None = None,
    width: float = 1.0,
    progress: bool = False,
    device: torch.device | str = "cpu",
    widths: Sequence[int] | None = None,
) -> TrainedAutoencoder:
    """An autoencoder trained on normal images: from the cache if it was trained before, else trained now and kept.

    A long training that was stopped goes on where it was; another process that asks for the same one waits for it.

    Args:
        images: what is normal, (N, C, H, W), ``uint8`` or float in [0, 1].
        kind: ``"cae"`` or ``"vae"``.
        alpha: weight of the gradient constraint; with 0 it is an ordinary autoencoder, whose average gradient is kept
            all the same. ``trained_autoencoder(images, *MODELS["cae_grad"])`` is a published model by name.
        config: settings, seed included; the seed is also that of the initial weights.
        validation: normal images that choose the epoch, see `train_autoencoder`.
        width, widths: of the network, see `tutorial_lib.models.autoencoder.build_autoencoder`. On small images the
            published ones leave more numbers in the middle than an image has pixels, and such a network can copy any
            stranger.
        progress: show a bar while training.
        device: where to train, and where the model lies afterwards.
    """
    config = config or AutoencoderConfig()
    learned, chosen = _pixels(images), None if validation is None else _pixels(validation)
    with seeded(config.seed):
        model = build_autoencoder(kind, tuple(learned.shape[1:]), width, widths)
    constraint = GradientConstraint(model, alpha)

    def train(resume_from: Path) -> Stored:
        state_file = resume_from if is_long(config.epochs, learned) else None
        history = train_autoencoder(model, learned, constraint, config, state_file, progress, chosen, device)
        state = {"model": model.state_dict(), "constraint": constraint.state_dict()}
        return state, {"config": dataclasses.asdict(config), "history": dataclasses.asdict(history)}

    settings = [model.kind, model.image_shape, model.widths, alpha, dataclasses.asdict(config)]
    key = _key(settings, _autoencoder_source(), learned, chosen)
    named = f"{images.name if isinstance(images, ImageSet) else 'images'}_{model.kind}{'_grad' if alpha > 0 else ''}"
    state, record = kept(cache_folder() / "autoencoders" / f"{named}_seed{config.seed}_{key}", train)
    model.load_state_dict(state["model"])
    constraint.load_state_dict(state["constraint"])
    return TrainedAutoencoder(model.to(device).eval(), constraint.to(device), AutoencoderHistory(**record["history"]))


def _pixels(images: ImageSet | Tensor) -> Tensor:
    return images.images if isinstance(images, ImageSet) else images


def _autoencoder_source() -> str:
    """The code that decides what an autoencoder becomes."""
    return source_hash(
        "models/autoencoder.py",
        "gradcon/constraint.py",
        "gradcon/losses.py",
        "training/autoencoder.py",
        "training/loop.py",
        "training/precision.py",
    )


# ----------------------------------------------------------------------------------------------------------------------
# What is trained once and kept


def _key(settings: Sequence[Any], source: str, *images: Tensor | None) -> str:
    return hashlib.sha256(json.dumps([settings, source, fingerprint(*images)]).encode()).hexdigest()[:12]


def kept(folder: Path, train: Callable[[Path], Stored]) -> Stored:
    """What lies in a folder of the cache; made by ``train``, which is told where its state may lie, if it is not there."""
    found = _cached(folder)
    if found is None:
        with locked(folder.with_name(f"{folder.name}.lock")):
            found = _cached(folder)  # another process may have made it while this one waited
            if found is None:
                for left_over in folder.parent.glob(f"{folder.name}.*.part"):  # by a process that was killed
                    shutil.rmtree(left_over)
                unfinished = folder.with_name(f"{folder.name}_unfinished.bin")
                try:
                    made = train(unfinished)
                except CheckpointError as error:
                    warnings.warn(f"{error}; the training starts again", RuntimeWarning, stacklevel=4)
                    unfinished.unlink(missing_ok=True)
                    made = train(unfinished)
                _store(folder, *made)
                unfinished.unlink(missing_ok=True)  # not before the result is in a safe place
                found = load_checkpoint(folder / "model.pt")
    return found


def _cached(folder: Path) -> Stored | None:
    if not folder.exists():
        return None
    try:
        return load_checkpoint(folder / "model.pt")
    except CheckpointError as error:
        warnings.warn(f"{error}; it is only a cache, so the network is trained again", RuntimeWarning, stacklevel=5)
        # out of the way, so that the new folder can take its place in one step
        folder.rename(folder.with_name(f"{folder.name}.damaged{time.time_ns()}"))
        return None


def _store(folder: Path, state: dict[str, Any], record: dict[str, Any]) -> None:
    """Both files at once: the folder is there with both or not at all."""
    making = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    save_checkpoint(making / "model.pt", state, record)
    try:
        making.rename(folder)
    except OSError:  # another process was faster, and what it made is the same
        if not folder.exists():
            raise
        for file in making.iterdir():
            file.unlink()
        making.rmdir()
