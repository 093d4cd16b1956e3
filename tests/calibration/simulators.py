"""Forecasters whose truth is known."""

from __future__ import annotations

import numpy as np
import torch


def simulate(n: int, true_temperature: float, seed: int, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels such that softmax(logits / true_temperature) is the true distribution of the label."""
    generator = torch.Generator().manual_seed(seed)
    honest = 2.5 * torch.randn(n, classes, generator=generator)
    labels = torch.multinomial(honest.softmax(1), 1, generator=generator)[:, 0]
    return honest * true_temperature, labels


def calibrated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    confidence = generator.beta(5, 1, size=n)
    return confidence, generator.random(n) < confidence
