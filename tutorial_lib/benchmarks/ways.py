"""The ways to squared gradient norms that the benchmark compares, by name: ours, the plain step, and the peers."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from tutorial_lib.benchmarks import peers
from tutorial_lib.gradients import squared_norms

OURS = "one pass"
PLAIN = "plain step"


def ways(model: nn.Module, names: Iterable[str]) -> dict[str, Callable[[Tensor], object]]:
    """The named ways to squared norms for the all-ones label, ready for the model; those that cannot be had are left out."""
    ready: dict[str, Callable[[Tensor], object]] = {}
    for name in names:
        if name == OURS:
            ready[name] = lambda x: squared_norms(model, x)
        elif name == PLAIN:
            ready[name] = lambda x: peers.plain_step(model, x, peers.all_ones)
        else:
            try:
                ready[name] = _summed(peers.PEERS[name](model), model)
            except ImportError:
                continue
    return ready


def possible(ready: dict[str, Callable[[Tensor], object]], images: Tensor) -> dict[str, Callable[[Tensor], object]]:
    """Those of the ways that can do the network: not every library knows attention."""
    found = {}
    for name, way in ready.items():
        try:
            way(images)
        except Exception:
            if name in (OURS, PLAIN):
                raise
            continue
        found[name] = way
    return found


def _summed(way: peers.Way, model: nn.Module) -> Callable[[Tensor], object]:
    return lambda x: way(model, x, peers.all_ones)
