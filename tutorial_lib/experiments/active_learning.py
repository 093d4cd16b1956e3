"""Which image should be labelled next? Five strategies beside their random twin, by one look and by two (chapter 14).

Every round trains a new network on all labels bought so far, by a fixed number of steps and from the same initial weights;
the strategy looks at the images that have no label, and asks for the next ones. A run by two looks trains the second
network H on the labelled images as they are, for as many steps as there are labels or not, and both the strategy's scores
and the accuracy are H's. Accuracy is measured on clean test images and on the same images under Gaussian noise, all five
levels together.

The random twin of a run has its seed: the same start set, initial weights and order of batches. By two looks it buys the
same images as by one, so its gain is that of H's answers alone, and what a strategy gains beyond it is what H has chosen.
Two controls of the second look: H on the features, without a question; and no H at all, but the logits of the one look
divided by `TEMPERATURE`, which changes no answer, only what is asked for.

The published table has means of accuracy near 0.37 on CIFAR-10: means over rounds at small budgets, and so are ours. Start,
query, rounds and training were not published; `PLANS` are our choice.

    python -m tutorial_lib run active_learning --study digits --seeds 20

Rows: ``method`` is the strategy, ``variant`` the look, ``condition`` test set and number of labels (``clean/50``). The study
``cifar10_full`` asks a ResNet-20 about the whole training set and wants an accelerator.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tutorial_lib.active_learning import (
    STRATEGIES,
    SUMMARIES,
    Budget,
    FixedSteps,
    History,
    Round,
    Train,
    mean_interval,
    paired_difference,
    predict_pool,
    run_rounds,
)
from tutorial_lib.data.corruptions import LEVELS, corrupt
from tutorial_lib.data.images import ImageSet
from tutorial_lib.introspection import IntrospectiveClassifier, IntrospectiveNetwork
from tutorial_lib.metrics import Interval
from tutorial_lib.models import build
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.studies import Study, load_study
from tutorial_lib.uncertainty.dropout import DropoutBeforeHead, mc_dropout_probabilities

__all__ = [
    "EXPERIMENT",
    "LOOKS",
    "PLANS",
    "TESTS",
    "TITLES",
    "Plan",
    "choice_gain",
    "histories",
    "look_gain",
    "mean_accuracy",
    "pair_noise",
    "published_accuracy",
    "published_gains",
    "test_sets",
    "to_twin",
    "train_with",
]

TITLES = {
    "random": "Random",
    "entropy": "Entropy",
    "least_confidence": "Least confidence",
    "margin": "Margin",
    "bald": "BALD",
    "badge": "BADGE",
}
"""The strategies, as readers and the published table call them."""

LOOKS = {
    "feed_forward": "one look",
    "introspective": "introspective",
    "control_features": "H on features",
    "control_temperature": "temperature ½",
}
"""Who answers, and who is asked what the pool holds."""

TESTS = {"clean": "original", "gaussian_noise": "gaussian_noise"}
"""Our test sets, and their names in the published table."""

DROPPED, PASSES = 0.3, 20
"""Share of the features dropped before the last layer, in training and for BALD, and the passes that BALD compares."""

TEMPERATURE = 0.5
"""Below 1, entropy hears less of the many small probabilities; as it falls to 0, it ranks as margin does."""

SECOND_BATCH, SECOND_EPOCH = 64, 10
"""Images in a step of H, and steps in the shortest of its epochs."""


class Plan(NamedTuple):
    """How a study is asked.

    Attributes:
        study: whose images.
        network: trained anew in every round.
        budget: labels at the start, labels per query, rounds.
        steps, batch_size, learning_rate: of each training, Adam.
        second_steps: steps of H, rounded up to whole epochs.
        pool, test: largest number of images, drawn with a fixed seed; None for all.
    """

    study: str
    network: str
    budget: Budget
    steps: int
    batch_size: int
    learning_rate: float
    second_steps: int = 200
    pool: int | None = None
    test: int | None = None


PLANS: Mapping[str, Plan] = {
    "digits": Plan("digits", "lenet", Budget(20, 30, 5), 100, 32, 3e-3),
    "mnist": Plan("mnist", "lenet", Budget(20, 20, 10), 150, 32, 3e-3, pool=5_000, test=1_000),
    "cifar10": Plan("cifar10", "lenet", Budget(128, 256, 10), 600, 64, 1e-3, 400, pool=10_000, test=2_000),
    "cifar10_full": Plan("cifar10", "resnet20", Budget(128, 128, 20), 3_000, 128, 1e-3, 2_000),
}


# ----------------------------------------------------------------------------------------------------------------------
# The runs


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell per seed, look and strategy; a run and its twin are cells of one seed and look."""
    version = 2 if study == "cifar10" else 1  # 2: ten rounds of 256 labels, not twenty of 128
    return [
        Cell(EXPERIMENT.name, study, seed, {"look": look, "strategy": strategy}, version)
        for seed in seeds
        for look in LOOKS
        for strategy in STRATEGIES
    ]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """One run, start to last round."""
    plan, look, strategy = PLANS[cell.study], cell.settings["look"], cell.settings["strategy"]
    study = load_study(plan.study)
    history = run_rounds(
        train_with(plan, study, look, device),
        strategy,
        _limited(study.train, plan.pool),
        test_sets(study, plan.test),
        plan.budget,
        cell.seed,
        functools.partial(predict_pool, sample=_passes) if strategy == "bald" else predict_pool,
        progress=False,
    )
    n = {test: len(images) for test, images in test_sets(study, plan.test).items()}
    row = functools.partial(Measurement, network=plan.network, variant=look)
    found = []
    for test in TESTS:
        for r in history.rounds:
            found.append(row(strategy, f"{test}/{r.labelled}", "accuracy", r.accuracy[test], n[test]))
        found.append(row(strategy, test, "negative_flips", float(history.negative_flips(test).mean()), n[test]))
    return CellResult(found)


def train_with(plan: Plan, study: Study, look: str, device: torch.device | str = "cpu") -> Train:
    """What a round trains: the first network and, by a second look, H on the same labelled images.

    H has no validation images, since their labels would have to be bought, too: it is trained for a fixed number of steps,
    and its best epoch is that of the lowest loss on the images it learns from.

    Args:
        plan: network and steps.
        study: classes and size of the images.
        look: a name of `LOOKS`.
        device: where to train.
    """

    def new() -> nn.Module:
        mean, std = study.normalisation if study.normalisation else (None, None)
        return DropoutBeforeHead(build(plan.network, study.num_classes, study.image_shape, mean, std), DROPPED)

    trained = FixedSteps(new, plan.steps, plan.batch_size, plan.learning_rate, device=device)

    def one_look(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
        wrapped = trained(images, labels, seed)
        assert isinstance(wrapped, DropoutBeforeHead)
        return wrapped.model

    def two_looks(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
        labelled = ImageSet("labelled", images, labels, study.class_names, torch.arange(len(images)))
        draws = max(SECOND_EPOCH * SECOND_BATCH, len(images))
        again = labelled.subset(torch.arange(draws) % len(images))  # few images fill an epoch several times over
        epochs = math.ceil(plan.second_steps / math.ceil(draws / SECOND_BATCH))
        inputs = "features" if look == "control_features" else "gradients"
        h = IntrospectiveNetwork(inputs, epochs=epochs, patience=epochs, seed=seed)
        return IntrospectiveClassifier(one_look(images, labels, seed), h).fit(again, labelled).eval()

    def sharpened(images: Tensor, labels: Tensor, seed: int) -> nn.Module:
        model = one_look(images, labels, seed)
        with torch.no_grad():
            for parameter in model.head.parameters():  # type: ignore[union-attr]
                parameter.div_(TEMPERATURE)
        return model

    if look not in LOOKS:
        raise ValueError(f"there is no look {look!r}; there are {', '.join(LOOKS)}")
    return {"feed_forward": one_look, "control_temperature": sharpened}.get(look, two_looks)


def test_sets(study: Study, limit: int | None = None) -> dict[str, ImageSet]:
    """Clean test images, and all five levels of Gaussian noise on them as one set, so that its accuracy is their mean."""
    clean = _limited(study.test, limit)
    noisy = []
    for level in LEVELS:
        generator = torch.Generator().manual_seed(0)
        noisy.append(corrupt(clean.images, "gaussian_noise", level, generator, family="cifar10_c"))
    places = torch.arange(len(clean)).repeat(len(LEVELS))
    noise = ImageSet("gaussian_noise", torch.cat(noisy), clean.labels[places], clean.class_names, clean.source[places])
    return {"clean": clean, "gaussian_noise": noise}


test_sets.__test__ = False  # type: ignore[attr-defined]  # its name is no invitation to pytest


def _passes(model: nn.Module, images: Tensor, seed: int) -> Tensor:
    """For BALD: the network that answers, with some of what its last layer sees dropped."""
    return mc_dropout_probabilities(DropoutBeforeHead(model, DROPPED), images, PASSES, seed)  # type: ignore[arg-type]


def _limited(images: ImageSet, limit: int | None) -> ImageSet:
    return images if limit is None else images.at_most(limit)


# ----------------------------------------------------------------------------------------------------------------------
# What the rows say


def histories(rows: Sequence[Row], strategy: str, look: str = "feed_forward") -> list[History]:
    """The runs of a strategy, one per seed, as far as rows hold them: labels and accuracies of every round.

    Args:
        rows: of one study.
        strategy: a name of `TITLES`.
        look: a name of `LOOKS`.
    """
    found: dict[int, dict[int, dict[str, float]]] = {}
    for row in rows:
        if (row.method, row.variant, row.metric) == (strategy, look, "accuracy"):
            test, _, labelled = row.condition.partition("/")
            found.setdefault(row.seed, {}).setdefault(int(labelled), {})[test] = row.value
    return [
        History(strategy, seed, [Round(labelled, (), rounds[labelled], {}) for labelled in sorted(rounds)])
        for seed, rounds in sorted(found.items())
    ]


def to_twin(
    rows: Sequence[Row],
    strategy: str,
    test: str = "clean",
    summary: str = "mean_over_rounds",
    look: str = "feed_forward",
) -> Interval:
    """Difference of a strategy and its random twin, with interval; see `tutorial_lib.active_learning.paired_difference`."""
    runs, twins = histories(rows, strategy, look), histories(rows, "random", look)
    pairs = {run.seed for run in runs} & {twin.seed for twin in twins}  # of a part of a grid
    mine, theirs = ([run for run in some if run.seed in pairs] for some in (runs, twins))
    return paired_difference(mine, theirs, test, summary)


def look_gain(
    rows: Sequence[Row],
    strategy: str,
    test: str = "clean",
    summary: str = "mean_over_rounds",
    look: str = "introspective",
) -> list[float]:
    """What a second look gains over one, one number per seed: the whole gain, by choosing and by answering."""
    return list(_gain_by_seed(rows, strategy, test, summary, look).values())


def _gain_by_seed(rows: Sequence[Row], strategy: str, test: str, summary: str, look: str) -> dict[int, float]:
    return _by_seed(rows, (strategy, look), (strategy, "feed_forward"), test, summary)


def _lead_by_seed(rows: Sequence[Row], strategy: str, test: str, summary: str, look: str) -> dict[int, float]:
    return _by_seed(rows, (strategy, look), ("random", look), test, summary)


def _by_seed(
    rows: Sequence[Row], one: tuple[str, str], other: tuple[str, str], test: str, summary: str
) -> dict[int, float]:
    """The summary of one strategy and look minus that of another, for every seed that has both."""
    mine, theirs = (
        {run.seed: SUMMARIES[summary](run, test) for run in histories(rows, *named)} for named in (one, other)
    )
    return {seed: value - theirs[seed] for seed, value in mine.items() if seed in theirs}


def choice_gain(rows: Sequence[Row], strategy: str, test: str = "clean", look: str = "introspective") -> list[float]:
    """The part of `look_gain` that the choice of images makes, one number per seed: the gain less that of the random twin.

    The twin's images are the same by one look and by two, so all that it gains is in the answers. Seeds without it are left
    out.
    """
    gain, answers = (_gain_by_seed(rows, name, test, "mean_over_rounds", look) for name in (strategy, "random"))
    return [whole - answers[seed] for seed, whole in gain.items() if seed in answers]


def published_gains(strategy: str, test: str = "clean") -> list[float]:
    """What a second look gains in the published table, a fraction per network; nothing for random, which is not in it.

    Args:
        strategy: a name of `TITLES`.
        test: a name of `TESTS`.

    >>> [round(gain, 3) for gain in published_gains("bald", "gaussian_noise")]
    [0.013, 0.01]
    """
    if strategy == "random":
        return []
    wanted = {"strategy": TITLES[strategy], "test_set": TESTS[test]}
    one, two = (
        {row["network"]: row["value"] for row in read_published("active_learning", inference=inference, **wanted)}
        for inference in ("feed-forward", "introspective")
    )
    return [two[network] - one[network] for network in one]


def mean_accuracy(rows: Sequence[Row], strategy: str, test: str = "clean", look: str = "feed_forward") -> float:
    """Accuracy of a strategy, a fraction: mean over rounds, then over seeds."""
    return float(np.mean([SUMMARIES["mean_over_rounds"](run, test) for run in histories(rows, strategy, look)]))


def published_accuracy(test: str = "clean") -> float:
    """Accuracy by one look in the published table, a fraction: the mean of its strategies and networks.

    >>> round(published_accuracy() - published_accuracy("gaussian_noise"), 3)
    0.121
    """
    found = read_published("active_learning", inference="feed-forward", test_set=TESTS[test])
    return float(np.mean([row["value"] for row in found]))


def pair_noise(
    rows: Sequence[Row],
    strategy: str,
    test: str = "clean",
    summary: str = "mean_over_rounds",
    look: str = "feed_forward",
) -> float:
    """Standard deviation over seeds of the difference between a run and its twin: how far one pair moves by luck."""
    return float(np.std(list(_lead_by_seed(rows, strategy, test, summary, look).values()), ddof=1))


def table(rows: Sequence[Row]) -> str:
    """The strategies beside their twin, then what a second look gains, the published gains beside ours. In Markdown."""
    text = []
    for study in dict.fromkeys(row.study for row in rows):
        mine = [row for row in rows if row.study == study]
        seeds = len(histories(mine, "random"))
        plan = PLANS[study].budget
        labels = f"{plan.rounds} rounds, {plan.start} to {plan.total} labels"
        text += [f"{study}, {seeds} seeds, {labels}: accuracy by one look, and the lead over the random twin", ""]
        text += [_strategies(mine), "", *_luck(mine), ""]
        for test in TESTS:
            text += [f"{study}, {test.replace('_', ' ')}: what a second look gains in accuracy, mean over rounds", ""]
            text += [_second_looks(mine, test), ""]
    text.append(
        "Leads and gains are percentage points with 95 % intervals over seeds; * where the interval leaves zero out. Area: "
        "under accuracy against labels. Flips: images that the round before had right and this one has wrong. By choice: the "
        "gain less that of random. Published: CIFAR-10, ResNet-18 and ResNet-34, one number each, no interval."
    )
    return TableText("\n".join(text))


def _strategies(rows: Sequence[Row]) -> str:
    head = ["", "clean %", "lead", "lead, area", "lead, last round", "noise %", "lead", "flips %"]
    body = []
    for strategy, title in TITLES.items():
        runs = histories(rows, strategy)
        if not runs:
            continue
        means = {test: [100 * SUMMARIES["mean_over_rounds"](run, test) for run in runs] for test in TESTS}
        flips = [
            100 * row.value
            for row in rows
            if (row.method, row.variant, row.condition, row.metric)
            == (strategy, "feed_forward", "clean", "negative_flips")
        ]
        entries = [
            mean_and_spread(means["clean"]),
            *(_difference(rows, strategy, "clean", summary) for summary in SUMMARIES),
            mean_and_spread(means["gaussian_noise"]),
            _difference(rows, strategy, "gaussian_noise", "mean_over_rounds"),
            mean_and_spread(flips),
        ]
        body.append([title, *entries])
    return markdown_table(head, body)


def _luck(rows: Sequence[Row]) -> list[str]:
    """A sentence on what a single pair could not have shown."""
    leads = {name: _lead_by_seed(rows, name, "clean", "mean_over_rounds", "feed_forward") for name in TITLES}
    leads = {name: found for name, found in leads.items() if name != "random" and len(found) > 1}
    if not leads:
        return []
    noise = {name: 100 * pair_noise(rows, name) for name in leads}
    small = [
        TITLES[name] for name, found in leads.items() if 100 * abs(np.mean(list(found.values()))) < 2 * noise[name]
    ]
    return [
        f"One standard deviation of a lead over seeds is {min(noise.values()):.1f} to {max(noise.values()):.1f} points. "
        f"Leads below two of their own, which no single pair of runs could show: {', '.join(small) or 'none'}."
    ]


def _second_looks(rows: Sequence[Row], test: str) -> str:
    head = ["", "published", "introspective", "by choice", "H on features", "by choice", "temperature ½"]
    body = []
    for strategy, title in TITLES.items():
        entries = [_printed(strategy, test)]
        for look in ("introspective", "control_features"):
            entries.append(_points(look_gain(rows, strategy, test, look=look)))
            entries.append("–" if strategy == "random" else _points(choice_gain(rows, strategy, test, look=look)))
        entries.append(_points(look_gain(rows, strategy, test, look="control_temperature")))
        body.append([title, *entries])
    return markdown_table(head, body)


def _printed(strategy: str, test: str) -> str:
    return " / ".join(f"{100 * gain:+.1f}" for gain in published_gains(strategy, test)) or "–"


def _difference(rows: Sequence[Row], strategy: str, test: str, summary: str) -> str:
    if strategy == "random":
        return "–"
    return _points(list(_lead_by_seed(rows, strategy, test, summary, "feed_forward").values()))


def _points(differences: Sequence[float]) -> str:
    """Mean and half of its interval, in percentage points; a star where zero lies outside."""
    if not differences:
        return "–"
    if len(differences) == 1:
        return f"{100 * differences[0]:+.1f}"
    interval = mean_interval(differences)
    star = "*" if interval.low > 0 or interval.high < 0 else ""
    return f"{100 * interval.value:+.1f} ± {100 * (interval.high - interval.value):.1f}{star}"


EXPERIMENT = Experiment(
    "active_learning",
    "which image should be labelled next, and does a second look know better? (chapter 14)",
    tuple(PLANS),
    cells,
    compute,
    table,
)
