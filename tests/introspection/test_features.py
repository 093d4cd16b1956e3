"""Closed forms of the last layer's gradients against autograd, and what they cannot hold."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutorial_lib.gradients import introspective_features
from tutorial_lib.introspection import last_layer_gradients, logit_scale, second_look
from tutorial_lib.introspection.features import INPUTS, LOSSES

N, K, D = 5, 4, 3


@pytest.fixture
def seen():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(N, D, generator=generator, dtype=torch.float64)
    weight = torch.randn(K, D, generator=generator, dtype=torch.float64, requires_grad=True)
    return features, weight


def losses(z, t):
    return {
        "ce": lambda: -(t * z.log_softmax(-1)).sum(),
        "bce": lambda: F.binary_cross_entropy_with_logits(z, t, reduction="sum"),
        "mse": lambda: (z - t).square().sum(),
    }


def by_autograd(features, weight, label, loss):
    rows = []
    for h in features:
        (gradient,) = torch.autograd.grad(losses(weight @ h, label)[loss](), weight)
        rows.append(gradient)
    return torch.stack(rows)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_closed_forms_are_what_autograd_gives(seen, loss, scale):
    features, weight = seen
    logits = (features @ weight.T).detach()
    ones = by_autograd(features, weight, torch.full((K,), scale, dtype=torch.float64), loss)
    each = torch.stack(
        [by_autograd(features, weight, scale * torch.eye(K, dtype=torch.float64)[q], loss) for q in range(K)], dim=1
    )
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(last_layer_gradients(logits, features, loss, "ones", scale), ones, **close)
    torch.testing.assert_close(last_layer_gradients(logits, features, loss, "each", scale), each, **close)
    own = torch.stack([each[:, q, q] for q in range(K)], dim=1)
    torch.testing.assert_close(last_layer_gradients(logits, features, loss, "own", scale), own, **close)


def test_one_pass_with_all_ones_is_the_sum_over_all_questions_for_cross_entropy_only(seen):
    features, weight = seen
    logits = (features @ weight.T).detach()
    for loss in LOSSES:
        ones = last_layer_gradients(logits, features, loss, "ones")
        each = last_layer_gradients(logits, features, loss, "each").sum(1)
        if loss == "ce":
            torch.testing.assert_close(ones, each, rtol=1e-12, atol=1e-12)
        else:
            empty = 2 * logits if loss == "mse" else logits.sigmoid()  # the gradient of the label of zeros
            torch.testing.assert_close(
                each, ones + (K - 1) * empty[:, :, None] * features[:, None], rtol=1e-12, atol=1e-12
            )


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_own_rows_are_the_introspective_features_of_the_gradient_engine(loss):
    torch.manual_seed(0)
    model = nn.Linear(D, K).double()
    images = torch.randn(N, D, dtype=torch.float64)
    with torch.no_grad():
        ours = last_layer_gradients(model(images), images, loss, "own")
        torch.testing.assert_close(ours, introspective_features(model, images, loss), rtol=1e-10, atol=1e-12)


def test_a_sure_network_keeps_its_digits():
    logits = torch.tensor([[60.0, 0.0, 0.0]], dtype=torch.float64)
    own = last_layer_gradients(logits, torch.ones(1, 1, dtype=torch.float64), "ce", "own")
    assert float(own[0, 0]) == pytest.approx(-2 * torch.exp(torch.tensor(-60.0, dtype=torch.float64)).item(), rel=1e-12)


@pytest.mark.parametrize("inputs", INPUTS)
def test_every_input_is_a_function_of_the_features_alone(seen, inputs):
    features, weight = seen
    logits = (features @ weight.T).detach()
    look = second_look(logits, features, inputs)
    assert look.shape == (N, {"features": D, "logits": K, "features and logits": D + K}.get(inputs, K * D))
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(second_look(logits[order], features[order], inputs), look[order])


def test_random_products_have_the_rank_and_the_size_of_gradients_and_nothing_of_the_loss(seen):
    features, weight = seen
    logits = (features @ weight.T).detach()
    products = second_look(logits, features, "random products").view(N, K, D)
    assert all(torch.linalg.matrix_rank(product) == 1 for product in products)
    torch.testing.assert_close(products.flatten(1), second_look(-3 * logits, features, "random products"))


def test_scale_of_the_ones():
    assert logit_scale(torch.tensor([[4.0, 1.0], [0.0, 8.0]])) == 6
    with pytest.raises(ValueError, match="give a scale yourself"):
        logit_scale(torch.tensor([[-4.0, -1.0]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "hinge"}, "unknown loss 'hinge'"),
        ({"question": "two"}, "unknown question 'two'"),
        ({"scale": 0.0}, "scale must be positive"),
        ({"scale": float("nan")}, "scale must be positive"),
    ],
)
def test_bad_questions_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        last_layer_gradients(torch.zeros(2, 3), torch.zeros(2, 4), **change)


def test_bad_shapes_and_inputs_are_refused():
    with pytest.raises(ValueError, match="of the same images"):
        last_layer_gradients(torch.zeros(2, 3), torch.zeros(1, 4))
    with pytest.raises(ValueError, match="unknown inputs 'pixels'"):
        second_look(torch.zeros(2, 3), torch.zeros(2, 4), "pixels")
