"""Score every image of a folder with one's own network: how strange is each, by which detector?

One pass through the images, however many there are; one look of the network at each, however many detectors. See
`tutorial_lib.scoring.table` for what happens when the run is killed.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutorial_lib.detectors import Detector
from tutorial_lib.detectors.evidence import LOGITS
from tutorial_lib.scoring.networks import Network
from tutorial_lib.scoring.normal import NOT_FINITE, Normal, detector_needs, seen_of, tail_probability
from tutorial_lib.scoring.sources import ImageSource, ReadBatch, read_batches
from tutorial_lib.scoring.table import BLOCK, Block, Parts, check_table_path, write_table
from tutorial_lib.storage import locked

__all__ = ["Outcome", "commonest", "plan_of", "score_columns", "score_images"]


@dataclass(frozen=True)
class Outcome:
    """What a run did.

    Attributes:
        images: rows of the table.
        broken: those without a score: they could not be read, or the network's answer is not finite.
        resumed: rows that were there already.
        seconds: that the others took, reading included.
        reasons: why those have none, the commonest first, in the words of the first image that has it, and how many do.
    """

    images: int
    broken: int
    resumed: int
    seconds: float
    reasons: tuple[tuple[str, int], ...] = ()

    @property
    def per_second(self) -> float:
        """Images per second of this run, 0 if there was nothing left to do."""
        return (self.images - self.resumed) / self.seconds if self.seconds and self.images > self.resumed else 0.0


def commonest(reasons: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """Reasons and how many images have each, the commonest first; those that differ in a quoted name alone are one.

    >>> commonest(["no file 'a.png'", "too large", "no file 'b.png'"])
    (("no file 'a.png'", 2), ('too large', 1))
    """
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for reason in reasons:
        kind = re.sub("'.*'", "", reason)
        first.setdefault(kind, reason)
        counts[kind] += 1
    return tuple((first[kind], count) for kind, count in counts.most_common())


def score_columns(names: Sequence[str], tails: bool) -> list[str]:
    """Names of the columns: raw scores, then tail probabilities, one for each detector.

    >>> score_columns(["energy"], tails=True)
    ['score_energy', 'tail_energy']
    """
    return [f"score_{name}" for name in names] + ([f"tail_{name}" for name in names] if tails else [])


def plan_of(
    network: Network, source: ImageSource, detectors: Sequence[str], fit: Mapping[str, Any] | None, temperature: float
) -> dict[str, Any]:
    """What makes two runs the same: network, preprocessing, images, detectors, normal images, temperature, and `--head` if
    it was said."""
    preprocessing = {key: value for key, value in network.preprocessing.record().items() if key != "source"}
    return {
        "model": network.sha256,
        "preprocessing": preprocessing,
        "images": source.digest(),
        "detectors": list(detectors),
        "fit": dict(fit) if fit else None,
        "temperature": temperature,
        **({"head": network.head} if network.head else {}),
    }


def score_images(
    network: Network,
    detectors: Mapping[str, Detector],
    source: ImageSource,
    table: Path,
    normal: Normal | Callable[[], Normal] | None = None,
    plan: Mapping[str, Any] | None = None,
    temperature: float = 1.0,
    batch_size: int = 64,
    workers: int = 2,
    progress: Callable[[int], Any] = lambda done: None,
    keep: Callable[[Outcome], Any] = lambda outcome: None,
    restart: bool = False,
) -> Outcome:
    """Write the table of scores; go on with it if a run of the same plan was stopped.

    Args:
        network: that answers.
        detectors: by name, fitted where they want it.
        source: the images.
        table: ``.csv`` or ``.parquet``, one row for each image: path, prediction, confidence, ``score_NAME`` (larger =
            stranger), ``tail_NAME`` if there are normal images, error.
        normal: held-out scores, for the tails; or what fits the detectors and returns them, called once it is sure that the
            table can be written.
        plan: see `plan_of`; by default that of these arguments without the normal images.
        temperature: divides the logits before the confidence is taken; the scores do not see it.
        batch_size, workers: how images are read and shown to the network.
        progress: told how many more images are done.
        keep: called once the table is there, before its parts go, to write what belongs beside it.
        restart: drop stopped work that lies there.

    Raises:
        ValueError: the table cannot be written there.
        FileExistsError: stopped work lies there that belongs to another plan.
        BlockingIOError: another process works on this table.
    """
    check_table_path(table)
    parts = Parts(table, plan or plan_of(network, source, list(detectors), None, temperature))
    starts = range(0, len(source), BLOCK)
    with locked(table.with_name(table.name + ".lock"), wait=False) as mine:
        if not mine:
            raise BlockingIOError(11, "another process is writing this table", str(table))
        if not restart:
            parts.check()
        normal = normal() if callable(normal) else normal
        if restart:
            parts.remove()
        parts.begin()
        ready = [number for number in range(len(starts)) if parts.has(number, min(BLOCK, len(source) - starts[number]))]
        resumed = sum(min(BLOCK, len(source) - starts[number]) for number in ready)
        progress(resumed)
        begun = time.perf_counter()
        # All that is missing is one stream, so that the next block is read while this one is looked at.
        missing = [number for number in range(len(starts)) if number not in set(ready)]
        todo = [
            index for number in missing for index in range(starts[number], min(starts[number] + BLOCK, len(source)))
        ]
        stream = read_batches(source, network.preprocessing, todo, _dividing(batch_size), workers)
        needs = [LOGITS, *detector_needs(detectors.values())]
        for number in missing:
            count = min(BLOCK, len(source) - starts[number])
            block = _empty(count, len(detectors), normal is not None)
            done = 0
            while done < count:
                batch = next(stream)
                _fill(block, batch, starts[number], network, detectors, normal, needs, temperature, batch_size)
                done += len(batch.indices) + len(batch.errors)
                progress(len(batch.indices) + len(batch.errors))
            errors = np.array([str(text) for text in block.errors])
            parts.write(number, Block(block.prediction, block.confidence, block.scores, block.tails, errors))
        seconds = time.perf_counter() - begun
        blocks = (parts.read(number) for number in range(len(starts)))
        write_table(
            table, score_columns(list(detectors), normal is not None), source.names, blocks, network.class_names
        )
        errors_of = (parts.read(number).errors for number in range(len(starts)))
        reasons = commonest(str(text) for errors in errors_of for text in errors if text)
        broken = sum(count for _, count in reasons)
        outcome = Outcome(len(source), broken, resumed, seconds, reasons)
        keep(outcome)
        parts.remove()
    return outcome


def _dividing(batch_size: int) -> int:
    """The largest batch not above ``batch_size`` of which a block holds a whole number."""
    if batch_size < 1:
        raise ValueError(f"a batch holds at least 1 image, got {batch_size}")
    return next(size for size in range(min(batch_size, BLOCK), 0, -1) if BLOCK % size == 0)


def _empty(count: int, detectors: int, tails: bool) -> Block:
    nothing = np.full((count, detectors), np.nan)
    return Block(
        np.full(count, -1, dtype=np.int64),
        np.full(count, np.nan),
        nothing,
        nothing.copy() if tails else np.empty((count, 0)),
        np.full(count, "", dtype=object),
    )


def _fill(
    block: Block,
    batch: ReadBatch,
    start: int,
    network: Network,
    detectors: Mapping[str, Detector],
    normal: Normal | None,
    needs: Sequence[Any],
    temperature: float,
    batch_size: int,
) -> None:
    """The rows of one batch."""
    for index, reason in batch.errors.items():
        block.errors[index - start] = reason
    if not batch.indices:
        return
    seen = seen_of(network, batch.images, needs, batch_size)
    rows = np.array(batch.indices) - start
    finite = seen[LOGITS].isfinite().all(dim=1)
    if not bool(finite.all()):  # one such image must not end the run
        block.errors[rows[~finite.numpy()]] = NOT_FINITE
        rows, seen = rows[finite.numpy()], seen.subset(finite)
        if not len(rows):
            return
    probabilities = (seen[LOGITS].double() / temperature).softmax(dim=1)
    confidence, prediction = probabilities.max(dim=1)
    block.prediction[rows], block.confidence[rows] = prediction.numpy(), confidence.numpy()
    for column, (name, detector) in enumerate(detectors.items()):
        scores = detector.predict_from(seen)
        block.scores[rows, column] = scores
        if normal is not None:
            block.tails[rows, column] = tail_probability(normal.held_out[name], scores)
