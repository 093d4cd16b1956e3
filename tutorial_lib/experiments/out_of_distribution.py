r"""Which images are none of those the network was trained for? The tables of chapter 8.

Every detector of `tutorial_lib.detectors` meets every shift of a study that this machine has, under one split:

* what a detector learns of known images, it learns from the validation images (and, where a paper says so, from the
  training images), never from those it is tested on;
* of each set of challenging images, 40 % may be learned from and 60 % are tested on. The side goes by the source
  image, so that a rotated digit and the digit itself are never on different sides;
* a detector that learns from challenging images appears twice: fitted on the set it is tested on, as published
  (challenging data ``same``), and fitted on all the other sets (``other``).

    python -m tutorial_lib run out_of_distribution --study digits --seeds 3

The published table: Lee et al., "Probing the purview of neural networks via gradient analysis", IEEE Access 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tutorial_lib import detectors
from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.second_stage import SecondStageDetector
from tutorial_lib.detectors.tuned import Tuned
from tutorial_lib.experiments.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.experiments.rows import Row
from tutorial_lib.experiments.tables import markdown_table, mean_and_spread
from tutorial_lib.metrics import summary
from tutorial_lib.studies import STUDIES, Study, load_study

__all__ = ["EXPERIMENT", "METHODS", "Method", "challenging_sides"]

NAME = "out_of_distribution"

LIMIT = 2000
"""Images of each set, drawn at random with a fixed seed from larger ones."""

FIT_SHARE = 0.4
"""Share of each challenging set that a detector may learn from; the others are tested on."""


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Args:
        name: in result rows.
        title: for readers.
        make: from a classifier and a seed to a detector.
        wants: what ``fit`` gets: ``"nothing"``; ``"validation"``; ``"train"``: labelled training images, as in papers;
            ``"challenging"``: validation and challenging images, and training images as reference if it takes one.
    """

    name: str
    title: str
    make: Callable[[nn.Module, int], Detector]
    wants: str = "nothing"


def _tuned_odin(model: nn.Module, seed: int) -> Detector:
    grid = [(t, e) for t in (1.0, 1000.0) for e in (0.0, 0.0014, 0.005)]
    return detectors.Tuned([detectors.ODIN(model, temperature, epsilon) for temperature, epsilon in grid])


def _tuned_mahalanobis(model: nn.Module, seed: int) -> Detector:
    return detectors.Tuned([detectors.MahalanobisEnsemble(model, epsilon) for epsilon in (0.0, 0.0014)])


_METHODS = (
    Method("msp", "Maximum softmax probability", lambda model, seed: detectors.MSP(model)),
    Method("entropy", "Entropy", lambda model, seed: detectors.Entropy(model)),
    Method("max_logit", "Largest logit", lambda model, seed: detectors.MaxLogit(model)),
    Method("energy", "Energy", lambda model, seed: detectors.Energy(model)),
    Method("odin", "ODIN, T 1000, step 0.0014", lambda model, seed: detectors.ODIN(model)),
    Method("gradnorm", "GradNorm", lambda model, seed: detectors.GradNorm(model)),
    Method("knn", "Nearest neighbours", lambda model, seed: detectors.KNN(model), "validation"),
    Method("mahalanobis", "Mahalanobis (V)", lambda model, seed: detectors.Mahalanobis(model), "train"),
    Method(
        "relative_mahalanobis",
        "Relative Mahalanobis",
        lambda model, seed: detectors.RelativeMahalanobis(model),
        "train",
    ),
    Method(
        "gradient_sum_large",
        "Sum of gradient norms, large is strange",
        lambda model, seed: detectors.GradientSum(model, "large"),
    ),
    Method(
        "gradient_sum_small",
        "Sum of gradient norms, small is strange",
        lambda model, seed: detectors.GradientSum(model, "small"),
    ),
    Method("gradient_density", "Gradient density", lambda model, seed: detectors.GradientDensity(model), "validation"),
    Method("gradient_fusion", "Gradient fusion", lambda model, seed: detectors.GradientFusion(model), "validation"),
    Method("odin_tuned", "ODIN, settings chosen", _tuned_odin, "challenging"),
    Method(
        "mahalanobis_fe", "Mahalanobis (FE)", lambda model, seed: detectors.MahalanobisEnsemble(model), "challenging"
    ),
    Method("mahalanobis_p_fe", "Mahalanobis (P+FE)", _tuned_mahalanobis, "challenging"),
    Method("lid", "LID", lambda model, seed: detectors.LID(model), "challenging"),
    Method(
        "purview",
        "Purview: H on gradient norms",
        lambda model, seed: detectors.Purview(model, seed=seed),
        "challenging",
    ),
    Method(
        "purview_zeros",
        "Purview, label of zeros",
        lambda model, seed: detectors.Purview(model, label="zeros", seed=seed),
        "challenging",
    ),
    Method(
        "purview_ce",
        "Purview, cross-entropy",
        lambda model, seed: detectors.Purview(model, loss="ce", seed=seed),
        "challenging",
    ),
    Method(
        "control_logits",
        "Control: H on logits",
        lambda model, seed: detectors.LogitsControl(model, seed=seed),
        "challenging",
    ),
    Method(
        "control_penultimate",
        "Control: H on penultimate features",
        lambda model, seed: detectors.PenultimateControl(model, seed=seed),
        "challenging",
    ),
    Method(
        "control_activations",
        "Control: H on activation norms",
        lambda model, seed: detectors.ActivationNormsControl(model, seed=seed),
        "challenging",
    ),
)

#: Every method by name, in the order of the table.
METHODS: Mapping[str, Method] = {method.name: method for method in _METHODS}


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell a method and seed; it meets every shift."""
    network = load_study(study).network
    return [Cell(NAME, study, seed, {"network": network, "method": name}) for seed in seeds for name in METHODS]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Fit one method, and score the known test images and those of every shift."""
    method = METHODS[cell.settings["method"]]
    study = load_study(cell.study)
    model = study.classifier(cell.settings["network"], seed=cell.seed).to(device)
    known = challenging_sides(limited(study.test))[1]
    to_learn, to_test = {}, {}
    for name in study.available_shifts():
        to_learn[name], to_test[name] = challenging_sides(limited(study.shift(name)))
    measurements, arrays = [], {}
    for shift, seen, scores_in, scores_out in scored(method, model, study, known, to_learn, to_test, cell.seed):
        for metric, value in summary(scores_in, scores_out).items():
            measurements.append(Measurement(method.name, shift, metric, value, len(scores_in) + len(scores_out), seen))
        if seen == "none":
            arrays["known"] = scores_in.astype(np.float32)
            arrays[shift] = scores_out.astype(np.float32)
        else:
            arrays[f"{seen}/{shift}/known"] = scores_in.astype(np.float32)
            arrays[f"{seen}/{shift}"] = scores_out.astype(np.float32)
    return CellResult(measurements, arrays)


Scored = tuple[str, str, np.ndarray, np.ndarray]


def scored(
    method: Method,
    model: nn.Module,
    study: Study,
    known: ImageSet,
    to_learn: Mapping[str, ImageSet],
    to_test: Mapping[str, ImageSet],
    seed: int,
) -> Iterator[Scored]:
    """(shift, challenging data, scores of the known, scores of the shift) for every shift and every way to fit."""
    detector = method.make(model, seed)
    if method.wants == "challenging":
        fit_on = _fitting(detector, study, known, to_learn, to_test)
        for shift in to_test:
            others = [name for name in to_test if name != shift]
            yield (shift, "same", *fit_on([shift], shift))
            if others:
                yield (shift, "other", *fit_on(others, shift))
        return
    if method.wants != "nothing":
        detector.fit(limited(study.validation if method.wants == "validation" else study.train, 5 * LIMIT))
    scores_in = detector.predict(known.images)
    for shift, strange in to_test.items():
        yield shift, "none", scores_in, detector.predict(strange.images)


def _fitting(
    detector: SecondStageDetector | Tuned,
    study: Study,
    known: ImageSet,
    to_learn: Mapping[str, ImageSet],
    to_test: Mapping[str, ImageSet],
) -> Callable[[list[str], str], tuple[np.ndarray, np.ndarray]]:
    """A function (names to learn from, name to test on) to scores; features are computed once for all of them."""
    if detector.uses_reference:
        detector.fit_reference(limited(study.train, 5 * LIMIT))
    learned = {name: detector.features(images) for name, images in to_learn.items()}
    tested = {name: detector.features(images) for name, images in to_test.items()}
    known_learned, known_tested = detector.features(limited(study.validation)), detector.features(known)

    def fit_on(names: list[str], shift: str) -> tuple[np.ndarray, np.ndarray]:
        detector.fit_features(known_learned, torch.cat([learned[name] for name in names]))
        return detector.predict_features(known_tested), detector.predict_features(tested[shift])

    return fit_on


def limited(images: ImageSet, limit: int = LIMIT) -> ImageSet:
    """At most ``limit`` images, always the same ones."""
    return images if len(images) <= limit else images.sample(limit, seed=0)


def challenging_sides(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """The images to learn from (about `FIT_SHARE`) and those to test on, divided by source image.

    The side depends on the number of the source alone: an image and what was made of it are on the same side. A set
    made from fewer than ten sources (patches of two photographs) is cut between them instead.
    """
    sources = images.source.unique()
    if len(sources) < 10:
        learn = images.source < sources[max(1, round(FIT_SHARE * len(sources)))]
    else:
        learn = _scattered(images.source) < FIT_SHARE
    return images.subset(learn), images.subset(~learn)


def _scattered(numbers: Tensor) -> Tensor:
    """A number in [0, 1) for each whole number, as if drawn at random, and always the same (Fibonacci hashing)."""
    return (numbers.double() * 0.6180339887498949) % 1.0


SUPERVISION = {
    "none": "Learned from known images alone",
    "same": "Learned from the very set it is tested on (the published protocol)",
    "other": "Learned from all the other sets",
}
"""What stands above each block of the table, by the rows' challenging data."""


def table(rows: Sequence[Row]) -> str:
    """AUROC of every method on every shift in percent, mean and spread over seeds; a block for each supervision."""
    blocks = []
    for study in dict.fromkeys(row.study for row in rows):
        for seen, title in SUPERVISION.items():
            chosen = [row for row in rows if (row.study, row.challenging_data, row.metric) == (study, seen, "auroc")]
            if chosen:
                seeds = len({row.seed for row in chosen})
                head = f"{study}: AUROC in %, larger score = stranger, {seeds} seed{'s' if seeds > 1 else ''}. {title}."
                blocks += [head, _block(chosen)]
    return "\n\n".join(blocks)


def _block(rows: Sequence[Row]) -> str:
    """One row a method, one column a shift, and the mean over shifts."""
    shifts = list(dict.fromkeys(row.condition for row in rows))
    body = []
    for name in [name for name in METHODS if any(row.method == name for row in rows)]:
        percent = {s: [100 * row.value for row in rows if (row.method, row.condition) == (name, s)] for s in shifts}
        mean = np.mean([np.mean(values) for values in percent.values() if values])
        body.append([METHODS[name].title, *map(mean_and_spread, percent.values()), f"{mean:.1f}"])
    return markdown_table(["Method", *shifts, "mean"], body)


EXPERIMENT = Experiment(
    NAME, "which images are none of those the network was trained for? (chapter 8)", STUDIES, cells, compute, table
)
