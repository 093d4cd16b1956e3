"""What variation between networks and distance within one network buy, and what they cost: chapters 2 and 3.

For each method: accuracy, negative log-likelihood and ECE on known test images; AUROC of "larger is stranger" for every
shift, for the score that is meant for strangers (``auroc_epistemic``) and for the entropy of the prediction
(``auroc_entropy``); parameters, bytes that must be kept, seconds of training and seconds for a batch. Times on a CPU are
those of the processor, so that a busy machine does not count.

Command::

    python -m tutorial_lib run single_pass_vs_ensembles --study digits --seeds 5
    python -m tutorial_lib run single_pass_vs_ensembles --study moons --seeds 5

Studies of images take their single networks and the members of their ensembles from ``study.classifier`` (what ships, else
the cache, else trained now), but for the digits, whose members train side by side. A study whose networks take hours
(CIFAR-10) is measured with the networks that ship, and only with methods that need no training of their own; what is said of
one of them is asked of the others, too, and of a network of another kind, the fast ``airbench``.

The penalty of DUQ is chosen without strangers of the test: a network that never saw the last two classes has them for
strangers, and the penalty that tells them best is used for the network of all classes. (The paper chooses it on NotMNIST,
which is also a stranger of its tests.)
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tutorial_lib.calibration import ece, negative_log_likelihood
from tutorial_lib.data.corruptions import corrupt
from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.ddu import DDU, train_bounded
from tutorial_lib.detectors.duq import DUQ, DUQNetwork, train_duq
from tutorial_lib.detectors.ensemble import DropoutUncertainty, EnsembleUncertainty, train_ensemble
from tutorial_lib.detectors.entropy import Entropy
from tutorial_lib.detectors.sngp import SNGP, train_sngp
from tutorial_lib.metrics import auroc
from tutorial_lib.models.predict import predict_features, predict_logits
from tutorial_lib.results.rows import Row
from tutorial_lib.results.stored import stored_arrays, stored_rows
from tutorial_lib.results.tables import markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.studies import Study, load_study
from tutorial_lib.training.classifier import train_classifier
from tutorial_lib.training.side_by_side import train_side_by_side
from tutorial_lib.training.trained import is_at_hand, recipe, shipped_file, untrained_classifier
from tutorial_lib.uncertainty.ambiguous import blends, with_blends
from tutorial_lib.uncertainty.class_gaussians import ClassGaussians
from tutorial_lib.uncertainty.deep_ensemble import UNCERTAINTIES, DeepEnsemble
from tutorial_lib.uncertainty.dropout import DropoutBeforeHead, mc_dropout_probabilities
from tutorial_lib.uncertainty.moons import PointsNetwork, far_points, fit_points, moved, two_moons
from tutorial_lib.uncertainty.random_features import mean_field
from tutorial_lib.uncertainty.spectral import bound_spectral_norms

__all__ = [
    "EXPERIMENT",
    "LENGTH",
    "MEMBERS",
    "PENALTIES",
    "POINTS",
    "UNIT",
    "dropout_everywhere",
    "over_seeds",
    "stored",
    "stored_scores",
]

NAME = "single_pass_vs_ensembles"

MEMBERS = (2, 3, 5, 10)
"""Sizes of the ensembles."""
PENALTIES = (0.0, 0.1, 0.3, 1.0)
"""DUQ's, to choose from."""
POINTS = (3, 5, 10, 20, 40, 80)
"""Training images of each class that the Gaussians are fitted to."""
PASSES = 50
LIMIT = 1000
"""Most images of each set that scores are compared on; accuracy, likelihood and ECE are those of all test images, since
1,000 cannot tell two small calibration errors apart."""
CORRUPTIONS = ("noise", "gaussian_blur")
LEVEL = 3
BATCH = 256

LARGE = ("cifar10", "svhn")
"""Studies that are measured with what ships."""
FAST = "airbench"
"""A second kind of network for such a study, one that trains in less than an hour."""
LENGTH, UNIT = "feature length", "on top, features of length one"
"""Names in rows of two scores that say what a density sees."""
TRAININGS = {"resnet20": 3, FAST: 2}
"""How many networks of each kind are asked alone in a large study, and together."""

# ----------------------------------------------------------------------------------------------------------------------
# One method measured


class Sets:
    """The images that all methods of a cell are asked about, made once.

    Attributes:
        study: whose they are.
        everyone: images of each kind that quality is measured on, ``known`` and corrupted; labels are ``study.test``'s.
        known: at most `LIMIT` of the known ones, for scores.
        strange: images by condition, the ambiguous ones among them.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.everyone = {"known": study.test.images}
        for name in CORRUPTIONS:
            generator = torch.Generator().manual_seed(0)
            self.everyone[f"{name}/{LEVEL}"] = corrupt(study.test.float(), name, LEVEL, generator)
        self.known = _some(study.test).images
        self.strange = {name: _some(study.shift(name)).images for name in study.available_shifts()}
        self.strange["ambiguous"] = blends(study.test, min(LIMIT, len(study.test))).images


@dataclass
class Method:
    """A method ready to be asked.

    Attributes:
        name, network, variant: of its rows.
        probabilities: images to float64 (N, K).
        epistemic: the score for strangers.
        parts: everything whose tensors must be kept to answer.
        seconds: of training, on one thread; None where a network came from the library or the cache, and nobody knows.
    """

    name: str
    network: str
    variant: str
    probabilities: Callable[[Tensor], Tensor]
    epistemic: Detector
    parts: Sequence[nn.Module | Tensor]
    seconds: float | None
    extra: Mapping[str, float] = field(default_factory=dict)


def measure(method: Method, sets: Sets, arrays: dict[str, NDArray[np.generic]] | None = None) -> list[Measurement]:
    """All numbers of one method on one study."""
    study, known = sets.study, sets.known
    found: list[Measurement] = []

    def add(condition: str, metric: str, value: float, n: int) -> None:
        found.append(
            Measurement(method.name, condition, metric, value, n, network=method.network, variant=method.variant)
        )

    for condition, images in sets.everyone.items():
        for metric, value in _quality(method.probabilities(images), study.test.labels).items():
            add(condition, metric, value, len(images))

    familiar = method.epistemic.predict(known), UNCERTAINTIES["entropy"](method.probabilities(known)[None])
    for name, images in sets.strange.items():
        strange = method.epistemic.predict(images)
        unsure = UNCERTAINTIES["entropy"](method.probabilities(images)[None])
        add(name, "auroc_epistemic", auroc(familiar[0], strange), len(known) + len(images))
        add(name, "auroc_entropy", auroc(familiar[1], unsure), len(known) + len(images))
        if arrays is not None:
            arrays[f"{method.name}/{name}"] = strange.astype(np.float32)
    if arrays is not None:
        arrays[f"{method.name}/known"] = familiar[0].astype(np.float32)

    tensors = [
        t for part in method.parts for t in (part.state_dict().values() if isinstance(part, nn.Module) else [part])
    ]
    parameters = [p for part in method.parts if isinstance(part, nn.Module) for p in part.parameters()]
    add("cost", "parameters", sum(p.numel() for p in parameters), 1)
    add("cost", "kept_megabytes", sum(t.numel() * t.element_size() for t in tensors) / 1e6, 1)
    if method.seconds is not None:
        add("cost", "training_seconds", method.seconds, len(study.train))
    batch = known[torch.arange(BATCH) % len(known)]
    add("cost", "batch_seconds", _fastest(lambda: method.epistemic.predict(batch), batch.device), BATCH)
    for metric, value in method.extra.items():
        add("cost", metric, value, 1)
    return found


def _quality(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    return {
        "accuracy": float((probabilities.argmax(1) == labels).double().mean()),
        "nll": negative_log_likelihood(probabilities, labels),
        "ece": ece(probabilities, labels),
    }


def _softmax(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Images to probabilities, float64 (N, K), on the CPU; a tensor that was asked before is not computed again."""
    return functools.cache(lambda images: predict_logits(model, images).double().softmax(1))


def _mean(answers: Sequence[Callable[[Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
    """What an ensemble answers: the mean of what its members do."""
    return lambda images: torch.stack([answer(images) for answer in answers]).mean(0)


def _clock(device: torch.device | None = None) -> float:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def _fastest(function: Callable[[], object], device: torch.device, repeats: int = 3) -> float:
    seconds = []
    for _ in range(repeats):
        start = _clock(device)
        function()
        seconds.append(_clock(device) - start)
    return min(seconds)


def _some(images: ImageSet) -> ImageSet:
    return images.at_most(LIMIT)


# ----------------------------------------------------------------------------------------------------------------------
# The methods


def dropout_everywhere(model: nn.Module, p: float) -> nn.Module:
    """Put dropout after every ReLU of a classifier's backbone, a `torch.nn.Sequential`, in place."""
    layers: list[nn.Module] = []
    for layer in model.backbone:  # type: ignore[union-attr]
        layers.append(layer)
        if isinstance(layer, nn.ReLU):
            layers.append(nn.Dropout(p))
    model.backbone = nn.Sequential(*layers)
    return model


def _ensembles(study: Study, seed: int, device: torch.device) -> tuple[DeepEnsemble, float | None]:
    """As many members as the largest ensemble needs, or as ship, and the seconds that one took to train here."""
    start = _clock(device)
    if study.name == "digits":
        ensemble = train_ensemble(study, range(seed * max(MEMBERS), (seed + 1) * max(MEMBERS)))
        return ensemble.to(device), (_clock(device) - start) / len(ensemble.members)
    if study.name in LARGE:
        seeds = [s for s in range(max(MEMBERS)) if shipped_file(study, study.network, s).exists()]
    else:
        seeds = list(range(seed * 5, seed * 5 + 5))
    new = not any(is_at_hand(study, study.network, s) for s in seeds)
    members = [study.classifier(seed=s, device=device) for s in seeds]
    return DeepEnsemble(members).eval(), (_clock(device) - start) / len(members) if new else None


def _networks(study: Study, seed: int, device: torch.device) -> CellResult:
    """One network, ensembles of them, MC dropout, and what can be put on top of the first one."""
    everyone, seconds = _ensembles(study, seed, device)
    sets, first, network = Sets(study), everyone.members[0], study.network
    softmax = [_softmax(member) for member in everyone.members]
    arrays: dict[str, NDArray[np.generic]] = {}
    methods = [Method("one network", network, "", softmax[0], Entropy(first), [first], seconds)]
    for size in (m for m in MEMBERS if m <= len(everyone.members)):
        spent = None if seconds is None else size * seconds
        methods.append(_together(everyone, softmax, size, network, spent))
    methods += [
        _dropout(model, network, variant, spent) for model, variant, spent in _thinned(study, seed, first, seconds)
    ]
    methods += _on_top(first, softmax[0], study, network, seconds)
    found = [m for method in methods for m in measure(method, sets, arrays)]
    return CellResult([*found, *_members(softmax, sets, network), *_points(first, study)], arrays)


def _together(
    everyone: DeepEnsemble, softmax: Sequence[Callable[[Tensor], Tensor]], size: int, network: str, spent: float | None
) -> Method:
    """The first so many members as an ensemble."""
    some = DeepEnsemble(list(everyone.members)[:size]).eval()
    return Method(f"ensemble of {size}", network, "", _mean(softmax[:size]), EnsembleUncertainty(some), [some], spent)


def _on_top(
    model: nn.Module, softmax: Callable[[Tensor], Tensor], study: Study, network: str, seconds: float | None
) -> list[Method]:
    """What needs no training of its own: a density, and SNGP's last layer, on the features of a network."""
    density = DDU(model).fit(study.train)
    process = SNGP(model).fit(study.train)
    kept: list[nn.Module | Tensor] = [model, density.gaussians.means, density.gaussians.factors]
    return [
        Method("DDU", network, "on top", softmax, density, kept, seconds),
        Method("SNGP", network, "on top", softmax, process, [model, process.process], seconds),
    ]


def _alone(study: Study, seed: int, device: torch.device, network: str) -> CellResult:
    """One more network by itself, and what can be put on top of it: does another training say the same?"""
    model = study.classifier(network, seed=seed, device=device)
    softmax = _softmax(model)
    one = Method("one network", network, "", softmax, Entropy(model), [model], None)
    methods, sets = [one, *_on_top(model, softmax, study, network, None)], Sets(study)
    return CellResult([m for method in methods for m in measure(method, sets)])


def _length(study: Study, seed: int, device: torch.device, network: str) -> CellResult:
    """What the length of a network's features says by itself, and a density that cannot see it.

    The features of strangers are short (Dhamija et al., NeurIPS 2018), so they lie in the midst of all clusters, where wide
    Gaussians find them ordinary; features of length one have no such midst (Müller & Hein, ICML 2025).
    """
    model = study.classifier(network, seed=seed, device=device)

    def features(images: Tensor) -> Tensor:
        return predict_features(model, images).double()

    density = ClassGaussians.fit(F.normalize(features(study.train.images)), study.train.labels)
    scores: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {
        (LENGTH, "short is strange"): lambda x: -x.norm(dim=1),
        ("DDU", UNIT): lambda x: -density.log_density(F.normalize(x)),
    }
    sets = Sets(study)
    known = features(sets.known)
    found = []
    for condition, images in sets.strange.items():
        strange = features(images)
        for (method, variant), score in scores.items():
            value, n = auroc(score(known), score(strange)), len(known) + len(strange)
            found.append(Measurement(method, condition, "auroc_epistemic", value, n, network=network, variant=variant))
    return CellResult(found)


def _fast_ensemble(study: Study, device: torch.device) -> CellResult:
    """Networks of another kind that answer together."""
    members = [study.classifier(FAST, seed=s, device=device) for s in range(TRAININGS[FAST])]
    everyone, sets = DeepEnsemble(members).eval(), Sets(study)
    softmax = [_softmax(member) for member in members]
    found = measure(_together(everyone, softmax, len(members), FAST, None), sets)
    return CellResult([*found, *_members(softmax, sets, FAST)])


def _thinned(
    study: Study, seed: int, first: nn.Module, seconds: float | None
) -> list[tuple[nn.Module, str, float | None]]:
    """Networks with dropout: trained with it where that takes seconds, else put on the first network."""
    if study.name in LARGE:
        return [(DropoutBeforeHead(first, 0.3).eval(), "before the head, not trained with it", seconds)]  # type: ignore[arg-type]
    made: list[tuple[nn.Module, str, float | None]] = []
    for variant in ("before the head", "after every layer"):
        model: nn.Module = untrained_classifier(study, seed=seed)
        model = DropoutBeforeHead(model, 0.3) if variant == "before the head" else dropout_everywhere(model, 0.1)  # type: ignore[arg-type]
        start = _clock()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = replace(recipe(study, study.network, seed), precision="float32")
            train_classifier(model, study.train, config=config, progress=False)
        made.append((model, variant, _clock() - start))
    return made


def _dropout(model: nn.Module, network: str, variant: str, seconds: float | None) -> Method:
    def probabilities(images: Tensor) -> Tensor:
        return mc_dropout_probabilities(model, images, PASSES).mean(0)

    return Method(
        "MC dropout", network, variant, probabilities, DropoutUncertainty(model, passes=PASSES), [model], seconds
    )


def _duq(study: Study, seed: int, device: torch.device) -> CellResult:
    """DUQ without penalty, and with the one that tells held-out classes best."""
    held_out, known = _without_last_classes(study)
    sets, scores = Sets(study), {}
    for penalty in PENALTIES:
        network, _ = train_duq(held_out, seed, penalty)
        detector = DUQ(network)
        few = held_out.validation
        scores[penalty] = auroc(detector.predict(few.images), detector.predict(known.images))
    chosen = max(PENALTIES[1:], key=scores.__getitem__)
    found: list[Measurement] = []
    arrays: dict[str, NDArray[np.generic]] = {}
    for variant, penalty in (("penalty 0", 0.0), ("penalty chosen", chosen)):
        start = _clock(device)
        network, _ = train_duq(study, seed, penalty)
        seconds = _clock(device) - start
        extra = {"penalty": penalty, "held_out_auroc": scores[penalty]}
        found += measure(
            Method("DUQ", study.network, variant, _softmax(network), DUQ(network), [network], seconds, extra=extra),
            sets,
            arrays if penalty else None,
        )
    return CellResult(found, arrays)


def _without_last_classes(study: Study, last: int = 2) -> tuple[Study, ImageSet]:
    """The study without its last classes, and its validation images of them."""
    first = study.num_classes - last

    def part(images: ImageSet, keep: bool) -> ImageSet:
        chosen = images.subset((images.labels < first) == keep)
        return replace(chosen, class_names=study.class_names[:first]) if keep else chosen

    parts = tuple(part(images, True) for images in (study.train, study.validation, study.test))
    smaller = _reduced(study, first, parts)
    return smaller, part(study.validation, False)


def _residual(study: Study, seed: int, device: torch.device, bounded: bool) -> CellResult:
    """DDU's network with and without its bound; without it, the softmax of the same network beside it."""
    start = _clock(device)
    model, _ = train_bounded(study, seed, 3.0 if bounded else 0.0)
    seconds = _clock(device) - start
    density = DDU(model).fit(study.train)
    kept: list[nn.Module | Tensor] = [model, density.gaussians.means, density.gaussians.factors]
    extra = {"largest_jitter": max(density.gaussians.jitters)}
    arrays: dict[str, NDArray[np.generic]] = {}
    variant = "bounded" if bounded else "unbounded"
    methods = [Method("DDU", "resnet20", variant, _softmax(model), density, kept, seconds, extra=extra)]
    if not bounded:
        methods.append(
            Method("one network", "resnet20", "", methods[0].probabilities, Entropy(model), [model], seconds)
        )
    sets = Sets(study)
    return CellResult([m for method in methods for m in measure(method, sets, arrays)], arrays)


def _untrained(study: Study, seed: int, device: torch.device) -> CellResult:
    """The cheapest control of a density: the same one on a residual network with its initial weights."""
    model = untrained_classifier(study, "resnet20", seed).eval()
    density = DDU(model).fit(study.train)
    kept: list[nn.Module | Tensor] = [model, density.gaussians.means, density.gaussians.factors]
    method = Method("DDU", "resnet20", "untrained", _softmax(model), density, kept, None)
    return CellResult(measure(method, Sets(study)))


def _sngp(study: Study, seed: int, device: torch.device) -> CellResult:
    """SNGP; the mean-field factor is tuned on the likelihood of validation images, as the temperature that it is."""
    start = _clock(device)
    model, _ = train_sngp(study, seed)
    seconds = _clock(device) - start

    def parts(images: Tensor) -> tuple[Tensor, Tensor]:
        hidden = predict_features(model, images)
        with torch.no_grad():
            return model.head(hidden).double(), model.head.variance(hidden)  # type: ignore[operator]

    held_out = parts(study.validation.images)
    factors = (0.0, math.pi / 8, 1.0, 2.0, 4.0, 7.5, 12.0, 20.0, 40.0)
    losses = [negative_log_likelihood(mean_field(*held_out, f).softmax(1), study.validation.labels) for f in factors]
    factor = factors[int(np.argmin(losses))]
    arrays: dict[str, NDArray[np.generic]] = {}
    method = Method(
        "SNGP",
        "resnet20",
        "bounded",
        lambda images: mean_field(*parts(images), factor).softmax(1),
        SNGP(model).fit(study.train),
        [model],
        seconds,
        extra={"mean_field_factor": factor},
    )
    return CellResult(measure(method, Sets(study), arrays), arrays)


# ----------------------------------------------------------------------------------------------------------------------
# How many members, how many points, known against ambiguous against foreign, side by side against one after another


def _members(softmax: Sequence[Callable[[Tensor], Tensor]], sets: Sets, network: str) -> list[Measurement]:
    """NLL (of all test images) and AUROC by the number of members, from one."""
    labels = sets.study.test.labels

    def answers(images: Tensor) -> Tensor:
        return torch.stack([answer(images) for answer in softmax])

    known, to_all = answers(sets.known), answers(sets.everyone["known"])
    strange = {name: answers(images) for name, images in sets.strange.items() if name != "ambiguous"}
    found = []

    def add(size: int, condition: str, metric: str, value: float, n: int) -> None:
        found.append(Measurement("members", condition, metric, value, n, network=network, variant=str(size)))

    for size in range(1, len(softmax) + 1):
        add(size, "known", "nll", negative_log_likelihood(to_all[:size].mean(0), labels), len(labels))
        for name, probabilities in strange.items():
            for score in ("entropy", "mutual_information") if size > 1 else ("entropy",):
                ask = UNCERTAINTIES[score]
                value = auroc(ask(known[:size]), ask(probabilities[:size]))
                add(size, name, f"auroc_{score}", value, len(sets.known))
    return found


def _points(model: nn.Module, study: Study) -> list[Measurement]:
    """AUROC of a density fitted to a few training images of each class."""
    features, labels = predict_features(model, study.train.images).double(), study.train.labels
    sets = {name: _some(study.shift(name)).images for name in study.available_shifts()}
    known = predict_features(model, _some(study.test).images)
    strangers = {name: predict_features(model, images) for name, images in sets.items()}
    place = torch.zeros(len(labels), dtype=torch.long)
    for c in range(study.num_classes):
        here = (labels == c).nonzero().flatten()
        place[here] = torch.arange(len(here))
    found = []
    for count in POINTS:
        few = place < count
        for covariance in ("shrunk", "counted", "tied"):
            density = ClassGaussians.fit(features[few], labels[few], covariance)
            familiar = -density.log_density(known)
            for name, hidden in strangers.items():
                value = auroc(familiar, -density.log_density(hidden))
                found.append(
                    Measurement(
                        f"density, {covariance}",
                        name,
                        "auroc_epistemic",
                        value,
                        int(few.sum()),
                        network=study.network,
                        variant=f"{count} a class",
                    )
                )
    return found


def with_ambiguous(study: Study, seed: int = 0) -> Study:
    """The study with half as many blends added to its training images; see `tutorial_lib.uncertainty.ambiguous`."""
    train = with_blends(study.train, len(study.train) // 2, seed)
    return _reduced(study, study.num_classes, (train, study.validation, study.test))


def _ambiguous(study: Study, seed: int, device: torch.device) -> CellResult:
    """Networks that were trained on ambiguous images, too: which score is large on which kind?"""
    mixed = with_ambiguous(study, seed)
    ensemble = train_ensemble(mixed, range(seed * 5, seed * 5 + 5))
    residual, _ = train_bounded(mixed, seed, 0.0)
    density = DDU(residual).fit(study.train)
    scores: dict[str, dict[str, Callable[[Tensor], NDArray[np.float64]]]] = {
        "ensemble of 5": {
            name: EnsembleUncertainty(ensemble, name).predict
            for name in ("mean_entropy", "mutual_information", "entropy")
        },
        "DDU": {"softmax_entropy": Entropy(residual).predict, "density": density.predict},
    }
    sets = {
        "known": study.test.images,
        "ambiguous": blends(study.test, len(study.test), seed=1000 + seed).images,
        "photographs": _some(study.shift("photographs")).images,
    }
    pairs = (("known", "ambiguous"), ("known", "photographs"), ("ambiguous", "photographs"))
    found: list[Measurement] = []
    arrays: dict[str, NDArray[np.generic]] = {}
    for method, named in scores.items():
        for score, predict in named.items():
            values = {name: predict(images) for name, images in sets.items()}
            arrays |= {f"{method}/{score}/{name}": v.astype(np.float32) for name, v in values.items()}
            for one, other in pairs:
                found.append(
                    Measurement(
                        method,
                        f"{one} against {other}",
                        "auroc",
                        auroc(values[one], values[other]),
                        len(values[one]) + len(values[other]),
                        network=study.network if method != "DDU" else "resnet20",
                        variant=score,
                    )
                )
    return CellResult(found, arrays)


def _side_by_side(study: Study, seed: int, device: torch.device) -> CellResult:
    """Processor seconds of training 5 and 20 members side by side, over those of one after another, in one run."""
    config = replace(recipe(study, study.network), epochs=3, precision="float32")
    found = []
    for size in (5, 20):
        seconds = []
        for together in (True, False):
            members = [untrained_classifier(study, seed=s) for s in range(size)]
            start = _clock()
            if together:
                train_side_by_side(members, study.train, config)
            else:
                for s, member in enumerate(members):
                    train_classifier(member, study.train, config=replace(config, seed=s), progress=False)
            seconds.append(_clock() - start)
        for metric, value in (("side_by_side_seconds", seconds[0]), ("time_ratio", seconds[0] / seconds[1])):
            found.append(Measurement("training", "cost", metric, value, size, network=study.network, variant=str(size)))
    return CellResult(found)


def _reduced(study: Study, classes: int, parts: tuple[ImageSet, ...]) -> Study:
    """The study with other splits."""
    return replace(study, class_names=study.class_names[:classes], splits=lambda: parts)  # type: ignore[arg-type, return-value]


# ----------------------------------------------------------------------------------------------------------------------
# Two moons

_PLAIN_NETWORKS: Mapping[str, tuple[bool, float]] = {
    "plain": (False, 0.0),
    "residual": (True, 0.0),
    "residual, bound .95": (True, 0.95),
    "residual, bound .65": (True, 0.65),
}
_DUQ_PENALTIES = (0.0, 0.5, 1.0)
MOONS = 1000


def _moons(cell: Cell) -> CellResult:
    seed, name, useless = cell.seed, str(cell.settings["network"]), bool(cell.settings["useless_axis"])
    train, test = two_moons(MOONS, seed, useless), two_moons(500, seed + 1000, useless)
    if useless:
        strangers = {f"moved by {d}": moved(test.x, d) for d in (0.5, 1.0)}
    else:
        strangers = {kind: far_points(kind, seed=seed) for kind in ("blob", "ring")}
    start = _clock()
    if name.startswith("DUQ"):
        penalty = float(name.rpartition(" ")[2])
        model: nn.Module = DUQNetwork(
            PointsNetwork(train.x.shape[1], residual=False, seed=seed),
            *(2, 64),
            size=10,
            length_scale=0.3,
            momentum=0.99,
            penalty=penalty,
            seed=seed,
        )
        fit_points(model, train, model.loss, model.move_centroids, seed=seed)  # type: ignore[arg-type]
        scores: dict[str, Callable[[Tensor], Tensor]] = {"kernel": lambda x: -model(x).amax(1)}
    else:
        residual, bound = _PLAIN_NETWORKS[name]
        points = PointsNetwork(train.x.shape[1], residual, seed=seed)
        if bound:
            for layers in (points.first, points.hidden):
                points_in = train.x[:1] if layers is points.first else torch.zeros(1, 64)
                for layer in [layers] if isinstance(layers, nn.Linear) else layers:
                    bound_spectral_norms(layer, points_in, bound)
        model = fit_points(points, train, seed=seed)
        with torch.no_grad():
            density = ClassGaussians.fit(points.features(train.x), train.y)
        scores = {
            "softmax entropy": lambda x: UNCERTAINTIES["entropy"](model(x).double().softmax(1)[None]),
            "distance to class means": lambda x: torch.cdist(points.features(x).double(), density.means).amin(1),
            "density": lambda x: -density.log_density(points.features(x)),
        }
    seconds = _clock() - start
    with torch.no_grad():
        right = float((model(test.x).argmax(1) == test.y).double().mean())
        found = [Measurement("", "known", "accuracy", right, len(test.x), network=name)]
        found.append(Measurement("", "cost", "training_seconds", seconds, len(train.x), network=name))
        for score, ask in scores.items():
            familiar = ask(test.x)
            for condition, x in strangers.items():
                value = auroc(familiar, ask(x))
                found.append(Measurement(score, condition, "auroc", value, len(test.x) + len(x), network=name))
    return CellResult(found)


# ----------------------------------------------------------------------------------------------------------------------
# The experiment

_GROUPS: Mapping[str, Callable[[Study, int, torch.device], CellResult]] = {
    "networks": _networks,
    "duq": _duq,
    "residual": lambda study, seed, device: _residual(study, seed, device, bounded=False),
    "residual bounded": lambda study, seed, device: _residual(study, seed, device, bounded=True),
    "sngp": _sngp,
    "untrained": _untrained,
    "ambiguous": _ambiguous,
    "side by side": _side_by_side,
}
_OF_ONE_NETWORK: Mapping[str, Callable[[Study, int, torch.device, str], CellResult]] = {
    "alone": _alone,
    "length": _length,
}


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell a seed and group of methods; a large study takes what ships and some `FAST` networks.

    Side by side and one after another is timed on the digits, whose networks are too small to fill a processor.
    """
    if study == "moons":
        names = [*_PLAIN_NETWORKS, *(f"DUQ, penalty {p:g}" for p in _DUQ_PENALTIES)]
        grid = [{"network": name, "useless_axis": useless} for name in names for useless in (False, True)]
        return [Cell(NAME, study, seed, settings) for seed in seeds for settings in grid]
    version = {"mnist": 2, "cifar10": 3}.get(study, 1)  # raised where numbers came to be of all test images
    if study in LARGE:
        large = [(0, {"group": "networks"}), (0, {"group": "untrained"})]
        alone = [(network, seed) for network, trainings in TRAININGS.items() for seed in range(trainings)]
        large += [(seed, {"group": "length", "network": network}) for network, seed in alone]
        alone.remove((load_study(study).network, 0))  # it is the first of the networks above
        large += [(seed, {"group": "alone", "network": network}) for network, seed in alone]
        large += [(0, {"group": "together", "network": FAST})]
        return [Cell(NAME, study, seed, settings, version) for seed, settings in large]
    groups = [(seed, group) for seed in seeds for group in _GROUPS if group != "side by side"]
    groups += [(seed, "side by side") for seed in seeds[:1] if study == "digits"]
    return [Cell(NAME, study, seed, {"group": group}, version) for seed, group in groups]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Measure one cell."""
    if cell.study == "moons":
        return _moons(cell)
    study, group = load_study(cell.study), str(cell.settings["group"])
    if group in _OF_ONE_NETWORK:
        return _OF_ONE_NETWORK[group](study, cell.seed, device, str(cell.settings["network"]))
    if group == "together":
        return _fast_ensemble(study, device)
    return _GROUPS[group](study, cell.seed, device)


_SHOWN = (
    ("accuracy %", "known", "accuracy", 100, 1),
    ("NLL", "known", "nll", 1, 3),
    ("ECE %", "known", "ece", 100, 1),
    ("training s", "cost", "training_seconds", 1, 1),
    ("ms a batch", "cost", "batch_seconds", 1000, 0),
    ("MB", "cost", "kept_megabytes", 1, 2),
)


def table(rows: Sequence[Row]) -> str:
    """One line a method: accuracy, likelihood, calibration, AUROC for every shift, cost; mean ± spread over seeds."""
    text = []
    for study in dict.fromkeys(row.study for row in rows):
        mine = [row for row in rows if row.study == study]
        text += [f"{study}", "", _moons_table(mine) if study == "moons" else _methods_table(mine), ""]
    return "\n".join(text)


def _methods_table(rows: Sequence[Row]) -> str:
    shifts = list(
        dict.fromkeys(row.condition for row in rows if row.metric == "auroc_entropy" and row.method != "members")
    )
    body = []
    for method, network, variant in dict.fromkeys(
        (row.method, row.network, row.variant)
        for row in rows
        if row.metric == "accuracy" or row.method == LENGTH or row.variant == UNIT
    ):
        mine = [row for row in rows if (row.method, row.network, row.variant) == (method, network, variant)]

        def shown(condition: str, metric: str, unit: float, digits: int, mine: list[Row] = mine) -> str:
            values = [unit * row.value for row in mine if (row.condition, row.metric) == (condition, metric)]
            return mean_and_spread(values, digits)

        label = f"{method}, {variant} ({network})" if variant else f"{method} ({network})"
        head = [shown(*column[1:3], *column[3:]) for column in _SHOWN[:3]]
        tail = [shown(*column[1:3], *column[3:]) for column in _SHOWN[3:]]
        aurocs = [shown(shift, "auroc_epistemic", 100, 1) for shift in shifts]
        body.append([label, *head, *aurocs, *tail])
    names = [*(c[0] for c in _SHOWN[:3]), *(f"AUROC {shift}" for shift in shifts), *(c[0] for c in _SHOWN[3:])]
    return markdown_table(["method", *names], body)


def _moons_table(rows: Sequence[Row]) -> str:
    conditions = list(dict.fromkeys(row.condition for row in rows if row.metric == "auroc"))
    body = []
    for network, score in dict.fromkeys((row.network, row.method) for row in rows if row.metric == "auroc"):
        right = [100 * row.value for row in rows if (row.network, row.metric) == (network, "accuracy")]
        values = [
            [row.value for row in rows if (row.network, row.method, row.condition) == (network, score, c)]
            for c in conditions
        ]
        body.append([f"{network}: {score}", mean_and_spread(right), *(mean_and_spread(v, 2) for v in values)])
    return markdown_table(["network and score", "accuracy %", *conditions], body)


EXPERIMENT = Experiment(
    NAME,
    "ensembles, dropout, DUQ, DDU and SNGP: what each tells of strangers, and what it costs (chapters 2 and 3)",
    ("digits", "mnist", "cifar10", "moons"),
    cells,
    compute,
    table,
)


# ----------------------------------------------------------------------------------------------------------------------
# What comes with the library, as the chapters read it


def stored(study: str, **columns: object) -> list[Row]:
    """The rows that come with the library with these columns; empty if there are none."""
    return [row for row in _rows(study) if all(getattr(row, name) == value for name, value in columns.items())]


@functools.cache
def _rows(study: str) -> list[Row]:
    return stored_rows(NAME, study)


def over_seeds(study: str, **columns: object) -> list[float]:
    """Values of the stored rows with these columns, in the order of their seeds."""
    return [row.value for row in sorted(stored(study, **columns), key=lambda row: row.seed)]


def stored_scores(study: str) -> dict[str, NDArray[np.float64]]:
    """Scores of the first seed, ``GROUP/METHOD/CONDITION``."""
    return {name: values.astype(np.float64) for name, values in stored_arrays(NAME, study).items()}
