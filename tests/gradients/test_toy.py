"""The toy of chapter 4: what the chapter says about it holds."""

from __future__ import annotations

import pytest
import torch

from tutorial_lib.gradients import contrast_squared_norms, squared_norms, toy


@pytest.fixture(scope="module")
def data():
    return toy.three_arcs()


@pytest.fixture(scope="module")
def net(data):
    return toy.train_toy(data)


def test_arcs_lie_on_a_ring_and_do_not_overlap(data):
    radius = data.points.norm(dim=1)
    assert 0.7 < radius.min() and radius.max() < 1.8
    centres = torch.stack([data.points[data.classes == k].mean(0) for k in range(3)])
    nearest = torch.cdist(data.points, centres).argmin(1)
    assert (nearest == data.classes).float().mean() > 0.97


def test_seeds_decide_the_points(data):
    torch.testing.assert_close(toy.three_arcs().points, data.points)
    assert not torch.equal(toy.three_arcs(seed=1).points, data.points)


def test_training_leaves_the_random_state_alone(data):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    toy.train_toy(data, steps=2)
    torch.testing.assert_close(torch.rand(1), expected)


def test_the_network_knows_the_arcs(net, data):
    assert (net(data.points).argmax(1) == data.classes).float().mean() > 0.99


def test_a_step_towards_a_label_makes_it_likelier_and_leaves_the_network(net):
    point = torch.tensor([2.5, 2.3])
    before = [p.clone() for p in net.parameters()]
    moved = toy.introduced(net, point, 1, rate=1e-3)
    assert moved(point[None]).log_softmax(1)[0, 1] > net(point[None]).log_softmax(1)[0, 1]
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))
    assert all(p.grad is None for p in moved.parameters())


def test_strangers_on_both_sides_of_the_known(net, data):
    """Under all ones, BCE, the hole of the ring has a smaller norm than the points, the outside a larger one."""
    known = squared_norms(net, data.points)[0].sum(1)
    hole = squared_norms(net, 0.1 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))[0].sum(1)
    angle = torch.linspace(0, 6.28, 50)
    far = squared_norms(net, 4 * torch.stack([angle.cos(), angle.sin()], 1))[0].sum(1)
    assert hole.median() < known.median() < far.median()


def test_contrast_classes_ask_more_far_away(net, data):
    known, far = data.points[35], torch.tensor([2.5, 2.3])
    norms = contrast_squared_norms(net, torch.stack([known, far])).sum(2)
    predicted = net(torch.stack([known, far])).argmax(1)
    assert predicted[0] == predicted[1]
    others = [k for k in range(3) if k != predicted[0]]
    assert (norms[1, others] > norms[0, others]).all()
    assert (norms[:, predicted[0]] < 1e-3).all()


def test_grid_runs_along_the_first_coordinate():
    ticks, points = toy.plane(extent=1.0, steps=3)
    torch.testing.assert_close(ticks, torch.tensor([-1.0, 0.0, 1.0]))
    torch.testing.assert_close(points[:4], torch.tensor([[-1.0, -1], [0, -1], [1, -1], [-1, 0]]))


def test_too_few_points_are_refused():
    with pytest.raises(ValueError, match="at least three points"):
        toy.three_arcs(2)
