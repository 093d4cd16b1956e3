r"""Which images are not of the one class that was learned? The tables of chapters 5 and 6.

Each class in turn is normal; an autoencoder learns it and meets as many strangers as there are normal test images
(`tutorial_lib.gradcon.one_class_split`). Four models, an autoencoder and a variational one, without and with the
gradient constraint, are read in up to four ways:

========== ============================================================================================
recon      mean squared error of the reconstruction
latent     Kullback-Leibler divergence of the latent (variational ones only)
grad       gradient loss: minus the mean cosine of the decoder's gradients with their training average
combined   recon + 0.12 grad
========== ============================================================================================

The average gradient of an unconstrained training is kept as well, so that "grad" can be asked of it, too: that is the
control which says what the constraint itself brings. Beside them stand classic one-class methods on pixels and scores
that know nothing.

    python -m tutorial_lib run gradcon_class --study digits --seeds 3
    python -m tutorial_lib run gradcon_class --study cifar10_full --seeds 3 --device cuda

The studies ``mnist_full`` and ``cifar10_full`` train for the published 1000 epochs, which asks for an accelerator;
``mnist`` and ``cifar10`` are as long as two processor cores have patience for, see `RECIPES`.

The published table: Kwon et al., "Backpropagated gradient representations for anomaly detection", ECCV 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tutorial_lib.data import DATASETS
from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors import (
    SVDD,
    Brightness,
    Complexity,
    DeepSVDD,
    Detector,
    OneClassSVM,
)
from tutorial_lib.detectors.gradcon import autoencoder_scores
from tutorial_lib.gradcon import MODELS, losses_of, one_class_split
from tutorial_lib.metrics import auroc
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row
from tutorial_lib.results.stored import stored_arrays
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.training.autoencoder import AutoencoderConfig
from tutorial_lib.training.trained import TrainedAutoencoder, trained_autoencoder

__all__ = [
    "EXPERIMENT",
    "METHODS",
    "RECIPES",
    "Recipe",
    "beside_published",
    "classics",
    "scores_of",
    "stored_scores",
]

NAME = "gradcon_class"


@dataclass(frozen=True)
class Recipe:
    """How a study is run.

    Args:
        data: name of the data set, see `one_class_split`.
        epochs: passes over the normal training images; published are 1000.
        batch_size: images a step; published are 64, of which a class of the digits has two.
        width: of the network, 1 as published.
        precision: of the training, see `tutorial_lib.training.precision`.
    """

    data: str
    epochs: int
    batch_size: int = 64
    width: float = 1.0
    precision: str = "float32"


#: By study.
RECIPES: Mapping[str, Recipe] = {
    "digits": Recipe("digits", epochs=100, batch_size=16, width=0.25),
    "mnist": Recipe("mnist", epochs=10, precision="auto"),
    "cifar10": Recipe("cifar10", epochs=8, precision="auto"),
    "mnist_full": Recipe("mnist", epochs=1000),
    "cifar10_full": Recipe("cifar10", epochs=1000),
}

KEPT = 500
"""Scores of normal and of strange test images kept for figures, at most, of each."""

SVM_IMAGES = 2000
"""Training images of the one-class SVM at most; its time grows with their square."""


def classics(seed: int) -> dict[str, Detector]:
    """Methods that learn from pixels, and those that learn nothing, by name."""
    return {
        "ocsvm": OneClassSVM(),
        "svdd": SVDD(),
        "deep_svdd": DeepSVDD(epochs=10, seed=seed),
        "brightness": Brightness(),
        "complexity": Complexity(),
    }


_TITLES = {"cae": "CAE", "cae_grad": "CAE+Grad", "vae": "VAE", "vae_grad": "VAE+Grad"}
_WAYS = {"recon": "Recon", "latent": "Latent", "grad": "Grad", "combined": "Recon + 0.12 Grad"}

#: Every method of the result rows by its `Row.series` (``NETWORK/METHOD``), and how a reader calls it.
METHODS: Mapping[str, str] = {
    **{
        f"{model}/{way}": f"{_TITLES[model]}: {_WAYS[way]}"
        for model in MODELS
        for way in _WAYS
        if way != "latent" or model.startswith("vae")
    },
    "ocsvm": "One-class SVM, pixels",
    "svdd": "Smallest ball (SVDD), pixels",
    "deep_svdd": "Deep SVDD",
    "brightness": "Control: bright is strange",
    "complexity": "Control: complex is strange",
}


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell a model, class and seed, and one for all classic methods; what a short run should have first comes first."""
    recipe = RECIPES[study]
    settings = {name: getattr(recipe, name) for name in ("epochs", "batch_size", "width", "precision")}
    count = len(DATASETS[recipe.data].class_names)
    return [
        Cell(NAME, study, seed, {"model": model, "normal": normal, **(settings if model in MODELS else {})})
        for seed in seeds
        for models in (("cae", "cae_grad"), ("classic",), ("vae", "vae_grad"))
        for normal in range(count)
        for model in models
    ]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Train one model on one class, and score normal and strange test images."""
    recipe, name, normal = RECIPES[cell.study], cell.settings["model"], cell.settings["normal"]
    split = one_class_split(recipe.data, normal)
    condition = DATASETS[recipe.data].class_names[normal]
    found: list[Measurement] = []
    if name == "classic":
        scored, network = {}, ""
        for method, detector in classics(cell.seed).items():
            limited = method == "ocsvm" and len(split.train) > SVM_IMAGES
            detector.fit(split.train.sample(SVM_IMAGES, seed=0) if limited else split.train)
            scored[method] = (detector.predict(split.normal), detector.predict(split.strange))
    else:
        network, (kind, alpha) = name, MODELS[name]
        config = AutoencoderConfig(recipe.epochs, recipe.batch_size, precision=recipe.precision, seed=cell.seed)
        trained = trained_autoencoder(split.train, kind, alpha, config, split.validation, recipe.width, device=device)
        normal_scores, strange_scores = scores_of(trained, split.normal), scores_of(trained, split.strange)
        scored = {way: (normal_scores[way], strange_scores[way]) for way in normal_scores}
        told = {"kept_epoch": trained.history.best_epoch + 1, "gradient_loss": gradient_loss(trained, split.validation)}
        n = len(split.validation)
        found += [Measurement("", condition, metric, value, n, network=name) for metric, value in told.items()]
    for method, (known, strange) in scored.items():
        n = len(known) + len(strange)
        found.append(Measurement(method, condition, "auroc", auroc(known, strange), n, network=network))
    arrays = {}
    for method, both in scored.items():
        for side, scores in zip(("normal", "strange"), both, strict=True):
            arrays[f"{method}/{side}"] = scores[:KEPT].astype(np.float32)
    return CellResult(found, arrays)


def scores_of(trained: TrainedAutoencoder, images: ImageSet | torch.Tensor) -> dict[str, NDArray[np.float64]]:
    """`autoencoder_scores`, called as in the published table."""
    printed = {"reconstruction": "recon", "gradient": "grad"}
    return {printed.get(name, name): values for name, values in autoencoder_scores(trained, images).items()}


def gradient_loss(trained: TrainedAutoencoder, images: ImageSet, batch_size: int = 64) -> float:
    """Mean gradient loss of whole batches of images, in [-1, 1]: what the training minimised, on other images."""
    device = next(trained.model.parameters()).device
    alpha, trained.constraint.alpha = trained.constraint.alpha, 1.0  # an unconstrained model is asked, too
    try:
        values = [
            float(losses_of(trained.model, part.to(device), trained.constraint).gradient)
            for part in images.float().split(batch_size)
        ]
    finally:
        trained.constraint.alpha = alpha
    return float(np.mean(values))


def stored_scores(study: str) -> dict[tuple[str, int], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Scores that come with the library, of the first seed: by method and normal class, those of normal and strange images.

    Up to `KEPT` of each, for histograms and curves; larger = stranger.

    Raises:
        FileNotFoundError: none are stored for this study.
    """
    arrays = stored_arrays(NAME, study)
    found = {}
    for name in arrays:
        if name.endswith("/normal"):
            *settings, way, _ = name.split("/")
            model = next(part for part in settings if part in MODELS or part == "classic")
            method = way if model == "classic" else f"{model}/{way}"
            both = (arrays[name], arrays[name.removesuffix("normal") + "strange"])
            normal, strange = (scores.astype(np.float64) for scores in both)
            found[method, int(settings[settings.index(model) + 1])] = (normal, strange)
    return found


def table(rows: Sequence[Row]) -> TableText:
    """AUROC of every method by normal class, mean and spread over seeds, then the published ones."""
    blocks = []
    for study in dict.fromkeys(row.study for row in rows):
        mine = [row for row in rows if row.study == study]
        scores = [row for row in mine if row.metric == "auroc"]
        classes = list(dict.fromkeys(row.condition for row in scores))
        seeds = len({row.seed for row in scores})
        recipe = RECIPES[study]
        body = [_line(scores, classes, name, title) for name, title in METHODS.items() if _has(scores, name)]
        for name, title in (("cae/recon", "CAE: Recon"), ("complexity", "Control: complex is strange")):
            if _has(scores, name):
                body.append(_line(scores, classes, name, f"{title}, sign flipped", lambda value: 1 - value))
        if recipe.data == "cifar10":
            body += [_published(classes, name, title) for name, title in METHODS.items() if _is_published(name)]
        head = (
            f"{study}: AUROC by normal class, larger score = stranger; {recipe.epochs} epochs, "
            f"{seeds} seed{'s' if seeds > 1 else ''}, {len(classes)} of {len(DATASETS[recipe.data].class_names)} classes. "
            "No method has seen a stranger."
        )
        blocks += [head, markdown_table(["method", *classes, "mean"], body)]
        losses = [row for row in mine if row.metric == "gradient_loss"]
        if losses:
            body = [_line(losses, classes, name, title) for name, title in _TITLES.items() if _has(losses, name)]
            blocks += ["Gradient loss of whole validation batches", markdown_table(["model", *classes, "mean"], body)]
    return TableText("\n\n".join(blocks))


def beside_published(rows: Sequence[Row]) -> TableText:
    """The published table, class by class, and under each of its lines the same method's AUROC of ``rows``.

    A method, or a class, that the rows lack is "not run". Last comes what the published table has no line for: the
    gradient of networks that were not constrained.

    Args:
        rows: of one study on CIFAR-10, the images of the published table.
    """
    scores = [row for row in rows if row.metric == "auroc"]
    classes = list(DATASETS["cifar10"].class_names)
    printed = dict.fromkeys(row["method"] for row in read_published(NAME))
    controls = [f"{model}/grad" for model, (_, alpha) in MODELS.items() if not alpha]
    body = []
    for method in [*printed, *controls]:
        title = METHODS[method]
        if method in printed:
            body.append(_published(classes, method, title))
        ours = _line(scores, classes, method, f"{title} (ours)" if method in printed else f"{title} (ours, control)")
        body.append([entry if entry != "–" else "not run" for entry in ours])
    return TableText(markdown_table(["method", *classes, "mean"], body))


def _has(rows: Sequence[Row], method: str) -> bool:
    return any(row.series == method for row in rows)


def _line(
    rows: Sequence[Row], classes: Sequence[str], method: str, title: str, change: Callable[[float], float] = float
) -> list[str]:
    mine = [row for row in rows if row.series == method]
    by_class = [[change(row.value) for row in mine if row.condition == name] for name in classes]
    means = [  # a mean over classes for each seed that has them all
        float(np.mean([change(row.value) for row in mine if row.seed == seed]))
        for seed in dict.fromkeys(row.seed for row in mine)
        if {row.condition for row in mine if row.seed == seed} == set(classes)
    ]
    return [title, *(mean_and_spread(values, 3) for values in by_class), mean_and_spread(means, 3)]


def _is_published(method: str) -> bool:
    return any(row["method"] == method for row in read_published(NAME))


def _published(classes: Sequence[str], method: str, title: str) -> list[str]:
    printed = {row["condition"]: row["value"] for row in read_published(NAME, method=method)}
    values = [printed[name] for name in classes]
    mean = printed["mean"] if len(values) + 1 == len(printed) else np.mean(values)  # of the classes that are shown
    return [f"{title} (Kwon et al.)", *(f"{value:.3f}" for value in values), f"{mean:.3f}"]


EXPERIMENT = Experiment(
    NAME,
    "which images are not of the one class that was learned? (chapters 5 and 6)",
    tuple(RECIPES),
    cells,
    compute,
    table,
)
