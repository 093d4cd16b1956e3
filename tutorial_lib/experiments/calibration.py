"""Calibration of a small and a larger network, on clean and on corrupted images, before and after temperature scaling.

The published table: Guo et al., "On calibration of modern neural networks", ICML 2017, Tables 1, S2 and S3. It compares
LeNet-5 with ResNet-110 and others; ours are this course's LeNet and ResNet-20, trained as this course trains them. The
temperature is fitted on clean validation images and meets the corruptions unprepared.

Command::

    python -m tutorial_lib run calibration --study cifar10 --save

Kept for the figures: confidence and right or wrong of every clean test image, and of the images of `CORRUPTED` at
level 3 of every corruption.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.calibration import (
    TemperatureScaling,
    adaptive_ece,
    brier_score,
    chance_ece,
    confidence_and_correct,
    ece,
    negative_log_likelihood,
    reflected_interval,
    squared_ece,
)
from tutorial_lib.data.corruptions import LEVELS, corrupt, corruption_names
from tutorial_lib.data.images import ImageSet
from tutorial_lib.models.predict import predict_logits
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row, select
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.studies import Study, load_study

__all__ = ["CORRUPTED", "EXPERIMENT", "NETWORKS", "SCALED", "errors_by_level", "from_stored"]

NETWORKS = {"lenet": "LeNet", "resnet20": "ResNet-20"}
"""The networks that are compared, and how a reader calls them."""
CORRUPTED = 2000
"""Test images under each corruption and level, drawn at random with a fixed seed."""
SCALED = "temperature"
"""Method of the rows after temperature scaling; before, it is empty: the network as trained."""


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell a network and seed."""
    return [Cell(EXPERIMENT.name, study, seed, {"network": network}) for seed in seeds for network in NETWORKS]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Measure one network."""
    study, network = load_study(cell.study), cell.settings["network"]
    model = study.classifier(network, seed=cell.seed, device=device)
    scaling = TemperatureScaling().fit(predict_logits(model, study.validation.images), study.validation.labels)
    assert scaling.temperature is not None  # fit has set it
    n = len(study.validation)
    found = [Measurement("", "validation", "temperature", scaling.temperature, n, network=network)]
    kept: dict[str, NDArray[np.generic]] = {}
    for condition, images, labels in _conditions(study):
        logits = predict_logits(model, images)
        answers = {"": logits.double().softmax(dim=1), SCALED: scaling.predict_proba(logits)}
        for method, probabilities in answers.items():
            numbers = _numbers(probabilities, labels, thoroughly=condition == "known")
            found += [
                Measurement(method, condition, metric, value, len(labels), network=network)
                for metric, value in numbers.items()
            ]
            confidence, correct = confidence_and_correct(probabilities, labels)
            if condition == "known" or condition.endswith("/3"):
                # 16 bits over [0, 1]: steps of 1.5e-5, finer than half precision near one, where most of them lie
                part = "scaled" if method == SCALED else "confidence"
                kept[f"{condition}/{part}"] = (confidence * 65535).round().astype(np.uint16)
                kept[f"{condition}/correct"] = correct
    return CellResult(found, kept)


def _conditions(study: Study) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, images and labels of the clean test set, then of every corruption and level."""
    yield "known", study.test.images, study.test.labels
    some: ImageSet = study.test.sample(min(CORRUPTED, len(study.test)), seed=0)
    for name in corruption_names(study.image_shape[0]):
        for level in LEVELS:
            generator = torch.Generator().manual_seed(level)
            yield f"{name}/{level}", corrupt(some.float(), name, level, generator), some.labels


def _numbers(probabilities: Tensor, labels: Tensor, thoroughly: bool) -> dict[str, float]:
    confidence, correct = confidence_and_correct(probabilities, labels)
    numbers = {
        "accuracy": correct.mean(),
        "confidence": confidence.mean(),
        "ece": ece(confidence, correct),
        "nll": negative_log_likelihood(probabilities, labels),
        "brier": brier_score(probabilities, labels),
    }
    if thoroughly:
        numbers["adaptive_ece"] = adaptive_ece(confidence, correct)
        numbers["squared_ece_debiased"] = squared_ece(confidence, correct)
        interval = reflected_interval(ece, confidence, correct)
        numbers["ece_low"], numbers["ece_high"] = interval.low, interval.high
        numbers["ece_chance_95"] = np.quantile(chance_ece(confidence), 0.95)
    return {metric: float(value) for metric, value in numbers.items()}


def from_stored(values: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Confidence in [0, 1] from its stored 16 bits."""
    return values.astype(np.float64) / 65535


def errors_by_level(rows: Sequence[Row], network: str, method: str = "") -> tuple[NDArray[np.float64], list[str]]:
    """ECE of one network by corruption and level, mean over seeds, as `tutorial_lib.figures.calibration` draws it.

    Args:
        rows: of one study.
        network: one of `NETWORKS`.
        method: empty, or `SCALED`.

    Returns:
        errors (C, L + 1), the first column that of all clean test images, and the names of the C corruptions.
    """
    mine = select(rows, network=network, method=method, metric="ece")
    conditions = [row.condition for row in mine if row.condition != "known"]
    names = list(dict.fromkeys(condition.partition("/")[0] for condition in conditions))

    def error(condition: str) -> float:
        return float(np.mean([row.value for row in select(mine, condition=condition)]))

    errors = [[error("known"), *(error(f"{name}/{level}") for level in LEVELS)] for name in names]
    return np.array(errors), names


_DATASETS = {"cifar10": "CIFAR-10", "svhn": "SVHN"}
_METRICS = ("test error %", "ECE %", "ECE % with T", "NLL", "NLL with T")


def table(rows: Sequence[Row]) -> str:
    """Error, ECE and NLL on clean test images beside the published ones, in Markdown; then ECE by corruption level."""
    text = []
    for study in dict.fromkeys(row.study for row in rows):
        mine = [row for row in rows if row.study == study]
        networks = list(dict.fromkeys(row.network for row in mine))
        body = [_ours(mine, network) for network in networks]
        if study in _DATASETS:
            published = read_published("calibration", dataset=_DATASETS[study])
            body += [_theirs(published, network) for network in dict.fromkeys(row["network"] for row in published)]
        text += [f"{study}: clean test images, 15 bins", "", markdown_table(["network", *_METRICS], body), ""]
        levels = [str(level) for level in LEVELS]
        body = [
            [
                NETWORKS[network] + (f" + {method}" if method else ""),
                *(mean_and_spread(_percent(mine, network, method, f"/{level}", "ece")) for level in levels),
            ]
            for network in networks
            for method in ("", SCALED)
        ]
        head = ["ECE %, mean over corruptions", *(f"level {level}" for level in levels)]
        text += [markdown_table(head, body), ""]
    return TableText("\n".join(text))


def _ours(rows: Sequence[Row], network: str) -> list[str]:
    error = [100 - value for value in _percent(rows, network, "", "known", "accuracy")]
    columns = [mean_and_spread(error, 2)]
    for metric, unit in (("ece", 1), ("nll", 100)):
        for method in ("", SCALED):
            values = [value / unit for value in _percent(rows, network, method, "known", metric)]
            columns.append(mean_and_spread(values, 2 if metric == "ece" else 3))
    return [NETWORKS.get(network, network), *columns]


def _theirs(published: Sequence[dict[str, object]], network: str) -> list[str]:
    printed = {str(row["metric"]): f"{row['value']:g}" for row in published if row["network"] == network}
    names = (
        "test_error_percent",
        "ECE15_percent_uncalibrated",
        "ECE15_percent_temperature",
        "NLL_uncalibrated",
        "NLL_temperature",
    )
    return [f"{network} (Guo et al.)", *(printed.get(name, "–") for name in names)]


def _percent(rows: Sequence[Row], network: str, method: str, condition: str, metric: str) -> list[float]:
    """100 times the metric, one value a seed; conditions that end alike are averaged."""
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        asked = (row.network, row.method, row.metric) == (network, method, metric)
        if asked and row.condition.endswith(condition):
            by_seed.setdefault(row.seed, []).append(100 * row.value)
    return [float(np.mean(values)) for values in by_seed.values()]


EXPERIMENT = Experiment(
    "calibration",
    "is a network right as often as it says, also when images get worse? (chapter 11)",
    ("cifar10", "svhn", "mnist", "digits"),
    cells,
    compute,
    table,
)
