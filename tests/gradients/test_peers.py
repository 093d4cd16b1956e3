"""Libraries with other ways to the same numbers: torch.func, BackPACK, Opacus."""

from __future__ import annotations

import copy

import one_by_one
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.gradients import contrast_squared_norms, squared_norms
from tutorial_lib.models import build


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def small() -> nn.Module:
    return one_by_one.randomised(nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 5),
    )).double()  # fmt: skip


def test_torch_func(images):
    """vmap of grad over samples, with batch normalisation and shared weights."""
    model = one_by_one.randomised(build("resnet20", 5, (3, 12, 12))).double()
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(parameters: dict[str, Tensor], image: Tensor) -> Tensor:
        return one_by_one.bce_ones(torch.func.functional_call(model, parameters, (image[None],)))

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, images)
    wanted = torch.stack([g.flatten(1).square().sum(1) for g in gradients.values()], dim=1)
    assert one_by_one.relative_error(squared_norms(model, images)[0], wanted) < 1e-9


def test_torch_func_for_every_class(images, small):
    """The logits' Jacobian of every parameter, contracted with p − e_k by hand."""
    parameters = {name: p.detach() for name, p in small.named_parameters()}
    jacobian = torch.func.vmap(
        torch.func.jacrev(lambda parameters, image: torch.func.functional_call(small, parameters, (image[None],))[0]),
        in_dims=(None, 0),
    )(parameters, images)
    u = small(images).softmax(1)[:, None] - torch.eye(5).double()  # (N, label, logit)
    wanted = torch.stack([(u @ j.flatten(2)).square().sum(2) for j in jacobian.values()], dim=2)
    assert one_by_one.relative_error(contrast_squared_norms(small, images), wanted.detach()) < 1e-9


def test_backpack(images, small):
    backpack = pytest.importorskip("backpack", reason="backpack-for-pytorch is not installed")
    from backpack.extensions import BatchL2Grad

    twin = backpack.extend(copy.deepcopy(small))
    loss = F.binary_cross_entropy_with_logits(twin(images), torch.ones(4, 5).double(), reduction="sum")
    with backpack.backpack(BatchL2Grad()):
        loss.backward()
    wanted = torch.stack([p.batch_l2 for p in twin.parameters()], dim=1)
    assert one_by_one.relative_error(squared_norms(small, images)[0], wanted) < 1e-9


@pytest.mark.filterwarnings("ignore")
def test_opacus(images, small):
    grad_sample = pytest.importorskip("opacus.grad_sample", reason="opacus is not installed")
    wrapped = grad_sample.GradSampleModule(copy.deepcopy(small).train(), loss_reduction="sum")
    one_by_one.bce_ones(wrapped(images)).backward()
    wanted = torch.stack([p.grad_sample.flatten(1).square().sum(1) for p in wrapped.parameters()], dim=1)
    assert one_by_one.relative_error(squared_norms(small, images)[0], wanted) < 1e-9
