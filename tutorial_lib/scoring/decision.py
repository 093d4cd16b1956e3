"""Which score to use when: what stored runs say of every detector, by what may come (chapter 16).

Five things can come that a network was not trained for. They are far apart in what finds them, so that a mean over them would
say nothing; here they stay apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tutorial_lib.results.rows import Row
from tutorial_lib.results.stored import stored_rows

__all__ = ["KINDS", "WAYS", "Kind", "Way", "auroc_by_kind", "good_ways"]


@dataclass(frozen=True)
class Kind:
    """One kind of stranger, and the stored runs that met it.

    Attributes:
        experiment: whose rows.
        conditions: their names; one that begins with ``/`` is the end of a name.
    """

    experiment: str
    conditions: tuple[str, ...]

    def holds(self, row: Row) -> bool:
        return any(row.condition.endswith(c) if c[0] == "/" else row.condition == c for c in self.conditions)


@dataclass(frozen=True)
class Way:
    """One detector: what readers call it, and what it asks for.

    Attributes:
        title: for a figure.
        cost: passes through the network, and whether normal images must be there.
    """

    title: str
    cost: str


KINDS: Mapping[str, Kind] = {
    "something else altogether": Kind("out_of_distribution", ("photographs", "noise")),
    "a class it never saw": Kind("out_of_distribution", ("unseen_classes",)),
    "known, turned or inverted": Kind("out_of_distribution", ("rotated", "inverted")),
    "known, in bad weather": Kind("corruption", ("/3",)),
    "known, attacked": Kind("adversarial", ("fgsm", "bim", "pgd", "carlini_wagner", "iterll")),
}
"""By what a reader would say of the image; bad weather is level 3 of 5."""

WAYS: Mapping[str, Way] = {
    "msp": Way("confidence", "one forward pass"),
    "energy": Way("energy", "one forward pass"),
    "mahalanobis": Way("Mahalanobis", "forward, normal images"),
    "activation_density": Way("activations of all layers", "forward, normal images"),
    "gradient_density": Way("gradients of all layers", "backward, normal images"),
    "activation_fusion": Way("fused, without gradients", "forward, normal images"),
    "gradient_fusion": Way("fused, with gradients", "backward, normal images"),
}
"""Cheapest first; none has seen a stranger."""


def auroc_by_kind(study: str = "digits", network: str = "lenet") -> dict[str, dict[str, list[float]]]:
    """AUROC by kind and way, one number for each seed: the mean over the conditions of the kind.

    A kind of which the study has no rows is left out, and so is a way.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for title, kind in KINDS.items():
        rows = [row for row in stored_rows(kind.experiment, study) if _counts(row, network) and kind.holds(row)]
        by_way = {
            way: [
                float(np.mean([row.value for row in rows if row.method == way and row.seed == seed]))
                for seed in sorted({row.seed for row in rows if row.method == way})
            ]
            for way in WAYS
        }
        by_way = {way: values for way, values in by_way.items() if values}
        if by_way:
            found[title] = by_way
    return found


def _counts(row: Row, network: str) -> bool:
    plain = not row.protocol and row.challenging_data == "none"
    return row.metric == "auroc" and row.network == network and plain


def good_ways(by_way: Mapping[str, Sequence[float]], margin: float = 0.01) -> list[str]:
    """Ways that cannot be told from the best one: their mean is within ``margin``, or some seed reaches the best's worst seed."""
    best = max(by_way, key=lambda way: float(np.mean(by_way[way])))
    floor = min(by_way[best])
    return [
        way
        for way, values in by_way.items()
        if max(values) >= floor or np.mean(by_way[best]) - np.mean(values) <= margin
    ]
