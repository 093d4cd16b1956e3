"""Calibrate one's own network on a folder with labels: a temperature, what it changes, and a threshold with its promise.

Half of the images find the temperature, the other half measures: calibration errors before and after, and the threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tutorial_lib.calibration import TemperatureScaling, chance_ece, ece, negative_log_likelihood
from tutorial_lib.detectors.evidence import LOGITS
from tutorial_lib.scoring.networks import Network
from tutorial_lib.scoring.normal import finite_answers
from tutorial_lib.scoring.sources import ImageSource, read_batches
from tutorial_lib.scoring.thresholds import AnswerThreshold, answer_threshold

__all__ = ["Calibration", "calibrate", "calibrate_logits"]


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found.

    Attributes:
        temperature: that divides the logits, from ``n_fit`` images, of which ``wrong_fit`` were answered wrongly. It is made
            of these: from few mistakes it is mostly noise.
        n, accuracy: images of the other half, and the share that the network gets right.
        bins: of the calibration errors, equal width.
        ece_before, ece_after: expected calibration error on the other half.
        chance: the 95 % quantile of the error that a perfectly calibrated network with these confidences would show on n
            images; what lies below it is no evidence against it.
        nll_before, nll_after: mean negative log-likelihood there, nats.
        threshold: see `AnswerThreshold`.
        unread: images that could not be read, or were answered with numbers that are not finite, and why.
    """

    temperature: float
    n_fit: int
    wrong_fit: int
    n: int
    accuracy: float
    bins: int
    ece_before: float
    ece_after: float
    chance: float
    nll_before: float
    nll_after: float
    threshold: AnswerThreshold
    unread: dict[str, str]

    def record(self) -> dict[str, Any]:
        """For a JSON file."""
        return asdict(self)

    def __str__(self) -> str:
        worse = "; it does not help here, a temperature of 1 is better" if self.nll_after > self.nll_before else ""
        chance = f"chance alone makes up to {self.chance:.4f} in 95 % of such sets"
        return (
            f"temperature {self.temperature:.4g} (from {self.n_fit:,} images, {self.wrong_fit:,} of them answered wrongly)\n"
            f"accuracy {self.accuracy:.2%} on {self.n:,} others\n"
            f"ECE {self.ece_before:.4f} before, {self.ece_after:.4f} after ({self.bins} bins, n = {self.n:,};\n  {chance})\n"
            f"NLL {self.nll_before:.4f} before, {self.nll_after:.4f} after{worse}\n"
            f"{self.threshold}"
        )


def calibrate(
    network: Network,
    source: ImageSource,
    labels: NDArray[np.int64],
    risk: float = 0.05,
    delta: float = 0.05,
    bins: int = 15,
    seed: int = 0,
    batch_size: int = 64,
    workers: int = 2,
    progress: Callable[[int], Any] = lambda done: None,
) -> Calibration:
    """Ask the network for all images and calibrate its answers; see `calibrate_logits`.

    Args:
        network, source, labels: images that the network was not trained on, and their classes (N,).
        risk, delta: see `answer_threshold`.
        bins: of the calibration errors.
        seed: of the two halves.
        batch_size, workers: how images are read.
        progress: told how many more images are done.
    """
    logits: list[Tensor] = []
    kept: list[int] = []
    unread: dict[str, str] = {}
    for batch in read_batches(source, network.preprocessing, range(len(source)), batch_size, workers):
        unread.update({source.names[index]: reason for index, reason in batch.errors.items()})
        if batch.indices:
            seen, there, strange = finite_answers(network, batch, source, [LOGITS], batch_size)
            unread.update(strange)
            logits.append(seen[LOGITS])
            kept += there
        progress(len(batch.indices) + len(batch.errors))
    if not kept:
        raise ValueError(
            f"none of the {len(source)} images in {source.where} gave an answer; the first: {_first(unread)}"
        )
    return calibrate_logits(torch.cat(logits), labels[kept], risk, delta, bins, seed, unread)


def _first(unread: dict[str, str]) -> str:
    return next((f"{name}: {reason}" for name, reason in unread.items()), "")


def calibrate_logits(
    logits: Tensor,
    labels: NDArray[np.int64],
    risk: float = 0.05,
    delta: float = 0.05,
    bins: int = 15,
    seed: int = 0,
    unread: dict[str, str] | None = None,
) -> Calibration:
    """A temperature from one half of logits (N, K) and labels (N,); errors and a threshold from the other."""
    order = np.random.default_rng(seed).permutation(len(labels))
    fit, rest = np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :])
    if len(fit) < 2:
        raise ValueError(f"calibration needs at least 4 images with labels, got {len(labels)}")
    scaling = TemperatureScaling().fit(logits[fit], labels[fit])
    assert scaling.temperature is not None
    before = TemperatureScaling(1.0).predict_proba(logits[rest]).numpy()
    after = scaling.predict_proba(logits[rest]).numpy()
    truth = labels[rest]
    right = after.argmax(axis=1) == truth
    return Calibration(
        scaling.temperature,
        len(fit),
        int((logits[fit].argmax(dim=1).numpy() != labels[fit]).sum()),
        len(rest),
        float(right.mean()),
        bins,
        ece(before, truth, bins),
        ece(after, truth, bins),
        float(np.quantile(chance_ece(after, bins, repeats=400, seed=seed), 0.95)),
        negative_log_likelihood(before, truth),
        negative_log_likelihood(after, truth),
        answer_threshold(after.max(axis=1), right, risk, delta),
        unread or {},
    )
