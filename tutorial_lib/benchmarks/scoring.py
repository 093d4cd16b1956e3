"""What scoring a folder costs: ``python -m tutorial_lib score`` beside a plain inference pass, and how much memory it takes.

A folder of PNG files is made from CIFAR-10 (without it, from the embedded digits, repeated) and scored from end to end: read,
decoded, looked at, written to a table. Between every few batches the same network answers images that lie in memory already,
which is the plain pass; for scores from gradients also the gradient engine, which is their floor. All of it happens in one process
that has nothing else to do, so that its peak memory is that of scoring.

Times are of the process's own CPU with one thread (see `tutorial_lib.benchmarks.timing`): reading in other threads is then not
free, and neighbours do not count.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tutorial_lib.benchmarks.gradients import RESULTS
from tutorial_lib.benchmarks.timing import Clock
from tutorial_lib.data import DATASETS, ImageSet, load_images
from tutorial_lib.data.resize import fit
from tutorial_lib.gradients import squared_norms
from tutorial_lib.models.predict import preserved
from tutorial_lib.results.rows import Measurement, Provenance, Row, read_rows
from tutorial_lib.results.tables import TableText, markdown_table
from tutorial_lib.scoring import Network, Preprocessing, named_detectors, open_source, score_images, write_images
from tutorial_lib.scoring.sources import ImageSource
from tutorial_lib.studies import load_study

__all__ = ["EXPERIMENT", "QUESTIONS", "RESULTS", "Plan", "results", "run", "table"]

EXPERIMENT = "scoring_benchmark"

QUESTIONS = {"logits": ("msp", "energy"), "gradients": ("gradientsum",)}
"""Which detectors are asked, by what they look at."""

PLAIN, ENGINE = "plain inference pass", "gradient engine alone"

BATCH = 64
"""Images at a time, as ``score`` takes them by default."""

SIZE = 32


@dataclass(frozen=True)
class Plan:
    """What to run.

    Args:
        images: in the folder; the logits of all are scored.
        gradient_images: of them, scored by gradients.
        every: images between two looks at the clock.
    """

    images: int = 50_000
    gradient_images: int = 5_000
    every: int = 512

    @classmethod
    def quick(cls) -> Plan:
        """A few seconds on one core: what the numbers are of, and not what they are."""
        return cls(384, 128, every=128)


def run(plan: Plan, source: Provenance, device: torch.device, say: Callable[[str], None]) -> Iterator[Row]:
    """Measure both questions; rows come as they are measured."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "images"
        images = _images(plan.images)
        write_images(folder, images.images, [images.class_names[label] for label in images.labels])
        say(f"{len(images):,} files made of {images.name}")
        counts = {"logits": plan.images, "gradients": plan.gradient_images}
        arguments = [str(folder), counts, plan.every, torch.get_num_threads(), str(device)]
        asked = [sys.executable, "-W", "ignore", "-c", _ASK, json.dumps(arguments)]
        done = subprocess.run(asked, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"scoring failed:\n{done.stderr[-2000:]}")
        for question, found in json.loads(done.stdout.splitlines()[-1]).items():
            say(f"{question}: {found['per second']:.0f} images per second, {found['ratio']:.2f} of the plain pass")
            for measured in _measurements(question, found):
                yield Row.of(measured, source, experiment=EXPERIMENT, study=images.name, seconds=found["seconds"])


def _images(count: int) -> ImageSet:
    """So many images of 32x32 RGB."""
    here = DATASETS["cifar10"].found("train") is not None
    images = load_images("cifar10", "train") if here else fit(load_images("digits"), (3, SIZE, SIZE))
    return images.subset(torch.arange(count) % len(images))


def _measurements(question: str, found: dict[str, Any]) -> Iterator[Measurement]:
    n, method = found["n"], ", ".join(QUESTIONS[question])
    yield Measurement(PLAIN, question, "images per second", found["plain per second"], n)
    yield Measurement(method, question, "images per second", found["per second"], n)
    yield Measurement(method, question, "ratio", found["ratio"], n)
    if question == "gradients":
        yield Measurement(ENGINE, question, "ratio", found["engine ratio"], n)
    if found["memory"] is not None:
        first, last = found["memory"]
        yield Measurement(method, question, "peak memory MB", last, n)
        yield Measurement(method, question, "growth MB", last - first, n)


# ----------------------------------------------------------------------------------------------------------------------
# In a process of its own

_ASK = (
    "import json, sys; from tutorial_lib.benchmarks.scoring import _measure; "
    "print(json.dumps(_measure(*json.loads(sys.argv[1]))))"
)


def _measure(folder: str, counts: dict[str, int], every: int, threads: int, device: str) -> dict[str, dict[str, Any]]:
    """Answers by question; that of less memory comes first."""
    torch.set_num_threads(threads)
    model = load_study("cifar10").classifier("resnet20", device=device)
    preprocessing = Preprocessing((SIZE, SIZE), source="the benchmark")
    network = Network(model, preprocessing, "benchmark", "resnet20", "", classes=10)
    names = open_source(folder).names
    return {
        question: _scored(network, ImageSource(folder, Path(folder), names[:count]), question, every, device)
        for question, count in counts.items()
    }


def _scored(network: Network, source: ImageSource, question: str, every: int, device: str) -> dict[str, Any]:
    """Score the images, and in between ask the same network plainly."""
    count, model, preprocessing = len(source), network.model, network.preprocessing
    in_memory = torch.stack([preprocessing.prepare(source.image(i)) for i in range(min(count, 4 * BATCH))])
    clock = Clock(torch.device(device))
    watch = _Watch(clock, in_memory, model, every, engine=question == "gradients")
    with tempfile.TemporaryDirectory() as scratch:
        detectors = named_detectors(QUESTIONS[question], model)
        watch.begin()
        outcome = score_images(
            network, detectors, source, Path(scratch) / "scores.csv", batch_size=BATCH, progress=watch
        )
    seconds = watch.end()
    if outcome.broken:
        raise RuntimeError(f"{outcome.broken} images have no score")
    per_image, plain = seconds / count, statistics.median(watch.plain)
    found = {
        "n": count,
        "seconds": seconds,
        "per second": 1 / per_image,
        "plain per second": 1 / plain,
        "ratio": plain / per_image,
        "memory": watch.memory,
    }
    return found | ({"engine ratio": plain / statistics.median(watch.engine)} if watch.engine else {})


class _Watch:
    """Told of images that are done, asks the network plainly every so often; neither counts as scoring."""

    def __init__(self, clock: Clock, images: Tensor, model: torch.nn.Module, every: int, engine: bool) -> None:
        self.clock, self.images, self.model, self.every = clock, images, model, every
        self.device = next(model.parameters()).device
        self.with_engine = engine
        self.plain: list[float] = []
        self.engine: list[float] = []
        self.peaks: list[float] = []
        self.done, self.begun, self.aside = 0, 0.0, 0.0

    def begin(self) -> None:
        """After one unmeasured call, which allocates."""
        self._ask()
        self.plain, self.engine, self.aside = [], [], 0.0
        self.begun = self.clock.now()

    def end(self) -> float:
        """Seconds of scoring."""
        return self.clock.now() - self.begun - self.aside

    def __call__(self, more: int) -> None:
        before, self.done = self.done, self.done + more
        if more and before // self.every != self.done // self.every:
            self._ask()

    def _ask(self) -> None:
        start = self.clock.now()
        self.plain.append(self.clock(self._plainly) / len(self.images))
        if self.with_engine:
            self.engine.append(self.clock(self._engine) / len(self.images))
        self.peaks.append(_peak_memory())
        self.aside += self.clock.now() - start

    def _batches(self) -> Iterator[Tensor]:
        return (batch.to(self.device).float() / 255 for batch in self.images.split(BATCH))

    def _plainly(self) -> None:
        with torch.no_grad():
            for batch in self._batches():
                self.model(batch).cpu()

    def _engine(self) -> None:
        with preserved(self.model):
            for batch in self._batches():
                squared_norms(self.model, batch)[0].cpu()

    @property
    def memory(self) -> tuple[float, float] | None:
        """Peak megabytes so far when a tenth of the images was done, and at the end; None where nobody can tell."""
        if not self.peaks[-1]:
            return None
        return self.peaks[max(1, len(self.peaks) // 10)], _peak_memory()


def _peak_memory() -> float:
    """Largest resident set of this process so far in megabytes; 0 on systems that do not say.

    Linux's own line, where there is one: what ``getrusage`` says there begins with the memory of the parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


# ----------------------------------------------------------------------------------------------------------------------


def results(device: str = "cpu") -> list[Row]:
    """The rows that come with the library, measured on ``"cpu"`` or ``"cuda"``."""
    return read_rows(RESULTS / f"scoring_{device}.csv")


def table(rows: Sequence[Row]) -> TableText:
    """Speed, its ratio to the plain pass, for gradients also to the engine alone, and peak memory."""
    values = {(row.condition, row.method, row.metric): row.value for row in rows}
    body = []
    for question, names in QUESTIONS.items():
        method = ", ".join(names)
        if (question, method, "ratio") not in values:
            continue
        ratio, engine = values[question, method, "ratio"], values.get((question, ENGINE, "ratio"))
        n = next(row.n for row in rows if row.condition == question)
        memory = [values.get((question, method, name)) for name in ("peak memory MB", "growth MB")]
        body.append(
            [
                f"{method}, {n:,} images",
                f"{values[question, method, 'images per second']:.0f}",
                f"{ratio:.2f}",
                "" if engine is None else f"{ratio / engine:.2f}",
                *("" if value is None else f"{value:.0f}" for value in memory),
            ]
        )
    head = [
        "scores",
        "images per second",
        "of a plain pass",
        "of the engine alone",
        "peak MB",
        "growth after a tenth, MB",
    ]
    return TableText(markdown_table(head, body))
