"""The constraint against the scheme of the paper, layer by layer, and against finite differences."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tutorial_lib.benchmarks.gradcon_transcription import RunningAverage, published_step
from tutorial_lib.gradcon import GradientConstraint, decoder_weights, training_step
from tutorial_lib.models.autoencoder import build_autoencoder


def model_of(kind="cae", shape=(1, 8, 8), width=0.25, double=False):
    torch.manual_seed(0)
    model = build_autoencoder(kind, shape, width)
    return model.double() if double else model


def test_the_decoder_s_weights_and_nothing_else():
    model = model_of(shape=(1, 28, 28))
    weights = decoder_weights(model)
    assert [tuple(w.shape) for w in weights.values()] == [(16, 16, 4, 4), (16, 8, 4, 4), (8, 8, 4, 4), (8, 1, 4, 4)]
    assert all(model.get_parameter(name) is weight for name, weight in weights.items())
    assert list(decoder_weights(model_of("vae"))) == list(decoder_weights(model_of("cae")))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
def test_a_training_is_that_of_the_published_scheme(shape):
    ours = model_of(shape=shape, double=True)
    theirs = copy.deepcopy(ours)
    constraint = GradientConstraint(ours, alpha=0.03)
    averages = [RunningAverage() for _ in constraint.names]
    optimizer = torch.optim.Adam(ours.parameters(), 1e-3)
    other = torch.optim.Adam(theirs.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(1)
    for step in range(6):
        images = torch.rand(5, *shape, generator=generator, dtype=torch.float64)
        losses = training_step(ours, images, constraint)
        optimizer.step()
        weights = list(decoder_weights(theirs).values())
        error, gradient_loss = published_step(theirs, weights, images, averages, other, alpha=0.03)
        assert float(losses.reconstruction) == pytest.approx(error, rel=1e-9)
        assert float(losses.gradient) == pytest.approx(gradient_loss, rel=1e-7, abs=1e-12)
        assert (gradient_loss == 0) == (step == 0)
    for (name, mine), published in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, published, rtol=1e-7, atol=1e-10, msg=name)
    for mean, average in zip(constraint.mean.values(), averages, strict=True):
        torch.testing.assert_close(mean, average.average, rtol=1e-7, atol=1e-12)


def test_the_second_order_part_against_finite_differences():
    model = model_of(width=0.1, double=True)
    constraint = GradientConstraint(model, alpha=0.7)
    images = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    training_step(model, images, constraint)  # an average to compare with
    mean = copy.deepcopy(constraint.mean)
    training_step(model, images, constraint)
    constraint.mean, constraint.steps = mean, 1

    def total():
        error = F.mse_loss(model(images), images)
        gradients = torch.autograd.grad(error, list(decoder_weights(model).values()))
        cosines = [
            F.cosine_similarity(g.flatten(), m.flatten(), dim=0) for g, m in zip(gradients, mean.values(), strict=True)
        ]
        return (error - 0.7 * sum(cosines) / len(cosines)).item()

    for name, parameter in model.named_parameters():
        flat, gradient = parameter.data.view(-1), parameter.grad.flatten()
        place = int(gradient.abs().argmax())
        at = flat[place].clone()
        flat[place] = at + 1e-6
        above = total()
        flat[place] = at - 1e-6
        below = total()
        flat[place] = at
        assert (above - below) / 2e-6 == pytest.approx(float(gradient[place]), rel=1e-4, abs=1e-8), name


def test_directions_are_the_gradient_of_the_loss():
    constraint = GradientConstraint(model_of(double=True))
    constraint.update([torch.randn_like(mean) for mean in constraint.mean.values()])
    gradients = [torch.randn_like(mean).requires_grad_() for mean in constraint.mean.values()]
    loss = constraint.loss(gradients)
    value, directions = constraint.loss_and_directions(gradients)
    torch.testing.assert_close(value, loss.detach())
    for direction, expected in zip(directions, torch.autograd.grad(loss, gradients), strict=True):
        torch.testing.assert_close(direction, expected)
    value, directions = constraint.loss_and_directions([torch.zeros_like(g) for g in gradients])
    assert value == 0 and all(torch.equal(d, torch.zeros_like(d)) for d in directions)


def test_the_average_is_that_of_all_total_gradients():
    model = model_of()
    constraint = GradientConstraint(model)
    seen = []
    for _ in range(5):
        training_step(model, torch.rand(4, 1, 8, 8), constraint)
        seen.append([w.grad.clone() for w in decoder_weights(model).values()])
    for i, mean in enumerate(constraint.mean.values()):
        torch.testing.assert_close(mean, torch.stack([step[i] for step in seen]).mean(0))


def test_without_weight_nothing_is_constrained_but_the_average_is_kept():
    plain, watched = model_of(), model_of()
    constraint = GradientConstraint(watched, alpha=0)
    for _ in range(3):
        images = torch.rand(4, 1, 8, 8)
        for model, given in ((plain, None), (watched, constraint)):
            losses = training_step(model, images, given)
            assert losses.gradient == 0
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 0.1 * parameter.grad
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), watched.parameters(), strict=True))
    assert constraint.steps == 3 and all(mean.abs().sum() > 0 for mean in constraint.mean.values())


def test_a_gradient_of_zero_aligns_with_nothing_and_does_no_harm():
    constraint = GradientConstraint(model_of())
    gradients = [torch.zeros_like(mean).requires_grad_() for mean in constraint.mean.values()]
    constraint.update([torch.ones_like(mean) for mean in constraint.mean.values()])
    loss = constraint.loss(gradients)
    assert loss == 0
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, gradients))


def test_the_latent_loss_is_spread_over_the_pixels():
    model = model_of("vae")
    noise = torch.randn(4, model.to_mean.out_features)
    images = torch.rand(4, 1, 8, 8)
    losses = training_step(model, images, None, noise)
    posterior = model.encode(images)
    by_hand = F.mse_loss(model.decode(posterior, noise), images, reduction="sum") + model.latent_loss(posterior).sum()
    torch.testing.assert_close(losses.total(64, alpha=0.03), by_hand.detach() / (4 * 64))
    expected = torch.autograd.grad(by_hand / (4 * 64), list(model.parameters()))
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_a_state_goes_into_another_constraint():
    model = model_of()
    constraint = GradientConstraint(model, alpha=0.5)
    training_step(model, torch.rand(4, 1, 8, 8), constraint)
    other = GradientConstraint(model_of())
    other.load_state_dict(constraint.state_dict())
    assert (other.steps, other.alpha) == (1, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(other.mean.values(), constraint.mean.values(), strict=True))
    reference = other.reference()
    other.update([torch.ones_like(mean) for mean in other.mean.values()])
    assert not torch.equal(reference[other.names[0]], other.mean[other.names[0]])  # a copy
    with pytest.raises(ValueError, match="other shapes"):
        other.load_state_dict(GradientConstraint(model_of(width=0.5)).state_dict())


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="alpha must not be negative"):
        GradientConstraint(model_of(), alpha=-1)
    with pytest.raises(TypeError, match="Flatten has no decoder"):
        GradientConstraint(torch.nn.Flatten())
    hollow = torch.nn.Module()
    hollow.decoder = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(TypeError, match="no convolution"):
        decoder_weights(hollow)
    constraint = GradientConstraint(model_of())
    with pytest.raises(ValueError, match="no gradient yet"):
        constraint.reference()
    with pytest.raises(ValueError, match="2 constrained weights, but 1"):
        constraint.cosines([torch.zeros(1)])
    with pytest.raises(ValueError, match="call backward"):
        constraint.update([None, None])
