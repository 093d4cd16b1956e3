"""Shapes, sizes and behaviour of the classifiers."""

import pytest
import torch
from torch import nn

from tutorial_lib.models import NETWORKS, Normalize, build
from tutorial_lib.models.densenet import densenet_backbone
from tutorial_lib.models.resnet import cifar_resnet_backbone


def parameter_count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", [n for n in NETWORKS if n != "resnet110"])
def test_forward_is_head_of_features(name):
    torch.manual_seed(0)
    model = build(name, 7, (3, 32, 32)).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits, features = model(images), model.features(images)
    assert logits.shape == (2, 7)
    bias = 0 if model.head.bias is None else model.head.bias
    torch.testing.assert_close(logits, features @ model.head.weight.T + bias)


def test_uint8_and_float_images_give_the_same_logits():
    model = build("lenet", 4, (1, 8, 8)).eval()
    images = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    torch.testing.assert_close(model(images), model(images.float() / 255))


def test_sizes_agree_with_the_papers():
    # Counted by hand from the tables of He et al. and Huang et al.; biases of batch norm included.
    # ResNet-20 with 1x1 shortcuts: 0.27 M as in He et al., table 6, plus 2,560 weights and 192 norm entries of two
    # shortcuts.
    assert parameter_count(cifar_resnet_backbone(3, 20)) + 650 == 272_474
    backbone, width = densenet_backbone(3)
    assert width == 342
    assert (
        round((parameter_count(backbone) + 343 * 10) / 1e6, 1) == 0.8
    )  # "DenseNet-BC (k = 12), depth 100: 0.8M", table 2


def test_parameter_tensors_that_gradient_features_count():
    # protocols: 62 for a CIFAR ResNet-18 with three shortcut convolutions, 299 for DenseNet-BC-100-12
    assert len(list(build("resnet18", 10, (3, 32, 32)).parameters())) == 62
    assert len(list(build("densenet_bc_100_12", 10, (3, 32, 32)).parameters())) == 299


def test_normalize_against_torchvision():
    from torchvision.transforms.v2.functional import normalize

    mean, std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(Normalize(mean, std)(images), normalize(images, mean, std))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet21", 10, (3, 32, 32)), "did you mean 'resnet20'"),
        (("lenet", 1, (1, 8, 8)), "at least 2 classes"),
        (("lenet", 10, (1, 2, 2)), "at least 4x4"),
        (("airbench", 10, (1, 8, 8)), "at least 9x9"),
        (("airbench", 1, (3, 32, 32)), "at least 2 classes"),
        (("lenet", 10, (3, 8, 8), [0.5], [0.5]), "3 channels"),
        (("lenet", 10, (1, 8, 8), [0.5], [0.0]), "std must be positive"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build(*arguments)
