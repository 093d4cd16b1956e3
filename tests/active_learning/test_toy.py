"""Points in a square: the pool of the chapter's first picture is what its text says of it."""

from __future__ import annotations

import torch

from tutorial_lib.active_learning.toy import PointsClassifier, as_points, plane, points_in_a_square
from tutorial_lib.models.predict import check_head


def test_points_are_images_and_back():
    images = points_in_a_square(500, seed=3)
    points = as_points(images.images)
    assert points.shape == (500, 2) and 0 <= points.min() and points.max() <= 1
    torch.testing.assert_close(as_points(images.images.float() / 255), points)


def test_one_point_in_twenty_five_is_on_the_island_and_none_of_its_class_is_near():
    images = points_in_a_square(4000, seed=0)
    points = as_points(images.images)
    island = (points - torch.tensor([0.84, 0.16])).norm(dim=1) < 0.15
    assert abs(island.double().mean() - 0.04) < 0.015  # standard error .003; few others stray there
    assert (images.labels[island] == 0).double().mean() > 0.9
    mainland = points[(images.labels == 0) & ~island]
    assert (mainland - torch.tensor([0.84, 0.16])).norm(dim=1).quantile(0.01) > 0.3


def test_two_classes_overlap_and_the_third_does_not():
    images = points_in_a_square(3000, seed=1)
    nearest = torch.cdist(as_points(images.images), as_points(images.images)).fill_diagonal_(9).argmin(1)
    stray = images.labels[nearest] != images.labels
    shares = [float(stray[images.labels == kind].double().mean()) for kind in range(3)]
    assert min(shares[:2]) > 0.03 > shares[2]


def test_the_plane_goes_row_by_row_from_below():
    grid = as_points(plane(5))
    assert grid[0].tolist() == [0, 0] and grid[1].tolist() == [0.25, 0] and grid[-1].tolist() == [1, 1]


def test_the_network_is_a_classifier_with_a_head():
    check_head(PointsClassifier(), plane(4))
