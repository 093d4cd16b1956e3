"""Layers without a rule: exact, one backward pass a sample, and said so."""

from __future__ import annotations

import warnings

import one_by_one
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.gradients import FallbackWarning, alignment, contrast_squared_norms, squared_norms


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Cube(torch.autograd.Function):
    """An autograd function of somebody's own, which vmap knows nothing of."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return scale * x**3

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor]:
        x, scale = ctx.saved_tensors
        return g * scale * 3 * x**2, (g * x**3).sum()


class Sine(torch.autograd.Function):
    """A function that differentiates something itself in its backward pass, as implicit layers and checkpoints do."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, g: Tensor) -> Tensor:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            return torch.autograd.grad(x.sin(), x, g)[0]


class Implicit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(Sine.apply(self.inner(x)))


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale, self.inner, self.head = nn.Parameter(torch.tensor(0.7)), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(Cube.apply(self.inner(x), self.scale))


class Computed(nn.Module):
    """Weights that are computed from parameters, and a parameter that depends on nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.direction, self.length = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4, 1))
        self.head = nn.Linear(4, 3)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.length * F.normalize(self.direction, dim=1)
        return self.head(F.linear(x, weight).tanh() + self.head.weight.mean())


class Products(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pairs, self.head = nn.Bilinear(4, 4, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pairs(x, x.sin()))


SLOW = {
    "recurrent": (Recurrent(), (5, 4), "lstm.weight_ih_l0"),
    "own function": (Own(), (4,), "scale"),
    "bilinear": (Products(), (4,), "pairs.weight"),
}


@pytest.mark.parametrize("name", SLOW)
def test_exact_and_said(name):
    model, shape, missing = SLOW[name]
    torch.manual_seed(0)
    model, images = one_by_one.randomised(model).double(), torch.randn(3, *shape).double()
    with pytest.warns(FallbackWarning, match=missing):
        got, _ = squared_norms(model, images)
    assert one_by_one.relative_error(got, one_by_one.norms(model, images)) < 1e-9


def test_said_once_and_only_the_parameters_without_a_rule():
    model, images = one_by_one.randomised(Recurrent()), torch.randn(6, 5, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        squared_norms(model, images, memory_budget=90_000)  # in several chunks
        squared_norms(model, images)
    said = [str(w.message) for w in caught if w.category is FallbackWarning]
    assert len(said) == 2 and all("lstm.bias_hh_l0" in message and "head" not in message for message in said)


def test_parameters_that_nothing_depends_on_have_no_gradient():
    model = one_by_one.randomised(Computed()).double()
    got, names = squared_norms(model, torch.randn(3, 4))
    assert (got[:, names.index("unused")] == 0).all()


@pytest.mark.filterwarnings("ignore::tutorial_lib.gradients.FallbackWarning")
@pytest.mark.parametrize("name", SLOW)
def test_other_questions(name):
    """All classes at once, and cosines, take the same way round."""
    model, shape, _ = SLOW[name]
    torch.manual_seed(0)
    model, images = one_by_one.randomised(model).double(), torch.randn(3, *shape).double()
    contrast = contrast_squared_norms(model, images)
    for k in range(3):
        wanted = one_by_one.norms(model, images, lambda z, k=k: F.cross_entropy(z, torch.tensor([k]), reduction="sum"))
        assert one_by_one.relative_error(contrast[:, k], wanted) < 1e-9
    reference = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    got = alignment(model, images, reference, "ones", "bce")
    for n, image in enumerate(images.split(1)):
        gradients = one_by_one.gradients(model, image, one_by_one.bce_ones)
        for p, (g, r) in enumerate(zip(gradients, reference.values(), strict=True)):
            cosine = F.cosine_similarity(g.flatten(), r.flatten(), dim=0) if g.any() else torch.zeros(())
            assert got[n, p].item() == pytest.approx(cosine.item(), abs=1e-9)


def test_a_function_that_differentiates_in_its_own_backward_pass():
    """It is no parameter's, so nothing is slow; but it must be able to record a gradient where we do not."""
    torch.manual_seed(0)
    model, x = one_by_one.randomised(Implicit()), torch.randn(5, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        one_by_one.assert_exact(model, x)
        contrast = contrast_squared_norms(model.double(), x.double())
    labels = [squared_norms(model, x.double(), k, "ce")[0] for k in range(3)]
    assert one_by_one.relative_error(contrast, torch.stack(labels, dim=1)) < 1e-9
