"""The model comes back as it was, also after an exception; and what is refused, is refused in words."""

from __future__ import annotations

import copy

import one_by_one
import pytest
import torch
from torch import Tensor, nn

from tutorial_lib.gradients import alignment, contrast_squared_norms, introspective_features, squared_norms


class Counting(nn.Module):
    """Changes a buffer in every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


@pytest.fixture
def model() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), Counting(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(64, 64), nn.Tanh(),
        nn.Linear(64, 3),
    )  # fmt: skip
    one_by_one.randomised(model)
    model[6].train()
    model[0].weight.requires_grad_(False)
    model[0].bias.grad = torch.full_like(model[0].bias, 7.0)
    model[2].register_forward_hook(lambda module, inputs, output: None)
    return model


@pytest.fixture
def images() -> Tensor:
    return torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))


def everything(model: nn.Module) -> dict:
    return {
        "state": copy.deepcopy(model.state_dict()),
        "grad": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "identity": {name: id(p) for name, p in model.named_parameters()},
        "mode": {name: part.training for name, part in model.named_modules()},
        "hooks": {
            name: (len(part._forward_hooks), len(part._forward_pre_hooks), len(part._backward_hooks))
            for name, part in model.named_modules()
        },
        "tensor hooks": {name: p._backward_hooks for name, p in model.named_parameters()},
        "attributes": {name: sorted(vars(part)) for name, part in model.named_modules()},
        "random": torch.get_rng_state(),
        "grad enabled": torch.is_grad_enabled(),
    }


def assert_same(before: dict, after: dict) -> None:
    assert before.keys() == after.keys()
    for key, value in before.items():
        if isinstance(value, dict):
            assert_same(value, after[key])
        elif isinstance(value, Tensor):
            assert torch.equal(value, after[key]), key
        else:
            assert value == after[key], key


QUESTIONS = {
    "squared_norms": squared_norms,
    "contrast_squared_norms": contrast_squared_norms,
    "alignment": lambda model, images: alignment(model, images, {"8.weight": torch.ones(3, 64)}, "ones", "bce"),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_left_as_found(model, images, question):
    before = everything(model)
    QUESTIONS[question](model, images)
    assert_same(before, everything(model))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_gradient_mode_around(model, images, context):
    wanted, _ = squared_norms(model, images)
    before = everything(model)
    with context():
        got, _ = squared_norms(model, images)
    assert one_by_one.relative_error(got, wanted) < 1e-9
    assert_same(before, everything(model))


def test_images_of_inference_mode(model, images):
    with torch.inference_mode():
        twin = images.clone()
    assert one_by_one.relative_error(squared_norms(model, twin)[0], squared_norms(model, images)[0]) < 1e-9


@pytest.mark.parametrize("where", ["forward", "backward", "loss"])
@pytest.mark.parametrize("samples", [1, 3])
def test_left_as_found_after_an_exception(model, images, where, samples):
    class Stop(Exception):
        pass

    def fail(*_):
        raise Stop

    def failing_loss(z: Tensor, t: Tensor) -> Tensor:
        raise Stop

    class Failing(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise Stop

    loss = "bce"
    if where == "forward":
        model[7].register_forward_hook(fail)
    elif where == "backward":
        model[7].register_forward_hook(lambda module, inputs, output: Failing.apply(output))
    else:
        loss = failing_loss
    before = everything(model)
    with pytest.raises(Stop):
        squared_norms(model, images[:samples], "ones", loss)
    assert_same(before, everything(model))
    model[7]._forward_hooks.clear()
    squared_norms(model, images)  # nothing is left switched on


def test_the_loss_sees_gradients_switched_on_and_leaves_no_trace(model, images):
    def loss(z: Tensor, t: Tensor) -> Tensor:
        assert z.requires_grad and torch.is_grad_enabled()
        return (z - t).square().sum(1)

    with torch.no_grad():
        squared_norms(model, images, "zeros", loss)


# ------------------------------------------------------------------ what is refused
def test_no_parameters(images):
    with pytest.raises(ValueError, match="Flatten has no parameters"):
        squared_norms(nn.Flatten(), images)


def test_batch_statistics(model, images):
    model[1].train()
    with pytest.raises(ValueError, match=r"1 \(BatchNorm2d\).*mixes its samples.*model\.eval"):
        squared_norms(model, images)
    untracked = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(), nn.Linear(108, 2)).eval()
    with pytest.raises(ValueError, match="track_running_stats"):
        squared_norms(untracked, images)


class FunctionalBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True).flatten(1)


def test_batch_statistics_in_a_function(images):
    with pytest.raises(ValueError, match="batch statistics"):
        squared_norms(FunctionalBatchNorm(), images)


def test_active_dropout(model, images):
    model[4].train()
    with pytest.raises(ValueError, match=r"4 \(Dropout\) is active"):
        squared_norms(model, images)


class Sampling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(108, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1) + torch.randn(108))


def test_random_numbers_in_the_forward_pass(images):
    model = Sampling()
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="draws random numbers"):
        squared_norms(model, images)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda x: x[:0], ValueError, r"images are empty: their shape is \(0, 3, 6, 6\)"),
        (lambda x: torch.full_like(x, torch.nan), ValueError, "NaN or infinite values, first in image 0"),
        (lambda x: torch.cat([x, x / 0]), ValueError, "NaN or infinite values, first in image 3"),
        (lambda x: x[0, 0, 0], ValueError, r"first axis, \(N, \.\.\.\), got the shape \(6,\)"),
        (lambda x: x[:, :2], ValueError, r"cannot take images of the shape \(N, 2, 6, 6\)"),
        (lambda x: x[..., :5], ValueError, r"cannot take images of the shape \(N, 3, 6, 5\)"),
        (lambda x: x.numpy(), TypeError, "must be a torch.Tensor, got ndarray"),
    ],
)
def test_images_that_are_refused(model, images, change, error, message):
    for question in (*QUESTIONS.values(), introspective_features):
        with pytest.raises(error, match=message):
            question(model, change(images))


def test_networks_that_are_refused(images):
    with pytest.raises(TypeError, match="must be a torch.nn.Module, got function"):
        squared_norms(lambda x: x, images)
    collapsing = nn.Sequential(nn.Flatten(), nn.Linear(108, 2), nn.Flatten(0))
    with pytest.raises(ValueError, match="one output a sample"):
        squared_norms(collapsing, images)
    broken = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    nn.init.constant_(broken[1].bias, torch.nan)
    with pytest.raises(ValueError, match="output holds NaN"):
        squared_norms(broken, images)


def test_names_that_are_refused(model, images):
    with pytest.raises(ValueError, match="no parameter 'head'"):
        squared_norms(model, images, parameters=["8.weight", "head"])
    with pytest.raises(ValueError, match="must be a list of names"):
        squared_norms(model, images, parameters="8.weight")


def test_some_parameters(model, images):
    all_norms, names = squared_norms(model, images)
    some, chosen = squared_norms(model, images, parameters=["8.bias", "0.weight"])
    assert chosen == ("8.bias", "0.weight")
    assert one_by_one.relative_error(some, all_norms[:, [names.index(name) for name in chosen]]) < 1e-6
