"""Many test sets, many ways to fit, one pass through the network: what the tables of chapters 9 and 10 share.

A second stage that is fitted forty times on different corruptions looks at the same features every time. Here they are
taken once for every set of images, and the fits are made on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors.evidence import Evidence
from tutorial_lib.experiments.out_of_distribution import Method
from tutorial_lib.metrics import auroc
from tutorial_lib.runs.experiment import Measurement
from tutorial_lib.runs.observations import cached_observation

__all__ = ["LABEL_FREE", "Comparison", "Task", "caught", "measured", "scored"]

LABEL_FREE = (
    "msp",
    "energy",
    "mahalanobis",
    "gradient_density",
    "activation_density",
    "gradient_fusion",
    "activation_fusion",
)
"""Methods that learn from known images alone, which both tables have."""

FALSE_ALARMS = 0.05
"""Share of the known test images that a detector may raise an alarm for."""


@dataclass(frozen=True)
class Task:
    """One fit and what is scored with it.

    Args:
        learn: names of the sets to learn from; a detector that learns from known images alone ignores them.
        test: names of the sets to score.
        seen: what the row says about it: ``"same"``, ``"other"``; ``"none"`` is filled in for label-free detectors.
        protocol: which part of the table it belongs to; empty for the published one.
    """

    learn: tuple[str, ...]
    test: tuple[str, ...]
    seen: str = "same"
    protocol: str = ""


@dataclass(frozen=True)
class Comparison:
    """The images of a comparison. What is learned from and what is tested on come from different photographs.

    Args:
        train: labelled training images, for detectors whose paper wants them.
        held_out: known images to fit on, which the network was not trained on.
        known: known images to test on.
        to_learn: sets to learn from, by name, made of ``held_out``.
        to_test: sets to score, by name, made of ``known``.
    """

    train: ImageSet
    held_out: ImageSet
    known: ImageSet
    to_learn: Mapping[str, ImageSet]
    to_test: Mapping[str, ImageSet]


Scores = NDArray[np.float64]


def scored(
    method: Method, model: nn.Module, seed: int, images: Comparison, tasks: Sequence[Task]
) -> Iterator[tuple[Task, str, Scores, Scores]]:
    """Every task's test sets: (task, name of the set, scores of the known images, scores of the set).

    A label-free detector is fitted once and scores every set once, under the first task that names it.
    """
    detector = method.make(model, seed)

    def look(part: ImageSet, to_fit: bool = False) -> Evidence:
        return cached_observation(model, part, detector.needs_to_fit() if to_fit else detector.needs())

    if detector.uses_reference:
        detector.fit_reference(images.train)
    if not detector.supervised:
        if detector.requires_fit:
            detector.fit_from(look(images.train if detector.from_training_images else images.held_out, to_fit=True))
        scores_in = detector.predict_from(look(images.known))
        for name in dict.fromkeys(name for task in tasks for name in task.test):
            yield Task((), (name,), "none"), name, scores_in, detector.predict_from(look(images.to_test[name]))
        return
    # all looks come before the first fit: a detector that chooses its settings then needs only what it has chosen
    held_out, known = look(images.held_out, to_fit=True), look(images.known)
    to_learn = dict.fromkeys(name for task in tasks for name in task.learn)
    to_test = dict.fromkeys(name for task in tasks for name in task.test)
    learned = {name: look(images.to_learn[name], to_fit=True) for name in to_learn}
    tested = {name: look(images.to_test[name]) for name in to_test}
    for task in tasks:
        detector.fit_from(held_out, Evidence.together(learned[name] for name in task.learn))
        scores_in = detector.predict_from(known)
        for name in task.test:
            yield task, name, scores_in, detector.predict_from(tested[name])


def caught(scores_in: Scores, scores_out: Scores, false_alarms: float = FALSE_ALARMS) -> float:
    """Share of the strange images above the score that a share ``false_alarms`` of the known ones exceeds.

    >>> caught(np.arange(100.0), np.array([50.0, 94.5, 99.0, 200.0]))
    0.5
    """
    threshold = np.quantile(scores_in, 1 - false_alarms, method="higher")
    return float((scores_out > threshold).mean())


def measured(
    method: str, condition: str, scores_in: Scores, scores_out: Scores, task: Task, network: str, variant: str = ""
) -> list[Measurement]:
    """AUROC and the share caught at 5 % false alarms, as rows."""
    n = len(scores_in) + len(scores_out)
    values = {"auroc": auroc(scores_in, scores_out), "caught_at_5_percent": caught(scores_in, scores_out)}
    return [
        Measurement(method, condition, metric, value, n, task.seen, network, variant, task.protocol)
        for metric, value in values.items()
    ]
