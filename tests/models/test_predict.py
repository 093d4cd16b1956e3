"""Asking a model leaves it as it was."""

import copy

import pytest
import torch
from torch import nn

from tutorial_lib.models import build
from tutorial_lib.models.predict import predict_features, predict_logits, predict_probabilities, preserved


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3)
    ).train()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[3].eval()
    return model


def test_batches_do_not_change_the_answer(model):
    images = torch.rand(7, 1, 8, 8)
    torch.testing.assert_close(predict_logits(model, images, 2), predict_logits(model, images, 100))


def test_probabilities_sum_to_one_in_float64(model):
    probabilities = predict_probabilities(model, torch.rand(5, 1, 8, 8))
    assert probabilities.dtype == torch.float64
    torch.testing.assert_close(probabilities.sum(1), torch.ones(5, dtype=torch.float64), rtol=0, atol=1e-14)


@pytest.mark.parametrize("fail", [False, True])
def test_preserved_restores_everything(model, fail):
    before = copy.deepcopy(model)
    before[0].weight.grad = model[0].weight.grad.clone()  # deepcopy leaves .grad behind
    modes = [m.training for m in model.modules()]
    random_state = torch.get_rng_state()
    try:
        with preserved(model):
            assert not any(m.training for m in model.modules())
            model.train()
            model(torch.rand(4, 1, 8, 8)).sum().backward()  # moves batch norm's statistics, .grad and the random state
            model[5].weight.requires_grad_(False)
            model[0].weight.grad.zero_()
            if fail:
                raise RuntimeError("inside")
    except RuntimeError:
        assert fail
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    for (name, a), b in zip(model.named_parameters(), before.parameters(), strict=True):
        assert a.requires_grad == b.requires_grad, name
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(model.named_buffers(), before.buffers(), strict=True):
        assert torch.equal(a, b), name


def test_features_need_a_features_method(model):
    with pytest.raises(TypeError, match="no features method"):
        predict_features(model, torch.rand(1, 1, 8, 8))
    assert predict_features(build("lenet", 3, (1, 8, 8)), torch.rand(2, 1, 8, 8)).shape == (2, 84)
