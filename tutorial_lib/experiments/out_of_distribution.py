r"""Which images are none of those the network was trained for? The tables of chapter 8.

Every detector of `tutorial_lib.detectors` meets every shift of a study that this machine has, under one split:

* what a detector learns of known images, it learns from the validation images (and, where a paper says so, from the
  training images), never from those it is tested on;
* of each set of challenging images, 40 % may be learned from and 60 % are tested on. The side goes by the source
  image, so that a rotated digit and the digit itself are never on different sides; digits of house numbers and of MNIST
  go by contiguous blocks, so that one house or one writer's hand is not on both; no image is on both sides, or twice
  among those tested;
* a detector that learns from challenging images appears twice: fitted on the set it is tested on, as published
  (challenging data ``same``), and fitted on all the other sets (``other``);
* under the open-set protocol (`tutorial_lib.experiments.open_set`) the network knows four classes only, and what learns
  from challenging images learns from two other classes of the same data set. The protocol of these rows is
  ``open_set``, and their condition ``unknown_classes`` is that of the classes that nobody has seen.

A study's own network meets every method; the headline is repeated on a second one.

    python -m tutorial_lib run out_of_distribution --study digits --seeds 3

The published table: Lee et al., "Probing the purview of neural networks via gradient analysis", IEEE Access 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from tutorial_lib import detectors
from tutorial_lib.data.images import ImageSet
from tutorial_lib.data.registry import suggestion
from tutorial_lib.data.splits import two_sides
from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.evidence import Evidence
from tutorial_lib.experiments.open_set import open_set
from tutorial_lib.gradients.targets import n_ones
from tutorial_lib.metrics import summary
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.runs.observations import cached_observation
from tutorial_lib.studies import STUDIES, Study, load_study

__all__ = [
    "EXPERIMENT",
    "HEADLINE",
    "METHODS",
    "OPEN_SET",
    "Method",
    "beside_published",
    "challenging_sides",
    "forward_and_backward",
    "means_by_seed",
]

NAME = "out_of_distribution"

VERSION = 5
"""Of the grid; cells of an older one are computed again. Controls are one ahead, since they came to have all metrics."""

LIMIT = 2000
"""Known images of one split, drawn at random with a fixed seed from larger ones."""

STRANGE_LIMIT = 1000
"""Images of each challenging set, drawn likewise."""

FIT_SHARE = 0.4
"""Share of each challenging set that a detector may learn from; the others are tested on."""


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Args:
        name: in result rows.
        title: for readers.
        make: from a classifier and a seed to a detector.
            What it is fitted on, its class says: challenging images if it is ``supervised``, labelled training images
            if it is ``from_training_images`` as in its paper, else validation images if it ``requires_fit``; and
            training images as the reference if it ``uses_reference``.
        ablation: a variant of another method, of which only the AUROC is kept.
        control: the same second stage on what a forward pass has; it is measured as the method that must beat it.
    """

    name: str
    title: str
    make: Callable[[nn.Module, int], Detector]
    ablation: bool = False
    control: bool = False


def _tuned_odin(model: nn.Module, seed: int) -> Detector:
    grid = [(t, e) for t in (1.0, 1000.0) for e in (0.0, 0.0014, 0.005)]
    return detectors.Tuned([detectors.ODIN(model, temperature, epsilon) for temperature, epsilon in grid])


def _classes(model: nn.Module) -> int:
    return int(model.head.out_features)  # type: ignore[union-attr, arg-type]


def _tuned_mahalanobis(model: nn.Module, seed: int) -> Detector:
    return detectors.Tuned([detectors.MahalanobisEnsemble(model, epsilon) for epsilon in (0.0, 0.0014)])


_METHODS = (
    Method("msp", "Maximum softmax probability", lambda model, seed: detectors.MSP(model)),
    Method("entropy", "Entropy", lambda model, seed: detectors.Entropy(model)),
    Method("max_logit", "Largest logit", lambda model, seed: detectors.MaxLogit(model)),
    Method("energy", "Energy", lambda model, seed: detectors.Energy(model)),
    Method("odin", "ODIN, T 1000, step 0.0014", lambda model, seed: detectors.ODIN(model)),
    Method("gradnorm", "GradNorm", lambda model, seed: detectors.GradNorm(model)),
    Method("gradpca", "GradPCA, last layer", lambda model, seed: detectors.GradPCA(model)),
    Method(
        "gradpca_output",
        "Control: GradPCA of the logit, direction of the feature",
        lambda model, seed: detectors.GradPCA(model, "output"),
    ),
    Method("knn", "Nearest neighbours", lambda model, seed: detectors.KNN(model)),
    Method("mahalanobis", "Mahalanobis (V)", lambda model, seed: detectors.Mahalanobis(model)),
    Method("relative_mahalanobis", "Relative Mahalanobis", lambda model, seed: detectors.RelativeMahalanobis(model)),
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
    Method("gradient_density", "Density of gradient norms", lambda model, seed: detectors.GradientDensity(model)),
    Method("activation_density", "Density of activation norms", lambda model, seed: detectors.ActivationDensity(model)),
    Method("backprop_density", "Density of backpropagated norms", lambda model, seed: detectors.BackpropDensity(model)),
    Method("layer_density", "Density of both, side by side", lambda model, seed: detectors.LayerDensity(model)),
    Method("gradient_fusion", "Gradient fusion", lambda model, seed: detectors.GradientFusion(model)),
    Method("activation_fusion", "Activation fusion", lambda model, seed: detectors.ActivationFusion(model)),
    Method("odin_tuned", "ODIN, settings chosen", _tuned_odin),
    Method("mahalanobis_fe", "Mahalanobis (FE)", lambda model, seed: detectors.MahalanobisEnsemble(model)),
    Method("mahalanobis_p_fe", "Mahalanobis (P+FE)", _tuned_mahalanobis),
    Method("lid", "LID", lambda model, seed: detectors.LID(model)),
    Method("purview", "Purview: H on gradient norms", lambda model, seed: detectors.Purview(model, seed=seed)),
    *(
        Method(name, title, make, ablation=True)
        for name, title, make in (
            (
                "purview_zeros",
                "H on gradients, label of zeros",
                lambda model, seed: detectors.Purview(model, label="zeros", seed=seed),
            ),
            (
                "purview_half",
                "H on gradients, ones for half of the classes",
                lambda model, seed: detectors.Purview(model, label=n_ones(_classes(model) // 2), seed=seed),
            ),
            (
                # all ones ask for the same, K times as loudly, which standardised logarithms do not hear
                "purview_ce",
                "H on gradients, cross-entropy",
                lambda model, seed: detectors.Purview(model, label="uniform", loss="ce", seed=seed),
            ),
            (
                "purview_first",
                "H on gradients, first half of the tensors",
                lambda model, seed: detectors.Purview(model, seed=seed, part="first"),
            ),
            (
                "purview_second",
                "H on gradients, second half of the tensors",
                lambda model, seed: detectors.Purview(model, seed=seed, part="second"),
            ),
        )
    ),
    *(
        Method(name, f"Control: H on {what}", make, control=True)
        for name, what, make in (
            ("control_logits", "logits", lambda model, seed: detectors.LogitsControl(model, seed=seed)),
            (
                "control_penultimate",
                "penultimate features",
                lambda model, seed: detectors.PenultimateControl(model, seed=seed),
            ),
            (
                "control_activations",
                "activation norms",
                lambda model, seed: detectors.ActivationNormsControl(model, seed=seed),
            ),
        )
    ),
)

#: Every method by name, in the order of the table.
METHODS: Mapping[str, Method] = {method.name: method for method in _METHODS}


METRICS = ("auroc", "aupr_out", "aupr_in", "fpr_at_95_tpr_in", "fpr_at_95_tpr_out", "detection_accuracy")
"""What is measured of the methods of the main table and of their controls; of ablations, of the open-set protocol and on the
second network it is the first of them.
"""

HEADLINE = (
    "msp",
    "energy",
    "knn",
    "gradient_density",
    "activation_density",
    "backprop_density",
    "layer_density",
    "gradient_fusion",
    "activation_fusion",
)
"""The chapter's headline, and what it is compared with: methods that learn from known images alone. Beside every score that
needs a backward pass stands the same score on what the forward pass has."""

SECOND_NETWORK = {"digits": "resnet20", "cifar10": "lenet"}
"""Another network for some studies, which the headline is repeated on."""

OPEN_SET = (*HEADLINE, "purview", "control_logits", "control_penultimate", "control_activations")
"""Methods that meet the open-set protocol."""


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell a network, protocol, method and seed; it meets every shift."""
    network, second = load_study(study).network, SECOND_NETWORK.get(study)
    # the main table first, for whoever cannot wait for the whole grid
    main_first = sorted(METHODS, key=lambda name: METHODS[name].ablation or METHODS[name].control)
    grid: list[dict[str, str]] = [{"network": network, "method": name} for name in main_first]
    if second:
        grid += [{"network": second, "method": name} for name in HEADLINE]
    grid += [{"network": network, "method": name, "protocol": "open_set"} for name in OPEN_SET]
    return [Cell(NAME, study, seed, settings, _version(settings)) for seed in seeds for settings in grid]


def _version(settings: Mapping[str, str]) -> int:
    control_of_main_table = METHODS[settings["method"]].control and "protocol" not in settings
    return VERSION + 1 if control_of_main_table else VERSION


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Fit one method, and score the known test images and those of every shift."""
    method, network = _method(cell.settings["method"]), cell.settings["network"]
    study = load_study(cell.study)
    opened = cell.settings.get("protocol") == "open_set"
    scored = _open_set_scores if opened else _scores
    aside = method.ablation or opened or network != study.network
    measurements: list[Measurement] = []
    arrays: dict[str, np.ndarray] = {}
    for shift, seen, scores_in, scores_out in scored(method, study, network, cell.seed, device):
        found, n = summary(scores_in, scores_out), len(scores_in) + len(scores_out)
        protocol = "open_set" if opened else ""
        measurements += [
            Measurement(method.name, shift, metric, found[metric], n, seen, network=network, protocol=protocol)
            for metric in (METRICS[:1] if aside else METRICS)
        ]
        if not aside and not method.control:
            prefix = "" if seen == "none" else f"{seen}/{shift}/"
            arrays[f"{prefix}known"] = scores_in.astype(np.float32)
            arrays[shift if seen == "none" else f"{seen}/{shift}"] = scores_out.astype(np.float32)
    return CellResult(measurements, arrays)


def _method(name: str) -> Method:
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}{suggestion(name, METHODS)}")
    return METHODS[name]


Scored = tuple[str, str, np.ndarray, np.ndarray]
"""Shift, challenging data seen, scores of the known images, scores of the shift."""


def _scores(method: Method, study: Study, network: str, seed: int, device: torch.device) -> Iterator[Scored]:
    """Every shift and every way to fit, on a network that knows all classes of the study."""
    model = study.classifier(network, seed=seed).to(device)
    known = challenging_sides(limited(study.test))[1]
    to_learn, to_test = {}, {}
    for name in study.available_shifts():
        to_learn[name], to_test[name] = challenging_sides(limited(study.shift(name), STRANGE_LIMIT))
    held_out = limited(study.validation, 5 * LIMIT)
    detector = method.make(model, seed)
    if not detector.supervised:
        _fit_on_known(detector, study, held_out)
        scores_in = detector.predict_from(_observed(detector, known))
        for shift, strange in to_test.items():
            yield shift, "none", scores_in, detector.predict_from(_observed(detector, strange))
        return
    fit_on = _fitting(detector, study, known, to_learn, to_test)
    for shift in to_test:
        others = [name for name in to_test if name != shift]
        yield (shift, "same", *fit_on([shift], shift))
        if others:
            yield (shift, "other", *fit_on(others, shift))


def _open_set_scores(method: Method, study: Study, network: str, seed: int, device: torch.device) -> Iterator[Scored]:
    """Unknown classes of the study itself, and other data sets, on a network that knows four classes."""
    division = open_set(study, seed)
    small = division.study
    model = small.classifier(network, seed=seed).to(device)
    known, held_out = limited(small.test), limited(small.validation, 5 * LIMIT)
    pretended = limited(division.pretended)
    strange = {"unknown_classes": limited(division.unknown, STRANGE_LIMIT)}
    for name in study.available_shifts():
        if study.shifts[name].kind != "covariate":
            strange[name] = limited(study.shift(name), STRANGE_LIMIT)
    detector = method.make(model, seed)
    if detector.supervised:
        if detector.uses_reference:
            detector.fit_reference(limited(small.train, 5 * LIMIT))
        detector.fit_from(_observed(detector, held_out, to_fit=True), _observed(detector, pretended, to_fit=True))
    else:
        _fit_on_known(detector, small, held_out)
    scores_in = detector.predict_from(_observed(detector, known))
    for name, images in strange.items():
        seen = "other" if detector.supervised else "none"
        yield name, seen, scores_in, detector.predict_from(_observed(detector, images))


def _observed(detector: Detector, images: ImageSet, to_fit: bool = False) -> Evidence:
    return cached_observation(detector.model, images, detector.needs_to_fit() if to_fit else detector.needs())


def _fit_on_known(detector: Detector, study: Study, held_out: ImageSet) -> None:
    if not detector.requires_fit:
        return
    train = limited(study.train, 5 * LIMIT)
    if detector.uses_reference:
        detector.fit_reference(train)
    detector.fit_from(_observed(detector, train if detector.from_training_images else held_out, to_fit=True))


def _fitting(
    detector: Detector,
    study: Study,
    known: ImageSet,
    to_learn: Mapping[str, ImageSet],
    to_test: Mapping[str, ImageSet],
) -> Callable[[list[str], str], tuple[np.ndarray, np.ndarray]]:
    """A function (names to learn from, name to test on) to scores; everything is looked at once for all of them."""
    if detector.uses_reference:
        detector.fit_reference(limited(study.train, 5 * LIMIT))
    learned = {name: _observed(detector, images, to_fit=True) for name, images in to_learn.items()}
    tested = {name: _observed(detector, images) for name, images in to_test.items()}
    known_learned = _observed(detector, limited(study.validation), to_fit=True)
    known_tested = _observed(detector, known)

    def fit_on(names: list[str], shift: str) -> tuple[np.ndarray, np.ndarray]:
        detector.fit_from(known_learned, Evidence.together(learned[name] for name in names))
        return detector.predict_from(known_tested), detector.predict_from(tested[shift])

    return fit_on


def limited(images: ImageSet, limit: int = LIMIT) -> ImageSet:
    """At most ``limit`` images, always the same ones."""
    return images.at_most(limit)


def challenging_sides(images: ImageSet) -> tuple[ImageSet, ImageSet]:
    """The images to learn from (about `FIT_SHARE`) and those to test on, see `tutorial_lib.data.splits.two_sides`."""
    return two_sides(images, FIT_SHARE)


SUPERVISION = {
    "none": "Learned from known images alone",
    "same": "Learned from the very set it is tested on (the published protocol)",
    "other": "Learned from all the other sets",
}
"""What stands above each block of the table, by the rows' challenging data."""

AS_PUBLISHED = (
    "msp",
    "odin_tuned",
    "mahalanobis",
    "mahalanobis_p_fe",
    "purview",
    "gradient_density",
    "activation_density",
    "gradient_fusion",
    "activation_fusion",
)
"""Methods of the published table, and those of this course that see no challenging images."""

PUBLISHED_METRICS = {
    "auroc": ("AUROC", "auroc"),
    "detection_accuracy": ("Detection accuracy", "detection_accuracy"),
    "aupr": ("AUPR", "aupr_out"),  # the class that counts as positive is not stated; the unknown fits the numbers
}
"""Name in the published rows; heading, name in ours."""


def table(rows: Sequence[Row]) -> TableText:
    """Tables in percent, mean and spread over seeds: beside the published numbers, then AUROC of every method on every
    shift, a block for each supervision, then the open-set protocol.
    """
    blocks: list[str] = []
    with_published = {row["study"] for row in read_published(NAME)}
    for study in dict.fromkeys(row.study for row in rows):
        here = [row for row in rows if row.study == study]
        if study in with_published:
            blocks.append(beside_published(here, study))
        for network in dict.fromkeys(row.network for row in here):
            of_network = [row for row in here if row.network == network and row.metric == "auroc"]
            title = f"{study}, {network}" if network == SECOND_NETWORK.get(study) else study
            closed = [row for row in of_network if not row.protocol]
            for seen, learned in SUPERVISION.items():
                chosen = [row for row in closed if row.challenging_data == seen]
                if chosen:
                    blocks += [f"{title}: AUROC in %, {_seeds(chosen)}. {learned}.", _block(chosen)]
            opened = [row for row in of_network if row.protocol == "open_set"]
            if opened:
                blocks += [
                    f"{title}, a network of four classes: AUROC in %, {_seeds(opened)}. H learned from two other "
                    "classes, the open-set protocol; the others from known images alone.",
                    _block(opened),
                ]
    return TableText("\n\n".join(blocks))


def _seeds(rows: Sequence[Row]) -> str:
    seeds = len({row.seed for row in rows})
    return f"larger score = stranger, {seeds} seed{'s' if seeds > 1 else ''}"


def _block(rows: Sequence[Row]) -> str:
    """One row a method, one column a shift, and the mean over shifts."""
    shifts = list(dict.fromkeys(row.condition for row in rows))
    body = []
    for name in METHODS:
        of_method = [row for row in rows if row.method == name]
        if of_method:
            percent = {s: [100 * row.value for row in of_method if row.condition == s] for s in shifts}
            mean = np.mean([np.mean(values) for values in percent.values() if values])
            body.append([METHODS[name].title, *map(mean_and_spread, percent.values()), f"{mean:.1f}"])
    return markdown_table(["Method", *shifts, "mean"], body)


def beside_published(rows: Sequence[Row], study: str) -> TableText:
    """The slides' tables, one for each measure: what a method had seen of the tested set, the printed number, ours."""
    published = read_published(NAME, study=study)
    printed = {(row["method"], row["condition"], row["metric"]): [100 * row["value"]] for row in published}
    seen = {row["method"]: row["challenging_data"] for row in published}
    shifts = list(dict.fromkeys(row["condition"] for row in published))
    own = [row for row in rows if row.study == study and row.network != SECOND_NETWORK.get(study) and not row.protocol]
    head = ["Method", "has seen", *(f"{shift}, {whose}" for shift in shifts for whose in ("published", "ours"))]
    blocks: list[str] = []
    for metric, (heading, ours) in PUBLISHED_METRICS.items():
        body = []
        for name in AS_PUBLISHED:
            learned = seen.get(name, "none")
            line = [METHODS[name].title, {"none": "no stranger", "same": "this very set"}[learned]]
            for shift in shifts:
                wanted = {"method": name, "condition": shift, "metric": ours, "challenging_data": learned}
                values = [100 * row.value for row in own if all(getattr(row, k) == v for k, v in wanted.items())]
                line += [mean_and_spread(printed.get((name, shift, metric), [])), mean_and_spread(values)]
            body.append(line)
        blocks += [f"{study}: {heading} in %, beside Lee et al. 2023.", markdown_table(head, body)]
    blocks.append(
        "Other networks and more images there. AUPR also depends on the share of strangers. A dash: nothing printed, not "
        "run yet, or the images are not on this machine."
    )
    return TableText("\n\n".join(blocks))


NOT_RUN = "not run yet"

PASSES = {
    "gradpca": "backward",  # of the last layer's gradient, which has a closed form
    "gradient_density": "backward",
    "backprop_density": "backward",
    "layer_density": "backward",
    "gradient_fusion": "backward",
}
"""Methods that need more than a forward pass, among those of `forward_and_backward`."""

COLUMNS: Mapping[str, tuple[str, str, str, str]] = {
    "digits, LeNet": ("digits", "lenet", "", ""),
    "digits, ResNet-20": ("digits", "resnet20", "", ""),
    "MNIST, LeNet": ("mnist", "lenet", "", ""),
    "CIFAR-10, ResNet-20": ("cifar10", "resnet20", "", ""),
    "unseen digits, LeNet": ("digits", "lenet", "", "unseen_classes"),
    "unseen digits, ResNet-20": ("digits", "resnet20", "", "unseen_classes"),
    "unseen digits, LeNet of four classes": ("digits", "lenet", "open_set", "unknown_classes"),
}
"""Study, network, protocol and condition of each column of `forward_and_backward`; no condition: the mean over all."""


def means_by_seed(
    rows: Sequence[Row],
    study: str,
    network: str,
    method: str,
    protocol: str = "",
    condition: str = "",
    seen: str = "none",
) -> list[float]:
    """AUROC of a method, one number for each seed: against one kind of stranger, or the mean over all of them.

    Empty where there are no rows.
    """
    wanted = {"study": study, "network": network, "method": method, "protocol": protocol, "challenging_data": seen}
    if condition:
        wanted["condition"] = condition
    values: dict[int, list[float]] = {}
    for row in rows:
        if row.metric == "auroc" and all(getattr(row, name) == value for name, value in wanted.items()):
            values.setdefault(row.seed, []).append(row.value)
    return [float(np.mean(values[seed])) for seed in sorted(values)]


def forward_and_backward(rows: Sequence[Row]) -> TableText:
    """What has seen no stranger, scores of a backward pass beside the same of a forward pass, over seeds and networks."""
    body = []
    for name in (*HEADLINE, "gradpca", "gradpca_output"):
        line = [METHODS[name].title, PASSES.get(name, "forward")]
        for study, network, protocol, condition in COLUMNS.values():
            percent = [100 * value for value in means_by_seed(rows, study, network, name, protocol, condition)]
            has_cell = name in (HEADLINE if protocol or network == SECOND_NETWORK.get(study) else METHODS)
            line.append(mean_and_spread(percent) if percent or not has_cell else NOT_RUN)
        body.append(line)
    text = [
        "AUROC in %, four columns over all sets of strangers, three on unseen classes; mean ± spread over seeds.",
        markdown_table(["Method", "pass", *COLUMNS], body),
    ]
    if any(NOT_RUN in line for line in body):
        text.append(f"What is {NOT_RUN} comes from: python -m tutorial_lib run {NAME} --study STUDY --seeds 3 --save")
    return TableText("\n\n".join(text))


EXPERIMENT = Experiment(
    NAME, "which images are none of those the network was trained for? (chapter 8)", STUDIES, cells, compute, table
)
