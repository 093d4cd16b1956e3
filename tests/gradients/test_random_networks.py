"""Any small network that Hypothesis can think of, against one backward pass an image."""

from __future__ import annotations

import one_by_one
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tutorial_lib.gradients import contrast_squared_norms, squared_norms


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class Concatenated(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.inner(x)], dim=1)


@st.composite
def layers(draw, channels: int, size: int) -> tuple[nn.Module, int, int]:
    """One layer on maps of so many channels and pixels a side, and what comes out of it."""
    kind = draw(
        st.sampled_from(
            ["conv", "transposed", "depthwise", "norm", "activation", "pool", "residual", "dense", "shared"]
        )
    )
    if kind in ("conv", "transposed"):
        outputs = draw(st.integers(1, 3)) * 2
        kernel, stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
        padding = draw(st.integers(0, 2))
        groups = draw(st.sampled_from([1, 2])) if channels % 2 == 0 else 1
        bias = draw(st.booleans())
        if kind == "conv":
            out = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            layer: nn.Module = nn.Conv2d(channels, outputs, kernel, stride, padding, dilation, groups, bias)
        else:
            extra = draw(st.integers(0, stride - 1))
            out = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1
            layer = nn.ConvTranspose2d(channels, outputs, kernel, stride, padding, extra, groups, bias, dilation)
        return (layer, outputs, out) if 1 <= out <= 12 else (nn.Identity(), channels, size)
    if kind == "depthwise":
        return nn.Conv2d(channels, channels, 3, padding=1, groups=channels), channels, size
    if kind == "norm":
        norm = draw(st.sampled_from(["batch", "group", "none"]))
        return (
            {"batch": nn.BatchNorm2d, "group": lambda c: nn.GroupNorm(1, c), "none": lambda c: nn.Identity()}[norm](
                channels
            ),
            channels,
            size,
        )
    if kind == "activation":
        return (
            draw(st.sampled_from([nn.Tanh(), nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.SiLU(inplace=True)])),
            channels,
            size,
        )
    if kind == "pool" and size >= 2:
        return draw(st.sampled_from([nn.AvgPool2d(2), nn.MaxPool2d(2)])), channels, size // 2
    if kind == "residual":
        return Residual(nn.Conv2d(channels, channels, 3, padding=1)), channels, size
    if kind == "dense":
        return (
            Concatenated(nn.Sequential(nn.BatchNorm2d(channels), nn.Tanh(), nn.Conv2d(channels, 2, 1))),
            channels + 2,
            size,
        )
    twice = nn.Conv2d(channels, channels, 3, padding=1)
    return nn.Sequential(twice, nn.Tanh(), twice), channels, size


@st.composite
def networks(draw) -> tuple[nn.Module, Tensor]:
    channels, size = draw(st.integers(1, 4)), draw(st.integers(3, 8))
    samples = draw(st.integers(1, 4))
    images = torch.randn(
        samples, channels, size, size, generator=torch.Generator().manual_seed(draw(st.integers(0, 9)))
    )
    parts: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 5))):
        layer, channels, size = draw(layers(channels, size))
        parts.append(layer)
    parts += [nn.Tanh(), nn.Flatten(), nn.Linear(channels * size * size, 3)]
    model = one_by_one.randomised(nn.Sequential(*parts), seed=draw(st.integers(0, 9))).double()
    if draw(st.booleans()):
        images, model = images.to(memory_format=torch.channels_last), model.to(memory_format=torch.channels_last)
    return model, images.double()


def close(got: Tensor, wanted: Tensor) -> bool:
    """Relative to the sample's whole gradient: a bias before a normalisation has a gradient of rounding errors only."""
    return bool(((got - wanted).abs() <= 1e-9 * wanted + 1e-15 * wanted.sum(-1, keepdim=True)).all())


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(networks())
def test_any_network(case):
    model, images = case
    got, _ = squared_norms(model, images)
    assert close(got, one_by_one.norms(model, images))


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(networks(), st.sampled_from([1, 50_000, None]))
def test_any_network_with_all_labels_in_any_chunks(case, budget):
    model, images = case
    together = contrast_squared_norms(model, images, memory_budget=budget)
    for label in range(3):
        one, _ = squared_norms(model, images, label, "ce")
        assert close(together[:, label], one)
