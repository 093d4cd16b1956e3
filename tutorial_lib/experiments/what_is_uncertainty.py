"""Confidence where it is earned and where it is not: what chapter 1 shows, at the scale of a whole study.

No table is published for this. Two things are measured.

* Image studies: a trained classifier meets its own test images and every shift that is on this machine. How confident
  is it, how often is it right, how often is it sure? A sample of the confidences is kept for histograms.
* Study ``toy``: the deep ensemble of the 1-D example, for several numbers of training points and several noise levels.
  The curves of mean, data and model uncertainty are kept; the explorable picture of the chapter shows them.

Command::

    python -m tutorial_lib run what_is_uncertainty --study cifar10 --save
    python -m tutorial_lib run what_is_uncertainty --study toy --save
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from tutorial_lib.models.predict import predict_probabilities
from tutorial_lib.results.rows import Row
from tutorial_lib.results.stored import stored_arrays
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.studies import load_study
from tutorial_lib.uncertainty.decomposition import decompose_regression
from tutorial_lib.uncertainty.ensembles import train_regression_ensemble
from tutorial_lib.uncertainty.toy import evaluation_inputs, regions, toy_regression

__all__ = ["EXPERIMENT", "NOISE_SLOPES", "POINTS", "SURE", "TOY_INPUTS", "stored_confidences", "stored_curves"]

SURE = 0.9
"""A confidence from which on an answer counts as sure."""
KEPT = 2000
"""Confidences kept of each set of images, drawn at random with a fixed seed."""

POINTS = (10, 20, 40, 80, 160, 320)
"""Numbers of training points of the 1-D example; 40 is the original's."""
NOISE_SLOPES = (0.05, 0.1, 0.2, 0.4)
"""Slopes of its noise, see `tutorial_lib.uncertainty.toy.noise_std`; 0.2 is the original's."""
TOY_INPUTS = 151
"""Inputs on [-1.5, 1.5] at which its curves are kept."""
MEMBERS = 5


def stored_confidences(study: str) -> dict[str, np.ndarray]:
    """Confidences in [0, 1] of up to 2,000 images a condition, as the command stored them; ``"known"`` comes first."""
    stored = stored_arrays(EXPERIMENT.name, study)
    return {name.rpartition("/")[2]: values / 65535 for name, values in stored.items()}


def stored_curves(points: int, noise: float) -> dict[str, np.ndarray]:
    """Curves of the 1-D ensemble at `TOY_INPUTS` inputs: ``mean``, and as standard deviations its two uncertainties.

    Args:
        points: one of `POINTS`.
        noise: one of `NOISE_SLOPES`.
    """
    if points not in POINTS or noise not in NOISE_SLOPES:
        raise ValueError(f"stored are {POINTS} points and noise {NOISE_SLOPES}, not {points} and {noise}")
    stored = stored_arrays(EXPERIMENT.name, "toy")
    return {part: stored[f"{noise}/{points}/{part}"].astype(np.float64) for part in ("mean", "aleatoric", "epistemic")}


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell a seed for a study of images; one a seed, number of points and noise level for ``toy``."""
    if study == "toy":
        grid: list[dict[str, object]] = [{"points": n, "noise": slope} for n in POINTS for slope in NOISE_SLOPES]
    else:
        grid = [{"network": load_study(study).network}]
    return [Cell(EXPERIMENT.name, study, seed, settings) for seed in seeds for settings in grid]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Measure one cell."""
    return _toy(cell, device) if cell.study == "toy" else _images(cell, device)


def _images(cell: Cell, device: torch.device) -> CellResult:
    study, network = load_study(cell.study), cell.settings["network"]
    model = study.classifier(network, seed=cell.seed, device=device)
    measurements: list[Measurement] = []
    kept = {}
    for condition in ("known", *study.available_shifts()):
        images = study.test if condition == "known" else study.shift(condition)
        confidence, answer = predict_probabilities(model, images.images).max(dim=1)
        numbers = {"confidence": confidence.mean(), "sure": (confidence >= SURE).double().mean()}
        if condition == "known" or study.shifts[condition].kind == "covariate":  # elsewhere no answer is right
            numbers["accuracy"] = (answer == images.labels).double().mean()
        measurements += [
            Measurement("", condition, metric, float(value), len(images), network=network)
            for metric, value in numbers.items()
        ]
        chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:KEPT]
        # 16 bits over [0, 1]: steps of 1.5e-5, finer than half precision near one, where most of them lie
        kept[condition] = (confidence[chosen] * 65535).round().numpy().astype(np.uint16)
    return CellResult(measurements, kept)


def _toy(cell: Cell, device: torch.device) -> CellResult:
    points, slope = cell.settings["points"], cell.settings["noise"]
    x, y = toy_regression(points, slope)
    seeds = range(MEMBERS * cell.seed, MEMBERS * (cell.seed + 1))
    ensemble = train_regression_ensemble(x.to(device), y.to(device), seeds)
    inputs = evaluation_inputs(TOY_INPUTS)
    means, variances = ensemble(inputs.to(device))
    parts = decompose_regression(means.cpu(), variances.cpu())
    curves = {"mean": means.mean(0).cpu(), "aleatoric": parts.aleatoric.sqrt(), "epistemic": parts.epistemic.sqrt()}
    condition = f"{points} points, noise {slope}"
    measurements = [
        Measurement(
            f"ensemble of {MEMBERS}", f"{condition}: {region}", f"{part}_std", float(curves[part][where].mean()), points
        )
        for region, mask in regions(inputs).items()
        for part in ("aleatoric", "epistemic")
        for where in [mask[:, 0]]
    ]
    return CellResult(measurements, {name: curve.numpy().astype(np.float32) for name, curve in curves.items()})


def table(rows: Sequence[Row]) -> str:
    """One line a condition, mean over seeds, in Markdown."""
    lines = []
    for study in dict.fromkeys(row.study for row in rows):
        mine = [row for row in rows if row.study == study]
        metrics = list(dict.fromkeys(row.metric for row in mine))
        lines += [f"| {study} | n | {' | '.join(metrics)} | seeds |", "|---" * (len(metrics) + 3) + "|"]
        for condition in dict.fromkeys(row.condition for row in mine):
            here = [row for row in mine if row.condition == condition]
            values = [[row.value for row in here if row.metric == metric] for metric in metrics]
            numbers = [f"{np.mean(found):.3f}" if found else "" for found in values]
            seeds = len({row.seed for row in here})
            lines.append(f"| {condition} | {here[0].n} | {' | '.join(numbers)} | {seeds} |")
        lines.append("")
    return "\n".join(lines)


EXPERIMENT = Experiment(
    "what_is_uncertainty",
    "confidence on the known and on the unknown; the 1-D example",
    ("digits", "mnist", "cifar10", "toy"),
    cells,
    compute,
    table,
)
