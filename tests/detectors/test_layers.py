"""Stages: where they are, what is read there, and that nothing stays behind."""

import pytest
import torch
from torch import nn

from tutorial_lib.detectors.layers import recorded, stage_features, stage_names
from tutorial_lib.models import build


def hooks(model):
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize(
    ("network", "widths"),
    [
        ("lenet", [6, 16, 120, 84]),
        ("resnet20", [16, 16, 32, 64]),
        ("resnet18", [64, 64, 128, 256, 512]),
        ("densenet_bc_100_12", [24, 108, 150, 342]),
    ],
)
def test_stages_are_where_lee_et_al_read_them(network, widths):
    model, images = build(network, 10, (3, 32, 32)).eval(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        stages = stage_features(model, images, stage_names(model, images[:1]))
        assert [stage.shape for stage in stages] == [(2, width) for width in widths]
        torch.testing.assert_close(stages[-1], model.features(images))  # the last one is the penultimate feature
    assert hooks(model) == 0


def test_a_stage_is_the_mean_over_positions(colour_network):
    images = torch.rand(2, 3, 16, 16)
    stem = colour_network.backbone[:3](colour_network.normalize(images))
    torch.testing.assert_close(stage_features(colour_network, images, ["backbone.2"])[0], stem.mean((2, 3)))


def test_hooks_go_after_an_exception():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(RuntimeError), recorded(model, ["0"]):
        assert hooks(model) == 1
        model(torch.rand(1, 3))
    assert hooks(model) == 0


def test_what_comes_after_cannot_change_what_was_recorded():
    model = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    with recorded(model, ["0"]) as outputs:
        model(torch.tensor([[-1.0, 1.0]]))
    assert outputs["0"].tolist() == [[-1.0, 1.0]]


def test_gradients_flow_through_what_was_recorded(colour_network):
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    stage_features(colour_network, images, ["backbone.3"])[0].sum().backward()
    assert images.grad.abs().sum() > 0
    colour_network.zero_grad(set_to_none=True)


def test_what_cannot_be_read_is_named(colour_network):
    with pytest.raises(ValueError, match="no submodule 'layer4'"):
        stage_features(colour_network, torch.rand(1, 3, 16, 16), ["layer4"])

    class Skips(nn.Sequential):
        def forward(self, images):
            return images

    with pytest.raises(ValueError, match="does not run 0"):
        stage_features(Skips(nn.ReLU()), torch.rand(1, 2), ["0"])
    with pytest.raises(TypeError, match="stages of a Sequential are not known"):
        stage_names(nn.Sequential(nn.Flatten()), torch.rand(1, 1, 2, 2))
