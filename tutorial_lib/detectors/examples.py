"""How to make every detector of the library, so that `tutorial_lib.detectors.check_detector` can hold them to the contract."""

from __future__ import annotations

import copy
import functools
from functools import partial
from typing import Any

import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from tutorial_lib import detectors as d
from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.check import Make
from tutorial_lib.detectors.duq import DUQNetwork
from tutorial_lib.gradcon import GradientConstraint
from tutorial_lib.models import Classifier
from tutorial_lib.models.autoencoder import build_autoencoder
from tutorial_lib.models.predict import channels_of
from tutorial_lib.studies import load_study
from tutorial_lib.training.autoencoder import AutoencoderConfig, train_autoencoder
from tutorial_lib.uncertainty.deep_ensemble import DeepEnsemble
from tutorial_lib.uncertainty.dropout import DropoutBeforeHead

__all__ = ["examples"]


def examples() -> dict[str, Make]:
    """How to make every detector of ``tutorial_lib.detectors.__all__``, by name; some in several ways."""
    found: dict[str, Make] = {}
    for name in d.__all__:
        cls = getattr(d, name)
        if isinstance(cls, type) and issubclass(cls, Detector) and not cls.__abstractmethods__:
            variants = _variants(cls)
            found |= {f"{name} {variant}".strip(): make for variant, make in variants.items()}
    return found


def _variants(cls: Any) -> dict[str, Make]:
    settings: dict[type, dict[str, Any]] = {
        d.KNN: {"": {"k": 5}},
        d.Mahalanobis: {"": {}, "(P)": {"epsilon": 0.002}, "shrunk": {"shrink": True}},
        d.GradPCA: {"": {}, "output": {"question": "output"}},
        d.GradientSum: {"large": {"direction": "large"}, "small": {"direction": "small"}},
        d.GradientDensity: {"": {}, "ones": {"label": "ones", "loss": "bce", "by_class": False}},
        d.GradientFusion: {"": {"k": 5}},
        d.ActivationFusion: {"": {"k": 5}},
        d.MahalanobisEnsemble: {"(FE)": {}, "(P+FE)": {"epsilon": 0.002}},
        d.LID: {"": {"k": 10, "reference_size": 60}},
        d.Purview: {"": {}, "logistic": {"second_stage": LogisticRegression()}},
    }
    alone: dict[type, dict[str, Any]] = {
        d.OneClassSVM: {"pixels": {}},
        d.SVDD: {"pixels": {}},
        d.DeepSVDD: {"": {"widths": (8,), "size": 8, "epochs": 5}},
        d.Brightness: {"": {}},
        d.Complexity: {"": {}},
    }
    of_parts: dict[type, dict[str, Make]] = {
        d.Combination: {"": lambda model: d.Combination([d.MSP(model), d.KNN(model, k=3)])},
        d.Tuned: {
            "ODIN": lambda model: d.Tuned([d.ODIN(model, 1000.0, e) for e in (0.0, 0.01)]),
            "Mahalanobis": lambda model: d.Tuned([d.Mahalanobis(model, epsilon=e) for e in (0.0, 0.01)]),
            "(P+FE)": lambda model: d.Tuned([d.MahalanobisEnsemble(model, epsilon=e) for e in (0.0, 0.01)]),
        },
        d.ReconstructionError: {"": partial(_on_autoencoder, cls, "cae", False)},
        d.LatentLoss: {"": partial(_on_autoencoder, cls, "vae", False)},
        d.GradientAlignment: {
            "": partial(_on_autoencoder, cls, "cae", True),
            "fitted": partial(_on_autoencoder, cls, "cae", False),
        },
        d.EnsembleUncertainty: {score: partial(_of_two, score) for score in ("mutual_information", "entropy")},
        d.DropoutUncertainty: {"": _with_dropout},
        d.DUQ: {"": _with_centroids},
        d.GradCON: {"": partial(_on_autoencoder, cls, "cae", True), "VAE": partial(_on_autoencoder, cls, "vae", True)},
    }
    if cls in of_parts:
        return of_parts[cls]
    if cls in alone:
        made: dict[str, Make] = {name: partial(_without_model, cls, given) for name, given in alone[cls].items()}
        return made | ({"features": cls} if cls is d.OneClassSVM else {})
    return {name: partial(cls, **given) for name, given in settings.get(cls, {"": {}}).items()}


def _with_dropout(model: nn.Module) -> Detector:
    dropping = DropoutBeforeHead(model) if hasattr(model, "head") else nn.Sequential(model, nn.Dropout())  # type: ignore[arg-type]
    return d.DropoutUncertainty(dropping, passes=8)


def _of_two(score: str, model: nn.Module) -> Detector:
    """An ensemble of the network and a copy that reads its features a little differently."""
    other = copy.deepcopy(model)
    head = getattr(other, "head", None)
    if isinstance(head, nn.Linear):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            other_way = torch.randn(head.weight.shape, generator=generator).to(head.weight)
            head.weight += 0.3 * head.weight.std() * other_way
    return d.EnsembleUncertainty(DeepEnsemble([model, other]), score)


def _with_centroids(model: nn.Module) -> Detector:
    """DUQ on the network's features, mapped as its last layer maps them; nothing is trained."""
    if not hasattr(model, "features"):
        model = Classifier(nn.Identity(), model, feature_width=1, num_classes=2)
    head: Any = model.head
    classes, width = head.weight.shape
    network = DUQNetwork(model, classes, width, size=1, length_scale=3.0)
    with torch.no_grad():
        network.maps.copy_(head.weight[:, None])
        network.sums.copy_(network.counts[:, None] * 8)
    return d.DUQ(network)


def _without_model(cls: Any, settings: dict[str, Any], model: nn.Module) -> Detector:
    return cls(**settings)


def _on_autoencoder(cls: Any, kind: str, constrained: bool, classifier: nn.Module) -> Detector:
    """Detectors that look at an autoencoder get one for images like the classifier's."""
    model, constraint = _autoencoder(kind, channels_of(classifier) or 1)
    return cls(model, constraint) if constrained else cls(model)


@functools.cache
def _autoencoder(kind: str, channels: int) -> tuple[nn.Module, Any]:
    """A small one and its constraint: trained on digits if grey, with its initial weights if in colour."""
    shape = (channels, 8, 8) if channels == 1 else (channels, 16, 16)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_autoencoder(kind, shape, width=0.25)
    constraint = GradientConstraint(model)
    if channels == 1:
        train: ImageSet = load_study("digits").train
        train_autoencoder(model, train, constraint, AutoencoderConfig(20), progress=False)
    else:
        constraint.update([torch.ones_like(mean) for mean in constraint.mean.values()])
    return model.eval(), constraint
