r"""Which way gradient norms point, at full scale: the stored half of chapter 4.

For each label and loss, how well "a larger squared gradient norm is stranger" separates known test images from each
shift of a study: AUROC 1 means the strangers' norms are larger, 0 that they are smaller, and one score's two directions
add up to 1. Beside the sum over all parameter tensors stand the two factors of the last layer, whose gradient is u hᵀ,
and a score without a direction: how unusual all norms are together.

    python -m tutorial_lib run gradients_as_features --study mnist --seeds 3

The published claim that this examines, shown for MNIST against photographs of scenes: gradients of known images are
smaller (Lee et al., "Probing the purview of neural networks via gradient analysis", IEEE Access 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors.evidence import TINY
from tutorial_lib.detectors.gaussian import TiedGaussians
from tutorial_lib.gradients import squared_norms
from tutorial_lib.gradients.losses import logit_gradient
from tutorial_lib.gradients.targets import target
from tutorial_lib.metrics import auroc
from tutorial_lib.models import build
from tutorial_lib.models.predict import predict_features, predict_logits
from tutorial_lib.results.rows import Row, select
from tutorial_lib.results.stored import stored_arrays, stored_rows
from tutorial_lib.results.tables import TableText, markdown_table
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.studies import Study, load_study
from tutorial_lib.training.classifier import accuracy, train_classifier
from tutorial_lib.training.trained import recipe

__all__ = [
    "EXPERIMENT",
    "NETWORKS",
    "QUESTIONS",
    "SCORES",
    "Question",
    "log_quantiles",
    "measure",
    "over_seeds",
    "spread",
    "stored_spread",
    "verdicts",
]

NAME = "gradients_as_features"

LIMIT = 1000
"""Images of each set, drawn at random with a fixed seed from larger ones."""

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Question:
    """What the network is told, and by which loss: see :func:`tutorial_lib.gradients.squared_norms`."""

    label: str
    loss: str

    @property
    def name(self) -> str:
        return f"{self.label}/{self.loss}"

    def norms(self, model: nn.Module, images: Tensor) -> Tensor:
        """Squared gradient norms, float64 (N, P)."""
        return squared_norms(model, images, self.label, self.loss)[0]

    def logit_norm(self, z: Tensor) -> Tensor:
        """|u|² (N,), the squared norm of the loss gradient at the logits (N, K)."""
        t = target(self.label, z, z, slice(0, len(z)))
        return logit_gradient(z, t, self.loss).square().sum(1)


QUESTIONS = (
    Question("ones", "bce"),
    Question("zeros", "bce"),
    Question("ones", "mse"),
    Question("ones", "ce"),
    Question("predicted", "ce"),
)
"""The published feature first. A uniform label with cross-entropy is a K-th of all ones, so it is not asked for."""


def measure(model: nn.Module, study: Study, questions: Sequence[Question], limit: int = LIMIT) -> Iterator[Measurement]:
    """AUROC of "larger = stranger" of every question, for every shift that is on this machine.

    Args:
        model: classifier of the study's images, in evaluation mode, with a last layer ``head``.
        study: known images and shifts.
        questions: labels and losses.
        limit: most images taken from a set.

    Yields:
        Measurements whose method is the label (``"any"``: what no label changes), whose variant is the loss, and whose
        metric is one of

        * ``auroc_sum``: sum of the squared norms of all parameter tensors;
        * ``auroc_last_layer``: squared norm of the last layer's weight;
        * ``auroc_activation``, ``auroc_logit_gradient``: its two factors |h|² and |u|²;
        * ``auroc_unusual``: squared Mahalanobis distance of the logarithms of all norms from their mean over validation
          images, a score that needs no direction;
        * ``auroc_confidence``: one minus the largest probability.
    """
    sets = {"known": study.test} | {name: study.shift(name) for name in study.available_shifts()}
    images = {name: _some(chosen, limit) for name, chosen in sets.items()}
    held_out = _some(study.validation, limit)

    def compared(asked: Question | None, metric: str, score: Callable[[Tensor], Tensor], of: Mapping[str, Tensor]):
        label, loss = (asked.label, asked.loss) if asked else ("any", "")
        scores = {name: score(given) for name, given in of.items()}
        known = scores.pop("known")
        for name, strange in scores.items():
            yield Measurement(label, name, metric, auroc(known, strange), len(known) + len(strange), variant=loss)

    logits = {name: predict_logits(model, x).double() for name, x in images.items()}
    features = {name: predict_features(model, x).double() for name, x in images.items()}
    yield from compared(None, "auroc_activation", lambda h: h.square().sum(1), features)
    yield from compared(None, "auroc_confidence", lambda z: 1 - z.softmax(1).amax(1), logits)
    last = [name for name, _ in model.named_parameters()].index("head.weight")
    for question in questions:
        norms = {name: question.norms(model, x) for name, x in images.items()}
        yield from compared(question, "auroc_sum", lambda v: v.sum(1), norms)
        yield from compared(question, "auroc_last_layer", lambda v: v[:, last], norms)
        yield from compared(question, "auroc_logit_gradient", question.logit_norm, logits)
        yield from compared(question, "auroc_unusual", _unusual(question.norms(model, held_out)), norms)


def log_quantiles(norms: Tensor) -> Tensor:
    """Base-10 logarithms of squared norms (N, P) at the quantiles `QUANTILES` of the N images: low, median, high (3, P)."""
    return torch.from_numpy(np.quantile(norms.clamp_min(TINY).log10().numpy(), QUANTILES, axis=0))


def spread(model: nn.Module, study: Study, question: Question = QUESTIONS[0], limit: int = LIMIT) -> dict[str, NDArray]:
    """How the norms of every layer are spread, for the known test images and for every shift.

    Returns:
        ``known`` and each shift: base-10 logarithms of the quantiles `QUANTILES` of the squared norms, (3, P), for
        the P parameter tensors of two dimensions or more (weights of convolutions and linear layers), in order.
    """
    layers = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    sets = {"known": study.test} | {name: study.shift(name) for name in study.available_shifts()}
    arrays: dict[str, NDArray] = {}
    for name, images in sets.items():
        norms, _ = squared_norms(model, _some(images, limit), question.label, question.loss, parameters=layers)
        arrays[name] = log_quantiles(norms).numpy()
    return arrays


def _unusual(norms: Tensor) -> Callable[[Tensor], Tensor]:
    """Squared Mahalanobis distance of log norms (N, P) from those of held-out known images, covariance shrunk."""
    known = TiedGaussians.fit(norms.clamp_min(TINY).log(), torch.zeros(len(norms), dtype=torch.int64), shrink=True)
    return lambda v: known.squared_distances(v.clamp_min(TINY).log())[:, 0]


def _some(images: ImageSet, limit: int) -> Tensor:
    return images.at_most(limit).float()


# ----------------------------------------------------------------------------------------------------------------------
# Networks


def _own(study: Study, seed: int) -> nn.Module:
    return study.classifier(seed=seed)


def _raw_pixels(study: Study, seed: int) -> nn.Module:
    model = _initial(study, seed, mean=0.0, std=1.0)
    train_classifier(model, study.train, config=recipe(study, study.network, seed), progress=False)
    return model


def _untrained(study: Study, seed: int) -> nn.Module:
    pixels = study.train.float()
    return _initial(study, seed, float(pixels.mean()), float(pixels.std()))


def _residual(study: Study, seed: int) -> nn.Module:
    return study.classifier("resnet20", seed=seed)


def _initial(study: Study, seed: int, mean: float, std: float) -> nn.Module:
    channels = study.image_shape[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(study.network, study.num_classes, study.image_shape, [mean] * channels, [std] * channels).eval()


NETWORKS: Mapping[str, Callable[[Study, int], nn.Module]] = {
    "own": _own,
    "raw pixels": _raw_pixels,
    "ResNet-20": _residual,
    "untrained": _untrained,
}
"""The study's own network; the same on pixels as they are; another architecture; the first with its initial weights."""


# ----------------------------------------------------------------------------------------------------------------------
# The experiment


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """Every network and seed. Only the digits take all networks: there they cost a minute."""
    networks = NETWORKS if study == "digits" else ("own",)
    return [Cell(NAME, study, seed, {"network": network}) for network in networks for seed in seeds]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Train or load one network and measure it."""
    study, network = load_study(cell.study), cell.settings["network"]
    model = NETWORKS[network](study, cell.seed).to(device)
    found = [Measurement("any", "known", "accuracy", accuracy(model, study.test), len(study.test))]
    found += measure(model, study, QUESTIONS if network == "own" else (QUESTIONS[0], QUESTIONS[-1]))
    named = [replace(measured, network=network) for measured in found]
    return CellResult(named, spread(model, study) if network == "own" else {})


def table(rows: Sequence[Row]) -> TableText:
    """AUROC of "a larger sum is stranger", mean over seeds and its range: a table per study, a row per network and question."""
    tables = []
    for study in dict.fromkeys(row.study for row in rows):
        sums = [row for row in rows if row.study == study and row.metric in ("auroc_sum", "auroc_confidence")]
        shifts = list(dict.fromkeys(row.condition for row in sums))
        body = []
        for series in dict.fromkeys(row.series for row in sums):
            values = [[row.value for row in sums if (row.series, row.condition) == (series, shift)] for shift in shifts]
            shown = [f"{np.mean(v):.2f} ({min(v):.2f} to {max(v):.2f})" if v else "–" for v in values]
            network, _, question = series.partition("/")
            body.append([f"{network}: {question.replace('any', 'confidence')}", *shown])
        tables.append(markdown_table([study, *shifts], body))
    return TableText("\n\n".join(tables))


EXPERIMENT = Experiment(
    name=NAME,
    title="which way gradient norms point: larger or smaller for strangers, by label, loss, network and seed",
    studies=("digits", "mnist", "cifar10", "svhn"),
    cells=cells,
    compute=compute,
    table=table,
)


# ----------------------------------------------------------------------------------------------------------------------
# What comes with the library, as chapter 4 reads it

SCORES = {
    "all ones, BCE": ("ones/bce", "auroc_sum"),
    "all zeros, BCE": ("zeros/bce", "auroc_sum"),
    "all ones, MSE": ("ones/mse", "auroc_sum"),
    "all ones, CE": ("ones/ce", "auroc_sum"),
    "predicted, CE": ("predicted/ce", "auroc_sum"),
    "unusual profile": ("ones/bce", "auroc_unusual"),
    "doubt": ("any", "auroc_confidence"),
    "last activation": ("any", "auroc_activation"),
}
"""Rows of `verdicts`: question and metric by name."""


def over_seeds(
    study: str, network: str, shift: str, question: str = "ones/bce", metric: str = "auroc_sum"
) -> list[float]:
    """Stored values of all seeds; see `measure` for questions and metrics, `NETWORKS` for the networks."""
    wanted = select(stored_rows(NAME, study), series=f"{network}/{question}", condition=shift, metric=metric)
    return [row.value for row in sorted(wanted, key=lambda row: row.seed)]


def verdicts(studies: Sequence[str]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean over seeds of each of `SCORES` for each shift, by the study's title; without the studies that have none."""
    found = {}
    for study in studies:
        rows = [row for row in stored_rows(NAME, study) if row.network == "own"]
        shifts = list(dict.fromkeys(row.condition for row in rows if row.metric == "auroc_confidence"))
        if rows:
            seeds = len({row.seed for row in rows})
            title = f"{load_study(study).title}, {seeds} seed{'s' if seeds > 1 else ''}"
            found[title] = {
                name: {shift: float(np.mean(over_seeds(study, "own", shift, *score))) for shift in shifts}
                for name, score in SCORES.items()
            }
    return found


def stored_spread(study: str) -> tuple[Tensor, dict[str, Tensor]]:
    """What `spread` found for the first seed: the known images' quantiles (3, P), and each shift's medians (P,)."""
    arrays = stored_arrays(NAME, study)
    layers = {name.removeprefix("own/"): torch.from_numpy(array.astype(np.float64)) for name, array in arrays.items()}
    return layers.pop("known"), {name: quantiles[1] for name, quantiles in layers.items()}
