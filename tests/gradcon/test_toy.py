"""The toys of chapters 5 and 6: what the chapters say about them holds."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from tutorial_lib.gradcon import GradientConstraint, toy
from tutorial_lib.metrics import auroc


@pytest.fixture(scope="module")
def points():
    return toy.stretch()


@pytest.fixture(scope="module")
def trained(points):
    return {alpha: toy.train_two_weights(points.normal, alpha) for alpha in (0.0, 0.03, 0.1)}


def cosine(trained, x):
    with torch.no_grad():
        by_hand = F.cosine_similarity(trained.model.gradients(x), trained.reference[None], dim=1)
    torch.testing.assert_close(trained.cosines(x), by_hand)
    return by_hand


def test_gradients_are_those_of_autograd(points, trained):
    model = trained[0.03].model
    expected = []
    for point in points.held_out[:9]:
        loss = (model(point[None]) - point).square().mean()
        expected.append(torch.autograd.grad(loss, model.decoder.weight)[0][:, 0])
    torch.testing.assert_close(model.gradients(points.held_out[:9]), torch.stack(expected))


def test_running_mean_is_that_of_the_librarys_constraint():
    """The toy's average, fed with gradients of its own, against the class that trains the networks."""

    class Stand(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = torch.nn.Sequential(torch.nn.ConvTranspose2d(1, 2, 1, bias=False))

    constraint, mean = GradientConstraint(Stand()), torch.zeros(2)
    for step, gradient in enumerate(torch.randn(7, 2, generator=torch.Generator().manual_seed(0))):
        constraint.update([gradient.view(1, 2, 1, 1)])
        mean += (gradient - mean) / (step + 1)
    torch.testing.assert_close(constraint.mean["decoder.0.weight"].flatten(), mean)


def test_normal_points_agree_only_under_the_constraint(points, trained):
    plain, published, strong = (cosine(trained[alpha], points.held_out).mean() for alpha in (0.0, 0.03, 0.1))
    assert abs(plain) < 0.2 and published > 0.7 and strong > published


def test_direction_finds_those_off_the_line_and_not_those_further_along(points, trained):
    def found(alpha, kind):
        return auroc(-cosine(trained[alpha], points.held_out), -cosine(trained[alpha], points.strange[kind]))

    assert found(0.03, "off the line") > 0.85 > found(0.0, "off the line")
    assert found(0.03, "further along") < 0.7, "they pull the usual way, only harder"


def test_the_constrained_line_stays_below_the_points(points, trained):
    """It stops on the side on which training began."""

    def above(alpha):
        w = trained[alpha].model.decoder.weight.detach()[:, 0]
        across = torch.stack([-w[1], w[0]]) / w.norm()
        return float(((points.held_out @ across) > 0).float().mean())

    assert 0.3 < above(0.0) < 0.7 and above(0.03) > 0.9


def test_a_curve_explains_the_arc_and_not_what_is_beside_it():
    arc = toy.arc()
    curve = toy.train_curve(arc.normal)
    with torch.no_grad():
        way = {name: (curve(x) - x).norm(dim=1) for name, x in {"held out": arc.held_out, **arc.strange}.items()}
    assert auroc(way["held out"], way["inside"]) > 0.99 and auroc(way["held out"], way["outside"]) > 0.99


def test_random_state_is_left_alone_and_seeds_decide():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    points = toy.stretch(n=20)
    toy.train_two_weights(points.normal, 0.03, steps=2)
    toy.train_curve(points.normal, steps=2)
    torch.testing.assert_close(torch.rand(1), expected)
    assert torch.equal(points.normal, toy.stretch(n=20).normal)
    assert not torch.equal(points.normal, toy.stretch(n=20, seed=1).normal)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="n = 1"):
        toy.arc(n=1)
    with pytest.raises(ValueError, match="alpha must not be negative, got -1"):
        toy.train_two_weights(torch.zeros(4, 2), alpha=-1)
