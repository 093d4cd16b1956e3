"""Does a second look help under corruption? Accuracy and calibration of a network, of the network that looks twice, and
of the controls (chapter 12).

The slides show accuracy and calibration error of four ResNets on CIFAR-10-C as figures, without numbers. Here: the
study's own network, clean test images and every corruption and level; second networks trained on clean training images
only, augmented as the first network's were, and stopped by clean validation images. Temperatures are fitted on the
validation images, too. ``balanced`` alone looks at the test images as a batch, without their labels.

Rows: ``seed`` is that of the first network and of the views it shows of the training images, ``variant`` that of the
second network's weights and order. Conditions are ``known``, means over all corruptions of a level (``corrupted/3``), and,
for the methods of `DETAILED`, every corruption and level by itself.

    python -m tutorial_lib run introspective_recognition --study digits --seeds 5

Kept for figures: class and confidence of every image under `KEPT`, for each method and the second networks' first seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.calibration import (
    TemperatureScaling,
    brier_score,
    confidence_and_correct,
    ece,
    negative_log_likelihood,
)
from tutorial_lib.data.corruptions import LEVELS, corrupt, corruption_names
from tutorial_lib.introspection import SECOND_LOOKS, Augment, View, balanced_logits, second_network
from tutorial_lib.results.rows import Row
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.runs.observations import cached_views
from tutorial_lib.studies import Study, load_study
from tutorial_lib.training.classifier import TrainingConfig, augment

__all__ = ["EXPERIMENT", "METHODS", "augmented_as_trained", "differences", "mean_over_conditions"]

VIEWS = 8
"""Augmented views of the training images; an epoch of H is one of them."""

TEST_IMAGES = 2000
"""Test images under each corruption and level, drawn at random with a fixed seed."""

FAMILY = "cifar10_c"
"""The published curves are means over the nineteen corruptions of CIFAR-10-C; ours are made anew, and rounded."""

VERSION = 3
"""Of the grid; cells of an older one are computed again."""

CORRUPTED = "corrupted"
"""Condition of the means over all corruptions of a level, ``corrupted/3``."""

SECOND_SEEDS = 5
"""Second networks on each first one."""

TEMPERATURE = "_temperature"
"""What a method's name ends in where a temperature divides its logits."""

DETAILED = ("feed_forward", "feed_forward_balanced", "introspective_ce", "control_features", "control_refit")
"""Methods of which every corruption has rows of its own, for the first of the second networks."""

KEPT = ("known", "gaussian_noise/3", "gaussian_noise/5")
"""Conditions whose answers are kept image by image."""

METHODS = {
    "feed_forward": "one look",
    "feed_forward_temperature": "one look, with temperature",
    "feed_forward_balanced": "one look, classes balanced over the batch",
    **{name: look.title for name, look in SECOND_LOOKS.items()},
    "introspective_ce_temperature": "introspective, cross-entropy, with temperature",
}
"""What is compared, and how a reader calls it."""


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell per first network and seed of the second ones."""
    network = load_study(study).network
    return [
        Cell(EXPERIMENT.name, study, seed, {"network": network, "second": second}, VERSION)
        for seed in seeds
        for second in range(SECOND_SEEDS)
    ]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Train every second network of one seed on one first network, and measure them all."""
    study, network, second = load_study(cell.study), cell.settings["network"], cell.settings["second"]
    model = study.classifier(network, seed=cell.seed, device=device)
    views = cached_views(model, study.train.images, augmented_as_trained(study, network), VIEWS, seed=cell.seed)
    (validation,) = cached_views(model, study.validation.images)
    held_out = study.validation.labels
    networks = {
        name: second_network(name, views[0].logits, second).fit(views, study.train.labels, (*validation, held_out))
        for name in SECOND_LOOKS
    }
    scaled = {
        "feed_forward": TemperatureScaling().fit(validation.logits, held_out),
        "introspective_ce": TemperatureScaling().fit(
            networks["introspective_ce"].predict_logits(*validation), held_out
        ),
    }
    found: list[Measurement] = []
    kept: dict[str, NDArray[np.generic]] = {}
    by_level: dict[tuple[str, str], list[dict[str, float]]] = {}
    n = 0
    for condition, images, labels in conditions(study):
        n = len(labels)
        (seen,) = cached_views(model, images)
        logits = _answers(seen) | {name: h.predict_logits(*seen) for name, h in networks.items()}
        probabilities = {name: z.double().softmax(dim=1) for name, z in logits.items()}
        for name, scaling in scaled.items():
            probabilities[name + TEMPERATURE] = scaling.predict_proba(logits[name])
        for name, answered in probabilities.items():
            if name.startswith("feed_forward") and second:
                continue  # measured once for each first network
            confidence, correct = confidence_and_correct(answered, labels)
            numbers = _numbers(answered, confidence, correct, labels)
            level = condition.partition("/")[2]
            by_level.setdefault((name, f"{CORRUPTED}/{level}" if level else condition), []).append(numbers)
            if level and name in DETAILED and second == 0:
                found += _rows(name, condition, {m: numbers[m] for m in ("accuracy", "ece")}, n, network, second)
            if condition in KEPT and second == 0:
                kept[f"{condition}/{name}/confidence"] = (confidence * 65535).round().astype(np.uint16)
                kept[f"{condition}/{name}/answer"] = answered.argmax(dim=1).numpy().astype(np.uint8)
        if condition in KEPT and second == 0:
            kept[f"{condition}/label"] = labels.numpy().astype(np.uint8)
    for (name, condition), several in by_level.items():
        means = {metric: float(np.mean([numbers[metric] for numbers in several])) for metric in several[0]}
        found += _rows(name, condition, means, n * len(several), network, second)
    return CellResult(found, kept)


def _rows(
    name: str, condition: str, numbers: Mapping[str, float], n: int, network: str, second: int
) -> list[Measurement]:
    """A method's numbers as rows; those of the first network do not depend on the second one's seed."""
    variant = "" if name.startswith("feed_forward") else str(second)
    return [Measurement(name, condition, m, v, n, network=network, variant=variant) for m, v in numbers.items()]


def augmented_as_trained(study: Study, network: str) -> Augment:
    """The random changes that a study's recipe makes to training images, as a function for `cached_views`."""
    recipe = TrainingConfig(**study.recipes.get(network, study.recipes[""]))

    def changed(images: Tensor, generator: torch.Generator) -> Tensor:
        return augment(images, torch.arange(len(images)), recipe.shift, recipe.flip, generator, recipe.border)

    return changed


def conditions(study: Study) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Name, images and labels of the clean test images, then of every corruption and level of the same images."""
    some = study.test.sample(min(TEST_IMAGES, len(study.test)), seed=0)
    yield "known", some.images, some.labels
    for name in corruption_names(study.image_shape[0], FAMILY):
        for level in LEVELS:
            generator = torch.Generator().manual_seed(0)
            yield f"{name}/{level}", corrupt(some.images, name, level, generator, family=FAMILY), some.labels


def _answers(seen: View) -> dict[str, Tensor]:
    return {"feed_forward": seen.logits, "feed_forward_balanced": balanced_logits(seen.logits)}


def _numbers(
    probabilities: Tensor, confidence: NDArray[np.floating], correct: NDArray[np.bool_], labels: Tensor
) -> dict[str, float]:
    return {
        "accuracy": float(correct.mean()),
        "ece": ece(confidence, correct),
        "nll": negative_log_likelihood(probabilities, labels),
        "brier": brier_score(probabilities, labels),
    }


def mean_over_conditions(rows: Sequence[Row], method: str, metric: str, level: int | None = None) -> dict[int, float]:
    """Mean of a metric over all corruptions (of one level, or of all) and second networks, for each first network.

    Args:
        rows: of one study.
        method: a name in `METHODS`.
        metric: ``"accuracy"``, ``"ece"``, ``"nll"`` or ``"brier"``.
        level: 1 to 5; 0 for clean images; None for all corrupted ones.
    """
    values: dict[int, list[float]] = {}
    for row in rows:
        name, _, _ = row.condition.partition("/")
        wanted = name == CORRUPTED if level is None else row.condition == (f"{CORRUPTED}/{level}" if level else "known")
        if wanted and row.method == method and row.metric == metric:
            values.setdefault(row.seed, []).append(row.value)
    return {seed: float(np.mean(found)) for seed, found in sorted(values.items())}


def differences(rows: Sequence[Row], method: str, metric: str, level: int | None = None) -> list[float]:
    """A method's metric less that of one look, one number per first network: the same images, the same network."""
    mine = mean_over_conditions(rows, method, metric, level)
    other = mean_over_conditions(rows, "feed_forward", metric, level)
    return [mine[seed] - other[seed] for seed in mine if seed in other]


def table(rows: Sequence[Row]) -> str:
    """Accuracy and calibration error, clean and corrupted, and the difference to one look, in Markdown."""
    text = []
    head = ["", "clean %", "corrupted %", "difference", "ECE clean %", "ECE corrupted %", "difference"]
    for study in dict.fromkeys(row.study for row in rows):
        mine = [row for row in rows if row.study == study]
        body = []
        for method, title in METHODS.items():
            line = [title]
            for metric in ("accuracy", "ece"):
                for level in (0, None):
                    line.append(_percent(mean_over_conditions(mine, method, metric, level).values()))
                line.append(_percent(differences(mine, method, metric)))
            body.append(line)
        seeds = len({row.seed for row in mine})
        text += [f"{study}: mean ± standard deviation over {seeds} first networks", "", markdown_table(head, body), ""]
    return TableText("\n".join(text))


def _percent(values: object) -> str:
    return mean_and_spread([100 * value for value in values], 2)  # type: ignore[attr-defined]


EXPERIMENT = Experiment(
    "introspective_recognition",
    "does a second look help under corruption? (chapter 12)",
    ("digits", "mnist", "cifar10", "svhn"),
    cells,
    compute,
    table,
)
