"""What GradCON costs: a training step and the scores of a batch, beside the scheme of its authors' code.

Two questions, each measured interleaved in this process:

* a training step of one model, and of ten, in plain steps (forward, backward and update of the same network without a constraint);
* scores of a batch, in forward passes of that batch.

The published scheme is `tutorial_lib.benchmarks.gradcon_transcription`: a backward pass for every layer, and when
scoring for every image. That both give the same numbers is tested.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tutorial_lib.benchmarks.gradcon_transcription import RunningAverage, published_scores, published_step
from tutorial_lib.benchmarks.gradients import RESULTS
from tutorial_lib.benchmarks.timing import interleaved, measurements
from tutorial_lib.detectors import GradCON
from tutorial_lib.gradcon import ALPHA, GradientConstraint, decoder_weights, training_step
from tutorial_lib.models.autoencoder import Autoencoder, build_autoencoder
from tutorial_lib.results.rows import Provenance, Row, read_rows
from tutorial_lib.results.tables import TableText, markdown_table
from tutorial_lib.training.autoencoder import AutoencoderConfig
from tutorial_lib.training.autoencoders_side_by_side import Together

__all__ = ["EXPERIMENT", "RESULTS", "Plan", "run", "results", "table"]

EXPERIMENT = "gradcon_benchmark"
OURS_TRAINING, PUBLISHED_TRAINING = "all layers at once", "layer by layer (published)"
SIDE_BY_SIDE = "ten models side by side"
OURS_SCORING, PUBLISHED_SCORING = "whole batch", "image by image (published)"
PAIRS = {
    "training step": (OURS_TRAINING, PUBLISHED_TRAINING),
    "training step, bfloat16": (OURS_TRAINING + ", bfloat16", PUBLISHED_TRAINING),
    "ten training steps": (SIDE_BY_SIDE, PUBLISHED_TRAINING),
    "scores": (OURS_SCORING, PUBLISHED_SCORING),
}
"""Ours and the published scheme's method for each question."""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    shapes: Sequence[tuple[int, int, int]] = ((1, 28, 28), (3, 28, 28), (1, 8, 8))
    batches: Sequence[int] = (64,)
    seconds: float = 20.0

    @classmethod
    def quick(cls) -> Plan:
        """Half a minute on one core."""
        return cls(((1, 8, 8),), (64,), seconds=2.0)


def run(plan: Plan, source: Provenance, device: torch.device, say: Callable[[str], None]) -> Iterator[Row]:
    """Measure everything in the plan; rows come as they are measured."""
    for shape in plan.shapes:
        for batch in plan.batches:
            study = "x".join(map(str, shape))
            for question, prepare in (("training step", training), ("ten training steps", ten), ("scores", scoring)):
                baseline, methods = prepare(shape, batch, device)
                seconds, ratios = interleaved(baseline, methods, plan.seconds, device)
                unit = "forward pass" if question == "scores" else "plain step"
                said = ", ".join(f"{name} {ratio.median:.2f}" for name, ratio in ratios.items())
                say(f"{study}, {question}, N={batch}: {unit} {1e3 * seconds:.1f} ms; {said}")
                for measured, took in measurements(unit, seconds, ratios, question, batch):
                    yield Row.of(measured, source, experiment=EXPERIMENT, study=study, seconds=took)


Prepared = tuple[Callable[[], object], dict[str, Callable[[], object]]]

MODELS = 10
"""One-class models trained side by side."""

#: Networks narrower than the published one, by the side of their images.
WIDTHS = {8: 0.25}


def _network(shape: tuple[int, int, int], device: torch.device) -> Autoencoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_autoencoder("cae", shape, WIDTHS.get(shape[1], 1.0)).to(device)


def _images(shape: tuple[int, int, int], batch: int, device: torch.device) -> Tensor:
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)


def _our_step(
    shape: tuple[int, int, int], images: Tensor, constrained: bool, precision: str = "float32"
) -> Callable[[], object]:
    model = _network(shape, images.device).train()
    layout = torch.channels_last if precision == "bfloat16" else torch.contiguous_format  # as train_autoencoder does it
    model.to(memory_format=layout)
    batch = images.contiguous(memory_format=layout)
    constraint = GradientConstraint(model, ALPHA) if constrained else None
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def step() -> None:
        training_step(model, batch, constraint, precision=precision)
        optimizer.step()

    return step


def _published_step(shape: tuple[int, int, int], images: Tensor) -> Callable[[], object]:
    model = _network(shape, images.device).train()
    weights = list(decoder_weights(model).values())
    averages = [RunningAverage() for _ in weights]
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    return lambda: published_step(model, weights, images, averages, optimizer, ALPHA)


def training(shape: tuple[int, int, int], batch: int, device: torch.device) -> Prepared:
    """One step of training: plain; constrained, as this library does it; constrained, as published."""
    images = _images(shape, batch, device)
    return _our_step(shape, images, constrained=False), {
        OURS_TRAINING: _our_step(shape, images, constrained=True),
        OURS_TRAINING + ", bfloat16": _our_step(shape, images, constrained=True, precision="bfloat16"),
        PUBLISHED_TRAINING: _published_step(shape, images),
    }


def ten(shape: tuple[int, int, int], batch: int, device: torch.device) -> Prepared:
    """A constrained step of each of ten models: side by side; one after the other; one after the other as published."""
    images = _images(shape, batch, device)
    models = [_network(shape, device) for _ in range(MODELS)]
    together = Together(models, [GradientConstraint(model, ALPHA) for model in models], AutoencoderConfig())
    stacked = images.expand(MODELS, *images.shape).contiguous()
    mask, noise = torch.ones(MODELS, batch, device=device), torch.zeros(MODELS, batch, 0, device=device)
    ours, published = _our_step(shape, images, constrained=True), _published_step(shape, images)
    return _our_step(shape, images, constrained=False), {
        SIDE_BY_SIDE: lambda: together.step(stacked, mask, noise),
        "one after the other": lambda: [ours() for _ in range(MODELS)],
        PUBLISHED_TRAINING: lambda: [published() for _ in range(MODELS)],
    }


def scoring(shape: tuple[int, int, int], batch: int, device: torch.device) -> Prepared:
    """Combined scores of a batch: as this library has them, and image by image as published."""
    images, model = _images(shape, batch, device), _network(shape, device).train()
    constraint = GradientConstraint(model, ALPHA)
    for _ in range(2):
        training_step(model, images, constraint)
    detector = GradCON(model.eval(), constraint)
    weights, averages = list(decoder_weights(model).values()), list(constraint.mean.values())
    frozen = copy.deepcopy(model)

    def forward() -> None:
        with torch.no_grad():
            frozen(images)

    return forward, {
        OURS_SCORING: lambda: detector.predict(images),
        PUBLISHED_SCORING: lambda: published_scores(model, weights, images, averages, beta=0.12),
    }


def results(device: str = "cpu") -> list[Row]:
    """The rows that come with the library, measured on ``"cpu"`` or ``"cuda"``."""
    return read_rows(RESULTS / f"gradcon_{device}.csv")


def table(rows: Sequence[Row]) -> TableText:
    """Ratios by images and question, ours and the published scheme's, and how many times faster ours is."""
    ratios = {(row.study, row.condition, row.n, row.method): row.value for row in rows if row.metric == "ratio"}
    body = []
    for study, question, n in dict.fromkeys(key[:3] for key in ratios):
        for title, (ours, published) in PAIRS.items():
            mine, theirs = ratios.get((study, question, n, ours)), ratios.get((study, question, n, published))
            if title.startswith(question) and mine and theirs:
                body.append([f"{study}, N={n}: {title}", f"{mine:.2f}", f"{theirs:.2f}", f"{theirs / mine:.2f}"])
    head = ["images, in plain steps or forward passes", "ours", "published scheme", "times faster"]
    return TableText(markdown_table(head, body))
