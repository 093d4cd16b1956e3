"""Log squared gradient norms, the features of the gradient detectors.

Lee & AlRegib, "Open-set recognition with gradient-based representations", ICIP 2021; Lee et al., "Probing the purview
of neural networks via gradient analysis", IEEE Access 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor, nn

from tutorial_lib.gradients import squared_norms
from tutorial_lib.gradients.losses import Loss
from tutorial_lib.gradients.targets import Label

TINY = 1e-60
"""Squared norms of exactly 0 count as this. float64 holds 1e-300, but one dead column should not look like 700
others."""


LogNorms = Callable[[nn.Module, Tensor, Label, Loss], Tensor]
"""A function (model, images, label, loss) to log squared norms (N, P)."""


def log_squared_norms(model: nn.Module, images: Tensor, label: Label = "ones", loss: Loss = "bce") -> Tensor:
    """Natural log of each image's squared gradient norm for each parameter tensor, float64 (N, P): `squared_norms`."""
    return _source.get()(model, images, label, loss)


def measured_log_norms(model: nn.Module, images: Tensor, label: Label, loss: Loss) -> Tensor:
    """`log_squared_norms`, from a backward pass whatever `log_norms_from` says."""
    norms, _ = squared_norms(model, images, label, loss)
    return norms.clamp(min=TINY).log()


_source: ContextVar[LogNorms] = ContextVar("source of log norms", default=measured_log_norms)


@contextmanager
def log_norms_from(source: LogNorms) -> Iterator[None]:
    """Inside the block every gradient detector gets its features from ``source``.

    A backward pass costs more than all the rest of a detector, and several of them ask the same of the same images. A
    study that compares them measures once, and answers from memory here; what it does not remember it asks
    `measured_log_norms` for.
    """
    token = _source.set(source)
    try:
        yield
    finally:
        _source.reset(token)
