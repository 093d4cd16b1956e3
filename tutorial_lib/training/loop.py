"""The one loop of every training that goes in epochs: stop it when you like, it goes on as if you had not.

What decides how a training goes on is one file, with its SHA-256 in front, written whole or not at all: a kill at any
moment leaves the state of the epoch before. The state knows what it belongs to, the settings and a hash of the images,
and goes on with nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from tutorial_lib.reproducible import one_thread
from tutorial_lib.storage import write_atomically
from tutorial_lib.training.checkpoints import CheckpointError

__all__ = ["TrainingDiverged", "diverged", "fingerprint", "is_long", "run_epochs"]

LONG = 10_000_000
"""Pixels that a training sees (epochs x images x numbers in an image) from which on it is long: it says what it will
cost, may use all threads, and is worth going on with. A shorter one is over in seconds, and runs on one thread."""


class TrainingDiverged(RuntimeError):
    """The loss is no longer a finite number."""


class Stateful(Protocol):
    """What `torch.nn.Module` and `torch.optim.Optimizer` have in common."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class History(Protocol):
    """A dataclass of lists with one entry an epoch, and the seconds that all took."""

    seconds: float


def is_long(epochs: int, images: Tensor) -> bool:
    """Whether a training over these images takes more than a few seconds, see `LONG`."""
    return epochs * images.numel() > LONG


def diverged(loss: float, when: str, learning_rate: float) -> TrainingDiverged:
    """The error for a loss that is not finite."""
    return TrainingDiverged(f"the loss is {loss} in {when}; try a learning rate below {learning_rate:g}")


def fingerprint(*tensors: Tensor | None) -> str:
    """SHA-256 of shapes, types and content.

    >>> fingerprint(torch.zeros(2, 3)) == fingerprint(torch.zeros(3, 2))
    False
    """
    content = hashlib.sha256()
    for tensor in tensors:
        if tensor is None:
            content.update(b"none")
        else:
            content.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            content.update(tensor.detach().cpu().contiguous().numpy().data)
    return content.hexdigest()


def run_epochs(
    one_epoch: Callable[[Callable[[], object]], Mapping[str, float]],
    after_epoch: Callable[[int], Mapping[str, float]],
    history: Any,
    parts: Mapping[str, Stateful],
    generator: torch.Generator,
    config: Any,
    steps_per_epoch: int,
    images: tuple[Tensor | None, ...],
    state_file: Path | str | None = None,
    settings: Mapping[str, Any] | None = None,
    save_every: float = 10.0,
    progress: bool = True,
    title: str = "",
) -> None:
    """Run the epochs that are still to be run.

    Args:
        one_epoch: trains for an epoch, calls what it is given after each step, and returns what is to be kept: the
            name of a list of ``history``, and a mean over the epoch, which must be finite.
        after_epoch: of the number of the epoch, from 0; measures, and returns what is to be kept in the same way.
        history: dataclass of lists, one entry an epoch, and ``seconds``. Filled.
        parts: model, optimiser and whatever else changes while training, by name.
        generator: all random numbers of the training; those of PyTorch's global state are kept besides (dropout).
        config: dataclass with ``epochs`` and ``learning_rate``.
        steps_per_epoch: calls an epoch, for the bar.
        images: what is trained on and chosen by: images, labels, validation images.
        state_file: the state after an epoch. If it exists, the training goes on from it. It is left behind, finished,
            so that nothing is lost before the result is in a safe place: whoever keeps the result deletes it.
        settings: what besides ``config`` the state belongs to.
        save_every: seconds between two savings; 0 saves after every epoch. The last one is always saved.
        progress: show a bar.
        title: of the bar.

    Raises:
        TrainingDiverged: see ``one_epoch``; says in which epoch and what to try.
        ValueError: the state was made with other settings or other images.
        CheckpointError: the state is damaged.
    """
    state = None
    if state_file is not None:
        belongs = {"settings": dataclasses.asdict(config) | dict(settings or {}), "images": fingerprint(*images)}
        state = _State(Path(state_file), belongs, history, parts, generator)
        state.resume()
    done = _epochs_in(history)
    steps = config.epochs * steps_per_epoch
    saved = time.perf_counter()
    assert images[0] is not None
    with (
        one_thread(not is_long(config.epochs, images[0])),
        tqdm(total=steps, initial=done * steps_per_epoch, disable=not progress, desc=title) as bar,
    ):
        for epoch in range(done, config.epochs):
            start = time.perf_counter()
            kept = dict(one_epoch(bar.update))
            for value in kept.values():
                if not math.isfinite(value):
                    raise diverged(value, f"epoch {epoch + 1} of {config.epochs}", config.learning_rate)
            kept |= after_epoch(epoch)
            for name, value in kept.items():
                getattr(history, name).append(value)
            if progress:
                bar.set_postfix({name: f"{value:.3f}" for name, value in kept.items()})
            history.seconds += time.perf_counter() - start
            if state is not None and (epoch + 1 == config.epochs or time.perf_counter() - saved >= save_every):
                state.save()
                saved = time.perf_counter()


def _epochs_in(history: Any) -> int:
    return max((len(value) for value in vars(history).values() if isinstance(value, list)), default=0)


@dataclasses.dataclass
class _State:
    """All that decides how a training goes on, in one file."""

    path: Path
    belongs: dict[str, Any]
    history: Any
    parts: Mapping[str, Stateful]
    generator: torch.Generator

    def save(self) -> None:
        content = io.BytesIO()
        state = self.belongs | {
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
            "generator": self.generator.get_state(),
            "global": torch.get_rng_state(),
            "history": dataclasses.asdict(self.history),
        }
        torch.save(state, content)
        write_atomically(self.path, hashlib.sha256(content.getvalue()).digest() + content.getvalue())

    def resume(self) -> None:
        if not self.path.exists():
            return
        content = self.path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise CheckpointError(f"{self.path} is damaged; delete it to start the training again")
        state = torch.load(io.BytesIO(content[32:]), map_location="cpu", weights_only=True)
        for what, said in self.belongs.items():
            if state[what] != said:
                made = f" ({state[what]})" if what == "settings" else ""
                raise ValueError(f"{self.path} was made with other {what}{made}; delete it to start again")
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["global"])
        for name, value in state["history"].items():
            setattr(self.history, name, value)
