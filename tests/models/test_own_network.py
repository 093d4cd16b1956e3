"""A network of one's own: torchvision's, a transformer, one whose head is code; a head that was trained elsewhere."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import VisionTransformer, resnet18

from tutorial_lib.models import Classifier, Normalize, as_classifier
from tutorial_lib.models.predict import check_head, predict_features, predict_logits

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class FunctionalHead(nn.Module):
    """As timm's networks are: features and head are methods, and the last weights lie in no layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.weight = nn.Parameter(torch.randn(4, 6))

    def forward_features(self, images):
        return self.stem(images).relu().mean((2, 3))

    def forward_head(self, features):
        return F.linear(features, self.weight)

    def forward(self, images):
        return self.forward_head(self.forward_features(images))


def own_networks():
    torch.manual_seed(0)
    vit = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=5
    )
    nn.init.normal_(vit.heads.head.weight)  # torchvision starts with zeros
    functional = FunctionalHead()
    return {
        "resnet18": as_classifier(resnet18(num_classes=7), "fc", MEAN, STD),
        "vit": as_classifier(vit, vit.heads, MEAN, STD),
        "functional head": as_classifier(
            functional, functional.forward_head, MEAN, STD, features=functional.forward_features
        ),
    }


@pytest.fixture(scope="module", params=["resnet18", "vit", "functional head"])
def own(request):
    return own_networks()[request.param].eval()


def test_features_go_in_and_logits_come_out(own):
    images = torch.rand(3, 3, 32, 32)
    normalised = Normalize(MEAN, STD)(images)
    with torch.no_grad():
        torch.testing.assert_close(own(images), own.network(normalised))
        torch.testing.assert_close(own.head(own.features(images)), own(images))
    check_head(own, images)
    for copied in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        torch.testing.assert_close(predict_features(copied, images), predict_features(own, images))


def test_the_network_is_not_copied_and_keeps_its_mode():
    network = resnet18(num_classes=3).eval()
    own = as_classifier(network, "fc")
    assert own.head is network.fc and not own.training
    assert not network.fc._forward_pre_hooks
    own.features(torch.rand(1, 3, 32, 32))
    assert not network.fc._forward_pre_hooks


def test_a_trained_head_can_be_given_to_a_classifier():
    network = resnet18(num_classes=3).eval()
    head, network.fc = network.fc, nn.Identity()
    model = Classifier(Normalize(MEAN, STD), network, head=head).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(predict_logits(model, images), head(network(Normalize(MEAN, STD)(images))))
    with pytest.raises(ValueError, match="feature_width and num_classes"):
        Classifier(nn.Identity(), network)


def test_a_head_that_is_not_the_last_step_is_found_out():
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Softmax(1))
    with pytest.raises(ValueError, match="not what the model answers"):
        as_classifier(network, "1", images=torch.rand(2, 3, 2, 2))


def test_what_is_no_head_is_refused():
    network = resnet18(num_classes=3)
    with pytest.raises(ValueError, match="no layer 'head'; its last linear layer is 'fc'"):
        as_classifier(network, "head")
    with pytest.raises(ValueError, match="no layer of ResNet"):
        as_classifier(network, nn.Linear(2, 2))
    with pytest.raises(ValueError, match="needs features, too"):
        as_classifier(network, F.relu)
    with pytest.raises(ValueError, match="mean and std, or neither"):
        as_classifier(network, "fc", mean=MEAN)
