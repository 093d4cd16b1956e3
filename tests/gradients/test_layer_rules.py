"""Every supported layer against one backward pass an image, in float64 (1e-9) and float32 (1e-4 of the float64 loop)."""

from __future__ import annotations

import one_by_one
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutorial_lib.gradients import contrast_squared_norms, squared_norms
from tutorial_lib.gradients.rules import cost
from tutorial_lib.gradients.rules._arithmetic import squared_sum
from tutorial_lib.gradients.rules.correlation import Correlation
from tutorial_lib.gradients.rules.linear import OuterProducts


class Around(nn.Module):
    """A layer with something before it, so that its input requires a gradient, and logits behind it."""

    def __init__(self, layer: nn.Module, before: nn.Module | None = None, classes: int = 3) -> None:
        super().__init__()
        self.before = before or nn.Identity()
        self.layer = layer
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(self.layer(self.before(x)))
        flat = y.flatten(1)
        mix = torch.linspace(0, 50, flat.shape[1] * self.classes, dtype=flat.dtype).sin()
        return flat @ mix.view(flat.shape[1], self.classes) / flat.shape[1] ** 0.5  # logits of the order of one


def conv(inputs: int, outputs: int, *args, transposed: bool = False, dimensions: int = 2, **kwargs) -> Around:
    kinds = {1: (nn.Conv1d, nn.ConvTranspose1d), 2: (nn.Conv2d, nn.ConvTranspose2d), 3: (nn.Conv3d, nn.ConvTranspose3d)}
    kind = kinds[dimensions][transposed]
    return Around(kind(inputs, outputs, *args, **kwargs), before=kinds[dimensions][0](2, inputs, 1))


CONVOLUTIONS = {
    "1x1": conv(4, 5, 1),
    "1x1 stride 2": conv(4, 5, 1, stride=2),
    "1x1 padded": conv(4, 5, 1, padding=1),
    "3x3": conv(4, 5, 3, padding=1),
    "3x3 no padding, no bias": conv(4, 5, 3, bias=False),
    "3x3 stride 2": conv(4, 5, 3, stride=2, padding=1),
    "3x3 stride 3, more padding than kernel": conv(3, 2, 3, stride=3, padding=4),
    "2x2 stride 2": conv(4, 5, 2, stride=2),
    "5x3, unequal everything": conv(4, 5, (5, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    "1x3": conv(4, 5, (1, 3), padding=(0, 1)),
    "stride larger than kernel": conv(4, 5, 2, stride=3),
    "dilation 2": conv(4, 5, 3, padding=2, dilation=2),
    "dilation 2, stride 2": conv(4, 5, 3, padding=2, dilation=2, stride=2),
    "dilation 3, stride 2": conv(4, 5, 3, padding=3, dilation=3, stride=2),
    "same": conv(4, 5, 3, padding="same"),
    "same, even kernel": conv(4, 5, (4, 2), padding="same", dilation=(1, 3)),
    "valid": conv(4, 5, 3, padding="valid"),
    "reflect": conv(4, 5, 3, padding=1, padding_mode="reflect"),
    "circular": conv(4, 5, 3, padding="same", padding_mode="circular"),
    "replicate": conv(4, 5, 3, padding=2, padding_mode="replicate"),
    "groups": conv(4, 6, 3, padding=1, groups=2),
    "groups, 1x1": conv(4, 6, 1, groups=2),
    "groups, stride and dilation": conv(4, 6, 3, padding=2, groups=2, stride=2, dilation=2),
    "depthwise": conv(4, 4, 3, padding=1, groups=4),
    "depthwise, two outputs a channel": conv(4, 8, 5, padding=2, groups=4),
    "depthwise, stride and dilation": conv(4, 4, 3, padding=1, stride=2, dilation=2, groups=4),
    "depthwise, whole picture": conv(4, 8, (9, 7), groups=4),
    "depthwise, transposed": conv(4, 4, 3, stride=2, groups=4, transposed=True),
    "whole picture": conv(4, 5, (9, 7)),
    "one position, with padding, stride and dilation": conv(4, 5, (5, 4), padding=(1, 0), stride=3, dilation=2),
    "transposed": conv(4, 5, 3, transposed=True),
    "transposed, stride 2": conv(4, 5, 4, stride=2, padding=1, transposed=True),
    "transposed, stride 2 and output padding": conv(4, 5, 3, stride=2, padding=1, output_padding=1, transposed=True),
    "transposed, dilation": conv(4, 5, 3, stride=2, dilation=2, transposed=True),
    "transposed, groups": conv(4, 6, 3, stride=2, groups=2, transposed=True),
    "transposed 1x1": conv(4, 5, 1, transposed=True),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name):
    torch.manual_seed(0)
    one_by_one.assert_exact(one_by_one.randomised(CONVOLUTIONS[name]), torch.randn(3, 2, 9, 7))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    "settings",
    [{}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 2}],
    ids=["plain", "stride", "dilation", "groups"],
)
@pytest.mark.parametrize("dimensions", [1, 3])
def test_convolution_in_other_dimensions(dimensions, settings, transposed):
    torch.manual_seed(0)
    model = one_by_one.randomised(conv(4, 6, 3, dimensions=dimensions, transposed=transposed, **settings))
    one_by_one.assert_exact(model, torch.randn(3, 2, *[6, 5, 7][:dimensions]))


LAYERS = {
    "linear": (Around(nn.Linear(6, 4), nn.Linear(6, 6)), (6,)),
    "linear without bias": (Around(nn.Linear(6, 4, bias=False), nn.Linear(6, 6)), (6,)),
    "linear on a sequence": (Around(nn.Linear(6, 4), nn.Linear(6, 6)), (5, 6)),
    "linear on a long sequence": (Around(nn.Linear(3, 2), nn.Linear(3, 3)), (40, 3)),
    "linear on a map of vectors": (Around(nn.Linear(6, 4), nn.Linear(6, 6)), (4, 5, 6)),
    "batch norm": (Around(nn.BatchNorm2d(4), nn.Conv2d(2, 4, 1)), (2, 5, 5)),
    "batch norm on vectors": (Around(nn.BatchNorm1d(4), nn.Linear(6, 4)), (6,)),
    "batch norm on sequences": (Around(nn.BatchNorm1d(4), nn.Conv1d(2, 4, 1)), (2, 7)),
    "batch norm without scale and shift": (Around(nn.BatchNorm2d(4, affine=False), nn.Conv2d(2, 4, 1)), (2, 5, 5)),
    "group norm": (Around(nn.GroupNorm(2, 4), nn.Conv2d(2, 4, 1)), (2, 5, 5)),
    "instance norm": (Around(nn.InstanceNorm2d(4, affine=True), nn.Conv2d(2, 4, 1, bias=False)), (2, 5, 5)),
    "instance norm, running": (
        Around(nn.InstanceNorm2d(4, affine=True, track_running_stats=True), nn.Conv2d(2, 4, 1)),
        (2, 5, 5),
    ),
    "layer norm": (Around(nn.LayerNorm(6), nn.Linear(6, 6)), (5, 6)),
    "layer norm over two axes": (Around(nn.LayerNorm((5, 6)), nn.Linear(6, 6)), (5, 6)),
    "layer norm without shift": (Around(nn.LayerNorm(6, bias=False), nn.Linear(6, 6)), (6,)),
    "root mean square norm": (Around(nn.RMSNorm(6), nn.Linear(6, 6)), (5, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer(name):
    model, shape = LAYERS[name]
    torch.manual_seed(0)
    one_by_one.assert_exact(one_by_one.randomised(model), torch.randn(3, *shape))


class Tokens(nn.Module):
    """Embedding, position embedding, class token, layer scale, all in one."""

    def __init__(self, **embedding) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 6, **embedding)
        self.positions = nn.Parameter(torch.randn(1, 6, 6))
        self.first = nn.Parameter(torch.randn(1, 1, 6))
        self.scale = nn.Parameter(torch.randn(6))
        self.head = nn.Linear(6, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.cat([self.first.expand(len(ids), -1, -1), self.tokens(ids)], dim=1) + self.positions
        return self.head((self.scale * torch.tanh(x) + x * self.scale).mean(1))


@pytest.mark.parametrize("settings", [{}, {"padding_idx": 2}], ids=["plain", "padding"])
def test_embedding_and_parameters_used_by_themselves(settings):
    torch.manual_seed(0)
    one_by_one.assert_exact(Tokens(**settings), torch.tensor([[1, 2, 2, 1, 1], [0, 0, 0, 0, 0], [6, 5, 4, 2, 0]]))


@pytest.mark.parametrize("form", ["gram", "direct"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_both_forms_of_a_convolution(name, form, monkeypatch):
    """The cost function chooses only speed: either form is exact for every convolution."""
    monkeypatch.setattr("tutorial_lib.gradients.rules.correlation.gram_is_cheaper", lambda **costs: form == "gram")
    monkeypatch.setattr("tutorial_lib.gradients.rules.linear.gram_is_cheaper", lambda **costs: form == "gram")
    torch.manual_seed(0)
    one_by_one.assert_exact(one_by_one.randomised(CONVOLUTIONS[name]), torch.randn(3, 2, 9, 7), single=False)


def test_cost_prefers_the_gram_for_wide_layers_on_small_maps():
    """The choice that the measurements support: direct on large maps, Gram where a map is small and its channels many."""

    def gram(channels: int, size: int, samples: int = 32) -> bool:
        return cost.gram_is_cheaper(
            samples=samples,
            direct=size**2 * channels * channels * 9,
            gram=2 * size**4 * channels,
            elementwise=8 * size**4,
        )

    assert not gram(64, 32) and not gram(16, 32) and not gram(32, 16)
    assert gram(256, 8) and gram(512, 4)
    assert gram(64, 8, samples=32) and not gram(64, 8, samples=8)  # its calls have to pay


def test_scratch_memory_does_not_change_the_norms(monkeypatch):
    """Rules work in parts; a part may be one sample, or the last part smaller than the others."""
    torch.manual_seed(0)
    x, g = torch.randn(7, 3, 6, 6).double(), torch.randn(14, 4, 6, 6).double()
    correlation = Correlation(x, g, (3, 3), (1, 1), (1, 1), (1, 1))
    products = OuterProducts(x.flatten(2), g.flatten(2))
    reference = torch.randn(4, 3, 3, 3).double()
    whole = [
        correlation.squared_norms(),
        correlation.dense(),
        *correlation.moments(reference),
        products.squared_norms(),
    ]
    for size in (1, 40_000):
        monkeypatch.setattr("tutorial_lib.gradients.rules._arithmetic.SCRATCH_BYTES", size)
        parts = [
            correlation.squared_norms(),
            correlation.dense(),
            *correlation.moments(reference),
            products.squared_norms(),
        ]
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_gram_sums_that_cancel_are_done_again():
    """Inputs with a large mean and output gradients that add up to zero: the Gram sum alone would be off by percents."""
    generator = torch.Generator().manual_seed(0)
    x = 100 + 0.1 * torch.randn(2, 64, 4, 4, generator=generator)
    g = torch.randn(2, 64, 4, 4, generator=generator)
    g = g - g.mean((2, 3), keepdim=True)
    exact = Correlation(x.double(), g.double(), (1, 1), (1, 1), (0, 0), (1, 1)).dense().square().flatten(1).sum(1)
    assert one_by_one.relative_error(OuterProducts(x.flatten(2), g.flatten(2)).squared_norms().double(), exact) < 1e-4
    correlation = Correlation(x, g, (1, 1), (1, 1), (0, 0), (1, 1))
    assert one_by_one.relative_error(correlation._gram(0, 2).double(), exact) < 1e-4


def test_in_place_activations():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Flatten(),
        nn.Linear(100, 5),
        nn.Hardtanh(inplace=True),
        nn.Linear(5, 3),
    )
    one_by_one.assert_exact(model, torch.randn(3, 2, 5, 5))


def test_channels_last():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=2),
        nn.GroupNorm(2, 8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    images = torch.randn(3, 3, 9, 9)
    one_by_one.assert_exact(model.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last))


class Shared(nn.Module):
    """One convolution used twice, one weight used by two layers, one that is used and also added."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.one, self.two = nn.Linear(27, 27), nn.Linear(27, 27)
        self.two.weight = self.one.weight
        self.head = nn.Linear(27, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(torch.relu(self.conv(x))))
        x = torch.tanh(self.two(torch.tanh(self.one(x.flatten(1)))))
        return self.head(x) + self.head.bias


def test_parameters_used_twice_are_joined_before_squaring():
    torch.manual_seed(0)
    one_by_one.assert_exact(Shared(), torch.randn(3, 3, 3, 3))


class Functional(nn.Module):
    """The same operations, called as functions, by keyword, and on a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 2, 3, 3))
        self.matrix = nn.Parameter(torch.randn(3, 36), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(input=x, weight=self.kernel, stride=2, padding=(1, 1))
        return F.linear(torch.tanh(y).flatten(1), weight=self.matrix)


def test_functional_calls_and_frozen_parameters():
    torch.manual_seed(0)
    model, images = Functional().double(), torch.randn(3, 2, 6, 6).double()
    got, names = squared_norms(model, images)
    assert names == ("kernel", "matrix") and not model.matrix.requires_grad
    assert one_by_one.relative_error(got, one_by_one.norms(model.requires_grad_(), images)) < 1e-9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_autocast(dtype):
    """Under autocast the gradients are those of the rounded network; the norms are still sums in float32."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 10),
    ).eval()
    images = torch.randn(4, 3, 6, 6)
    exact = one_by_one.norms(model.double(), images.double())
    model.float()
    with torch.autocast("cpu", dtype=dtype):
        got, _ = squared_norms(model, images)
    assert one_by_one.relative_error(got, exact) < 0.03
    with torch.autocast("cpu", dtype=dtype):  # a loop under autocast, which squares in half precision, is no better
        loop = one_by_one.norms(model, images).double()
    assert one_by_one.relative_error(loop, exact) > 0.3 * one_by_one.relative_error(got, exact)


def test_half_precision_network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).eval()
    images = torch.randn(4, 3, 6, 6)
    exact = one_by_one.norms(model.double(), images.double())
    got, _ = squared_norms(model.bfloat16(), images)
    assert got.dtype == torch.float64 and one_by_one.relative_error(got, exact) < 0.03


@pytest.mark.parametrize("name", ["3x3", "groups", "transposed, stride 2", "1x1 stride 2", "same, even kernel"])
@pytest.mark.parametrize("form", ["gram", "direct"])
def test_all_labels_at_once(name, form, monkeypatch):
    """Every class as the label, in one backward pass, equals one label after the other."""
    monkeypatch.setattr("tutorial_lib.gradients.rules.correlation.gram_is_cheaper", lambda **costs: form == "gram")
    monkeypatch.setattr("tutorial_lib.gradients.rules.linear.gram_is_cheaper", lambda **costs: form == "gram")
    torch.manual_seed(0)
    model, images = one_by_one.randomised(CONVOLUTIONS[name]).double(), torch.randn(3, 2, 9, 7).double()
    together = contrast_squared_norms(model, images)
    for label in range(3):
        assert one_by_one.relative_error(together[:, label], squared_norms(model, images, label, "ce")[0]) < 1e-9


@pytest.mark.parametrize("name", LAYERS)
def test_all_labels_at_once_in_other_layers(name):
    model, shape = LAYERS[name]
    torch.manual_seed(0)
    images = torch.randn(3, *shape).double()
    together = contrast_squared_norms(one_by_one.randomised(model).double(), images)
    for label in range(3):
        assert one_by_one.relative_error(together[:, label], squared_norms(model, images, label, "ce")[0]) < 1e-9


@pytest.mark.parametrize("length", [1, 100, 2**16, 2**16 + 1, 10**6])
def test_sums_of_squares_keep_their_digits(length):
    rows = torch.rand(3, length, generator=torch.Generator().manual_seed(0)) - 0.3
    wanted = rows.double().square().sum(1)
    for some in (rows, rows[:1]):  # one row is a scalar product
        assert one_by_one.relative_error(squared_sum(some).double(), wanted[: len(some)]) < 5e-6
