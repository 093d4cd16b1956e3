"""Temperature scaling: one number that divides every logit.

Guo et al., "On calibration of modern neural networks", ICML 2017, section 4.2. Derived by hand in chapter 11.
"""

from __future__ import annotations

from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from tutorial_lib.calibration.inputs import check_labels


def _check_logits(logits: Any) -> Tensor:
    values = torch.as_tensor(logits).detach().cpu()
    if values.ndim != 2 or values.shape[0] == 0 or values.shape[1] < 2:
        raise ValueError(f"logits must have shape (N, K), N at least 1 and K at least 2, got {tuple(values.shape)}")
    values = values.double()
    if not values.isfinite().all():
        raise ValueError(f"logits have {int((~values.isfinite()).sum())} values that are NaN or infinite")
    return values


class TemperatureScaling:
    r"""Softmax of :math:`z / T`: above 1 the temperature flattens the probabilities, below 1 it sharpens them.

    The order of the classes stays as it is, so accuracy does too: logits are divided in float64, where no two different
    float32 logits become equal.

    Args:
        temperature: T > 0, or None to `fit` it.

    Attributes:
        temperature: T, None before `fit`.

    >>> TemperatureScaling(2.0).predict_proba([[2.0, 0.0]]).round(decimals=3)
    tensor([[0.7310, 0.2690]], dtype=torch.float64)
    """

    def __init__(self, temperature: float | None = None) -> None:
        if temperature is not None and not 0 < temperature < float("inf"):
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        self.temperature = temperature

    def fit(self, logits: Any, labels: Any) -> TemperatureScaling:
        r"""Find the T that minimises the negative log-likelihood. Use data that the network was **not** trained on.

        In :math:`\beta = 1/T` the loss is convex (a log-sum-exp of linear functions less a linear one), so its
        derivative, the mean over samples of :math:`E_{p_\beta}[z] - z_y`, has one root; Brent's method finds it, to 12
        digits, with no step size to choose.

        Args:
            logits: (N, K), finite.
            labels: (N,), integers from 0 to K - 1.

        Raises:
            ValueError: there is no best temperature. Either every prediction is right, so that ever smaller T is ever
                better, or the logits favour the wrong classes so much that uniform probabilities beat them.
        """
        values = _check_logits(logits)
        classes = torch.from_numpy(check_labels(labels, *values.shape))
        values = values - values.gather(1, classes[:, None])  # z - z_y: the loss depends on nothing else
        scale = float(values.abs().max())
        if scale == 0:
            raise ValueError("all logits of each sample are equal; every temperature gives the same probabilities")
        values = values / scale  # in [-1, 1], so that the search needs no guess of the units

        def slope(beta: float) -> float:
            return float(((beta * values).softmax(dim=1) * values).sum(dim=1).mean())

        if slope(0.0) >= 0:
            raise ValueError(
                "the logits are no better than guessing (uniform probabilities have a lower loss at every positive "
                "temperature); check that logits and labels belong together"
            )
        if float(values.max()) <= 0:
            raise ValueError(
                f"all {len(values)} predictions are right, so the loss falls for ever as the temperature goes to 0; "
                "fit the temperature on more held-out data, where the network makes mistakes"
            )
        high = 1.0
        while slope(high) < 0:  # ends: as beta grows the slope tends to mean(max z - z_y) > 0
            high *= 2
        self.temperature = scale / float(brentq(slope, 0.0, high, xtol=1e-300, rtol=1e-12))
        return self

    def transform(self, logits: Any) -> Tensor:
        """Logits divided by the temperature, float64 (N, K) on the CPU."""
        if self.temperature is None:
            raise RuntimeError("this temperature is not fitted yet; call fit(logits, labels) on held-out data first")
        return _check_logits(logits) / self.temperature

    def predict_proba(self, logits: Any) -> Tensor:
        """Probabilities (N, K) at this temperature, float64 on the CPU, rows summing to one."""
        return self.transform(logits).softmax(dim=1)
