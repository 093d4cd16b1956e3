"""Where a backward pass starts: labels, losses, their closed forms, what is refused."""

from __future__ import annotations

import one_by_one
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.gradients import n_ones, squared_norms
from tutorial_lib.gradients.losses import logit_gradient
from tutorial_lib.gradients.targets import target

N, K = 4, 5


@pytest.fixture
def model() -> nn.Module:
    return one_by_one.randomised(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, K))).double()


@pytest.fixture
def x() -> Tensor:
    return torch.randn(N, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


TORCH_LOSSES = {
    "bce": lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction="sum"),
    "ce": lambda z, t: -(t * z.log_softmax(-1)).sum(),
    "mse": lambda z, t: (z - t).square().sum(),
}
SOFT = torch.rand(N, K, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
LABELS = {
    "ones": ("ones", lambda z, n: torch.ones_like(z)),
    "zeros": ("zeros", lambda z, n: torch.zeros_like(z)),
    "uniform": ("uniform", lambda z, n: torch.full_like(z, 1 / K)),
    "predicted": ("predicted", lambda z, n: F.one_hot(z.argmax(1), K).double()),
    "class 3": (3, lambda z, n: F.one_hot(torch.tensor([3]), K).double()),
    "a class an image": (
        torch.tensor([3, 0, 4, 0]),
        lambda z, n: F.one_hot(torch.tensor([[3, 0, 4, 0][n]]), K).double(),
    ),
    "first two": (n_ones(2), lambda z, n: torch.tensor([[1.0, 1, 0, 0, 0]]).double()),
    "one target": (SOFT[0], lambda z, n: SOFT[:1]),
    "a target an image": (SOFT, lambda z, n: SOFT[n : n + 1]),
    "a function": (lambda z: z.sigmoid() / 2, lambda z, n: z.detach().sigmoid() / 2),
}


@pytest.mark.parametrize("loss", TORCH_LOSSES)
@pytest.mark.parametrize("label", LABELS)
def test_label_and_loss(model, x, label, loss):
    """Sums over the outputs, for every label, as torch's own losses have them."""
    given, wanted_target = LABELS[label]
    got, _ = squared_norms(model, x, given, loss)
    wanted = torch.cat(
        [
            one_by_one.norms(model, x[n : n + 1], lambda z, n=n: TORCH_LOSSES[loss](z, wanted_target(z, n)))
            for n in range(N)
        ]
    )
    assert one_by_one.relative_error(got, wanted) < 1e-9


@pytest.mark.parametrize("loss", TORCH_LOSSES)
def test_loss_as_a_function(model, x, loss):
    def own(z: Tensor, t: Tensor) -> Tensor:
        return torch.stack([TORCH_LOSSES[loss](one, other) for one, other in zip(z, t, strict=True)])

    assert (
        one_by_one.relative_error(squared_norms(model, x, SOFT, own)[0], squared_norms(model, x, SOFT, loss)[0]) < 1e-9
    )


def test_loss_without_a_target(model, x):
    got, _ = squared_norms(model, x, label=None, loss=lambda z: z.logsumexp(1))
    assert one_by_one.relative_error(got, one_by_one.norms(model, x, lambda z: z.logsumexp(1).sum())) < 1e-9


class TwoOutputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mean, self.spread = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(x), self.spread(x)


def test_network_with_several_outputs(x):
    """A variational autoencoder's loss: reconstruction of the input, and a term in the second output."""
    model = one_by_one.randomised(TwoOutputs()).double()
    got, _ = squared_norms(
        model, x, label="input", loss=lambda out, t: (out[0] - t).square().sum(1) + out[1].exp().sum(1)
    )
    wanted = torch.cat(
        [
            one_by_one.norms(
                model, image, lambda out, image=image: (out[0] - image).square().sum() + out[1].exp().sum()
            )
            for image in x.split(1)
        ]
    )
    assert one_by_one.relative_error(got, wanted) < 1e-9
    with pytest.raises(ValueError, match="returns 2 tensors"):
        squared_norms(model, x)


def test_confident_networks_keep_their_digits():
    """s − 1 and p − 1 are tiny differences of large numbers; written as such they would be zero here."""
    z = torch.tensor([[45.0, 0.0, -2.0]], dtype=torch.float64)
    tiny = torch.exp(torch.tensor(-45.0, dtype=torch.float64))
    assert logit_gradient(z, torch.ones_like(z), "bce")[0, 0].item() == pytest.approx(-tiny.item(), rel=1e-12)
    ce = logit_gradient(z, torch.tensor([[1.0, 0, 0]]).double(), "ce")[0]
    assert ce[0].item() == pytest.approx(-(1 + torch.e**-2) * tiny.item(), rel=1e-9)
    assert abs(ce.sum().item()) < 1e-12 * tiny.item()
    head = nn.Linear(1, 3)
    nn.init.zeros_(head.weight)
    head.bias.data = z[0].float()
    norms, _ = squared_norms(head, torch.ones(1, 1), "predicted", "ce")
    assert norms[0, 0].item() == pytest.approx(ce.square().sum().item(), rel=1e-4)  # 1e-39: no float32 has these digits


def test_gradient_of_zero_is_zero(model, x):
    got, _ = squared_norms(model, x, lambda z: z.clone(), "mse")
    assert (got == 0).all()


def test_named_targets_have_the_shape_of_the_outputs():
    z = torch.randn(3, K)
    for label in ("ones", "zeros", "uniform", "predicted", 0, torch.tensor([0, 1, 2])):
        assert target(label, z, z, slice(0, 3)).shape == z.shape


@pytest.mark.parametrize(
    "label, loss, message",
    [
        ("one", "bce", "unknown label 'one'"),
        ("ones", "cross_entropy", "unknown loss 'cross_entropy'"),
        (None, "ce", "needs a label"),
        (K, "ce", r"classes must lie in 0\.\.4"),
        (-1, "ce", "classes must lie in"),
        (torch.tensor([0, 1]), "ce", "2 entries"),
        (torch.zeros(N, K + 1), "ce", r"the label has the shape \(4, 6\)"),
        (torch.full((K,), torch.nan), "bce", "the label holds NaN"),
        (n_ones(K + 1), "bce", r"needs at least 6 classes"),
        ("input", "mse", r"the label has the shape \(4, 6\)"),
        ("ones", lambda z, t: z.sum(), r"one number a sample, shape \(4,\), got \(\)"),
        ("ones", lambda z, t: z.sum(1) / 0, "the loss is NaN or infinite"),
    ],
)
def test_refused(model, x, label, loss, message):
    with pytest.raises(ValueError, match=message):
        squared_norms(model, x, label, loss)


def test_refused_types(model, x):
    with pytest.raises(TypeError, match="label must be"):
        squared_norms(model, x, 1.5)
    with pytest.raises(TypeError, match="loss must be"):
        squared_norms(model, x, "ones", 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loss_without_a_gradient_has_norms_of_zero(dtype):
    """A hinge that some images have left behind: 0, not 0/0."""
    model = nn.Linear(2, 1, bias=False).to(dtype)
    nn.init.ones_(model.weight)
    images = torch.tensor([[3.0, 0.0], [0.25, 0.5]], dtype=dtype)
    found, _ = squared_norms(model, images, None, lambda z: (1 - z).clamp_min(0).sum(1))
    torch.testing.assert_close(found, torch.tensor([[0.0], [0.3125]], dtype=torch.float64))
