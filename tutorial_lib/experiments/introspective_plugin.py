"""Introspection plugged into first networks that already stand corruption (chapter 13).

The published table (slide table 1; Prabhushankar and AlRegib, NeurIPS 2022): accuracy on CIFAR-10-C of six first networks,
and of the same networks with a second one on their gradients. Here: the kinds of `tutorial_lib.training.robust`, second
networks trained on clean training images, shifted as the plain network's were, and, beside the introspective ones, the
controls: the same second network on features and on logits, the last layer trained again, classes balanced over the
batch, and a temperature. Every difference is taken on the same images and the same first network.

Rows: ``protocol`` is the kind of the first network, ``method`` who answers, ``seed`` that of the first network and of its
second ones, so that an interval over seeds holds the chance of both. Conditions are ``known`` and means over all
corruptions of a level, ``corrupted/3``.

    python -m tutorial_lib run introspective_plugin --study digits --seeds 5
    python -m tutorial_lib run introspective_plugin --study cifar10 --seeds 3
    python -m tutorial_lib run introspective_plugin --study cifar10_full --seeds 3 --device cuda

The study ``cifar10`` has the first networks that need no training besides the plain one's, ``cifar10_full`` has all.

Kept for intervals over images: ``METHOD/right``, for every test image under how many corruptions and levels it is
recognised, of the first seed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutorial_lib.calibration import TemperatureScaling, confidence_and_correct, ece
from tutorial_lib.experiments.introspective_recognition import (
    CORRUPTED,
    VIEWS,
    augmented_as_trained,
    conditions,
    mean_over_conditions,
)
from tutorial_lib.introspection import (
    SECOND_LOOKS,
    IntrospectiveNetwork,
    View,
    balanced_logits,
    second_network,
)
from tutorial_lib.metrics import mean_interval
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.runs.observations import cached_views
from tutorial_lib.studies import Study, load_study
from tutorial_lib.training.robust import KINDS, robust_classifier

__all__ = ["EXPERIMENT", "METHODS", "PUBLISHED", "command", "gains", "interval_text", "published_accuracy"]

SECOND = ("introspective_ce", "introspective_mse", "control_features", "control_logits", "control_refit")
"""Second networks that are trained on every first one."""

TEMPERATURE = "feed_forward_temperature"

METHODS = {
    "feed_forward": "one look",
    TEMPERATURE: "one look, with temperature",
    **{name: SECOND_LOOKS[name].title for name in SECOND},
    "feed_forward_balanced": "one look, classes balanced over the batch",
}
"""Who answers, and how a reader calls it."""

FIRST = {"cifar10": ("plain", "denoised")}
"""First networks by study; on other studies all."""

PUBLISHED = {
    "plain": "ResNet-18",
    "denoising": "Denoising",
    "adversarial": "Adversarial training",
    "simclr": "SimCLR",
    "noise": "Augment noise",
    "augmix": "AugMix",
}
"""What the published table calls them. Whether its denoising was trained on denoised images the slides do not say."""

VERSION = 1
"""Of the grid; cells of an older one are computed again."""


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """Two cells per first network and seed: one with second networks, and one with a temperature, which needs none."""
    network = _study(study).network
    return [
        Cell(EXPERIMENT.name, study, seed, {"network": network, "first": kind, **settings}, VERSION)
        for seed in seeds
        for kind in FIRST.get(study, tuple(KINDS))
        for settings in ({}, {"answers": TEMPERATURE})
    ]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Train the second networks on one first network, or fit its temperature, and measure, clean and corrupted."""
    study, network, kind = _study(cell.study), cell.settings["network"], cell.settings["first"]
    model = robust_classifier(study, kind, network, cell.seed).to(device)
    answers = (
        _temperature(study, model)
        if cell.settings.get("answers") == TEMPERATURE
        else _looks(study, network, model, cell.seed)
    )
    numbers: dict[tuple[str, str], list[tuple[float, float]]] = {}
    right: dict[str, NDArray[np.uint8]] = {}
    n: dict[str, int] = {}
    for condition, images, labels in conditions(study):
        level = condition.partition("/")[2]
        (seen,) = cached_views(model, images)
        place = f"{CORRUPTED}/{level}" if level else condition
        n[place] = n.get(place, 0) + len(labels)
        for name, answer in answers.items():
            confidence, correct = confidence_and_correct(answer(seen).double().softmax(dim=1), labels)
            numbers.setdefault((name, place), []).append((float(correct.mean()), ece(confidence, correct)))
            if level:
                right[name] = right.get(name, np.zeros(len(labels), np.uint8)) + correct
    found = [
        Measurement(name, place, metric, value, n[place], network=network, protocol=kind)
        for (name, place), several in numbers.items()
        for metric, value in zip(("accuracy", "ece"), np.mean(several, axis=0), strict=True)
    ]
    return CellResult(found, {f"{name}/right": counts for name, counts in right.items()})


Answers = dict[str, Callable[[View], Tensor]]
"""From what a first network shows to logits (N, K), by method."""


def _looks(study: Study, network: str, model: nn.Module, seed: int) -> Answers:
    answers: Answers = {
        "feed_forward": lambda seen: seen.logits,
        "feed_forward_balanced": lambda seen: balanced_logits(seen.logits),
    }
    for name, h in second_networks(study, network, model, seed).items():
        answers[name] = lambda seen, h=h: h.predict_logits(*seen)  # type: ignore[misc]
    return answers


def _temperature(study: Study, model: nn.Module) -> Answers:
    """A temperature fitted on the validation images; 1 where all of them are recognised and none can be fitted."""
    (held_out,) = cached_views(model, study.validation.images)
    all_right = bool((held_out.logits.argmax(dim=1) == study.validation.labels).all())
    scaling = TemperatureScaling(1.0) if all_right else TemperatureScaling()
    if not all_right:
        scaling.fit(held_out.logits, study.validation.labels)
    return {TEMPERATURE: lambda seen: scaling.transform(seen.logits)}


def second_networks(
    study: Study,
    network: str,
    model: nn.Module,
    seed: int = 0,
    names: Iterable[str] = SECOND,
    views: int | None = None,
    epochs: int = 200,
) -> dict[str, IntrospectiveNetwork]:
    """Second networks of every kind on one first network, trained on the same views of the study's training images.

    Args:
        study: whose images they are.
        network: name of the architecture, whose recipe says how training images are shifted.
        model: the first network.
        seed: of the second networks and of the views.
        names: which ones, of ``tutorial_lib.introspection.SECOND_LOOKS``.
        views: of the training images; as many as in chapter 12 when left out.
        epochs: at most.
    """
    seen = cached_views(model, study.train.images, augmented_as_trained(study, network), views or VIEWS, seed=seed)
    (held_out,) = cached_views(model, study.validation.images)
    validation: tuple[Tensor, Tensor, Tensor] = (*held_out, study.validation.labels)
    return {
        name: second_network(name, seen[0].logits, seed, epochs=epochs).fit(seen, study.train.labels, validation)
        for name in names
    }


def _study(name: str) -> Study:
    return load_study(name.removesuffix("_full"))


def command(study: str) -> str:
    """What runs the first networks that a study's rows lack."""
    full = {"cifar10": "cifar10_full --seeds 3 --device cuda"}.get(study, f"{study} --seeds 5")
    return f"python -m tutorial_lib run {EXPERIMENT.name} --study {full}"


def gains(
    rows: Sequence[Row],
    kind: str,
    method: str,
    metric: str = "accuracy",
    level: int | None = None,
    over: str = "feed_forward",
) -> list[float]:
    """What a method has more than another on the same images and first network, one number per first network.

    Args:
        rows: of one study.
        kind: of first network, one of ``tutorial_lib.training.robust.KINDS``.
        method, over: names in `METHODS`.
        metric: ``"accuracy"`` or ``"ece"``.
        level: 1 to 5; 0 for clean images; None for all corrupted ones.

    Returns:
        differences in percentage points.
    """
    mine = [row for row in rows if row.protocol == kind]
    one, other = (mean_over_conditions(mine, name, metric, level) for name in (method, over))
    return [100 * (one[seed] - other[seed]) for seed in one if seed in other]


def interval_text(values: Sequence[float], digits: int = 2) -> str:
    """Mean of paired differences, and its 95 % interval if there are two or more; a dash for none.

    >>> interval_text([1.0, 1.0]), interval_text([1.0]), interval_text([])
    ('+1.00 [+1.00, +1.00]', '+1.00', '–')
    """
    if len(values) < 2:
        return f"{values[0]:+.{digits}f}" if values else "–"
    found = mean_interval(values)
    return f"{found.value:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def published_accuracy(kind: str) -> tuple[float, float] | None:
    """Published accuracy in percent, feed-forward and introspective; None where the table has no such network."""
    if kind not in PUBLISHED:
        return None
    feed_forward, introspective = (
        read_published(EXPERIMENT.name, method=PUBLISHED[kind], inference=inference)[0]["value"]
        for inference in ("feed-forward", "introspective")
    )
    return feed_forward, introspective


def table(rows: Sequence[Row]) -> str:
    """Accuracy of every first network beside the published one; then gains with paired intervals. In Markdown."""
    text = []
    for study in dict.fromkeys(row.study for row in rows):
        mine = [row for row in rows if row.study == study]
        seeds = len({row.seed for row in mine})
        text += [
            f"{study}: accuracy %, clean and under corruption, mean ± standard deviation over {seeds} first networks, and "
            "what the introspective network gains; last: the published ones on CIFAR-10-C",
            "",
            _accuracies(mine),
            "",
        ]
        if any(kind not in {row.protocol for row in mine} for kind in KINDS):
            text += [f"not run: {command(study)}", ""]
        for metric, title in (("accuracy", "accuracy"), ("ece", "calibration error")):
            text += [
                f"{study}: {title} under corruption less that of one look, percentage points, with 95 % intervals over "
                "first networks; last column: introspective less H on features",
                "",
                _differences(mine, metric),
                "",
            ]
    return TableText("\n".join(text))


def _accuracies(rows: Sequence[Row]) -> str:
    head = ["first network", "clean", "one look", "second gains", "published", "gains"]
    body = []
    for kind, title in KINDS.items():
        mine = [row for row in rows if row.protocol == kind]
        entries = [_percent(mean_over_conditions(mine, "feed_forward", "accuracy", level)) for level in (0, None)]
        entries.append(mean_and_spread(gains(rows, kind, "introspective_ce"), 2))
        published = published_accuracy(kind)
        theirs = [f"{published[0]:.2f}", f"{published[1] - published[0]:.2f}"] if published else ["–"] * 2
        body.append([title, *(entries if mine else ["not run"] * 3), *theirs])
    return markdown_table(head, body)


def _differences(rows: Sequence[Row], metric: str) -> str:
    no_news = ("feed_forward", *([TEMPERATURE] if metric == "accuracy" else []))  # a temperature changes no answer
    shown = [name for name in METHODS if name not in no_news]
    body = [
        [
            KINDS[kind],
            *(interval_text(gains(rows, kind, name, metric), 1) for name in shown),
            interval_text(gains(rows, kind, "introspective_ce", metric, over="control_features"), 1),
        ]
        for kind in KINDS
        if any(row.protocol == kind for row in rows)
    ]
    return markdown_table(["first network", *(_SHORT[name] for name in shown), "the question"], body)


_SHORT = {
    TEMPERATURE: "temperature",
    "introspective_ce": "gradients, CE",
    "introspective_mse": "gradients, MSE",
    "control_features": "H on features",
    "control_logits": "H on logits",
    "control_refit": "last layer again",
    "feed_forward_balanced": "balanced",
}


def _percent(values: Mapping[int, float]) -> str:
    return mean_and_spread([100 * value for value in values.values()])


EXPERIMENT = Experiment(
    "introspective_plugin",
    "does a second look help networks that already stand corruption? (chapter 13)",
    ("digits", "mnist", "cifar10", "cifar10_full"),
    cells,
    compute,
    table,
)
