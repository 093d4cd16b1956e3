"""Networks that were made elsewhere: torchvision's ResNet-18, a vision transformer, one whose head is code; and one of the
course whose head has no bias. Every detector that looks at a classifier scores all four, after one look at the images."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import VisionTransformer, resnet18

from tutorial_lib import detectors
from tutorial_lib.detectors import Evidence, observe
from tutorial_lib.models import as_classifier, build
from tutorial_lib.models.predict import check_head, predict_features

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STAGES = {
    "resnet18": ["network.layer1", "network.layer4"],
    "transformer": ["network.conv_proj"],
    "code": ["network.stem"],
    "airbench": ["backbone.8", "backbone.15"],
}


class HeadIsCode(nn.Module):
    """As in timm: ``forward_features``, ``forward_head``, and the last weights in no layer."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 6))
        self.stem = nn.Conv2d(3, 6, 3)

    def forward_features(self, images):
        return self.stem(images).relu().mean((2, 3))

    def forward_head(self, features):
        return F.linear(features, self.weight)

    def forward(self, images):
        return self.forward_head(self.forward_features(images))


def own(kind):
    torch.manual_seed(0)
    if kind == "resnet18":
        model = as_classifier(resnet18(num_classes=4), "fc", MEAN, STD)
        features = predict_features(model, torch.rand(8, 3, 32, 32))
        with torch.no_grad():  # untrained, it has one answer for all images
            model.head.bias -= features.mean(0) @ model.head.weight.T
        return model
    if kind == "transformer":
        network = VisionTransformer(
            image_size=32, patch_size=16, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=4
        )
        nn.init.normal_(network.heads.head.weight)  # torchvision starts with zeros
        return as_classifier(network, "heads", MEAN, STD)
    if kind == "airbench":
        model = build("airbench", 4, (3, 16, 16)).train()
        with torch.no_grad():
            model(torch.rand(64, 3, 16, 16))
        return model.eval()
    network = HeadIsCode()
    return as_classifier(network, network.forward_head, MEAN, STD, features=network.forward_features)


def every_detector(model, stages):
    """All that look at a classifier; where stages are not known by themselves, they are named."""
    d = detectors
    return [
        d.MSP(model),
        d.Entropy(model),
        d.MaxLogit(model),
        d.Energy(model),
        d.ODIN(model),
        d.GradNorm(model),
        d.GradPCA(model),
        d.KNN(model, k=3),
        d.Mahalanobis(model, shrink=True),
        d.RelativeMahalanobis(model, shrink=True),
        d.GradientSum(model),
        d.GradientDensity(model),
        d.ActivationDensity(model),
        d.BackpropDensity(model),
        d.LayerDensity(model),
        d.GradientFusion(model, k=3),
        d.ActivationFusion(model, k=3),
        d.Purview(model),
        d.LogitsControl(model),
        d.PenultimateControl(model),
        d.ActivationNormsControl(model),
        d.MahalanobisEnsemble(model, layers=stages, shrink=True),
        d.LID(model, k=5, reference_size=20, layers=stages),
    ]


@pytest.mark.filterwarnings("ignore::tutorial_lib.gradients.FallbackWarning")
@pytest.mark.parametrize("kind", STAGES)
def test_every_detector_scores_it(kind):
    model = own(kind)
    generator = torch.Generator().manual_seed(0)
    size = 16 if kind == "airbench" else 32
    images = torch.rand(66, 3, size, size, generator=generator) * torch.rand(66, 1, 1, 1, generator=generator)
    check_head(model, images[:3])
    asked = every_detector(model, STAGES[kind])
    compared = [detector for detector in asked if detector.uses_reference and detector.supervised]
    labels = torch.arange(66) % 4
    for detector in compared:
        detector.fit_reference((images, labels))
    needs = dict.fromkeys(q for detector in asked for q in (*detector.needs_to_fit(), *detector.needs()))
    seen = observe(model, images, *needs)
    known = Evidence(seen.values, labels, seen.names, seen.shape, len(seen))
    for detector in asked:
        if detector.supervised:
            detector.fit_from(known, seen.subset(slice(0, 20)))
        else:
            detector.fit_from(known)
        scores = detector.predict_from(seen)
        assert scores.shape == (66,) and np.isfinite(scores).all(), detector
        assert len(np.unique(scores)) > 33, detector
    few = images[:3]
    for detector in asked[:6]:
        np.testing.assert_allclose(detector.predict(few), detector.predict_from(seen)[:3], rtol=1e-3, atol=1e-4)


def test_stages_of_a_strange_network_have_to_be_named():
    with pytest.raises(TypeError, match="stages of a OwnNetwork are not known; name the submodules"):
        detectors.MahalanobisEnsemble(own("code")).fit_reference((torch.rand(8, 3, 8, 8), torch.arange(8) % 2))
