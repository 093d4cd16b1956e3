"""The 1-D example is the one of the protocol, point by point, and knows its own truth."""

import numpy as np
import pytest
import torch

from tutorial_lib.uncertainty.toy import evaluation_inputs, noise_std, regions, toy_regression, true_function


def test_the_forty_points_are_those_of_the_original():
    random = np.random.RandomState(123)
    x = np.linspace(-1.0, 1.0, 1000)
    y = 0.5 * np.sin(25 * x) + 0.5 * x + random.normal(0.0, np.maximum(0.0, x + 1.0) * 0.2)
    bands = np.split(np.arange(1000), 5)
    inside = np.concatenate([bands[1], bands[3]])
    chosen = inside[random.choice(range(400), 40, replace=False)]
    data = toy_regression()
    np.testing.assert_allclose(data.x[:, 0], x[chosen], atol=1e-6)
    np.testing.assert_allclose(data.y[:, 0], y[chosen], atol=1e-6)
    assert data.x.shape == data.y.shape == (40, 1) and data.x.dtype == torch.float32


def test_data_sets_of_one_seed_are_nested_and_share_their_noise():
    few, many = toy_regression(n=20), toy_regression(n=80)
    torch.testing.assert_close(few.x, many.x[:20])
    torch.testing.assert_close(few.y, many.y[:20])
    calm, loud = toy_regression(slope=0.1), toy_regression(slope=0.4)
    truth = true_function(calm.x)
    torch.testing.assert_close(4 * (calm.y - truth), loud.y - truth, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(toy_regression(slope=0.0).y, truth, atol=1e-5, rtol=1e-5)
    assert not torch.equal(toy_regression(seed=1).x, toy_regression(seed=2).x)


def test_all_points_lie_in_the_bands_and_the_noise_has_the_stated_size():
    x, y = toy_regression(n=400)
    masks = regions(x)
    assert (masks["left_band"] | masks["right_band"]).all()
    assert masks["left_band"].sum() == masks["right_band"].sum() == 200
    standard = (y - true_function(x)) / noise_std(x)
    assert abs(standard.std().item() - 1) < 0.1  # 400 draws: standard error 0.035
    assert abs(standard.mean().item()) < 0.15
    right, left = (noise_std(x)[masks[name]].mean() for name in ("right_band", "left_band"))
    assert (right / left).item() == pytest.approx(1.4 / 0.6, rel=0.01)


def test_noise_vanishes_left_of_minus_one():
    assert noise_std(torch.tensor([-3.0, -1.0, 0.0, 1.0])).tolist() == pytest.approx([0, 0, 0.2, 0.4])


def test_every_input_lies_in_exactly_one_region():
    x = torch.cat([evaluation_inputs(1001), torch.tensor([[-0.6], [-0.2], [0.2], [0.6], [-50.0], [50.0]])])
    assert (torch.stack(list(regions(x).values())).sum(0) == 1).all()
    assert regions(torch.tensor([[0.0]]))["gap"].item() and regions(torch.tensor([[9.0]]))["outside"].item()


@pytest.mark.parametrize(
    "arguments, message", [({"n": 0}, "between 1 and 400"), ({"n": 401}, "400"), ({"slope": -1}, "slope")]
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        toy_regression(**arguments)
