r"""How far do a plane and two controls get? What of chapter 5 needs no training, on the splits of GradCON.

Each class in turn is normal (`tutorial_lib.gradcon.one_class_split`). Scores, larger = stranger:

============= ====================================================================================
plane/recon/r reconstruction error of the plane of r directions (`tutorial_lib.models.plane.Plane`)
plane/size/r  squared norm of that error's gradient with respect to the decoder's weights
brightness    mean of all pixels
complexity    total variation
============= ====================================================================================

In result rows the network is ``plane``, the method ``recon`` or ``size``, and the variant r.

    python -m tutorial_lib run anomaly_detection --study cifar10

A seed draws the strangers anew; nothing else is random. What has to be trained stands in `gradcon_class`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from tutorial_lib.data import DATASETS
from tutorial_lib.detectors import Brightness, Complexity, ReconstructionError
from tutorial_lib.gradcon import one_class_split
from tutorial_lib.gradients import squared_norms
from tutorial_lib.metrics import auroc
from tutorial_lib.models.plane import Plane
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement

__all__ = ["DIRECTIONS", "EXPERIMENT", "beside_published", "by_class", "mean_auroc", "mean_of", "seeds_by_class"]

NAME = "anomaly_detection"

#: Numbers of directions by study.
DIRECTIONS: Mapping[str, tuple[int, ...]] = {
    "digits": (0, 1, 2, 4, 8, 16, 32, 48, 60),
    "mnist": (0, 1, 4, 16, 64, 256, 512),
    "cifar10": (0, 1, 4, 16, 64, 256, 1024),
}


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell a class and seed."""
    count = len(DATASETS[study].class_names)
    ranks = list(DIRECTIONS[study])
    return [Cell(NAME, study, seed, {"normal": c, "directions": ranks}) for seed in seeds for c in range(count)]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Fit the planes to one class, and score normal and strange test images."""
    normal = cell.settings["normal"]
    split = one_class_split(cell.study, normal, seed=cell.seed)
    condition = DATASETS[cell.study].class_names[normal]
    sides = (split.normal, split.strange)
    n = len(split.normal) + len(split.strange)
    scored = {  # by network, method and variant
        ("", "brightness", ""): [Brightness().predict(side) for side in sides],
        ("", "complexity", ""): [Complexity().predict(side) for side in sides],
    }
    widest = Plane(split.train.images, max(cell.settings["directions"])).to(device)
    for r in cell.settings["directions"]:
        plane = widest.narrowed(r)
        scored["plane", "recon", str(r)] = [ReconstructionError(plane).predict(side) for side in sides]
        if r:
            scored["plane", "size", str(r)] = [
                squared_norms(plane, side.float().to(device), "input", "mse", parameters=["decoder.weight"])[0][:, 0]
                .cpu()
                .numpy()
                for side in sides
            ]
    return CellResult(
        [
            Measurement(method, condition, "auroc", auroc(*both), n, network=network, variant=variant)
            for (network, method, variant), both in scored.items()
        ]
    )


def by_class(rows: Sequence[Row], method: str) -> dict[str, float]:
    """AUROC of a method by normal class, mean over seeds, in the order of the rows.

    Args:
        rows: of one study.
        method: the rows' `Row.series`, e.g. ``"plane/recon/16"``.

    Raises:
        ValueError: no such method.
    """
    mine = [row for row in rows if row.series == method and row.metric == "auroc"]
    if not mine:
        raise ValueError(f"no rows of {method!r}; there are {', '.join(dict.fromkeys(row.series for row in rows))}")
    classes = dict.fromkeys(row.condition for row in mine)
    return {name: float(np.mean([row.value for row in mine if row.condition == name])) for name in classes}


def seeds_by_class(rows: Sequence[Row], method: str) -> dict[str, list[float]]:
    """AUROC of a method by normal class, one value a seed; of any experiment with one class normal. Empty without rows."""
    mine = [row for row in rows if row.series == method and row.metric == "auroc"]
    classes = dict.fromkeys(row.condition for row in mine)
    return {name: [row.value for row in mine if row.condition == name] for name in classes}


def mean_of(classes: Mapping[str, float | Sequence[float]]) -> float:
    """Mean over classes, in each of them over the seeds first."""
    return float(np.mean([np.mean(values) for values in classes.values()]))


def mean_auroc(rows: Sequence[Row], method: str) -> float:
    """Mean over classes of `by_class`."""
    return float(np.mean(list(by_class(rows, method).values())))


def table(rows: Sequence[Row]) -> TableText:
    """AUROC of every method by normal class, mean and spread over draws of the strangers."""
    blocks = []
    for study in dict.fromkeys(row.study for row in rows):
        mine = [row for row in rows if row.study == study]
        classes, seeds = list(dict.fromkeys(row.condition for row in mine)), {row.seed for row in mine}
        body = []
        for series in dict.fromkeys(row.series for row in mine):
            values = [[r.value for r in mine if (r.series, r.condition) == (series, name)] for name in classes]
            means = [float(np.mean([r.value for r in mine if (r.series, r.seed) == (series, seed)])) for seed in seeds]
            body.append([_title(series), *(mean_and_spread(found, 3) for found in values), mean_and_spread(means, 3)])
        blocks += [
            f"{study}: AUROC by normal class, larger score = stranger; {len(seeds)} draw(s) of the strangers.",
            markdown_table(["method", *classes, "mean"], body),
        ]
    return TableText("\n\n".join(blocks))


def beside_published(rows: Sequence[Row]) -> TableText:
    """The published row of an autoencoder's reconstruction error, and under it planes and controls by class.

    The last column is the correlation over classes with the published row.

    Args:
        rows: of one study on CIFAR-10, the images of the published row, with every class in them.
    """
    printed = {row["condition"]: row["value"] for row in read_published("gradcon_class", method="cae/recon")}
    classes = list(DATASETS["cifar10"].class_names)
    published = [printed[name] for name in classes]
    body = [["autoencoder (Kwon et al.)", *(f"{value:.3f}" for value in published), f"{printed['mean']:.3f}", ""]]
    ways = [series for series in dict.fromkeys(row.series for row in rows) if not series.startswith("plane/size")]
    for series in ways:
        of_class = by_class(rows, series)
        values = [of_class[name] for name in classes]
        likeness = np.corrcoef(values, published)[0, 1]
        entries = [*(f"{value:.3f}" for value in values), f"{np.mean(values):.3f}", f"{likeness:.2f}"]
        body.append([f"{_title(series)} (ours)", *entries])
    return TableText(markdown_table(["score", *classes, "mean", "correlation"], body))


def _title(series: str) -> str:
    """``plane 16/recon`` for ``plane/recon/16``."""
    network, _, rest = series.partition("/")
    way, _, directions = rest.partition("/")
    return f"{network} {directions}/{way}" if rest else series


EXPERIMENT = Experiment(
    NAME,
    "how far do a plane through the normal images, and brightness alone, get? (chapter 5)",
    tuple(DIRECTIONS),
    cells,
    compute,
    table,
)
