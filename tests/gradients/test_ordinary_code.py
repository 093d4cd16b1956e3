"""What ordinary networks return and do, beyond logits (N, K): each case works, or is refused in one sentence."""

from __future__ import annotations

import one_by_one
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.gradients import squared_norms


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def segmentation() -> nn.Module:
    return one_by_one.randomised(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 1))).double()


CLASSES = torch.randint(0, 3, (4, 3, 4), generator=torch.Generator().manual_seed(0))
SOFT = torch.rand(4, 3, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PIXEL_LABELS = {
    "a class a pixel": (CLASSES, lambda z, n: CLASSES[n : n + 1]),
    "one class": (2, lambda z, n: torch.full((1, 3, 4), 2)),
    "predicted": ("predicted", lambda z, n: z.argmax(1)),
    "probabilities": (SOFT, lambda z, n: SOFT[n : n + 1]),
    "ones": ("ones", lambda z, n: torch.ones_like(z)),
    "uniform": ("uniform", lambda z, n: torch.full_like(z, 1 / 3)),
}


@pytest.mark.parametrize("label", PIXEL_LABELS)
def test_cross_entropy_of_pixels_is_torchs(label):
    """Classes stand on axis 1, whatever follows."""
    model, images = segmentation(), torch.randn(4, 2, 5, 6).double()
    given, wanted_target = PIXEL_LABELS[label]
    got, _ = squared_norms(model, images, given, "ce")
    wanted = torch.cat([
        one_by_one.norms(
            model, image, lambda z, n=n: F.cross_entropy(z, wanted_target(z.detach(), n), reduction="sum")
        )
        for n, image in enumerate(images.split(1))
    ])  # fmt: skip
    assert one_by_one.relative_error(got, wanted) < 1e-9


class OneNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).squeeze(1)


@pytest.mark.parametrize("samples", [1, 3])
def test_one_number_a_sample(samples):
    model, images = OneNumber(), torch.randn(samples, 4)
    one_by_one.assert_exact(model, images)
    squared_norms(model, images, "zeros", "mse")
    for label, loss in (("ones", "ce"), ("uniform", "bce"), ("predicted", "bce"), (0, "bce")):
        with pytest.raises(ValueError, match=r"logits \(N, K\)"):
            squared_norms(model, images, label, loss)
