"""The experiments by name, and what can be said of them without importing them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from tutorial_lib.data.registry import suggestion

if TYPE_CHECKING:
    from tutorial_lib.runs.experiment import Experiment

__all__ = ["EXPERIMENTS", "STUDIES", "Summary", "experiment_named"]


class Summary(NamedTuple):
    """Title and studies of an experiment, the same as its module says."""

    title: str
    studies: tuple[str, ...]


#: The experiments; each is ``EXPERIMENT`` in the module of its name.
EXPERIMENTS: Mapping[str, Summary] = {
    "what_is_uncertainty": Summary(
        "confidence on the known and on the unknown; the 1-D example", ("digits", "mnist", "cifar10", "toy")
    ),
    "single_pass_vs_ensembles": Summary(
        "ensembles, dropout, DUQ, DDU and SNGP: what each tells of strangers, and what it costs (chapters 2 and 3)",
        ("digits", "mnist", "cifar10", "moons"),
    ),
    "gradients_as_features": Summary(
        "which way gradient norms point: larger or smaller for strangers, by label, loss, network and seed",
        ("digits", "mnist", "cifar10", "svhn"),
    ),
    "anomaly_detection": Summary(
        "how far do a plane through the normal images, and brightness alone, get? (chapter 5)",
        ("digits", "mnist", "cifar10"),
    ),
    "gradcon_class": Summary(
        "which images are not of the one class that was learned? (chapters 5 and 6)",
        ("digits", "mnist", "cifar10", "mnist_full", "cifar10_full"),
    ),
    "gradcon_condition": Summary(
        "under which conditions was this image taken? (chapter 6)", ("digits", "cifar10", "cure_tsr", "cifar10_full")
    ),
    "severity": Summary(
        "how ill is ill: severity from healthy images alone, and severity bins as contrastive labels (chapter 7)",
        ("digits", "mnist", "pneumonia_mnist", "olives"),
    ),
    "out_of_distribution": Summary(
        "which images are none of those the network was trained for? (chapter 8)",
        ("digits", "mnist", "cifar10", "svhn"),
    ),
    "adversarial": Summary(
        "which images were changed on purpose, and by whom? (chapter 9)",
        ("digits", "cifar10"),
    ),
    "corruption": Summary(
        "which images were corrupted, and how badly? (chapter 10)",
        ("digits", "cifar10", "cure_tsr"),
    ),
    "calibration": Summary(
        "is a network right as often as it says, also when images get worse? (chapter 11)",
        ("cifar10", "svhn", "mnist", "digits"),
    ),
    "introspective_recognition": Summary(
        "does a second look help under corruption? (chapter 12)", ("digits", "mnist", "cifar10", "svhn")
    ),
    "introspective_plugin": Summary(
        "does a second look help networks that already stand corruption? (chapter 13)",
        ("digits", "mnist", "cifar10", "cifar10_full"),
    ),
    "introspective_ood": Summary(
        "are strangers easier to see at a second look? (chapter 13)", ("digits", "mnist", "cifar10", "svhn")
    ),
    "active_learning": Summary(
        "which image should be labelled next, and does a second look know better? (chapter 14)",
        ("digits", "mnist", "cifar10", "cifar10_full"),
    ),
    "image_quality": Summary(
        "how much worse does this picture look? (chapter 15)", ("ladder", "live_crops", "multi_live", "tid2013")
    ),
}

#: Every study that some experiment runs on.
STUDIES: tuple[str, ...] = tuple(dict.fromkeys(study for summary in EXPERIMENTS.values() for study in summary.studies))


def experiment_named(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        ValueError: no such experiment.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"there is no experiment {name!r}{suggestion(name, EXPERIMENTS)}")
    found: Experiment = importlib.import_module(f"tutorial_lib.experiments.{name}").EXPERIMENT
    return found
