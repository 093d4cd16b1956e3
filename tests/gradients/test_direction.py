"""Which way a gradient norm points: the sign that each loss implies, in closed form.

The last layer z = W h + b has the gradient u hᵀ with u = dl/dz, so its squared norm is |u|² |h|². These tests hold the
library to the u of every loss and label, and to what chapter 4 derives from it.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutorial_lib.gradients import squared_norms
from tutorial_lib.metrics import auroc

CLASSES = 5


@pytest.fixture
def head() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(7, CLASSES).double()


@pytest.fixture
def features() -> torch.Tensor:
    return 2 * torch.randn(12, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def logit_gradient(z: torch.Tensor, label, loss: str) -> torch.Tensor:
    """|u|² as the library sees it: the bias gradient of a layer is u itself."""
    layer = nn.Linear(z.shape[1], z.shape[1]).double()
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    values, names = squared_norms(layer, z, label, loss)
    return values[:, names.index("bias")]


def confident(margin: float) -> torch.Tensor:
    """Logits of one image whose first class leads by ``margin``."""
    return torch.tensor([[margin] + [0.0] * (CLASSES - 1)], dtype=torch.float64)


def one_hot(z: torch.Tensor) -> torch.Tensor:
    return F.one_hot(z.argmax(1), z.shape[1]).double()


BY_HAND = {
    ("ones", "bce"): lambda z: 1 / (1 + (-z).exp()) - 1,
    ("zeros", "bce"): lambda z: 1 / (1 + (-z).exp()),
    ("predicted", "bce"): lambda z: 1 / (1 + (-z).exp()) - one_hot(z),
    ("ones", "ce"): lambda z: CLASSES * z.exp() / z.exp().sum(1, keepdim=True) - 1,
    ("uniform", "ce"): lambda z: z.exp() / z.exp().sum(1, keepdim=True) - 1 / CLASSES,
    ("predicted", "ce"): lambda z: z.exp() / z.exp().sum(1, keepdim=True) - one_hot(z),
    ("ones", "mse"): lambda z: 2 * (z - 1),
    ("predicted", "mse"): lambda z: 2 * (z - one_hot(z)),
}


@pytest.mark.parametrize(("label", "loss"), BY_HAND, ids="-".join)
def test_last_layer_is_logit_gradient_times_activation(head, features, label, loss):
    u = BY_HAND[label, loss](head(features))
    values, names = squared_norms(head, features, label, loss)
    expected = {"weight": u.square().sum(1) * features.square().sum(1), "bias": u.square().sum(1)}
    for column, name in enumerate(names):
        torch.testing.assert_close(values[:, column], expected[name], rtol=1e-9, atol=1e-12)


def test_softmax_with_all_ones_vanishes_where_the_network_is_undecided():
    assert logit_gradient(confident(0.0), "ones", "ce").item() == pytest.approx(0, abs=1e-20)


def test_softmax_with_all_ones_grows_with_confidence_up_to_k_squared_minus_k():
    norms = [logit_gradient(confident(margin), "ones", "ce").item() for margin in (0, 1, 2, 4, 8, 40)]
    assert norms == sorted(norms)
    assert norms[-1] == pytest.approx(CLASSES**2 - CLASSES)


def test_softmax_with_all_ones_is_the_second_moment_of_the_probabilities(head, features):
    z = head(features)
    expected = CLASSES**2 * z.softmax(1).square().sum(1) - CLASSES
    torch.testing.assert_close(logit_gradient(z, "ones", "ce"), expected, rtol=1e-9, atol=1e-12)


def test_the_uniform_label_is_all_ones_divided_by_the_number_of_classes(head, features):
    z = head(features)
    torch.testing.assert_close(CLASSES**2 * logit_gradient(z, "uniform", "ce"), logit_gradient(z, "ones", "ce"))


def test_predicted_label_falls_with_confidence():
    norms = [logit_gradient(confident(margin), "predicted", "ce").item() for margin in (0, 1, 2, 4, 8)]
    assert norms == sorted(norms, reverse=True)
    assert norms[0] == pytest.approx((CLASSES - 1) / CLASSES)
    assert logit_gradient(confident(40.0), "predicted", "ce").item() < 1e-30


def test_sigmoid_with_all_ones_falls_as_the_logits_rise_together(head, features):
    z = head(features)
    norms = torch.stack([logit_gradient(z + c, "ones", "bce") for c in (-60.0, -5.0, 0.0, 5.0, 60.0)])
    assert (norms.diff(dim=0) < 0).all()
    torch.testing.assert_close(norms[0], torch.full_like(norms[0], CLASSES))
    assert (norms[-1] < 1e-15).all()


@pytest.mark.parametrize("label", ["ones", "uniform", "predicted"])
def test_only_the_softmax_losses_are_blind_to_a_shift_of_all_logits(head, features, label):
    z = head(features)
    torch.testing.assert_close(logit_gradient(z, label, "ce"), logit_gradient(z + 3, label, "ce"))
    assert not torch.isclose(logit_gradient(z, label, "bce"), logit_gradient(z + 3, label, "bce")).any()


def test_same_probabilities_opposite_verdicts():
    """A term s·vᵀh added to every logit leaves all probabilities alone and turns the all-ones score round."""
    generator = torch.Generator().manual_seed(0)
    known = torch.rand(200, 7, generator=generator, dtype=torch.float64) + 2  # strangers excite the last layer less
    unknown = torch.rand(200, 7, generator=generator, dtype=torch.float64)
    verdicts = []
    for s in (-50.0, 50.0):
        head = nn.Linear(7, CLASSES).double()
        torch.manual_seed(0)
        nn.init.normal_(head.weight, std=0.3)
        before = head(known).softmax(1)
        with torch.no_grad():
            head.weight += s * torch.full((7,), 1 / 7)
        torch.testing.assert_close(head(known).softmax(1), before)
        verdicts.append(auroc(*(squared_norms(head, x, "ones", "bce")[0][:, 0] for x in (known, unknown))))
    assert verdicts == [0.0, 1.0]


def test_the_ends_of_the_shift_in_closed_form(head, features):
    """s → −∞: C |h|². s → +∞: −2 s vᵀh to first order in the logarithm."""
    features, v = features.abs(), torch.full((7,), 1 / 7, dtype=torch.float64)
    values = {}
    original = head.weight.detach().clone()
    for s in (-500.0, 30.0, 60.0):
        with torch.no_grad():
            head.weight.copy_(original + s * v)
        values[s] = squared_norms(head, features, "ones", "bce")[0][:, 0]
    torch.testing.assert_close(values[-500.0], CLASSES * features.square().sum(1), rtol=1e-6, atol=0)
    slope = (values[60.0].log() - values[30.0].log()) / 30
    torch.testing.assert_close(slope, -2 * features @ v, rtol=0, atol=1e-2)


def test_softmax_training_never_sets_the_mean_logit():
    """The gradient of cross-entropy has no component along "all logits together"; plain SGD keeps it as initialised."""
    torch.manual_seed(0)
    head = nn.Linear(7, CLASSES).double()
    start = head.weight.mean(0).clone(), head.bias.mean().clone()
    x, y = torch.randn(64, 7, dtype=torch.float64), torch.randint(CLASSES, (64,))
    optimizer = torch.optim.SGD(head.parameters(), lr=0.5, momentum=0.9)
    for _ in range(50):
        optimizer.zero_grad()
        F.cross_entropy(head(x), y).backward()
        optimizer.step()
    assert F.cross_entropy(head(x), y).item() < math.log(CLASSES)
    torch.testing.assert_close(head.weight.mean(0), start[0])
    torch.testing.assert_close(head.bias.mean(), start[1])


def test_confidence_and_activation_pull_apart():
    """Twice the activation makes this image surer: the predicted label's norm falls although |h|² rises fourfold."""
    head = nn.Linear(CLASSES, CLASSES, bias=False).double()
    nn.init.eye_(head.weight)
    small, large = confident(3.0), confident(6.0)
    for label, grows in (("predicted", False), ("ones", True)):
        weak, strong = (squared_norms(head, h, label, "ce")[0].item() for h in (small, large))
        assert (strong > weak) == grows
