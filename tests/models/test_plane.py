"""The plane of closest fit, against scikit-learn's principal components and against autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from tutorial_lib.detectors import ReconstructionError
from tutorial_lib.gradients import squared_norms
from tutorial_lib.models.plane import Plane

IMAGES = torch.rand(40, 3, 4, 2, generator=torch.Generator().manual_seed(0))
OTHERS = torch.rand(7, 3, 4, 2, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("directions", [0, 1, 5, 24])
def test_reconstructions_are_those_of_scikit_learn(directions):
    plane = Plane(IMAGES, directions)
    flat = OTHERS.flatten(1).double().numpy()
    if directions:
        pca = PCA(directions).fit(IMAGES.flatten(1).double().numpy())
        expected = pca.inverse_transform(pca.transform(flat))
    else:
        expected = np.repeat(IMAGES.flatten(1).double().numpy().mean(0, keepdims=True), len(flat), axis=0)
    with torch.no_grad():
        found = plane(OTHERS).flatten(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    errors = ((flat - expected) ** 2).mean(1)
    np.testing.assert_allclose(ReconstructionError(plane).predict(OTHERS), errors, atol=1e-6)


def test_narrowed_is_the_narrower_plane():
    with torch.no_grad():
        torch.testing.assert_close(Plane(IMAGES, 9).narrowed(4)(OTHERS), Plane(IMAGES, 4)(OTHERS), atol=1e-5, rtol=0)
        assert Plane(IMAGES, 9).narrowed(0)(OTHERS).std(dim=0).max() < 1e-6
    with pytest.raises(ValueError, match="9 directions, got 10"):
        Plane(IMAGES, 9).narrowed(10)


def test_gradient_is_the_rest_times_the_code():
    """What chapter 5 derives; and over the training images it cancels."""
    plane = Plane(IMAGES, 3)
    with torch.no_grad():
        rest, codes = (IMAGES - plane(IMAGES)).flatten(1), plane.encode(IMAGES)
    found = squared_norms(plane, IMAGES, "input", "mse", parameters=["decoder.weight"])[0][:, 0]
    expected = 4 * rest.square().sum(1) * codes.square().sum(1)
    torch.testing.assert_close(found, expected.double(), rtol=1e-4, atol=1e-7)
    assert (rest.T @ codes).abs().max() < 1e-4


def test_bytes_are_read_as_floats():
    eight_bit = (IMAGES * 255).round().to(torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(
            Plane(eight_bit, 3)(eight_bit), Plane(eight_bit.float() / 255, 3)(eight_bit.float() / 255)
        )


@pytest.mark.parametrize("directions", [-1, 25, 40])
def test_directions_that_are_not_there_are_refused(directions):
    with pytest.raises(ValueError, match=f"0 to 24 directions, got {directions}"):
        Plane(IMAGES, directions)
