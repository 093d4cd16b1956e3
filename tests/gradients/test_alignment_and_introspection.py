"""Cosines with a reference, and the last layer's gradients in closed form."""

from __future__ import annotations

import one_by_one
import pytest
import torch
import torch.nn.functional as F
from test_layer_rules import CONVOLUTIONS, LAYERS
from torch import Tensor, nn

from tutorial_lib.gradients import alignment, introspective_features, squared_norms
from tutorial_lib.models import build


def cosines(model: nn.Module, images: Tensor, reference: dict[str, Tensor], loss) -> Tensor:
    names = [name for name, _ in model.named_parameters()]
    rows = []
    for image in images.split(1):
        gradients = dict(
            zip(names, one_by_one.gradients(model, image, lambda z, image=image: loss(z, image)), strict=True)
        )
        rows.append(
            torch.stack(
                [F.cosine_similarity(gradients[n].flatten(), r.flatten(), dim=0, eps=0) for n, r in reference.items()]
            )
        )
    return torch.stack(rows)


@pytest.mark.parametrize("form", ["gram", "direct"])
@pytest.mark.parametrize("name", [*CONVOLUTIONS, *LAYERS])
def test_alignment_of_every_layer(name, form, monkeypatch):
    monkeypatch.setattr("tutorial_lib.gradients.rules.correlation.gram_is_cheaper", lambda **costs: form == "gram")
    monkeypatch.setattr("tutorial_lib.gradients.rules.linear.gram_is_cheaper", lambda **costs: form == "gram")
    model, shape = (CONVOLUTIONS[name], (2, 9, 7)) if name in CONVOLUTIONS else LAYERS[name]
    torch.manual_seed(0)
    model, images = one_by_one.randomised(model).double(), torch.randn(3, *shape).double()
    reference = {name: torch.randn_like(p).detach() for name, p in model.named_parameters()}
    got = alignment(model, images, reference, "ones", "bce")
    assert (got - cosines(model, images, reference, lambda z, _: one_by_one.bce_ones(z))).abs().max() < 1e-9


def autoencoder() -> nn.Module:
    """The one of gradient constraints: four convolutions down, four transposed convolutions up."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 2), nn.ReLU(), nn.Conv2d(8, 8, 4, 2, 2), nn.ReLU(),
        nn.ConvTranspose2d(8, 8, 4, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Sigmoid(),
    )  # fmt: skip


def test_alignment_of_a_decoder():
    """The reference names only the decoder's weights, so nothing else is looked at, nor is the backward pass run further."""
    model, images = one_by_one.randomised(autoencoder()).double(), torch.rand(4, 3, 28, 28).double()
    model[0].weight.register_hook(lambda g: pytest.fail("the encoder has a backward pass"))
    reference = {
        name: torch.randn_like(p).detach() for name, p in model.named_parameters() if name in ("4.weight", "6.weight")
    }
    got = alignment(model, images, reference)
    assert got.shape == (4, 2)
    model[0].weight._backward_hooks.clear()
    assert (got - cosines(model, images, reference, lambda out, x: F.mse_loss(out, x))).abs().max() < 1e-9
    single = alignment(model.float(), images, {name: r.float() for name, r in reference.items()})
    assert (got - single).abs().max() < 1e-5


def test_a_gradient_is_aligned_with_itself():
    model, images = one_by_one.randomised(autoencoder()).double(), torch.rand(3, 3, 28, 28).double()
    names = [name for name, _ in model.named_parameters()]
    own = one_by_one.gradients(model, images[1:2], lambda out: F.mse_loss(out, images[1:2]))
    got = alignment(model, images, dict(zip(names, own, strict=True)))
    assert (got[1] - 1).abs().max() < 1e-9 and (got <= 1).all() and got[0].max() < 1
    opposite = alignment(model, images, {name: -g for name, g in zip(names, own, strict=True)})
    assert (got + opposite).abs().max() < 1e-12


def test_zero_reference_or_gradient_gives_zero():
    model = nn.Linear(4, 4, bias=False)
    nn.init.eye_(model.weight)
    x = torch.rand(2, 4)
    assert (alignment(model, x, {"weight": torch.zeros(4, 4)}) == 0).all()
    assert (alignment(model, x, {"weight": torch.ones(4, 4)}) == 0).all()  # the identity reconstructs perfectly


@pytest.mark.parametrize(
    "reference, message",
    [
        ({}, "names no parameter"),
        ({"head": torch.zeros(2)}, "'head', which is no parameter"),
        ({"weight": torch.zeros(4)}, r"has the shape \(4,\), the parameter \(4, 4\)"),
        ({"weight": torch.full((4, 4), torch.nan)}, "NaN"),
    ],
)
def test_references_that_are_refused(reference, message):
    with pytest.raises(ValueError, match=message):
        alignment(nn.Linear(4, 4, bias=False), torch.rand(2, 4), reference)


# ------------------------------------------------------------------ introspective features
@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_introspective_features_are_rows_of_the_last_layers_gradient(loss):
    model, images = one_by_one.randomised(build("lenet", 6, (1, 8, 8))).double(), torch.rand(3, 1, 8, 8).double()
    got = introspective_features(model, images, loss)
    assert got.shape == (3, 6, 84)
    for n, image in enumerate(images.split(1)):
        for k in range(6):
            one_hot = F.one_hot(torch.tensor([k]), 6).double()
            z = model(image)
            value = (
                F.cross_entropy(z, one_hot)
                if loss == "ce"
                else F.binary_cross_entropy_with_logits(z, one_hot, reduction="sum")
            )
            (gradient,) = torch.autograd.grad(value, model.head.weight)
            assert (got[n, k] - gradient[k]).abs().max() < 1e-12


def test_introspective_features_are_differentiable():
    model = one_by_one.randomised(build("lenet", 4, (1, 8, 8))).double()
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: introspective_features(model, x)[:, :, ::9], images)


def test_introspective_features_of_a_sure_network():
    """Where p is one in float32, p − 1 still has its digits."""
    model = nn.Linear(1, 3, bias=False)
    model.weight.data = torch.tensor([[60.0], [0.0], [10.0]])
    got = introspective_features(model, torch.ones(1, 1))
    assert got[0, 0, 0].item() == pytest.approx(-torch.exp(torch.tensor(-50.0)).item(), rel=1e-4)
    assert got[0, 1, 0].item() == -1


def test_introspective_norms_bound_the_contrast_norms():
    """Row k is part of the gradient for label k, so its norm is at most that of the whole."""
    model, images = one_by_one.randomised(build("lenet", 5, (1, 8, 8))).double(), torch.rand(4, 1, 8, 8).double()
    rows = introspective_features(model, images).square().sum(2)
    for k in range(5):
        norms, names = squared_norms(model, images, k, "ce")
        assert (rows[:, k] <= norms[:, names.index("head.weight")] * (1 + 1e-9)).all()


def test_introspective_features_leave_no_hooks_and_need_a_linear_head():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(1))
    with pytest.raises(ValueError, match="last operation is a torch.nn.Linear"):
        introspective_features(model, torch.rand(2, 4))
    assert not model[1]._forward_hooks
    with pytest.raises(ValueError, match="unknown loss 'mse'"):
        introspective_features(nn.Linear(4, 3), torch.rand(2, 4), "mse")
