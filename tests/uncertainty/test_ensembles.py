"""Ensembles: members differ, equal seeds agree, and training together changes nothing for any of them."""

import numpy as np
import pytest
import torch
from torch import nn

from tutorial_lib.models import build
from tutorial_lib.uncertainty.decomposition import decompose_regression
from tutorial_lib.uncertainty.ensembles import (
    MeanVarianceEnsemble,
    RegressionConfig,
    gaussian_nll,
    member_probabilities,
    train_regression_ensemble,
)
from tutorial_lib.uncertainty.toy import evaluation_inputs, regions, toy_regression

SMALL = RegressionConfig(hidden=16, steps=30)


def test_gaussian_nll_is_pytorchs():
    generator = torch.Generator().manual_seed(0)
    mean, target = torch.randn(50, generator=generator), torch.randn(50, generator=generator)
    variance = torch.rand(50, generator=generator) + 1e-3
    expected = nn.GaussianNLLLoss(reduction="none")(mean, target, variance)
    torch.testing.assert_close(gaussian_nll(mean, variance, target), expected)


def test_gaussian_nll_is_least_where_the_variance_is_the_squared_error():
    variance = torch.linspace(0.01, 4, 400)
    loss = gaussian_nll(torch.tensor(0.0), variance, torch.tensor(1.0))
    assert variance[loss.argmin()].item() == pytest.approx(1.0, abs=0.02)


def test_training_side_by_side_is_training_alone():
    data = toy_regression()
    together = train_regression_ensemble(*data, seeds=(3, 11, 5), config=SMALL)
    alone = train_regression_ensemble(*data, seeds=(11,), config=SMALL)
    x = evaluation_inputs(50)
    for joint, single in zip(together(x), alone(x), strict=True):
        torch.testing.assert_close(joint[1], single[0], rtol=1e-4, atol=1e-5)


def test_an_ensemble_member_is_the_plain_network_it_stands_for():
    ensemble = MeanVarianceEnsemble((0, 4), SMALL)
    x = evaluation_inputs(9)
    w, b = ([p[1].detach() for p in group] for group in (ensemble.weights, ensemble.biases))
    hidden = 2**0.5 * torch.sin(x @ w[0] + b[0])
    hidden = nn.functional.leaky_relu(hidden @ w[1] + b[1], 0.2)
    output = hidden @ w[2] + b[2]
    mean, variance = ensemble(x)
    torch.testing.assert_close(mean[1], output[:, 0])
    torch.testing.assert_close(variance[1], (nn.functional.softplus(output[:, 1]) + 1e-5) ** 2)


def test_deterministic_and_the_members_differ():
    data = toy_regression()
    torch.manual_seed(1)
    first = train_regression_ensemble(*data, config=SMALL)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = train_regression_ensemble(*data, config=SMALL)
    assert torch.equal(torch.get_rng_state(), state), "global random state was used"
    x = evaluation_inputs()
    assert torch.equal(first(x)[0], second(x)[0]) and torch.equal(first(x)[1], second(x)[1])
    means = first(x)[0]
    assert len(means) == 5
    for a in range(5):
        for b in range(a):
            assert (means[a] - means[b]).abs().max() > 0.05
    assert not any(parameter.requires_grad for parameter in first.parameters()) and not first.training


def test_untrained_noise_is_the_one_asked_for_everywhere():
    _, variance = MeanVarianceEnsemble(range(3), RegressionConfig(initial_std=0.5))(evaluation_inputs())
    assert (variance.sqrt() / 0.5).log().abs().max() < 0.5
    assert variance.sqrt().mean().item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.slow
def test_the_picture_of_the_chapter():
    """Model uncertainty grows where no data are, in the gap too; data uncertainty follows the noise."""
    for seeds in (range(5), range(5, 10)):
        x = evaluation_inputs(301)
        parts = decompose_regression(*train_regression_ensemble(*toy_regression(), seeds=seeds)(x))
        where = {name: mask[:, 0] for name, mask in regions(x).items()}
        inside = where["left_band"] | where["right_band"]
        epistemic, aleatoric = parts.epistemic.sqrt(), parts.aleatoric.sqrt()
        assert epistemic[~inside].mean() >= 3 * epistemic[inside].mean()
        assert epistemic[where["gap"]].mean() >= 3 * epistemic[inside].mean()
        assert aleatoric[where["right_band"]].mean() > 1.3 * aleatoric[where["left_band"]].mean()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"x": torch.zeros(3)}, r"\(n, 1\)"),
        ({"y": torch.zeros(4, 1)}, r"\(n, 1\)"),
        ({"y": torch.full((3, 1), float("nan"))}, "not finite"),
        ({"seeds": ()}, "one seed a member"),
        ({"seeds": (1, 1)}, "all different"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        train_regression_ensemble(**{"x": torch.zeros(3, 1), "y": torch.zeros(3, 1), "config": SMALL, **arguments})


@pytest.mark.parametrize("field, value", [("first_layer", "relu"), ("steps", 0), ("initial_std", 0), ("l2", -1)])
def test_bad_configuration_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        RegressionConfig(**{field: value})


def test_divergence_is_reported_with_the_seed():
    config = RegressionConfig(hidden=16, steps=400, learning_rate=1e20)
    with pytest.raises(RuntimeError, match=r"seeds \[7\].*learning rate"):
        train_regression_ensemble(*toy_regression(), seeds=(7,), config=config)


def test_member_probabilities_are_each_models_softmax():
    torch.manual_seed(0)
    models = [build("lenet", 4, (1, 8, 8)) for _ in range(3)]
    models[1].train()
    images = torch.randint(0, 256, (10, 1, 8, 8), dtype=torch.uint8)
    p = member_probabilities(models, images, batch_size=3)
    assert p.shape == (3, 10, 4) and p.dtype == torch.float64
    assert models[1].training and not any(q.grad is not None for m in models for q in m.parameters())
    with torch.no_grad():
        for model, found in zip(models, p, strict=True):
            np.testing.assert_allclose(found, model.eval()(images).softmax(1), atol=1e-6)
    with pytest.raises(ValueError, match="needs members"):
        member_probabilities([], images)
    with pytest.raises(ValueError, match="number of classes"):
        member_probabilities([models[0], build("lenet", 5, (1, 8, 8))], images)
