"""A trained network on digits and the digits that it gets right; a small colour network."""

import pytest
import torch

from tutorial_lib import load_study
from tutorial_lib.models import Classifier, Normalize
from tutorial_lib.models.resnet import cifar_resnet_backbone


@pytest.fixture(scope="session")
def study():
    return load_study("digits")


@pytest.fixture(scope="session")
def model(study):
    return study.classifier()


@pytest.fixture(scope="session")
def right(study, model):
    """40 test digits that the model gets right, float32, and their labels."""
    images, labels = study.test.float(), study.test.labels
    with torch.no_grad():
        keep = (model(images).argmax(1) == labels).nonzero().flatten()[:40]
    return images[keep], labels[keep]


@pytest.fixture(scope="session")
def colour():
    """A small network with batch normalisation, images, and its own answers as labels."""
    torch.manual_seed(0)
    network = Classifier(Normalize([0.5] * 3, [0.25] * 3), cifar_resnet_backbone(3, 8), 64, 4)
    network.train()
    with torch.no_grad():
        network(torch.rand(64, 3, 16, 16))
    network.eval()
    images = torch.randint(0, 256, (12, 3, 16, 16), generator=torch.Generator().manual_seed(1)) / 255
    with torch.no_grad():
        return network, images, network(images).argmax(1)
