r"""Which images were changed on purpose? The tables of chapter 9.

Six attacks meet a network, and detectors look for what the attacks made. What a detector learns from are validation
images and what the attacks made of them; it is tested on test images, so that no photograph is on both sides. Known
images are those that the network gets right; an image counts as attacked only if it is wrong afterwards, in whole grey
levels (`tutorial_lib.attacks`).

* no protocol: every attack, by detectors that learned from known images alone (challenging data ``none``), from the very
  attack (``same``, as published) and from the five others (``other``). Beside each attack stand its control, noise of the
  same size (``bim/noise``), and PGD at half and at twice the epsilon that was learned from (``pgd/half``);
* ``attacks``: what the attacks themselves do: the share fooled and the size of the change;
* ``decimals``: PGD's images with and without rounding, H and a detector that looks at nothing but the decimals;
* ``ladder``: one detector against attacks that know more and more of it. Supervised ones have learned from all six.

    python -m tutorial_lib run adversarial --study digits --seeds 3

The published table: Lee et al., "Probing the purview of neural networks via gradient analysis", IEEE Access 2023, on
CIFAR-10, another ResNet and a DenseNet; the settings of its attacks are not printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tutorial_lib import detectors
from tutorial_lib.attacks import (
    BIM,
    FGSM,
    PGD,
    Attack,
    Attacked,
    CarliniWagner,
    FeatureMatching,
    IterLL,
    LogitMatching,
    OrthogonalPGD,
    SelectivePGD,
    Semantic,
    differentiable_log_norms,
    noise_of_the_same_size,
    second_stage_in_torch,
)
from tutorial_lib.data.images import ImageSet
from tutorial_lib.data.registry import suggestion
from tutorial_lib.detectors.base import Detector
from tutorial_lib.experiments.comparison import LABEL_FREE, Comparison, Task, caught, measured, scored
from tutorial_lib.experiments.out_of_distribution import METHODS as ALL_METHODS
from tutorial_lib.experiments.out_of_distribution import Method, limited
from tutorial_lib.metrics import auroc
from tutorial_lib.models.predict import predict_logits
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row
from tutorial_lib.results.stored import stored_rows
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.cache import cached_arrays
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.runs.observations import model_digest
from tutorial_lib.studies import Study, load_study

__all__ = ["ATTACKS", "BUDGETS", "EXPERIMENT", "LADDER", "METHODS", "Budget", "attacks", "caught_on", "differentiable"]

NAME = "adversarial"

VERSION = 1
"""Of the grid; cells of an older one are computed again."""


@dataclass(frozen=True)
class Budget:
    """How strong the attacks are on a study, and how many images they get.

    Args:
        epsilon: largest change of a value, in [0, 1] pixels.
        step: of BIM and PGD.
        images: at most so many validation images to learn from, and as many test images.
        ladder: so many test images meet the attacks that know the detector.
        searches, steps: of Carlini and Wagner's attack.
        rungs: steps of the attacks that know the detector.
    """

    epsilon: float
    step: float
    images: int
    ladder: int
    searches: int
    steps: int
    rungs: int


BUDGETS: Mapping[str, Budget] = {
    "digits": Budget(48 / 255, 12 / 255, images=1000, ladder=150, searches=5, steps=60, rungs=60),
    "cifar10": Budget(8 / 255, 2 / 255, images=300, ladder=40, searches=3, steps=30, rungs=30),
}
"""By study. Eight grey levels are the custom on CIFAR-10; digits of 8x8 pixels need more to be fooled at all."""

ATTACKS: Mapping[str, str] = {
    "fgsm": "FGSM",
    "bim": "BIM",
    "carlini_wagner": "C&W",
    "pgd": "PGD",
    "iterll": "IterLL",
    "semantic": "Semantic",
}
"""Name in rows: name in print, in the order of the published table."""


def attacks(budget: Budget) -> dict[str, Attack]:
    """The six attacks at a budget, by name."""
    epsilon, step = budget.epsilon, budget.step
    made: tuple[Attack, ...] = (
        FGSM(epsilon),
        BIM(epsilon, step),
        CarliniWagner(searches=budget.searches, steps=budget.steps),
        PGD(epsilon, step),
        IterLL(epsilon, step / 2),
        Semantic(),
    )
    return dict(zip(ATTACKS, made, strict=True))


_NAMES = (
    *LABEL_FREE,
    "lid",
    "mahalanobis_p",
    "mahalanobis_fe",
    "mahalanobis_p_fe",
    "purview",
    "control_logits",
    "control_penultimate",
    "control_activations",
)

_MAHALANOBIS_P = Method(
    "mahalanobis_p",
    "Mahalanobis (P)",
    lambda model, seed: detectors.Tuned([detectors.Mahalanobis(model, epsilon) for epsilon in (0.0, 0.0014, 0.005)]),
)

#: Every method by name, in the order of the table.
METHODS: Mapping[str, Method] = {
    name: _MAHALANOBIS_P if name == _MAHALANOBIS_P.name else ALL_METHODS[name] for name in _NAMES
}

LADDER: Mapping[str, str] = {
    "oblivious": "PGD, knows nothing of it",
    "double": "PGD, twice the epsilon",
    "quadruple": "PGD, four times the epsilon",
    "logit_matching": "Looks, in the logits, like a clean image",
    "feature_matching": "Looks, in the features, like a clean image",
    "selective": "Follows the detector's gradient once it has fooled",
    "orthogonal": "Both gradients, at right angles",
}
"""Rungs, from knowing nothing to knowing all."""

LADDER_METHODS = ("msp", "mahalanobis", "gradient_density", "activation_density", "purview", "control_activations")
"""Detectors that are put on the ladder."""

DIFFERENTIABLE = ("gradient_density", "purview")
"""Those of them that the last two rungs differentiate."""


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell a method, and those of the three other protocols, for every seed."""
    network = load_study(study).network
    grid = [{"network": network, "protocol": "attacks"}]
    grid += [{"network": network, "method": name} for name in METHODS]
    grid += [{"network": network, "protocol": "decimals"}]
    grid += [{"network": network, "method": name, "protocol": "ladder"} for name in LADDER_METHODS]
    return [Cell(NAME, study, seed, settings, VERSION) for seed in seeds for settings in grid]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """One cell of the grid."""
    contest = Contest(cell.study, cell.settings["network"], cell.seed, device)
    protocol = cell.settings.get("protocol", "")
    if protocol == "attacks":
        return CellResult(list(_attack_rows(contest)))
    if protocol == "decimals":
        return CellResult(list(_decimals_rows(contest)))
    name = cell.settings["method"]
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}{suggestion(name, METHODS)}")
    if protocol == "ladder":
        return CellResult(list(_ladder_rows(contest, METHODS[name])))
    return _method_result(contest, METHODS[name])


class Contest:
    """A network, the images that it gets right, and what attacks make of them.

    Args:
        study: name of the study.
        network: name of the architecture.
        seed: of the network and of the attacks.
        device: where it runs.
    """

    def __init__(self, study: str, network: str, seed: int, device: torch.device) -> None:
        self.study: Study = load_study(study)
        self.network, self.seed, self.device = network, seed, device
        self.budget = BUDGETS[study]
        self.model: nn.Module = self.study.classifier(network, seed=seed).to(device)
        self.train = limited(self.study.train, 10_000)
        self.held_out = self._right(limited(self.study.validation, self.budget.images))
        self.known = self._right(limited(self.study.test, self.budget.images))

    def _right(self, images: ImageSet) -> ImageSet:
        return images.subset(predict_logits(self.model, images.images).argmax(1) == images.labels)

    def attacked(self, attack: Attack, images: ImageSet) -> Attacked:
        """The attack's images, from the cache if they were made before."""
        request = {
            "attack": repr(attack),
            "images": [images.name, len(images), int(images.source.sum())],
            "model": model_digest(self.model),
            "seed": self.seed,
        }

        def make() -> dict[str, np.ndarray]:
            made = attack(self.model, images.images, images.labels, torch.Generator().manual_seed(self.seed))
            return {
                "images": made.images.numpy(),
                "answers": made.answers.numpy(),
                "before": made.clean_answers.numpy(),
            }

        # an attack that carries a detector or target images does not say all in its repr
        nameless = isinstance(attack, LogitMatching | SelectivePGD | OrthogonalPGD)
        found = make() if nameless else cached_arrays("attacked", request, make)
        changed, after, before = (torch.from_numpy(found[name]) for name in ("images", "answers", "before"))
        return Attacked(images.float(), changed, images.labels, before, after)

    def fooled(self, attack: Attack, images: ImageSet, name: str) -> ImageSet:
        """What fooled the network, as a set of its own."""
        attacked = self.attacked(attack, images)
        pixels = (attacked.images * 255).round().to(torch.uint8)
        return replace(images, name=name, images=pixels).subset(attacked.fooled)

    def noise(self, attack: Attack, images: ImageSet, name: str) -> ImageSet:
        """Noise of the attack's size on the images that it fooled the network about."""
        attacked = self.attacked(attack, images)
        control = noise_of_the_same_size(attacked, torch.Generator().manual_seed(self.seed + 1))
        return replace(images, name=name, images=(control * 255).round().to(torch.uint8)).subset(attacked.fooled)


def _attack_rows(contest: Contest) -> Iterator[Measurement]:
    """Success and size of every attack on the test images."""
    known, network = contest.known, contest.network
    for name, attack in attacks(contest.budget).items():
        attacked = contest.attacked(attack, known)
        control = noise_of_the_same_size(attacked, torch.Generator().manual_seed(contest.seed + 1))
        flipped = predict_logits(contest.model, control).argmax(1) != known.labels
        values = {
            "fooled": attacked.success_rate,
            "fooled_by_noise_of_the_same_size": float(flipped.double().mean()),
        }
        if attacked.fooled.any():
            values["linf"] = float(attacked.distance()[attacked.fooled].mean())
            values["l2"] = float(attacked.distance("l2")[attacked.fooled].mean())
        for metric, value in values.items():
            yield Measurement(name, "test", metric, value, len(known), network=network, protocol="attacks")


def _method_result(contest: Contest, method: Method) -> CellResult:
    """One detector, every attack, every way to fit it."""
    made = attacks(contest.budget)
    to_learn = {name: contest.fooled(attack, contest.held_out, name) for name, attack in made.items()}
    to_test = {name: contest.fooled(attack, contest.known, name) for name, attack in made.items()}
    to_test |= {f"{name}/noise": contest.noise(attack, contest.known, f"{name}/noise") for name, attack in made.items()}
    for variant, factor in (("half", 0.5), ("double", 2.0)):
        other = PGD(factor * contest.budget.epsilon, contest.budget.step)
        to_test[f"pgd/{variant}"] = contest.fooled(other, contest.known, f"pgd/{variant}")
    to_learn = {name: images for name, images in to_learn.items() if len(images)}
    to_test = {name: images for name, images in to_test.items() if len(images)}
    tasks = []
    for name in to_learn:
        of_it = [n for n in to_test if n == name or n == f"{name}/noise"]
        tasks.append(Task((name,), tuple(of_it), "same"))
        tasks.append(Task(tuple(n for n in to_learn if n != name), (name,), "other"))
    tasks.append(Task(("pgd",), tuple(n for n in ("pgd/half", "pgd/double") if n in to_test), "other"))
    images = Comparison(contest.train, contest.held_out, contest.known, to_learn, to_test)
    measurements: list[Measurement] = []
    arrays: dict[str, np.ndarray] = {}
    for task, name, scores_in, scores_out in scored(method, contest.model, contest.seed, images, tasks):
        measurements += measured(method.name, name, scores_in, scores_out, task, contest.network)
        if "/" not in name and task.seen != "other":
            prefix = "" if task.seen == "none" else f"{task.seen}/{name}/"
            arrays[f"{prefix}known"] = scores_in.astype(np.float32)
            arrays[name if task.seen == "none" else f"{task.seen}/{name}"] = scores_out.astype(np.float32)
    return CellResult(measurements, arrays)


def _decimals_rows(contest: Contest) -> Iterator[Measurement]:
    """Does a detector read pixels that no file can hold? PGD's images as floats and rounded."""
    rounded_attack = PGD(contest.budget.epsilon, contest.budget.step)
    float_attack = replace(rounded_attack, eight_bit=False)
    for variant, attack in (("rounded", rounded_attack), ("unrounded", float_attack)):
        learn, test = (contest.attacked(attack, images) for images in (contest.held_out, contest.known))
        if not learn.fooled.any() or not test.fooled.any():
            continue
        strange = test.images[test.fooled]
        detector = detectors.Purview(contest.model, seed=contest.seed)
        detector.fit(contest.held_out.float(), learn.images[learn.fooled])
        scores = {
            "purview": (detector.predict(contest.known.float()), detector.predict(strange)),
            "decimals": (decimals(contest.known.float()), decimals(strange)),
        }
        for name, (scores_in, scores_out) in scores.items():
            task = Task(("pgd",), ("pgd",), "same" if name == "purview" else "none", "decimals")
            yield from measured(name, "pgd", scores_in, scores_out, task, contest.network, variant)


def decimals(images: Tensor) -> np.ndarray:
    """How far the values of each image are from whole 255ths at most, float64 (N,): 0 for every image from a file."""
    levels = images.double() * 255
    return (levels - levels.round()).abs().flatten(1).amax(dim=1).round(decimals=3).numpy()


def _ladder_rows(contest: Contest, method: Method) -> Iterator[Measurement]:
    """One detector against attacks that know more and more of it."""
    detector = method.make(contest.model, contest.seed)
    supervised = detector.supervised
    if detector.supervised:
        made = attacks(contest.budget)
        strange = [contest.fooled(attack, contest.held_out, name) for name, attack in made.items()]
        detector.fit(contest.held_out, [images for images in strange if len(images)])
    else:
        detector.fit(contest.train if detector.from_training_images else contest.held_out)
    scores_in = detector.predict(contest.known)
    some = limited(contest.known, contest.budget.ladder)
    for rung, attack in _rungs(contest, detector if method.name in DIFFERENTIABLE else None):
        attacked = contest.attacked(attack, some)
        fooled = attacked.success_rate
        values = {"fooled": fooled, "undetected": 0.0}
        if attacked.fooled.any():
            scores_out = detector.predict(attacked.images[attacked.fooled])
            alarm = caught(scores_in, scores_out)
            values |= {"caught_at_5_percent": alarm, "undetected": fooled * (1 - alarm)}
            values["auroc"] = auroc(scores_in, scores_out)
        seen = ("same" if rung == "oblivious" else "other") if supervised else "none"
        for metric, value in values.items():
            yield Measurement(
                method.name, rung, metric, value, len(some), seen, network=contest.network, protocol="ladder"
            )


def _rungs(contest: Contest, detector: Detector | None) -> Iterator[tuple[str, Attack]]:
    """The attacks of the ladder; the last two only with a detector that can be differentiated."""
    budget = contest.budget
    for rung, factor in (("oblivious", 1), ("double", 2), ("quadruple", 4)):
        yield rung, PGD(min(1.0, factor * budget.epsilon), budget.step, steps=10 * factor)
    targets = contest.held_out.images
    yield "logit_matching", LogitMatching(targets, budget.epsilon, budget.rungs)
    yield "feature_matching", FeatureMatching(targets, budget.epsilon, budget.rungs)
    if detector is not None:
        score = differentiable(detector)
        step = budget.step / 2
        yield "selective", SelectivePGD(score, budget.epsilon, step, budget.rungs)
        yield "orthogonal", OrthogonalPGD(score, budget.epsilon, step, budget.rungs)


def differentiable(detector: Detector) -> Callable[[Tensor], Tensor]:
    """A fitted `Purview` or `GradientDensity` as a function of images that torch can differentiate twice through.

    Raises:
        TypeError: another detector.
    """
    model = detector.model
    asked: Any = detector  # labels and losses without a differentiable form are refused by name
    if isinstance(detector, detectors.Purview):
        stage = second_stage_in_torch(detector._h)
        norms: Any = partial(differentiable_log_norms, model, label=asked.label, loss=asked.loss)
        return lambda images: stage(norms(images))
    if isinstance(detector, detectors.GradientDensity):
        norms = partial(differentiable_log_norms, model, label=asked.label, loss=asked.loss)
        gaussians, by_class = detector._gaussians, detector.by_class

        def distance(images: Tensor) -> Tensor:
            with torch.no_grad():
                answers = model(images).argmax(dim=1) * int(by_class)
            return gaussians.squared_distances(norms(images)).gather(1, answers[:, None])[:, 0]

        return distance
    raise TypeError(f"there is no differentiable form of {type(detector).__name__}")


def caught_on(method: str, rungs: Sequence[str], study: str = "digits") -> list[list[float]]:
    """For each rung of the stored ladder, the share of fooling images that a detector catches, a value a network."""
    rows = [row for row in stored_rows(NAME, study) if (row.protocol, row.method) == ("ladder", method)]
    rows = [row for row in rows if row.metric == "caught_at_5_percent"]
    return [[row.value for row in rows if row.condition == rung] for rung in rungs]


def mean_over_attacks(study: str, method: str, seen: str) -> list[float]:
    """Stored AUROC, the mean over the six attacks, a value a network.

    Args:
        study: ``"cifar10"``, say.
        method: a key of `METHODS`.
        seen: what the detector had learned from; a key of `SUPERVISION`.
    """
    rows = [row for row in stored_rows(NAME, study) if not row.protocol and row.metric == "auroc"]
    rows = [row for row in rows if (row.method, row.challenging_data) == (method, seen) and row.condition in ATTACKS]
    seeds = sorted({row.seed for row in rows})
    return [float(np.mean([row.value for row in rows if row.seed == seed])) for seed in seeds]


# ----------------------------------------------------------------------------------------------------------------------
# The table

SUPERVISION = {
    "none": "Learned from known images alone",
    "same": "Learned from the very attack it is tested on (the published protocol)",
    "other": "Learned from the five other attacks; PGD at another epsilon from PGD",
}
"""What stands above each block of the table, by the rows' challenging data."""

AS_PUBLISHED = ("msp", "lid", "mahalanobis", "mahalanobis_p", "mahalanobis_fe", "mahalanobis_p_fe", "purview")


def table(rows: Sequence[Row]) -> str:
    """Tables in Markdown, in percent, mean and spread over seeds."""
    blocks = []
    for study in dict.fromkeys(row.study for row in rows):
        here = [row for row in rows if row.study == study]
        title = f"{study}, {len({row.seed for row in here})} seed(s)"
        blocks += _attacks_block(title, here)
        if study == "cifar10":
            blocks += _beside_published(title, here)
        for seen, said in SUPERVISION.items():
            chosen = [r for r in here if not r.protocol and r.metric == "auroc" and r.challenging_data == seen]
            if chosen:
                blocks += [f"{title}: AUROC in %. {said}.", _by_condition(chosen)]
        blocks += _decimals_block(title, here)
        blocks += _ladder_block(title, here)
    return TableText("\n\n".join(blocks))


def _attacks_block(title: str, rows: Sequence[Row]) -> list[str]:
    chosen = [row for row in rows if row.protocol == "attacks"]
    if not chosen:
        return []
    columns = {
        "fooled": ("fooled %", 100),
        "fooled_by_noise_of_the_same_size": ("by noise of that size %", 100),
        "linf": ("largest change, grey levels", 255),
        "l2": ("L2 change", 1),
    }
    body = [
        [
            printed,
            *(
                mean_and_spread([unit * r.value for r in chosen if (r.method, r.metric) == (name, metric)])
                for metric, (_, unit) in columns.items()
            ),
        ]
        for name, printed in ATTACKS.items()
    ]
    return [f"{title}: what the attacks do.", markdown_table(["Attack", *(h for h, _ in columns.values())], body)]


def _by_condition(rows: Sequence[Row]) -> str:
    conditions = list(dict.fromkeys(row.condition for row in rows))
    body = []
    for name, method in METHODS.items():
        mine = [row for row in rows if row.method == name]
        if mine:
            values = [[100 * row.value for row in mine if row.condition == c] for c in conditions]
            body.append([method.title, *map(mean_and_spread, values)])
    return markdown_table(["Method", *(_printed(c) for c in conditions)], body)


def _printed(condition: str) -> str:
    name, _, rest = condition.partition("/")
    return ATTACKS[name] + (f", {rest}" if rest else "")


def _beside_published(title: str, rows: Sequence[Row]) -> list[str]:
    printed = {(r["network"], r["condition"], r["method"]): 100 * r["value"] for r in read_published(NAME)}
    body = []
    for name in AS_PUBLISHED:
        seen = "none" if name in ("msp", "mahalanobis") else "same"
        line = [METHODS[name].title, seen]
        for attack in ATTACKS:
            ours = [
                100 * r.value
                for r in rows
                if (r.method, r.condition, r.metric, r.challenging_data, r.protocol)
                == (name, attack, "auroc", seen, "")
            ]
            line.append(f"{mean_and_spread(ours)} ({printed['resnet', attack, name]:.1f})")
        body.append(line)
    said = f"{title}: AUROC in %, beside the published ResNet in parentheses (another ResNet, other settings)."
    return [said, markdown_table(["Method", "has seen", *ATTACKS.values()], body)]


def _decimals_block(title: str, rows: Sequence[Row]) -> list[str]:
    chosen = [row for row in rows if row.protocol == "decimals" and row.metric == "auroc"]
    if not chosen:
        return []
    said = {"purview": METHODS["purview"].title, "decimals": "Distance to whole grey levels, nothing else"}
    body = [
        [
            text,
            *(
                mean_and_spread([100 * r.value for r in chosen if (r.method, r.variant) == (name, variant)])
                for variant in ("rounded", "unrounded")
            ),
        ]
        for name, text in said.items()
    ]
    return [f"{title}: AUROC in % on PGD, by the decimals.", markdown_table(["Method", "rounded", "unrounded"], body)]


def _ladder_block(title: str, rows: Sequence[Row]) -> list[str]:
    chosen = [row for row in rows if row.protocol == "ladder"]
    if not chosen:
        return []
    body = []
    for rung, said in LADDER.items():
        line = [said]
        for name in LADDER_METHODS:
            mine = [r for r in chosen if (r.method, r.condition) == (name, rung)]
            line.append(
                " · ".join(
                    mean_and_spread([100 * r.value for r in mine if r.metric == metric], 0)
                    for metric in ("fooled", "caught_at_5_percent", "undetected")
                )
            )
        body.append(line)
    said = f"{title}: fooled % · of these caught at 5 % false alarms % · fooled and not caught %, rung by rung."
    return [said, markdown_table(["The attack", *(METHODS[name].title for name in LADDER_METHODS)], body)]


EXPERIMENT = Experiment(
    NAME, "which images were changed on purpose, and by whom? (chapter 9)", tuple(BUDGETS), cells, compute, table
)
