"""The same network, the same images, pytorch-ood's detector and ours."""

import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tutorial_lib import load_study
from tutorial_lib.detectors import (
    KNN,
    MSP,
    ODIN,
    Energy,
    Entropy,
    GradientFusion,
    GradientSum,
    GradNorm,
    Mahalanobis,
    MahalanobisEnsemble,
    MaxLogit,
    Purview,
    RelativeMahalanobis,
    stage_features,
    stage_names,
)
from tutorial_lib.metrics import auroc, fpr_at_tpr

theirs = pytest.importorskip("pytorch_ood.detector")
metrics = pytest.importorskip("pytorch_ood.metrics")


def last_layer_only(name):
    return name == "head.weight"


PAIRS = {
    "MSP": (MSP, theirs.MaxSoftmax),
    "entropy": (Entropy, theirs.Entropy),
    "max logit": (MaxLogit, theirs.MaxLogit),
    "energy": (Energy, theirs.EnergyBased),
    "ODIN": (ODIN, lambda model: theirs.ODIN(model, eps=0.0014, temperature=1000)),
    "KNN": (lambda model: KNN(model, k=10), lambda model: theirs.KNN(model.features, k=10)),
    "Mahalanobis": (Mahalanobis, lambda model: theirs.Mahalanobis(model.features)),
    "Mahalanobis (P)": (
        lambda model: Mahalanobis(model, epsilon=0.002),
        lambda model: theirs.MahalanobisODIN(model.features, eps=0.002),
    ),
    "relative Mahalanobis": (RelativeMahalanobis, lambda model: theirs.RMD(model.features)),
    "GradNorm": (GradNorm, lambda model: theirs.GradNorm(model, param_filter=last_layer_only)),
}


@pytest.fixture(scope="module")
def loader(study):
    return DataLoader(TensorDataset(study.train.float(), study.train.labels), batch_size=256)


@pytest.mark.parametrize("shift", ["photographs", "unseen_classes", "rotated"])
@pytest.mark.parametrize("name", PAIRS)
def test_scores_agree(name, shift, model, study, loader):
    ours, reference = (make(model) for make in PAIRS[name])
    ours.fit(study.train)
    if reference.requires_fit:
        reference.fit(loader)
    known, unknown = study.test.float(), study.shift(shift).float()[:300]
    pair = (ours.predict(known), ours.predict(unknown))
    with torch.no_grad():
        other = tuple(reference.predict(images).detach().double().numpy() for images in (known, unknown))
    assert auroc(*pair) == pytest.approx(auroc(*other), abs=0.002)
    ranks = [np.argsort(np.argsort(np.concatenate(scores))) for scores in (pair, other)]
    assert np.corrcoef(*ranks)[0, 1] > 0.999


@pytest.mark.parametrize("stage", range(4))
def test_distances_agree_at_every_stage(stage, model, study):
    """What the feature ensemble (FE) weighs are their multi-layer detector's distances, one layer at a time."""
    ours = MahalanobisEnsemble(model).fit_reference(study.train)
    known, unknown = study.test, study.shift("unseen_classes")
    with torch.no_grad():
        names = stage_names(model, study.test.float()[:1])
        z = [stage_features(model, images.float(), names)[stage] for images in (study.train, known, unknown)]
        reference = theirs.MultiMahalanobis([nn.Identity()])
        reference.fit_structured(z[:1], study.train.labels)
        other = [reference.predict_structured([features]).double().numpy() for features in z[1:]]
    pair = [ours.features(ours.observe(images))[:, stage].numpy() for images in (known, unknown)]
    assert auroc(*pair) == pytest.approx(auroc(*other), abs=0.002)
    ranks = [np.argsort(np.argsort(np.concatenate(scores))) for scores in (pair, other)]
    assert np.corrcoef(*ranks)[0, 1] > 0.999


def test_their_sum_of_norms_with_their_loss(model, study):
    """Theirs takes the all-ones BCE of the softmax, not of the logits, and calls small norms strange."""

    def bce_of_softmax(logits, target):
        return F.binary_cross_entropy(logits.softmax(1), target, reduction="none").sum(1)

    images = study.test.float()[:60]
    ours = GradientSum(model, "small", "ones", bce_of_softmax).predict(images)
    scores = theirs.GradUncertainty(model).predict(images).double().numpy()
    np.testing.assert_allclose(ours, -np.log(-scores), rtol=1e-3)


def test_their_metrics_take_our_scores(model, study, known, strange):
    detector = Purview(model).fit(known, strange[0])
    theirs_now = metrics.OODMetrics()
    for images, label in ((study.test.images, 0), (strange[1].images, -1)):
        theirs_now.update(detector(images), torch.full((len(images),), label))
    values = theirs_now.compute()
    scores = detector.predict(study.test), detector.predict(strange[1])
    assert values["AUROC"] == pytest.approx(auroc(*scores), abs=1e-9)
    assert values["FPR95TPR"] == pytest.approx(fpr_at_tpr(*scores, positive="out"), abs=1e-9)


@pytest.mark.parametrize("make", [MSP, KNN, GradientFusion], ids=lambda make: make.__name__)
def test_our_detectors_in_their_loop(make, model, study, known):
    """Fitted as they fit, on a loader; asked as they ask, batch by batch; measured by their metrics."""
    detector = make(model).fit(DataLoader(TensorDataset(known.float(), known.labels), batch_size=50))
    strange = study.shift("photographs")
    theirs_now = metrics.OODMetrics()
    for part, label in ((study.test, 0), (strange, -1)):
        for images in part.float().split(64):
            theirs_now.update(detector(images), torch.full((len(images),), label))
    scores = detector.predict(study.test), detector.predict(strange)
    assert theirs_now.compute()["AUROC"] == pytest.approx(auroc(*scores), abs=1e-6)


def test_our_metrics_take_their_scores(model, study, strange):
    reference = theirs.EnergyBased(model)
    with torch.no_grad():
        scores = reference(study.test.float()), reference(strange[1].float())
    ours = Energy(model)
    assert auroc(*scores) == pytest.approx(auroc(ours.predict(study.test), ours.predict(strange[1])), abs=1e-4)


def test_our_detectors_take_their_loaders(model, study, loader):
    ours = Mahalanobis(model).fit(loader).predict(study.test)
    np.testing.assert_allclose(ours, Mahalanobis(model).fit(study.train).predict(study.test), rtol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("TUTORIAL_DATA"), reason="needs CIFAR-10 and SVHN under TUTORIAL_DATA")
@pytest.mark.parametrize("name", PAIRS)
def test_scores_agree_on_real_images(name):
    study = load_study("cifar10")
    model = study.classifier()
    train, known, unknown = study.train.sample(2000), study.test.sample(300), study.shift("svhn").sample(300)
    ours, reference = (make(model) for make in PAIRS[name])
    ours.fit(train)
    if reference.requires_fit:
        reference.fit(DataLoader(TensorDataset(train.float(), train.labels), batch_size=250))
    with torch.no_grad():
        other = auroc(*(reference.predict(images.float()).detach() for images in (known, unknown)))
    assert auroc(ours.predict(known), ours.predict(unknown)) == pytest.approx(other, abs=0.002)
