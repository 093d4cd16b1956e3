"""The contrastive loss against a slow transcription of its equation."""

import math

import pytest
import torch

from tutorial_lib.severity import supervised_contrastive_loss


def by_the_equation(projections, labels, temperature):
    """Khosla et al. 2020, eq. 2, one anchor and one pair after the other; the mean instead of the sum over anchors."""
    count, views, _ = projections.shape
    z, y = [], []
    for n in range(count):
        for v in range(views):
            vector = projections[n, v].double()
            z.append(vector / vector.norm())
            y.append(int(labels[n]))
    total = 0.0
    for i in range(len(z)):
        others = [a for a in range(len(z)) if a != i]
        denominator = sum(math.exp(float(z[i] @ z[a]) / temperature) for a in others)
        positives = [p for p in others if y[p] == y[i]]
        total -= sum(math.log(math.exp(float(z[i] @ z[p]) / temperature) / denominator) for p in positives) / len(
            positives
        )
    return total / len(z)


def nt_xent(first, second, temperature):
    """Chen et al. 2020, eq. 1, over both views of every image."""
    z = torch.nn.functional.normalize(torch.cat([first, second]).double(), dim=1)
    count, losses = len(first), []
    for i in range(2 * count):
        other = (i + count) % (2 * count)
        similar = [math.exp(float(z[i] @ z[k]) / temperature) for k in range(2 * count) if k != i]
        losses.append(-math.log(math.exp(float(z[i] @ z[other]) / temperature) / sum(similar)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
@pytest.mark.parametrize("labels", [[0, 1, 1, 2, 0, 1], [5, 5, 5, 5, 5, 5], [0, 1, 2, 3, 4, 5]])
def test_loss_is_that_of_the_equation(views, temperature, labels):
    projections = torch.randn(6, views, 4, generator=torch.Generator().manual_seed(views))
    found = supervised_contrastive_loss(projections, torch.tensor(labels), temperature)
    assert found.item() == pytest.approx(by_the_equation(projections, labels, temperature), rel=1e-5)


def test_without_labels_it_is_simclr():
    z = torch.randn(7, 2, 5, generator=torch.Generator().manual_seed(0))
    found = supervised_contrastive_loss(z, temperature=0.2).item()
    assert found == pytest.approx(nt_xent(z[:, 0], z[:, 1], 0.2), rel=1e-5)
    assert found == pytest.approx(supervised_contrastive_loss(z, torch.arange(7), 0.2).item(), rel=1e-6)


def test_length_order_and_names_do_not_matter():
    z, labels = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 2, 1])
    loss = supervised_contrastive_loss(z, labels)
    order = torch.tensor([3, 0, 4, 2, 1])
    for other in (
        supervised_contrastive_loss(7 * z, labels),
        supervised_contrastive_loss(z[order], labels[order]),
        supervised_contrastive_loss(z, 10 - labels),
    ):
        torch.testing.assert_close(other, loss)


def test_large_logits_stay_finite_and_gradients_flow():
    z = torch.tensor([[[1.0, 0.0], [1.0, 0.0]], [[-1.0, 0.0], [-1.0, 0.0]]], requires_grad=True)
    loss = supervised_contrastive_loss(z, temperature=1e-3)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and z.grad.isfinite().all()


def test_bad_input_is_named():
    z = torch.zeros(3, 2, 4)
    for call, message in (
        (lambda: supervised_contrastive_loss(z[:, :1]), "two views or more"),
        (lambda: supervised_contrastive_loss(z, temperature=0), "temperature must be positive"),
        (lambda: supervised_contrastive_loss(z, torch.tensor([0, 1])), "one an image, 3"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
