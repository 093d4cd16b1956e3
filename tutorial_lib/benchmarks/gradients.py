"""What per-sample gradient features cost, in plain training steps.

Four questions: norms for one label, norms for all classes, cosines with a reference, the last layer's gradients in closed form. Each is
timed in this process, interleaved with the plain step (one batched forward and backward pass) that it is measured by, beside the
ways that papers and libraries take to the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from tutorial_lib.benchmarks import memory, networks, peers
from tutorial_lib.benchmarks.timing import interleaved, measurements
from tutorial_lib.benchmarks.ways import OURS, PLAIN, possible, ways
from tutorial_lib.gradients import alignment, contrast_squared_norms, introspective_features, squared_norms
from tutorial_lib.results.rows import Measurement, Provenance, Row, read_rows
from tutorial_lib.results.tables import TableText, markdown_table

EXPERIMENT = "gradients_benchmark"
RESULTS = Path(__file__).parent / "results"
DEEP, ATTENTION = "densenet_bc_100_12", "vit"
"""A hundred layers of twelve channels, and a transformer: measured, but not in every table, or the benchmark would take an hour."""

MANY = 1000
"""Images times labels from which on a table would take longer than all others."""

TOO_LARGE = 4 << 30
"""Bytes of N full gradients from which on the ways that hold them all are left out."""


@dataclass(frozen=True)
class Plan:
    """What to run."""

    networks: Sequence[str] = ("resnet18", "resnet20", "small_cnn", "densenet_bc_100_12", "vit")
    batches: Sequence[int] = (1, 8, 32, 128)
    classes: Sequence[int] = (10, 100)
    contrast_batches: Sequence[int] = (8, 32)
    seconds: float = 20.0
    times: bool = True
    memory: bool = True

    @classmethod
    def quick(cls) -> Plan:
        """A minute or two on two cores."""
        return cls(("resnet20", "small_cnn"), (1, 8), (10,), (8,), seconds=2.0, memory=False)


def run(plan: Plan, source: Provenance, device: torch.device, say: Callable[[str], None]) -> Iterator[Row]:
    """Measure everything in the plan; rows come as they are measured."""
    broad = [name for name in plan.networks if name not in (DEEP, ATTENTION)]
    tables = [
        *(partial(norms, name, n) for name in plan.networks for n in plan.batches if name != DEEP or n <= 32),
        *(
            partial(contrast, name, c, n)
            for name in broad
            for c in plan.classes
            for n in plan.contrast_batches
            if c * n <= MANY
        ),
        *(partial(decoder, n) for n in plan.batches if n > 1),
        *(partial(closed_form, name, 32) for name in plan.networks),
    ]
    for number, table in enumerate(tables if plan.times else [], 1):
        study, condition, n, baseline, methods = table(device)
        say(f"[{number}/{len(tables)}] {study}, {condition}")
        seconds, ratios = interleaved(baseline, methods, plan.seconds, device)
        say(
            f"    {PLAIN} {1e3 * seconds:.1f} ms; "
            + ", ".join(f"{name} {ratio.median:.2f}" for name, ratio in ratios.items())
        )
        for measured, took in measurements(PLAIN, seconds, ratios, condition, n):
            yield Row.of(measured, source, experiment=EXPERIMENT, study=study, seconds=took)
    if plan.memory:
        for name in broad:
            for method in (PLAIN, OURS, *peers.PEERS):
                used = memory.peak(name, 32, method, torch.get_num_threads(), str(device))
                if used is not None:
                    say(f"    {name}, peak memory at N=32, {method}: {used:.0f} MB")
                    measured = Measurement(method, "norms, N=32", "extra memory, MB", used, 32)
                    yield Row.of(measured, source, experiment=EXPERIMENT, study=name)


Measured = tuple[str, str, int, Callable[[], object], dict[str, Callable[[], object]]]


def norms(name: str, n: int, device: torch.device) -> Measured:
    """Norms for the all-ones label, against every peer that can be had."""
    model, x = networks.network(name, device=device), networks.images(n, device)
    size = 4 * n * sum(p.numel() for p in model.parameters())
    names = [OURS, *(peer for peer in peers.PEERS if size < TOO_LARGE or peer in ("loop", "vmap, 8 at a time"))]
    prepared_ways = possible(ways(model, names), x[:2])
    prepared: dict[str, Callable[[], object]] = {way: partial(run, x) for way, run in prepared_ways.items()}
    return name, f"norms, N={n}", n, lambda: peers.plain_step(model, x, peers.all_ones), prepared


def contrast(name: str, classes: int, n: int, device: torch.device) -> Measured:
    """Norms for every class as the label: all in one pass, one label after the other, one image and label after the other."""
    model, x = networks.network(name, classes, device), networks.images(n, device)

    def one_by_one() -> None:
        for image in x.split(1):
            logits = model(image)
            for k in range(classes):
                loss = F.cross_entropy(logits, torch.full((1,), k, device=device), reduction="sum")
                gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
                torch.stack([g.square().sum() for g in gradients])

    methods: dict[str, Callable[[], object]] = {
        "all labels in one pass": lambda: contrast_squared_norms(model, x),
        "one label after the other": lambda: [squared_norms(model, x, k, "ce") for k in range(classes)],
    }
    if classes * n <= 320:
        methods["loop over images and labels"] = one_by_one
    return name, f"contrast, C={classes}, N={n}", n, lambda: peers.plain_step(model, x, peers.all_ones), methods


def decoder(n: int, device: torch.device) -> Measured:
    """Cosines of the decoder's gradients with a reference, against the plain step of the autoencoder."""
    model, x = networks.network("autoencoder", device=device), networks.images(n, device)
    reference = {
        f"{number}.weight": torch.ones_like(layer.weight)
        for number, layer in model.named_children()
        if isinstance(layer, nn.ConvTranspose2d)
    }
    weights = [model.get_parameter(name) for name in reference]

    def loop() -> None:
        for image in x.split(1):
            gradients = torch.autograd.grad(F.mse_loss(model(image), image), weights)
            for g, r in zip(gradients, reference.values(), strict=True):
                F.cosine_similarity(g.flatten(), r.flatten(), dim=0)

    def baseline() -> object:
        return torch.autograd.grad(F.mse_loss(model(x), x, reduction="sum"), list(model.parameters()))

    return "autoencoder", f"alignment, N={n}", n, baseline, {OURS: lambda: alignment(model, x, reference), "loop": loop}


def closed_form(name: str, n: int, device: torch.device) -> Measured:
    """Introspective features, against the plain step and a forward pass."""
    model, x = networks.network(name, device=device), networks.images(n, device)

    def forward() -> None:
        with torch.no_grad():
            model(x)

    def features() -> None:
        with torch.no_grad():
            introspective_features(model, x)

    return (
        name,
        f"introspective, N={n}",
        n,
        lambda: peers.plain_step(model, x, peers.all_ones),
        {"forward pass": forward, "introspective features": features},
    )


def results(device: str = "cpu") -> list[Row]:
    """The rows that come with the library, measured on ``"cpu"`` or ``"cuda"``."""
    return read_rows(RESULTS / f"gradients_{device}.csv")


def ratios(rows: Iterable[Row], question: str) -> dict[str, dict[str, dict[int, float]]]:
    """Median ratios of one question (``"norms"``, ``"contrast, C=10"``, ...): by network, then by method, then by batch size."""
    found: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        if row.metric == "ratio" and row.condition.rpartition(", N=")[0] == question:
            found.setdefault(row.study, {}).setdefault(row.method, {})[row.n] = row.value
    return found


def table(rows: Iterable[Row], question: str = "norms") -> TableText:
    """The median ratios of one question: a line per network and batch size, a column per method."""
    found = ratios(rows, question)
    methods = list(dict.fromkeys(method for by_method in found.values() for method in by_method))
    body = []
    for network, by_method in found.items():
        for n in sorted({n for by_n in by_method.values() for n in by_n}):
            numbers = [by_method.get(method, {}).get(n) for method in methods]
            body.append([f"{network}, N={n}", *("–" if x is None else f"{x:.2f}" for x in numbers)])
    return TableText(markdown_table(["in plain steps", *methods], body))
