"""Lookahead as a moving average: every few steps the weights go back to the average of where they have been.

Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", NeurIPS 2019; the form and the schedule are those of Jordan,
"94 % on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498, section 3.4, after hlb-CIFAR10.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Lookahead"]


class Lookahead:
    """Keeps the average of a model's weights and buffers, and gives it back to the model.

    Every ``every`` steps the average takes in a share 1 - d of the present values and the model takes the average over,
    where d grows with the cube of the time to ``decay`` ** ``every``. After the last step the model is the average.

    Args:
        model: trained in place.
        steps: of the whole training.
        every: steps between two visits to the average.
        decay: of the average in one step, at the end of the training.
    """

    def __init__(self, model: nn.Module, steps: int, every: int = 5, decay: float = 0.95) -> None:
        self.model, self.steps, self.every, self.decay = model, steps, every, decay
        self.done = 0
        self.average = {name: value.clone() for name, value in self._values().items()}

    def _values(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.model.state_dict().items() if value.is_floating_point()}

    @torch.no_grad()
    def step(self) -> None:
        """To be called after each step of the optimiser."""
        self.done += 1
        if self.done % self.every == 0:
            kept = self.decay**self.every * (self.done / self.steps) ** 3
            for name, value in self._values().items():
                value.copy_(self.average[name].lerp_(value, 1 - kept))
        if self.done == self.steps:
            for name, value in self._values().items():
                value.copy_(self.average[name])

    def state_dict(self) -> dict[str, Any]:
        """Average and number of steps."""
        return {"average": self.average, "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.done = state["done"]
        for name, value in self.average.items():
            value.copy_(state["average"][name])
