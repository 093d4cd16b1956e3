"""Networks on sequences that Hypothesis thinks of, with as many samples as one of their other axes has entries, or one more or less.

Every part hands on (N, T, D). Inside, samples and positions change places and fold into each other, constants and parameters of the
lengths T and D come in, weights are computed, tensors are written to in place.
"""

from __future__ import annotations

import warnings

import one_by_one
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tutorial_lib.gradients import FallbackWarning, contrast_squared_norms, squared_norms


class Part(nn.Module):
    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.steps, self.width = steps, width
        self.build(steps, width)


class Add(Part):
    def build(self, steps: int, width: int) -> None:
        self.table = nn.Embedding(steps, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table(torch.arange(self.steps))


class Scale(Part):
    def build(self, steps: int, width: int) -> None:
        self.alpha, self.table = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(steps, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.alpha.exp() * self.table) + self.alpha


class Turned(Part):
    """Samples on axis 1."""

    def build(self, steps: int, width: int) -> None:
        self.layer, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x.transpose(0, 1))
        y += x.transpose(0, 1)
        return self.norm(y).transpose(0, 1).contiguous()


class Last(Part):
    """Samples on the last axis, beside a matrix from the left: there is no rule for that."""

    def build(self, steps: int, width: int) -> None:
        self.mix = nn.Parameter(torch.zeros(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return (self.mix @ x.permute(1, 2, 0)).permute(2, 0, 1)


class Normed(Part):
    def build(self, steps: int, width: int) -> None:
        self.layer = nn.utils.parametrizations.weight_norm(nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(self.layer(x), 0.3, inplace=True)


class Folded(Part):
    """Every position an entry of the batch."""

    def build(self, steps: int, width: int) -> None:
        self.norm, self.layer = nn.BatchNorm1d(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.norm(x.reshape(-1, self.width))).reshape(x.shape)


class FoldedInFront(Part):
    def build(self, steps: int, width: int) -> None:
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        turned = x.transpose(0, 1).reshape(-1, self.width)
        return self.layer(turned).reshape(self.steps, len(x), self.width).transpose(0, 1)


class Attention(Part):
    def build(self, steps: int, width: int) -> None:
        self.layer = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x, x, x, need_weights=False)[0]


class Queries(Part):
    def build(self, steps: int, width: int) -> None:
        self.queries, self.layer = nn.Parameter(torch.zeros(steps, width)), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        keys = self.layer(x)
        weights = (self.layer(self.queries) @ keys.mT).softmax(-1)
        return x + weights @ keys


class Tokens(Part):
    def build(self, steps: int, width: int) -> None:
        self.token, self.layer = nn.Parameter(torch.zeros(1, 1, width)), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.cat([self.token.expand(len(x), -1, -1), x], dim=1))[:, 1:] + self.token


class Convolved(Part):
    def build(self, steps: int, width: int) -> None:
        self.layer, self.norm = nn.Conv1d(width, width, 3, padding=1), nn.GroupNorm(1, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x.mT)).mT


class Gated(Part):
    """A weight from the sample, a product of two of its own tensors."""

    def build(self, steps: int, width: int) -> None:
        self.one, self.two = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return (self.one(x) @ self.two(x).mT) @ x / self.width


PARTS = [Add, Scale, Turned, Last, Normed, Folded, FoldedInFront, Attention, Queries, Tokens, Convolved, Gated]


@st.composite
def networks(draw) -> tuple[nn.Module, Tensor]:
    steps, width = draw(st.sampled_from([2, 3, 4, 6])), draw(st.sampled_from([2, 4, 6]))
    kinds = draw(st.lists(st.sampled_from(PARTS), min_size=1, max_size=4))
    parts = [part for kind in kinds for part in (kind(steps, width), nn.Tanh())]
    if draw(st.booleans()):
        parts.append(parts[0])  # used twice
    model = nn.Sequential(*parts, nn.Flatten(), nn.Linear(steps * width, 3))
    samples = draw(st.sampled_from([1, steps, width, steps * width, steps + 1]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    images = torch.randn(samples, steps, width, generator=generator)
    return one_by_one.randomised(model, seed=draw(st.integers(0, 9))).double(), images.double()


def close(got: Tensor, wanted: Tensor) -> bool:
    """Relative to the sample's whole gradient: a bias before a normalisation has a gradient of rounding errors only."""
    return bool(((got - wanted).abs() <= 1e-9 * wanted + 1e-15 * wanted.sum(-1, keepdim=True)).all())


ordinary = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@ordinary
@given(networks())
def test_any_network_on_sequences(case):
    model, images = case
    with warnings.catch_warnings():
        may_fall_back = any(isinstance(part, Last) for part in model)
        warnings.simplefilter("ignore" if may_fall_back else "error", FallbackWarning)
        got, _ = squared_norms(model, images)
    assert close(got, one_by_one.norms(model, images).detach())


@pytest.mark.filterwarnings("ignore::tutorial_lib.gradients.FallbackWarning")
@settings(ordinary, max_examples=20)
@given(networks())
def test_any_network_on_sequences_with_all_labels(case):
    model, images = case[0], case[1][:6]
    together = contrast_squared_norms(model, images)
    for label in range(3):
        assert close(together[:, label], squared_norms(model, images, label, "ce")[0])
