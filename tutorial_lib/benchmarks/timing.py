"""Ratios of running times that survive a busy machine.

Every method is timed between two runs of the same baseline, in rounds, and what is kept of a round is the ratio to the mean
of the two. The median of the rounds' ratios forgets a disturbance that a mean of times would carry for ever.

What is timed is the second of two calls in a row, of the baseline as of every method: batch follows batch when a data set is
scored, and whose turn came before would otherwise decide what the processor still holds in its caches.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch

from tutorial_lib.results.rows import Measurement


class Ratio(NamedTuple):
    """Running time of a method, in baselines: median and quartiles over rounds."""

    median: float
    low: float
    high: float
    rounds: int


class Clock:
    """Seconds that a call takes: of the process's own CPU time with one thread, which neighbours do not add to; of the wall otherwise."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.now = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter

    def __call__(self, function: Callable[[], object]) -> float:
        self._wait()
        start = self.now()
        function()
        self._wait()
        return self.now() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def interleaved(
    baseline: Callable[[], object], methods: Mapping[str, Callable[[], object]], seconds: float, device: torch.device
) -> tuple[float, dict[str, Ratio]]:
    """Time methods against a baseline, round by round, for about so many seconds but at least three rounds.

    A method that takes more than a quarter of the time at hand sits out all but the first three rounds, and is called once in each.

    Returns:
        Median seconds of the baseline, and the methods' ratios.
    """
    clock = Clock(device)
    clock(baseline)
    alone = {name: clock(method) for name, method in methods.items()}  # first calls allocate and compile; not kept
    slow = {name for name in methods if alone[name] > seconds / 4}

    def second_call(function: Callable[[], object]) -> float:
        function()
        return clock(function)

    baselines = [second_call(baseline)]
    ratios: dict[str, list[float]] = {name: [] for name in methods}
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < 3 or (time.perf_counter() < end and rounds < 100):
        for name, method in methods.items():
            if rounds >= 3 and name in slow:
                continue
            taken = clock(method) if name in slow else second_call(method)
            baselines.append(second_call(baseline))
            ratios[name].append(2 * taken / (baselines[-2] + baselines[-1]))
        rounds += 1
    return statistics.median(baselines), {name: _summary(values) for name, values in ratios.items()}


def measurements(
    unit: str, seconds: float, ratios: Mapping[str, Ratio], condition: str, n: int
) -> Iterator[tuple[Measurement, float]]:
    """What `interleaved` found as results, each with the seconds that its method took (0: not that of a row).

    Args:
        unit: name of the baseline.
        seconds, ratios: as `interleaved` returns them.
        condition: of all of them.
        n: images a call.
    """
    yield Measurement(unit, condition, "seconds", seconds, n), 0.0
    for name, ratio in ratios.items():
        yield Measurement(name, condition, "ratio", ratio.median, n), ratio.median * seconds
        yield Measurement(name, condition, "ratio, lower quartile", ratio.low, n), 0.0
        yield Measurement(name, condition, "ratio, upper quartile", ratio.high, n), 0.0


def _summary(values: list[float]) -> Ratio:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Ratio(median, low, high, len(values))
