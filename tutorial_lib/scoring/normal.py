"""What is normal here: detectors fitted to a folder of normal images, and the scores of others that were held out.

A raw score has no unit that a stranger could read. Its tail probability has: the share of normal images that score at least
as high. It is taken from normal images on which nothing was fitted, and counts the image itself, so that it is never 0:

.. math:: p(s) = \\frac{1 + \\#\\{\\text{held-out scores} \\ge s\\}}{n + 1}.

That is a conformal p-value (Vovk et al., "Algorithmic learning in a random world", 2005; Bates et al., Annals of Statistics
2023): whatever the distribution, a normal image that is exchangeable with the held-out ones has :math:`p \\le \\alpha` with
probability at most :math:`\\alpha`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from tutorial_lib.detectors import Detector, Evidence
from tutorial_lib.detectors.evidence import LOGITS, Quantity, observe
from tutorial_lib.scoring.files import gist
from tutorial_lib.scoring.labels import folder_labels
from tutorial_lib.scoring.networks import Network
from tutorial_lib.scoring.sources import ImageSource, ReadBatch, read_batches

__all__ = ["Normal", "cannot_look", "detector_needs", "finite_answers", "fit_to_normal", "seen_of", "tail_probability"]

NOT_FINITE = "the network's answer is not finite"

FEWEST_HELD_OUT = 20
"""Fewer held-out images are refused: their smallest tail probability, 1 / (n + 1), would not reach 0.05."""


def tail_probability(held_out: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """Share of normal images that score at least as high, in (0, 1]; small = strange. See the top of this module.

    Args:
        held_out: scores (n,) of normal images that nothing was fitted on, finite.
        scores: scores (N,) to judge, larger = stranger; where one is NaN, so is its tail.

    >>> tail_probability([1.0, 2.0, 3.0], [0.0, 2.0, 9.0])
    array([1.  , 0.75, 0.25])
    """
    ordered = np.sort(np.asarray(held_out, dtype=np.float64))
    if not len(ordered) or not np.isfinite(ordered).all():
        raise ValueError("tail probabilities need at least one held-out score, and finite ones")
    judged = np.asarray(scores, dtype=np.float64)
    below = np.searchsorted(ordered, judged, side="left")
    return np.where(np.isnan(judged), np.nan, (1 + len(ordered) - below) / (len(ordered) + 1))


@dataclass(frozen=True)
class Normal:
    """Normal images, as far as scoring remembers them.

    Attributes:
        held_out: scores (n,) by detector, sorted, of images that nothing was fitted on.
        record: how many images were fitted and held out, which could not be used, and what the labels were.
    """

    held_out: Mapping[str, NDArray[np.float64]]
    record: Mapping[str, Any]


def fit_to_normal(
    network: Network,
    detectors: Mapping[str, Detector],
    source: ImageSource,
    limit: int = 5000,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 2,
    progress: Callable[[int], Any] = lambda done: None,
) -> Normal:
    """Fit every detector that wants it to two thirds of the images, and keep the last third's scores.

    Args:
        network, detectors: what looks; the detectors are fitted in place.
        source: normal images that the network was not trained on. A detector that asks for labels gets those of the
            folders where these are classes of the network (see `tutorial_lib.scoring.folder_labels`), and the network's
            own answers where they are not.
        limit: images at most, drawn at random; their features are held in memory, the images are not.
        seed: of the drawing.
        batch_size, workers: how they are read.
        progress: told how many more images are done.

    Raises:
        ValueError: too few images; or a detector cannot look at this network, and why.
    """
    order = np.random.default_rng(seed).permutation(len(source))[:limit]
    to_fit = [detector for detector in detectors.values() if detector.requires_fit]
    share = 2 / 3 if to_fit else 0.0
    first = sorted(int(i) for i in order[: round(share * len(order))])
    rest = sorted(int(i) for i in order[round(share * len(order)) :])
    if len(rest) < FEWEST_HELD_OUT:
        wanted = FEWEST_HELD_OUT * (3 if to_fit else 1)
        taken = f", of which {len(order)} may be taken (--fit-limit)" if len(order) < len(source) else ""
        raise ValueError(f"{source.where} holds {len(source)} images{taken}; at least {wanted} normal ones are needed")
    unread: dict[str, str] = {}

    def seen_at(indices: Sequence[int], needs: Iterable[Quantity]) -> tuple[Evidence, list[int]]:
        parts, kept = [], []
        for batch in read_batches(source, network.preprocessing, indices, batch_size, workers):
            unread.update({source.names[index]: reason for index, reason in batch.errors.items()})
            if batch.indices:
                seen, there, strange = finite_answers(network, batch, source, needs, batch_size)
                unread.update(strange)
                parts.append(seen)
                kept += there
            progress(len(batch.indices) + len(batch.errors))
        if not kept:
            first = next((f"; the first: {name}: {reason}" for name, reason in unread.items()), "")
            raise ValueError(f"none of {len(indices)} normal images in {source.where} gave an answer{first}")
        return Evidence.together(parts), kept

    labels_are, fitted = "none", 0
    if to_fit:
        needs = [LOGITS, *chain.from_iterable((*d.needs_to_fit(), *d.needs()) for d in to_fit)]
        evidence, kept = seen_at(first, needs)
        fitted = len(kept)
        labels, labels_are = _labels(network, source, kept, evidence)
        for name, detector in detectors.items():
            if detector.requires_fit:
                try:
                    detector.fit_from(evidence, labels=labels)
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{name} cannot be fitted to {source.where}: {error}") from error
    evidence, kept = seen_at(rest, [LOGITS, *detector_needs(detectors.values())])
    if len(kept) < FEWEST_HELD_OUT:
        raise ValueError(f"only {len(kept)} of {len(rest)} held-out normal images in {source.where} could be used")
    held_out = {name: np.sort(detector.predict_from(evidence)) for name, detector in detectors.items()}
    for name, scores in held_out.items():
        if not np.isfinite(scores).all():
            without = int((~np.isfinite(scores)).sum())
            raise ValueError(f"{name} has no finite score for {without} of {len(kept)} normal images; leave it out")
    record = {
        "images": source.where,
        "fitted": fitted,
        "held_out": len(kept),
        "smallest_tail": 1 / (len(kept) + 1),
        "labels": labels_are,
        "limit": limit,
        "seed": seed,
        "unread": unread,
    }
    return Normal(held_out, record)


def detector_needs(detectors: Iterable[Detector]) -> tuple[Quantity, ...]:
    """What the fitted detectors look at, each quantity once."""
    return tuple(dict.fromkeys(chain.from_iterable(detector.needs() for detector in detectors)))


def cannot_look(network: Network, detectors: Mapping[str, Detector]) -> dict[str, str]:
    """Detectors that cannot look at this network, and why: each is shown two images of noise."""
    shape = (2, network.preprocessing.channels, *network.preprocessing.size)
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    found = {}
    for name, detector in detectors.items():
        try:
            looked_at = detector.needs_to_fit() if detector.requires_fit else detector.needs()
            seen_of(network, noise, [LOGITS, *looked_at], len(noise))
        except ValueError as error:
            found[name] = str(error).partition(" cannot be looked at: ")[2] or str(error)
    return found


def seen_of(network: Network, images: torch.Tensor, needs: Iterable[Quantity], batch_size: int) -> Evidence:
    """One go through the network; what it cannot show becomes one error."""
    try:
        return observe(network.model, images, *dict.fromkeys(needs), batch_size=batch_size)
    except (TypeError, ValueError, RuntimeError) as error:
        missing = f" ({network.without_features})" if network.without_features and "features" in str(error) else ""
        reason = gist(error)
        if "ScriptModules" in reason:
            reason = "no hook can listen to a TorchScript network's layers; use .pt2 or module.py:factory, or other detectors"
        raise ValueError(f"{network.name} cannot be looked at: {reason}{missing}") from error


def finite_answers(
    network: Network, batch: ReadBatch, source: ImageSource, needs: Iterable[Quantity], batch_size: int
) -> tuple[Evidence, list[int], dict[str, str]]:
    """What the network shows of those images that it answers with finite numbers, their indices, and the others by name."""
    seen = seen_of(network, batch.images, needs, batch_size)
    finite = seen[LOGITS].isfinite().all(dim=1)
    if bool(finite.all()):
        return seen, batch.indices, {}
    strange = {source.names[i]: NOT_FINITE for i, good in zip(batch.indices, finite.tolist(), strict=True) if not good}
    kept = [i for i, good in zip(batch.indices, finite.tolist(), strict=True) if good]
    return seen.subset(finite), kept, strange


def _labels(network: Network, source: ImageSource, kept: Sequence[int], evidence: Evidence) -> tuple[torch.Tensor, str]:
    with suppress(ValueError):  # folders of another meaning
        return torch.from_numpy(folder_labels(source, network)[list(kept)]), "folders"
    return evidence[LOGITS].argmax(dim=1), "the network's own answers"
