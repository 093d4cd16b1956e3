"""One trained network on digits, known and unknown images, small networks of other shapes."""

import pytest
import torch

from tutorial_lib import load_study
from tutorial_lib.models import Classifier, Normalize, build
from tutorial_lib.models.resnet import cifar_resnet_backbone


@pytest.fixture(scope="session")
def study():
    return load_study("digits")


@pytest.fixture(scope="session")
def model(study):
    return study.classifier()


@pytest.fixture(scope="session")
def known(study):
    return study.validation


@pytest.fixture(scope="session")
def strange(study):
    """Half of the patches for fitting, the other half for testing; every other one, since neighbours look alike."""
    photographs = study.shift("photographs")
    return photographs.subset(range(0, 400, 2)), photographs.subset(range(1, 400, 2))


@pytest.fixture(scope="session")
def grey_network():
    torch.manual_seed(0)
    return build("lenet", 3, (1, 8, 8)).eval()


@pytest.fixture(scope="session")
def colour_network():
    """A small network of convolutions, batch normalisation and shortcuts; its statistics are not the initial ones."""
    torch.manual_seed(0)
    network = Classifier(Normalize([0.5] * 3, [0.25] * 3), cifar_resnet_backbone(3, 8), 64, 3)
    network.train()
    with torch.no_grad():
        network(torch.rand(64, 3, 16, 16))
    return network.eval()
