r"""How ill is ill: the score of an autoencoder of the healthy as a severity, and severity bins as contrastive labels.

Two questions, after Kokilepersaud et al., "Gradient-based severity labeling for biomarker classification in OCT",
ICIP 2022:

* does the score of an image grow with how ill it is? On digits the illness is painted and its severity known
  (`tutorial_lib.data.lesions`); on chest X-rays (PneumoniaMNIST) only healthy and ill are known; on OLIVES, the
  published data, only biomarkers;
* does an encoder that was trained to gather images of one severity bin serve a linear probe better than one that was
  not? Beside it stand SimCLR, an untrained encoder, raw pixels, the same network trained on the few labels, and two
  controls: bins of the *true* severity, and bins dealt at random.

Command::

    python -m tutorial_lib run severity --study digits --seeds 3 --save

The published per-biomarker table could not be read; what is known is "up to 6 %" over self-supervised baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.data import load_images
from tutorial_lib.data.images import ImageSet, as_float
from tutorial_lib.data.lesions import KINDS, Lesioned, paint_lesions
from tutorial_lib.data.olives import BIOMARKERS, load_healthy_oct, load_olives
from tutorial_lib.detectors.gradcon import autoencoder_scores
from tutorial_lib.detectors.trivial import control_scores
from tutorial_lib.gradcon import MODELS
from tutorial_lib.metrics import auroc
from tutorial_lib.models import Classifier, build
from tutorial_lib.models.predict import predict_features, predict_probabilities
from tutorial_lib.results.rows import Row
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.severity.labels import expected_companions, quantile_bins, spearman
from tutorial_lib.severity.probe import linear_probe
from tutorial_lib.studies import load_study
from tutorial_lib.training.autoencoder import AutoencoderConfig
from tutorial_lib.training.classifier import TrainingConfig, train_classifier
from tutorial_lib.training.contrastive import ContrastiveConfig, train_contrastive
from tutorial_lib.training.trained import TrainedAutoencoder, trained_autoencoder

__all__ = [
    "BINS",
    "EXPERIMENT",
    "SCORES",
    "SETTINGS",
    "Settings",
    "Task",
    "Ward",
    "by_number_of_bins",
    "new_encoder",
    "over_seeds",
    "panels",
    "settings_of",
    "ward",
]

LABELLER = "cae_grad"
"""The model whose combined score becomes severity labels, as published."""
BINS = (2, 5, 10, 50, 200)
"""Numbers of bins that are compared; the published code has files of 50 to 10,000 for some 60,000 scans."""
SCORES = (
    ("cae", "reconstruction"),
    ("cae", "gradient"),
    ("cae_grad", "reconstruction"),
    ("cae_grad", "gradient"),
    ("cae_grad", "combined"),
    ("vae", "gradient"),
    ("vae_grad", "latent"),
    ("vae_grad", "gradient"),
    ("vae_grad", "combined"),
)
"""Models and scores that the figures show; the rows have all of them."""
SEVERITIES = (0.1, 0.25, 0.5, 1.0)
"""Severities at which ill images are told from healthy ones."""
NETWORK = "lenet"
"""Encoder of the second question. The published one is a ResNet-18 on 224x224 scans."""


@dataclass(frozen=True)
class Settings:
    """What a study needs: widths of the autoencoder (None: as published), its training, and that of the encoders."""

    widths: tuple[int, ...] | None
    autoencoder: AutoencoderConfig
    encoder: ContrastiveConfig
    labelled: int


SETTINGS: Mapping[str, Settings] = {
    "digits": Settings(
        (16, 2), AutoencoderConfig(epochs=300, batch_size=32, learning_rate=3e-3), ContrastiveConfig(steps=300), 100
    ),
    "mnist": Settings((16, 16, 16, 8), AutoencoderConfig(epochs=60), ContrastiveConfig(steps=300), 100),
    "pneumonia_mnist": Settings(None, AutoencoderConfig(epochs=150), ContrastiveConfig(steps=150), 100),
    "olives": Settings(None, AutoencoderConfig(epochs=50), ContrastiveConfig(steps=6000), 7448),
}


@dataclass(frozen=True)
class Task:
    """A binary question for the probe: few labelled images, and those it is tested on."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor


@dataclass(frozen=True)
class Ward:
    """The images of one study, healthy and ill, as both questions need them. No image is in two of its parts.

    Attributes:
        healthy: what the autoencoder learns.
        held_out: healthy images by which its epoch is chosen.
        graded: test images of known severity, and the same images healthy, by name.
        contrasts: known (healthy) and strange test images, by name.
        pool: images without labels, for the encoders; the labelled ones of the tasks are among them.
        pool_truth: severity of the pool (N,) where it is known, else the label; never seen but by the control.
        tasks: questions for the probe, by name.
    """

    healthy: Tensor
    held_out: Tensor
    graded: Mapping[str, tuple[Lesioned, Tensor]]
    contrasts: Mapping[str, tuple[Tensor, Tensor]]
    pool: Tensor
    pool_truth: Tensor
    tasks: Mapping[str, Task] = field(default_factory=dict)


def settings_of(study: str) -> Settings:
    """The settings of a study; those of MNIST for one that the experiment does not run on, so that the chapter can."""
    return SETTINGS[study if study in SETTINGS else "mnist"]


def ward(study: str, seed: int) -> Ward:
    """The images of a study; the seed draws the lesions and the labelled images."""
    labelled = settings_of(study).labelled
    if study == "pneumonia_mnist":
        return _pneumonia(seed, labelled)
    if study == "olives":
        return _olives(seed, labelled)
    return _painted(study, seed, labelled)


# ----------------------------------------------------------------------------------------------------------------------
# The images

ANATOMY = 0
"""Class whose images are the healthy ones: as one eye looks like another, one zero looks like another."""
_MOST = 400  # healthy images and patients taken from a large study
_VISITS = 1300  # images of the pool, and a third as many of the test


def _painted(name: str, seed: int, labelled: int) -> Ward:
    """Healthy: the training images of one class. Ill: lesions on its validation and test images, who come many times."""
    study = load_study(name)
    generator = torch.Generator().manual_seed(1000 + seed)
    healthy, patients, test = (_anatomy(part) for part in (study.train, study.validation, study.test))
    tenth = len(healthy) // 10
    some = test.repeat(-(-_VISITS // 3 // len(test)), 1, 1, 1)

    def drawn(kind: str | None) -> Lesioned:
        return paint_lesions(some, _uniform(len(some), generator), generator, kind)

    graded = {"lesions": (drawn(None), some)} | {kind: (drawn(kind), some) for kind in KINDS}
    contrasts = {f"severity {s:g}": (test, paint_lesions(some, s, generator).images) for s in SEVERITIES}

    visits = patients.repeat(-(-_VISITS // len(patients)), 1, 1, 1)
    ill = torch.rand(len(visits), generator=generator) > 0.25  # a quarter of the visits find nothing
    pool = paint_lesions(visits, ill * _uniform(len(visits), generator), generator)
    probed = drawn(None)
    return Ward(
        healthy[tenth:],
        healthy[:tenth],
        graded,
        contrasts,
        pool.images,
        pool.severity,
        {
            "kind": _task(pool, lambda p: p.kind, lambda p: p.severity > 0.1, probed, labelled),
            "severe": _task(pool, lambda p: (p.severity > 0.5).long(), lambda p: p.severity >= 0, probed, labelled),
        },
    )


def _anatomy(images: ImageSet) -> Tensor:
    chosen = images.subset(images.labels == ANATOMY)
    return chosen.sample(min(len(chosen), _MOST), seed=0).float()


def _task(
    pool: Lesioned,
    label: Callable[[Lesioned], Tensor],
    asked: Callable[[Lesioned], Tensor],
    probed: Lesioned,
    labelled: int,
) -> Task:
    few = asked(pool).nonzero()[:labelled, 0]  # the pool is in random order
    test = asked(probed)
    return Task(pool.images[few], label(pool)[few], probed.images[test], label(probed)[test])


def _pneumonia(seed: int, labelled: int) -> Ward:
    """Healthy: the normal training X-rays. Pool: the ill ones of the training split, and the validation split."""
    train, validation, test = (load_images("pneumonia_mnist", split) for split in ("train", "validation", "test"))
    generator = torch.Generator().manual_seed(1000 + seed)
    normal = train.images[train.labels == 0]
    tenth = len(normal) // 10
    pool = torch.cat([train.images[train.labels == 1], validation.images])
    truth = torch.cat([train.labels[train.labels == 1], validation.labels])
    order = torch.randperm(len(pool), generator=generator)
    pool, truth = pool[order], truth[order]
    task = _balanced(pool, truth, test.images, test.labels, labelled)
    contrast = {"pneumonia": (test.images[test.labels == 0], test.images[test.labels == 1])}
    return Ward(normal[tenth:], normal[:tenth], {}, contrast, pool, truth, {"pneumonia": task})


def _balanced(images: Tensor, labels: Tensor, test_images: Tensor, test_labels: Tensor, labelled: int) -> Task:
    """The first so many images, as many of either label."""
    few = torch.cat([(labels == label).nonzero()[: labelled // 2, 0] for label in (0, 1)])
    return Task(images[few], labels[few], test_images, test_labels)


_OCT = 5000  # healthy scans
_SCANS = 20_000  # unlabelled scans


def _olives(seed: int, labelled: int) -> Ward:
    """Healthy: normal scans of another hospital. Pool: unlabelled scans under treatment. Tasks: the five biomarkers."""
    healthy = load_healthy_oct(limit=_OCT).images
    pool, train, test = load_olives("unlabelled", limit=_SCANS), load_olives("train"), load_olives("test")
    tenth = len(healthy) // 10
    tasks, contrasts = {}, {}
    for name in BIOMARKERS:
        few, many = train.for_biomarker(name), test.for_biomarker(name)
        some = few.sample(min(labelled, len(few)), seed)
        tasks[name] = Task(some.images, some.labels, many.images, many.labels)
        contrasts[name] = (many.images[many.labels == 0], many.images[many.labels == 1])
    unknown = torch.zeros(len(pool))
    return Ward(healthy[tenth:], healthy[:tenth], {}, contrasts, pool.images, unknown, tasks)


def _uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, generator=generator)


# ----------------------------------------------------------------------------------------------------------------------
# The two questions


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell a model and seed; that of the labeller also answers the second question."""
    return [Cell(EXPERIMENT.name, study, seed, {"model": model}) for seed in seeds for model in MODELS]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Train one autoencoder of the healthy and measure its scores."""
    images, settings, name = ward(cell.study, cell.seed), settings_of(cell.study), cell.settings["model"]
    kind, alpha = MODELS[name]
    config = replace(settings.autoencoder, seed=cell.seed)
    model = trained_autoencoder(
        images.healthy, kind, alpha, config, images.held_out, device=device, widths=settings.widths
    )
    best, n = model.history.best_epoch, len(images.healthy)
    found = [
        Measurement("", "training", "alignment", model.history.alignment[best], n, network=name),
        Measurement("", "training", "best_epoch", best, n, network=name),
    ]
    found += graded_and_told(images, name, lambda given: autoencoder_scores(model, given))
    if name != LABELLER:
        return CellResult(found)
    # what needs no network is measured in one model's cell
    found += graded_and_told(images, "", lambda given: control_scores(given, images.healthy))
    for condition, (lesioned, healthy) in images.graded.items():
        shown = (lesioned.images - healthy).abs().sum((1, 2, 3))
        found.append(
            Measurement(
                "visible change", condition, "spearman", spearman(shown, lesioned.severity), len(healthy), "same"
            )
        )
    found += probed(images, model, settings, cell.seed, device)
    return CellResult(found, _kept(images, model))


def graded_and_told(
    images: Ward, network: str, scores: Callable[[Tensor], Mapping[str, NDArray[np.float64]]]
) -> Iterator[Measurement]:
    """Rank correlation with known severities, and AUROC of healthy against ill, of every score of a network.

    A score without a network is a control: what it says was told by nobody.
    """
    variant = "" if network else "control"
    for name, (lesioned, _) in images.graded.items():
        for score, values in scores(lesioned.images).items():
            found = spearman(values, lesioned.severity)
            yield Measurement(score, name, "spearman", found, len(values), network=network, variant=variant)
    for name, (known, strange) in images.contrasts.items():
        healthy, ill = scores(known), scores(strange)
        for score in healthy:
            found = auroc(healthy[score], ill[score])
            n = len(known) + len(strange)
            yield Measurement(score, name, "auroc", found, n, network=network, variant=variant)


def probed(
    images: Ward, model: TrainedAutoencoder, settings: Settings, seed: int, device: torch.device
) -> Iterator[Measurement]:
    """What linear probes know after contrast by severity bins, by other labels, and by none.

    Methods are ``bins``, ``true`` (of the severity that nobody knows), ``random`` and ``recon`` (of the reconstruction
    error), with the number of bins as variant, then ``simclr``, ``untrained``, ``pixels`` and ``supervised``. Metrics are ``accuracy`` and
    ``auroc``; for labels also ``companions`` (see `expected_companions`) and, where the severity is known,
    ``label_spearman``.
    """
    scores = autoencoder_scores(model, images.pool)
    shuffled = torch.randperm(len(images.pool), generator=torch.Generator().manual_seed(seed))
    labels: dict[str, NDArray[np.int64] | None] = {f"bins/{b}": quantile_bins(scores["combined"], b) for b in BINS}
    labels["recon/10"] = quantile_bins(scores["reconstruction"], 10)
    labels["random/10"] = quantile_bins(scores["combined"], 10)[shuffled.numpy()]
    if bool((images.pool_truth != images.pool_truth[0]).any()):
        labels["true/10"] = quantile_bins(images.pool_truth, 10)
    labels["simclr"] = None
    batch = min(settings.encoder.batch_size, len(images.pool))
    for series, names in labels.items():
        method, _, bins = series.partition("/")
        if names is not None:
            companions = expected_companions(names, batch)
            yield Measurement(method, "pool", "companions", companions, len(names), variant=bins)
            if bool((images.pool_truth != images.pool_truth[0]).any()) and method != "random":
                agreement = spearman(names, images.pool_truth)
                yield Measurement(method, "pool", "label_spearman", agreement, len(names), variant=bins)
        encoder = new_encoder(images, seed, device)
        train_contrastive(encoder, images.pool, names, replace(settings.encoder, seed=seed))
        for asked in _asked(method, images.tasks, partial(predict_features, encoder)):
            yield replace(asked, variant=bins)
    untrained = new_encoder(images, seed, device)
    yield from _asked("untrained", images.tasks, lambda x: predict_features(untrained, x))
    yield from _asked("pixels", images.tasks, lambda x: as_float(x).flatten(1))
    for name, task in images.tasks.items():
        yield from _supervised(name, task, new_encoder(images, seed, device), seed)


def new_encoder(images: Ward, seed: int, device: torch.device | str = "cpu") -> Classifier:
    """A new network; the same initial weights whatever it is to learn. It normalises by the healthy images."""
    pixels = as_float(images.healthy)
    mean, std = pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).clamp_min(1e-3).tolist()
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        _, channels, height, width = images.healthy.shape
        return build(NETWORK, 2, (channels, height, width), mean, std).to(device)


def _asked(method: str, tasks: Mapping[str, Task], features: Callable[[Tensor], Tensor]) -> Iterator[Measurement]:
    for name, task in tasks.items():
        probe = linear_probe(features(task.images), task.labels, features(task.test_images), task.test_labels)
        yield Measurement(method, name, "accuracy", probe.accuracy, len(task.test_images), "same")
        yield Measurement(method, name, "auroc", probe.auroc, len(task.test_images), "same")


def _supervised(name: str, task: Task, model: Classifier, seed: int) -> Iterator[Measurement]:
    """The same network, all of its weights trained on the few labels."""
    as_bytes = (as_float(task.images) * 255).round().to(torch.uint8)
    few = ImageSet(name, as_bytes, task.labels.long(), ("without", "with"), torch.arange(len(task.labels)))
    recipe = TrainingConfig(
        epochs=60,
        batch_size=32,
        optimizer="adam",
        learning_rate=3e-3,
        shift=1,
        flip=False,
        precision="float32",
        seed=seed,
    )
    train_classifier(model, few, config=recipe, progress=False)
    ill = predict_probabilities(model, task.test_images)[:, 1].numpy()
    truth = task.test_labels.numpy()
    yield Measurement("supervised", name, "accuracy", float(((ill > 0.5) == (truth == 1)).mean()), len(truth), "same")
    yield Measurement("supervised", name, "auroc", auroc(ill[truth == 0], ill[truth == 1]), len(truth), "same")


SHOWN = 6
"""Images kept for the figures from each end of the score."""


def _kept(images: Ward, model: TrainedAutoencoder) -> dict[str, NDArray[np.generic]]:
    """Scores of test images with what is known about them, and the least and the most severe ill images with their
    reconstructions (8 bits)."""
    kept: dict[str, NDArray[np.generic]] = {}
    for name, (lesioned, _) in images.graded.items():
        kept[f"{name}/severity"] = lesioned.severity.numpy()
        kept |= {f"{name}/{score}": values for score, values in autoencoder_scores(model, lesioned.images).items()}
    for name, (known, strange) in list(images.contrasts.items())[:1]:
        for side, chosen in (("healthy", known), ("ill", strange)):
            scores = autoencoder_scores(model, chosen)
            kept |= {f"{name}/{side}/{score}": values for score, values in scores.items()}
            order = scores["combined"].argsort()
            ends = torch.from_numpy(np.r_[order[:SHOWN], order[-SHOWN:]])
            kept[f"{name}/{side}/images"] = (as_float(chosen[ends]) * 255).round().to(torch.uint8).numpy()
            rebuilt = model.reconstruct(chosen[ends])
            kept[f"{name}/{side}/reconstructions"] = (rebuilt * 255).round().to(torch.uint8).numpy()
    return kept


# ----------------------------------------------------------------------------------------------------------------------
# Tables


def over_seeds(rows: Sequence[Row], method: str, condition: str, metric: str) -> list[float]:
    """One value a seed, in the order of the seeds; ``method`` is the rows' `Row.series`, e.g. ``"bins/10"``."""
    wanted = [row for row in rows if (row.series, row.condition, row.metric) == (method, condition, metric)]
    return [row.value for row in sorted(wanted, key=lambda row: row.seed)]


def panels(
    rows: Sequence[Row], metric: str, conditions: Mapping[str, str], methods: Mapping[str, str]
) -> dict[str, dict[str, list[float]]]:
    """Values of all seeds for each panel and method, as `tutorial_lib.figures.severity.dots` draws them.

    Args:
        rows: of one study.
        metric: of all of them.
        conditions: the rows' condition for each panel's title.
        methods: the rows' `Row.series` for each name that a reader sees.

    Raises:
        ValueError: a method has no row.
    """
    found = {
        title: {name: over_seeds(rows, method, condition, metric) for name, method in methods.items()}
        for title, condition in conditions.items()
    }
    missing = [name for group in found.values() for name, seeds in group.items() if not seeds]
    if missing:
        raise ValueError(f"no stored {metric} of {', '.join(dict.fromkeys(missing))}")
    return found


def by_number_of_bins(
    rows: Sequence[Row], questions: Mapping[str, str]
) -> tuple[dict[str, dict[int, list[float]]], dict[str, dict[str, list[float]]], dict[int, float]]:
    """AUROC of probes as `tutorial_lib.figures.severity.by_bins` draws it.

    Args:
        rows: of one study.
        questions: the rows' condition for each panel's title.

    Returns:
        for each panel and number of bins, its seeds' values; for each panel, those of SimCLR, of bins of the true severity and
        of bins dealt at random; for each number of bins, the companions in a batch.
    """
    values = {
        title: {bins: over_seeds(rows, f"bins/{bins}", condition, "auroc") for bins in BINS}
        for title, condition in questions.items()
    }
    others = {"SimCLR": "simclr", "true bins": "true/10", "random bins": "random/10"}
    companions = {bins: over_seeds(rows, f"bins/{bins}", "pool", "companions")[0] for bins in BINS}
    return values, panels(rows, "auroc", questions, others), companions


def table(rows: Sequence[Row]) -> TableText:
    """Both questions, study by study."""
    text = []
    for study in dict.fromkeys(row.study for row in rows):
        mine = [row for row in rows if row.study == study]
        for metric, title in (
            ("spearman", "rank correlation with the known severity"),
            ("auroc", "AUROC, healthy against ill"),
        ):
            chosen = [row for row in mine if row.metric == metric and row.challenging_data == "none"]
            text += _block(f"{study}: {title}", chosen, metric)
        for metric in ("accuracy", "auroc"):
            chosen = [row for row in mine if row.metric == metric and row.challenging_data == "same"]
            text += _block(f"{study}: {metric} of a linear probe on few labels", chosen, metric)
    return TableText("\n".join(text))


def _block(title: str, rows: Sequence[Row], metric: str) -> list[str]:
    if not rows:
        return []
    conditions = list(dict.fromkeys(row.condition for row in rows))
    body = [
        [_title(of), *(mean_and_spread(over_seeds(rows, of, condition, metric), 3) for condition in conditions)]
        for of in dict.fromkeys(row.series for row in rows)
    ]
    return [title, "", markdown_table(["method", *conditions], body), ""]


def _title(series: str) -> str:
    """As a reader calls it: ``cae: reconstruction``, ``control: brightness``, ``bins/10``."""
    first, _, rest = series.partition("/")
    if rest == "control":
        return f"control: {first}"
    return f"{first}: {rest}" if first in MODELS else series


EXPERIMENT = Experiment(
    "severity",
    "how ill is ill: severity from healthy images alone, and severity bins as contrastive labels (chapter 7)",
    ("digits", "mnist", "pneumonia_mnist", "olives"),
    cells,
    compute,
    table,
)
