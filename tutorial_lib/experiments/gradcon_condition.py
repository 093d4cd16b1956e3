r"""Under which conditions was this image taken? Eight corruptions at five levels against clean images, for chapter 6.

An autoencoder without and one with the gradient constraint learn clean images of all classes. Then each tells clean
test images from the same images under one condition at one level, by its reconstruction error and by its gradients.

    python -m tutorial_lib run gradcon_condition --study digits --seeds 3

The published figure shows traffic signs (CURE-TSR) and prints no numbers: Kwon et al., "Backpropagated gradient
representations for anomaly detection", ECCV 2020. The study ``cure_tsr`` runs on those files where they are
(`tutorial_lib.data.cure_tsr`); the others corrupt their images by `tutorial_lib.data.corruptions`, which has the same
eight conditions with constants of its own. Clean and corrupted
images take the same way: rounded to 8 bits, then resized.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from tutorial_lib.data.corruptions import CORRUPTIONS, LEVELS, corrupt, corruption_names
from tutorial_lib.data.cure_tsr import load_cure_tsr
from tutorial_lib.data.images import ImageSet
from tutorial_lib.data.resize import resize
from tutorial_lib.experiments.gradcon_class import gradient_loss, scores_of
from tutorial_lib.gradcon import MODELS
from tutorial_lib.gradcon.one_class import SIDE, everything
from tutorial_lib.metrics import auroc
from tutorial_lib.results.rows import Row
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.training.autoencoder import AutoencoderConfig
from tutorial_lib.training.trained import trained_autoencoder

__all__ = ["EXPERIMENT", "RECIPES", "ConditionRecipe", "conditions_of"]

NAME = "gradcon_condition"


@dataclass(frozen=True)
class ConditionRecipe:
    """How a study is run.

    Args:
        epochs: passes over the clean training images; 300 is our choice for the full length.
        images: clean training images at most, drawn at random with a fixed seed.
        width: of the network, 1 as published.
        precision: of the training, see `tutorial_lib.training.precision`.
    """

    epochs: int
    images: int
    width: float = 1.0
    precision: str = "float32"


#: By study.
RECIPES: Mapping[str, ConditionRecipe] = {
    "digits": ConditionRecipe(epochs=100, images=2000, width=0.25),
    "cifar10": ConditionRecipe(epochs=8, images=20_000, precision="auto"),
    "cure_tsr": ConditionRecipe(epochs=300, images=100_000),
    "cifar10_full": ConditionRecipe(epochs=300, images=100_000),
}

TESTED = 1000
"""Clean test images, and so corrupted ones of each kind, at most."""

VALIDATION = 0.1

_MODELS = ("cae", "cae_grad")
_SHOWN = {
    "cae/recon": "CAE: Recon",
    "cae_grad/recon": "CAE+Grad: Recon",
    "cae/grad": "CAE: Grad",
    "cae_grad/grad": "CAE+Grad: Grad",
}


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell a model and seed; it meets every condition."""
    recipe = RECIPES[study]
    settings = {"epochs": recipe.epochs, "images": recipe.images, "width": recipe.width, "precision": recipe.precision}
    return [Cell(NAME, study, seed, {"model": model, **settings}) for seed in seeds for model in _MODELS]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Train one model on clean images, and score clean and corrupted test images."""
    recipe, name = RECIPES[cell.study], cell.settings["model"]
    train, validation = _clean(cell.study, recipe.images)
    kind, alpha = MODELS[name]
    config = AutoencoderConfig(epochs=recipe.epochs, precision=recipe.precision, seed=cell.seed)
    trained = trained_autoencoder(train, kind, alpha, config, validation, recipe.width, device=device)
    conditions = conditions_of(cell.study)
    _, clean = next(conditions)
    known, n = scores_of(trained, clean), len(validation)
    found = [
        Measurement("", "known", "gradient_loss", gradient_loss(trained, validation), n, network=name),
        Measurement("", "known", "kept_epoch", trained.history.best_epoch + 1, n, network=name),
    ]
    for condition, images in conditions:
        for way, scores in scores_of(trained, images).items():
            value = auroc(known[way], scores)
            found.append(Measurement(way, condition, "auroc", value, len(clean) + len(images), network=name))
    return CellResult(found)


def conditions_of(study: str) -> Iterator[tuple[str, ImageSet | torch.Tensor]]:
    """Name and test images of every condition: ``"known"`` (clean) first, then ``"haze/3"`` and so on."""
    if study == "cure_tsr":
        yield "known", load_cure_tsr("test")
        for name in CORRUPTIONS:
            for level in LEVELS:
                yield f"{name}/{level}", load_cure_tsr("test", name, level)
        return
    images = _test_images(study)
    some = images.sample(min(TESTED, len(images)), seed=0)
    yield "known", _sized(some.float(), study)
    for name in corruption_names(images.image_shape[0]):
        for level in LEVELS:
            generator = torch.Generator().manual_seed(level)
            yield f"{name}/{level}", _sized(corrupt(some.float(), name, level, generator), study)


def _test_images(study: str) -> ImageSet:
    """Clean test images in their own size, in which the corruptions have their constants."""
    if study == "digits":
        return everything("digits")[1]
    from tutorial_lib.data import load_images

    return load_images(study.removesuffix("_full"), "test", complete=True)


def _sized(images: torch.Tensor, study: str) -> torch.Tensor:
    """8-bit images in the size that the autoencoder takes."""
    pixels = (images * 255).round().to(torch.uint8)
    return pixels if study == "digits" else resize(pixels, (SIDE, SIDE))


def _clean(study: str, limit: int) -> tuple[ImageSet, ImageSet]:
    """Clean images to train on and to choose the epoch by."""
    images = load_cure_tsr("train") if study == "cure_tsr" else everything(study.removesuffix("_full"))[0]
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:limit]
    held_out = round(VALIDATION * len(order))
    return images.subset(order[held_out:]), images.subset(order[:held_out])


def table(rows: Sequence[Row]) -> TableText:
    """AUROC by level for each condition and score, mean and spread over seeds."""
    blocks = []
    for study in dict.fromkeys(row.study for row in rows):
        scores = [row for row in rows if row.study == study and row.metric == "auroc"]
        names = list(dict.fromkeys(row.condition.partition("/")[0] for row in scores))
        seeds = len({row.seed for row in scores})
        body = []
        for name in names:
            for method, title in _SHOWN.items():
                if not any(row.series == method for row in scores):
                    continue
                levels = [
                    [row.value for row in scores if (row.series, row.condition) == (method, f"{name}/{level}")]
                    for level in LEVELS
                ]
                mean = float(np.mean([value for values in levels for value in values]))
                body.append([f"{name}, {title}", *(mean_and_spread(values, 3) for values in levels), f"{mean:.3f}"])
        head = (
            f"{study}: AUROC of clean against corrupted, larger score = stranger; {RECIPES[study].epochs} epochs, "
            f"{seeds} seed{'s' if seeds > 1 else ''}. No method has seen a corrupted image."
        )
        columns = ["condition, score", *(f"level {level}" for level in LEVELS), "mean"]
        blocks += [head, markdown_table(columns, body)]
    return TableText("\n\n".join(blocks))


EXPERIMENT = Experiment(
    NAME,
    "under which conditions was this image taken? (chapter 6)",
    tuple(RECIPES),
    cells,
    compute,
    table,
)
