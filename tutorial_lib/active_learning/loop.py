"""Ask, label, train anew: the rounds of active learning, beside those of a twin that asks at random.

What has to be the same for a strategy and its twin, so that only the choice differs, is the same by construction: the
start set, the initial weights and the order of batches (all from one seed), the size of a query, and what the test sets
are. Each round trains from reset with the same seed: what a round gains is the labels', not another draw of weights.

Five ways to fool oneself with such curves: Lüth et al., "Navigating the Pitfalls of Active Learning Evaluation",
NeurIPS 2023.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from tutorial_lib.active_learning.prediction import Prediction, predict_pool
from tutorial_lib.active_learning.strategies import STRATEGIES, Strategy
from tutorial_lib.data.images import ImageSet
from tutorial_lib.data.registry import suggestion
from tutorial_lib.models.predict import predict_probabilities
from tutorial_lib.storage import Damaged, sealed, unsealed, write_atomically

__all__ = ["Budget", "History", "Round", "Train", "run_rounds", "run_with_twin", "start_set"]

Train = Callable[[Tensor, Tensor, int], nn.Module]
"""Images (N, C, H, W), labels (N,) and seed to a classifier trained from reset, such as `FixedSteps`."""

Predict = Callable[[nn.Module, Tensor, NDArray[np.int64], int], Prediction]
"""Model, images, their names and a seed to what the strategy may see, such as `predict_pool`."""


@dataclass(frozen=True)
class Budget:
    """How many labels are bought, and when.

    Attributes:
        start: labels before the first round, drawn at random.
        query: labels bought after each round but the last.
        rounds: trainings; the last has ``start + (rounds - 1) * query`` labels.
    """

    start: int = 20
    query: int = 20
    rounds: int = 10

    def __post_init__(self) -> None:
        if min(self.start, self.query, self.rounds) < 1:
            raise ValueError(f"start, query and rounds must be at least 1, got {self}")

    @property
    def total(self) -> int:
        """Labels in the last round."""
        return self.start + (self.rounds - 1) * self.query


@dataclass(frozen=True)
class Round:
    """One round: what was known, and how good it made the network.

    Attributes:
        labelled: number of labels the network was trained on.
        bought: places in the pool that were labelled for this round (in the first, the start set).
        accuracy: share of right answers, by test set, in [0, 1].
        negative_flips: share of images that the network before had right and this one has wrong, by test set; NaN in
            the first round. Accuracy can rise while much that worked breaks.
    """

    labelled: int
    bought: tuple[int, ...]
    accuracy: Mapping[str, float]
    negative_flips: Mapping[str, float]


@dataclass
class History:
    """All rounds of one run, the first first."""

    strategy: str
    seed: int
    rounds: list[Round] = field(default_factory=list)

    def labelled(self) -> NDArray[np.int64]:
        """Number of labels in each round (R,)."""
        return np.array([r.labelled for r in self.rounds])

    def accuracy(self, test: str) -> NDArray[np.float64]:
        """Accuracy on one test set in each round (R,)."""
        self._check(test)
        return np.array([r.accuracy[test] for r in self.rounds])

    def negative_flips(self, test: str) -> NDArray[np.float64]:
        """Share of negative flips from each round to the next (R - 1,)."""
        self._check(test)
        return np.array([r.negative_flips[test] for r in self.rounds[1:]])

    def _check(self, test: str) -> None:
        if self.rounds and test not in self.rounds[0].accuracy:
            raise ValueError(f"there is no test set {test!r}{suggestion(test, self.rounds[0].accuracy)}")


def start_set(pool: int, count: int, seed: int) -> NDArray[np.int64]:
    """The first ``count`` images to be labelled, of ``pool``, drawn evenly; no look at classes, which nobody knows yet.

    >>> start_set(10, 3, seed=0)
    array([4, 6, 2])
    """
    if not 1 <= count <= pool:
        raise ValueError(f"cannot start with {count} labels of a pool of {pool}")
    return np.random.default_rng(seed).permutation(pool)[:count].astype(np.int64)


def run_rounds(
    train: Train,
    strategy: str | Strategy,
    pool: ImageSet,
    tests: Mapping[str, ImageSet],
    budget: Budget,
    seed: int,
    predict: Predict = predict_pool,
    state: Path | str | None = None,
    settings: Mapping[str, object] | None = None,
    progress: bool = True,
) -> History:
    """One run of active learning.

    Args:
        train: trains a network from reset; see `Train`. To be introspective, return a network that looks twice.
        strategy: a name of `STRATEGIES`, or a function.
        pool: all images that could be labelled. Labels are used for those that have been bought, and for nothing else.
        tests: where accuracy is measured, by name: clean images, corrupted ones.
        budget: sizes and rounds.
        seed: of the start set, the strategy's draws and (through ``train``) the initial weights.
        predict: what the strategy sees, called as ``predict(model, images, names, round_seed)`` with the images as they
            are; `predict_pool` sees no members, so BALD needs another:
            ``functools.partial(predict_pool, sample=...)``.
        state: a JSON file that is written whole after each round. If it is there, the run goes on from it.
        settings: what else the result depends on (network, steps, …); a file with other settings is not taken up.
        progress: show a bar.

    Raises:
        ValueError: the budget exceeds the pool, a strategy that does not exist or returns what it must not, or a state
            file of another run.
        Damaged: the state file cannot be read.
    """
    name, choose = _strategy(strategy)
    if budget.total > len(pool):
        raise ValueError(f"{budget} needs {budget.total} labels, the pool has {len(pool)} images")
    if not tests:
        raise ValueError("give at least one test set, such as {'clean': images}")
    key = _key(name, pool, tests, budget, seed, settings)
    history, right_before, bought = _resumed(state, key, History(name, seed))
    if not history.rounds:
        bought = start_set(len(pool), budget.start, seed)
    labelled = np.array([i for r in history.rounds for i in r.bought], dtype=np.int64)
    bar = tqdm(total=budget.rounds, initial=len(history.rounds), desc=f"{name}, seed {seed}", disable=not progress)
    with bar:
        for number in range(len(history.rounds), budget.rounds):
            labelled = np.concatenate([labelled, bought])
            model = train(pool.images[labelled], pool.labels[labelled], seed)
            right = {test: _right(model, images) for test, images in tests.items()}
            flips = {test: _negative_flips(right_before.get(test), now) for test, now in right.items()}
            accuracy = {test: float(now.mean()) for test, now in right.items()}
            history.rounds.append(Round(len(labelled), tuple(bought.tolist()), accuracy, flips))
            right_before = right
            if number + 1 < budget.rounds:
                names = np.setdiff1d(np.arange(len(pool)), labelled)
                round_seed = seed * 10_007 + number  # each round draws anew; the same for a strategy and its twin
                seen = predict(model, pool.images[names], names, round_seed)
                bought = names[_checked(choose(seen, budget.query, round_seed), budget.query, len(names), name)]
            if state is not None:
                _save(Path(state), key, history, right, bought)
            bar.set_postfix({test: f"{value:.3f}" for test, value in accuracy.items()})
            bar.update()
    return history


def run_with_twin(
    train: Train,
    strategy: str | Strategy,
    pool: ImageSet,
    tests: Mapping[str, ImageSet],
    budget: Budget,
    seed: int,
    predict: Predict = predict_pool,
    state: Path | str | None = None,
    settings: Mapping[str, object] | None = None,
    progress: bool = True,
) -> tuple[History, History]:
    """`run_rounds` for a strategy and for its random twin: ``(strategy's, twin's)``.

    The twin has the same start set and the same initial weights, so its first round is the strategy's, to the digit. It
    does not depend on the strategy: for several strategies, run the twin once a seed, by `run_rounds` with ``"random"``.
    Its state file is ``NAME.twin.json`` beside ``state``.
    """
    twin_state = None if state is None else Path(state).with_suffix(".twin.json")
    mine = run_rounds(train, strategy, pool, tests, budget, seed, predict, state, settings, progress)
    twin = run_rounds(train, "random", pool, tests, budget, seed, predict_pool, twin_state, settings, progress)
    return mine, twin


def _strategy(strategy: str | Strategy) -> tuple[str, Strategy]:
    if not isinstance(strategy, str):
        return getattr(strategy, "__name__", type(strategy).__name__), strategy
    if strategy not in STRATEGIES:
        raise ValueError(f"there is no strategy {strategy!r}; there are {', '.join(STRATEGIES)}")
    return strategy, STRATEGIES[strategy]


def _right(model: nn.Module, images: ImageSet) -> NDArray[np.bool_]:
    return (predict_probabilities(model, images.images).argmax(1) == images.labels).numpy()


def _negative_flips(before: NDArray[np.bool_] | None, now: NDArray[np.bool_]) -> float:
    return float("nan") if before is None else float((before & ~now).mean())


def _checked(chosen: NDArray[np.int64], count: int, pool: int, name: str) -> NDArray[np.int64]:
    chosen = np.asarray(chosen)
    if chosen.shape != (count,) or chosen.dtype.kind not in "iu" or len(np.unique(chosen)) != count:
        raise ValueError(f"{name} must return {count} different places, got {chosen!r}")
    if chosen.min() < 0 or chosen.max() >= pool:
        raise ValueError(f"{name} returned places outside the pool of {pool}")
    return chosen


def _key(
    name: str,
    pool: ImageSet,
    tests: Mapping[str, ImageSet],
    budget: Budget,
    seed: int,
    settings: Mapping[str, object] | None,
) -> dict[str, object]:
    """What a run belongs to."""
    sets = {"pool": pool} | {f"test {test}": images for test, images in tests.items()}
    return {
        "strategy": name,
        "seed": seed,
        "budget": asdict(budget),
        "settings": {key: str(value) for key, value in (settings or {}).items()},
        "images": {key: _fingerprint(images) for key, images in sets.items()},
    }


def _fingerprint(images: ImageSet) -> str:
    content = hashlib.sha256(str(tuple(images.images.shape)).encode())
    for tensor in (images.images, images.labels):
        content.update(tensor.cpu().contiguous().numpy().data)
    return content.hexdigest()


def _save(
    path: Path,
    key: Mapping[str, object],
    history: History,
    right: dict[str, NDArray[np.bool_]],
    bought: NDArray[np.int64],
) -> None:
    content = {
        "run": key,
        "rounds": [asdict(r) for r in history.rounds],
        "right": {test: np.packbits(now).tobytes().hex() for test, now in right.items()},
        "sizes": {test: len(now) for test, now in right.items()},
        "next": bought.tolist(),
    }
    write_atomically(path, json.dumps(sealed(content)).encode())


def _resumed(
    state: Path | str | None, key: Mapping[str, object], history: History
) -> tuple[History, dict[str, NDArray[np.bool_]], NDArray[np.int64]]:
    nothing = np.array([], dtype=np.int64)
    if state is None or not Path(state).exists():
        return history, {}, nothing
    try:
        content = unsealed(json.loads(Path(state).read_text()))
        run = dict(content["run"])
        rounds = [Round(**entry | {"bought": tuple(entry["bought"])}) for entry in content["rounds"]]
        right = {
            test: np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8), count=content["sizes"][test]).astype(
                bool
            )
            for test, packed in content["right"].items()
        }
        bought = np.array(content["next"], dtype=np.int64)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(
            f"{state} is not the state of an active learning run ({error}); delete it to start anew"
        ) from error
    if run != key:
        different = ", ".join(sorted(k for k in {*run, *key} if run.get(k) != key.get(k)))
        raise ValueError(f"{state} belongs to another run (different: {different}); give another file, or delete it")
    return History(history.strategy, history.seed, rounds), right, bought
