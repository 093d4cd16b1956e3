"""On a device that is not the processor, everything runs, gives the processor's numbers, and mixes nothing.

The device is `stand_in.StandIn`. PyTorch's autograd counts the devices when it starts, so these tests run in a process of
their own, which `test_off_the_processor.py` starts. What is tried here, a real accelerator is not the first to try; where there is one,
``TUTORIAL_TEST_DEVICE=cuda`` (in ``make gpu``) runs the same tests on it, with room for its rounding.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import stand_in
import torch
from torch import nn

from tutorial_lib import attacks, gradients, load_study
from tutorial_lib.attacks import Attack
from tutorial_lib.data.corruptions import corrupt
from tutorial_lib.data.corruptions.apply import FAMILIES
from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors.examples import examples
from tutorial_lib.gradcon import GradientConstraint
from tutorial_lib.introspection import IntrospectiveClassifier, second_network, views_of
from tutorial_lib.models import build
from tutorial_lib.models.autoencoder import build_autoencoder
from tutorial_lib.models.predict import device_of, predict_logits
from tutorial_lib.runs.registry import experiment_named
from tutorial_lib.training import loop
from tutorial_lib.training.autoencoder import AutoencoderConfig, train_autoencoder
from tutorial_lib.training.autoencoders_side_by_side import train_autoencoders_side_by_side
from tutorial_lib.training.classifier import TrainingConfig, train_classifier
from tutorial_lib.training.contrastive import ContrastiveConfig, train_contrastive
from tutorial_lib.training.side_by_side import train_side_by_side

REAL = os.environ.get("TUTORIAL_TEST_DEVICE", "").replace(stand_in.NAME, "")
LOOSER = 30 if REAL else 1
"""An accelerator rounds otherwise, and a training or a fit carries that on."""

pytestmark = pytest.mark.skipif(not (REAL or stand_in.AVAILABLE), reason="this torch has no back ends in Python")

DETECTORS = examples()


@pytest.fixture(scope="module")
def device() -> torch.device:
    if not REAL:
        return stand_in.install()
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(REAL, 0)


@pytest.fixture(scope="module")
def study():
    return load_study("digits")


@pytest.fixture(scope="module")
def model(study):
    return study.classifier()


def brightness(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1).mean(1)


def attacks_by_name(targets: torch.Tensor | None = None) -> dict[str, Attack]:
    targets = torch.zeros(1, 1, 8, 8) if targets is None else targets
    settings: dict[str, tuple[Any, ...]] = {
        "FGSM": (0.1,),
        "BIM": (0.1, 0.03, 3),
        "PGD": (0.1, 0.03, 3),
        "IterLL": (0.1, 0.03, 3),
        "CarliniWagner": (),
        "Semantic": (),
        "LogitMatching": (targets, 0.1),
        "FeatureMatching": (targets, 0.1),
        "SelectivePGD": (brightness, 0.1, 0.03, 3),
        "OrthogonalPGD": (brightness, 0.1, 0.03, 3),
    }
    more = {
        "CarliniWagner": {"searches": 1, "steps": 5},
        "LogitMatching": {"steps": 3},
        "FeatureMatching": {"steps": 3},
    }
    return {name: getattr(attacks, name)(*given, **more.get(name, {})) for name, given in settings.items()}


def on(device: torch.device, network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to(device)


def small(study, count: int = 40) -> ImageSet:
    return study.validation.subset(range(count))


# --- the device itself ------------------------------------------------------------------------------------------------


def test_the_device_refuses_what_cuda_refuses(device):
    here, there = torch.ones(2, 2, device=device), torch.ones(2, 2)
    for mixed in (
        lambda: here + there,
        lambda: there @ here,
        lambda: torch.cat([here, there]),
        lambda: nn.functional.linear(here, there),
        lambda: here.add_(there),
        lambda: torch.where(here > 0, here, there),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    with pytest.raises(TypeError, match="numpy"):
        np.asarray(here)
    with pytest.raises(TypeError, match="numpy"):
        here.numpy()
    with pytest.raises(RuntimeError, match="generator"):
        torch.rand(3, device=device, generator=torch.Generator())


def test_the_device_allows_what_cuda_allows(device):
    here = torch.arange(6.0, device=device).view(2, 3)
    assert (here + torch.tensor(1.0)).device == device and (2 * here).sum().item() == 30
    assert here[torch.tensor([1])].tolist() == [[3, 4, 5]] and here.cpu().numpy().shape == (2, 3)
    here.copy_(torch.zeros(2, 3))
    assert float(here.sum()) == 0 and torch.zeros_like(here).device == device
    view = here[:, 1:]
    view += 1
    assert here.tolist() == [[0, 1, 1], [0, 1, 1]], "a view shares its numbers"


# --- networks and their gradients -------------------------------------------------------------------------------------

SHAPES = {"lenet": (1, 28, 28), "resnet20": (3, 16, 16)}
QUESTIONS = [("ones", "bce"), ("predicted", "ce"), ("zeros", "mse")]


def same(found: Any, expected: Any) -> None:
    """Equal but for rounding, and on the processor unless said otherwise."""
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=LOOSER * 1e-4, atol=LOOSER * 1e-6)


def network_and_images(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return build(name, 3, SHAPES[name]).eval(), torch.rand(4, *SHAPES[name])


class Meeting(nn.Module):
    """Its samples meet, so that every image goes through it alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1) - images.flatten(1).mean(0))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(("label", "loss"), QUESTIONS)
def test_gradient_norms(name, label, loss, device):
    network, images = network_and_images(name)
    expected, names = gradients.squared_norms(network, images, label, loss)
    found, found_names = gradients.squared_norms(on(device, network), images.to(device), label, loss)
    assert found.device == device and found_names == names
    same(found.cpu(), expected)
    found, _ = gradients.squared_norms(on(device, network), images, label, loss)
    assert found.device.type == "cpu", "on the images' device"


@pytest.mark.filterwarnings("ignore::tutorial_lib.gradients.FallbackWarning")
def test_gradient_norms_one_by_one(device):
    network, images = Meeting().eval(), torch.rand(3, 1, 2, 2)
    expected, _ = gradients.squared_norms(network, images)
    found, _ = gradients.squared_norms(on(device, network), images.to(device))
    same(found.cpu(), expected)


def test_the_other_gradient_features(device):
    network, images = network_and_images("lenet")
    there = on(device, network)
    same(*(gradients.contrast_squared_norms(net, images)[0] for net in (there, network)))
    same(*(gradients.introspective_features(net, images).detach().cpu() for net in (there, network)))
    autoencoder = build_autoencoder("cae", (1, 8, 8), width=0.25).eval()
    reference = {
        name: torch.rand_like(p) for name, p in autoencoder.named_parameters() if "decoder" in name and p.dim() > 1
    }
    pictures = torch.rand(4, 1, 8, 8)
    expected = gradients.alignment(autoencoder, pictures, reference)
    same(gradients.alignment(on(device, autoencoder), pictures, reference), expected)


# --- detectors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DETECTORS)
def test_detector(name, device, study, model):
    known, test = small(study, 120), study.test.images[:30]
    strange = study.shift("noise").subset(range(60))

    def scores(detector):
        given = (known, strange) if detector.supervised else (known,)
        return detector.fit(*given).predict(test)

    detector = DETECTORS[name](copy.deepcopy(model))
    expected = scores(detector)
    there = DETECTORS[name](on(device, model))
    if isinstance(getattr(there, "model", None), nn.Module):
        there.model = on(device, there.model)
        assert device_of(there.model) in (device, torch.device("cpu")), "a model without weights lies nowhere"
    found = scores(there)
    assert type(found) is np.ndarray and found.dtype == np.float64
    same(found, expected)
    same(there.predict(test.to(device)), expected)


# --- training ---------------------------------------------------------------------------------------------------------

# float32 by name: "auto" may be bfloat16 on this processor, and never is on a device that nobody knows
CONFIG = TrainingConfig(
    epochs=2, batch_size=16, learning_rate=0.01, schedule="cosine", shift=1, flip=False, precision="float32"
)


def states_agree(there: nn.Module, here: nn.Module | dict[str, torch.Tensor]) -> None:
    state = here.state_dict() if isinstance(here, nn.Module) else here
    for (name, found), expected in zip(there.state_dict().items(), state.values(), strict=True):
        assert found.device.type != "cpu", name
        np.testing.assert_allclose(found.cpu(), expected, rtol=LOOSER * 1e-3, atol=LOOSER * 1e-5, err_msg=name)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_training_a_classifier(optimizer, device, study):
    torch.manual_seed(0)
    here = build("lenet", study.num_classes, study.image_shape)
    there = copy.deepcopy(here)
    config = replace(CONFIG, optimizer=optimizer)
    train_classifier(here, small(study), small(study), config, progress=False)
    train_classifier(there, small(study), small(study), config, device, progress=False)
    states_agree(there, here)
    same(predict_logits(there, study.test.images[:5]), predict_logits(here, study.test.images[:5]))


def test_training_side_by_side(device, study):
    def members(where):
        torch.manual_seed(0)
        return [build("lenet", study.num_classes, study.image_shape).to(where) for _ in range(2)]

    here, there = members("cpu"), members(device)
    for step in (0.0, 0.01):
        for networks in (here, there):
            train_side_by_side(networks, small(study), CONFIG, adversarial_step=step)
    for one, other in zip(there, here, strict=True):
        states_agree(one, other)


@pytest.mark.parametrize("kind", ["cae", "vae"])
def test_training_an_autoencoder_under_the_constraint(kind, device, study):
    torch.manual_seed(0)
    first = build_autoencoder(kind, study.image_shape, width=0.25)
    config = AutoencoderConfig(epochs=2, batch_size=16)
    trained = []
    for where in ("cpu", device):
        model = copy.deepcopy(first)
        train_autoencoder(
            model, small(study), GradientConstraint(model), config, None, False, small(study), device=where
        )
        trained.append(model)
    states_agree(trained[1], trained[0])


class Killed(BaseException):
    pass


@pytest.mark.parametrize("what", ["classifier", "cae"])
def test_a_training_that_is_killed_goes_on_there(what, device, study, tmp_path, monkeypatch):
    """What lies on the disk was on the device, and comes back to it: weights, optimiser, mean gradients."""
    torch.manual_seed(0)
    first = (
        build("lenet", 8, study.image_shape)
        if what == "classifier"
        else build_autoencoder(what, study.image_shape, 0.25)
    )

    def train(model, state_file):
        if what == "classifier":
            config = replace(CONFIG, optimizer="adam")
            train_classifier(model, small(study), small(study), config, device, False, state_file, save_every=0)
        else:
            constraint = GradientConstraint(model)
            config = AutoencoderConfig(epochs=2, batch_size=16)
            train_autoencoder(
                model, small(study), constraint, config, state_file, False, small(study), device, save_every=0
            )

    whole, half = copy.deepcopy(first), copy.deepcopy(first)
    train(whole, None)
    save = loop._State.save

    def save_and_die(state):
        save(state)
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(loop._State, "save", save_and_die)
        train(half, tmp_path / "state.bin")
    resumed = copy.deepcopy(first)
    train(resumed, tmp_path / "state.bin")
    states_agree(resumed, {name: value.cpu() for name, value in whole.state_dict().items()})


def test_training_autoencoders_side_by_side(device, study):
    torch.manual_seed(0)
    first = [build_autoencoder("cae", study.image_shape, width=0.25) for _ in range(2)]
    trained = []
    for where in ("cpu", device):
        models = [copy.deepcopy(model).to(where) for model in first]
        constraints = [GradientConstraint(model) for model in models]
        sets = [small(study, 32), small(study, 20)]
        train_autoencoders_side_by_side(models, sets, constraints, AutoencoderConfig(epochs=2, batch_size=16))
        trained.append(models)
    for here, there in zip(*trained, strict=True):
        states_agree(there, here)


def test_training_by_contrast(device, study):
    torch.manual_seed(0)
    here = build("lenet", study.num_classes, study.image_shape)
    there = on(device, here)
    for network in (here, there):
        train_contrastive(network, small(study).images, None, ContrastiveConfig(steps=3, batch_size=16))
    states_agree(there, here)


def test_a_second_look(device, study, model):
    there = on(device, model)
    seen = [views_of(network, small(study).images)[0] for network in (model, there)]
    same(seen[1].logits, seen[0].logits)
    probabilities = []
    for network, view in zip((model, there), seen, strict=True):
        second = second_network("introspective_ce", view.logits, 0)
        second.fit([view], small(study).labels, (*view, small(study).labels))
        both = IntrospectiveClassifier(network, second).to(device_of(network)).eval()
        probabilities.append(predict_logits(both, study.test.images[:20]))
    np.testing.assert_allclose(probabilities[1], probabilities[0], rtol=1e-2, atol=1e-2)


# --- images -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", attacks_by_name())
def test_attack(name, device, study, model):
    images, labels = small(study, 12).float(), small(study, 12).labels
    attack = attacks_by_name(images)[name]
    expected = attack(model, images, labels, torch.Generator().manual_seed(0))
    for given in (images, images.to(device)):
        found = attack(on(device, model), given, labels.to(given.device), torch.Generator().manual_seed(0))
        assert found.images.device == given.device
        assert (found.images.cpu() == expected.images).float().mean() > (0.9 if REAL else 0.98), (
            "a pixel may round to the next grey level"
        )
        assert (found.fooled.cpu() == expected.fooled).float().mean() >= (0.8 if REAL else 1)


@pytest.mark.parametrize(("family", "name"), [(family, name) for family in FAMILIES for name in FAMILIES[family]])
def test_corruption(family, name, device):
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = corrupt(images, name, 3, torch.Generator().manual_seed(0), family=family)
    found = corrupt(images.to(device), name, 3, torch.Generator().manual_seed(0), family=family)
    assert found.device == device
    same(found.cpu(), expected)


# --- cells ------------------------------------------------------------------------------------------------------------

CELLS = {
    "what_is_uncertainty": {},
    "gradients_as_features": {"network": "untrained"},
    "anomaly_detection": {},
    "out_of_distribution": {"method": "msp"},
    "corruption": {"protocol": "network"},
    "introspective_ood": {"output": "feed_forward"},
}
"""An experiment, and settings of one cell of it that takes no more than a second or two."""


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_of_an_experiment(name, device, tmp_path, monkeypatch):
    experiment = experiment_named(name)
    cell = next(
        cell
        for cell in experiment.cells("digits", [0])
        if all(cell.settings.get(k) == v for k, v in CELLS[name].items())
    )
    results = []
    for where in (torch.device("cpu"), device):
        monkeypatch.setenv("TUTORIAL_CACHE", str(tmp_path / where.type))  # or the second finds what the first has kept
        results.append(experiment.compute(cell, where))
    here, there = results
    assert len(here.measurements) == len(there.measurements) > 0
    for expected, found in zip(here.measurements, there.measurements, strict=True):
        assert found.label == expected.label and found.value == pytest.approx(
            expected.value, rel=1e-3, abs=LOOSER * 1e-3
        )
    assert all(type(array) is np.ndarray for array in there.arrays.values())
