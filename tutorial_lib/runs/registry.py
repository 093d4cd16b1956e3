"""The experiments by name."""

from __future__ import annotations

import importlib

from tutorial_lib.data.registry import suggestion
from tutorial_lib.runs.experiment import Experiment

#: Names of the experiments; each is ``EXPERIMENT`` in the module of its name.
EXPERIMENTS: tuple[str, ...] = (
    "what_is_uncertainty",
    "gradients_as_features",
    "anomaly_detection",
    "gradcon_class",
    "gradcon_condition",
    "severity",
    "out_of_distribution",
    "calibration",
    "introspective_recognition",
    "introspective_ood",
)


def experiment_named(name: str) -> Experiment:
    """An experiment by its name.

    Raises:
        ValueError: no such experiment.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"there is no experiment {name!r}{suggestion(name, EXPERIMENTS)}")
    found: Experiment = importlib.import_module(f"tutorial_lib.experiments.{name}").EXPERIMENT
    return found
