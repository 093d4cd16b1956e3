"""First networks that were trained to stand corruption: the rows of the published table of introspection as a plug-in.

===============  ==================================================================================================
kind             what is done
===============  ==================================================================================================
``plain``        the study's own network
``denoised``     the same network behind a denoiser that it was not trained with
``denoising``    trained on denoised images, and behind the denoiser
``adversarial``  trained on images that PGD has changed (Madry et al., "Towards deep learning models resistant to
                 adversarial attacks", ICLR 2018, eq. 2.1), seven steps
``simclr``       features learned from pairs of views without labels (Chen et al., "A simple framework for contrastive
                 learning of visual representations", ICML 2020), then a linear layer on them
``noise``        trained on images with Gaussian noise of a random strength
``augmix``       trained on AugMix with the Jensen-Shannon loss (Hendrycks et al., "AugMix", ICLR 2020, eq. 2), weight 12
===============  ==================================================================================================

The slides do not give settings. All are ours; the recipe (epochs, optimiser, shifts) is the study's own for that network.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.attacks import PGD
from tutorial_lib.data.augmix import augmix
from tutorial_lib.data.denoise import non_local_means
from tutorial_lib.models import Classifier
from tutorial_lib.models.base import Normalize
from tutorial_lib.reproducible import one_thread, seeded, source_hash
from tutorial_lib.severity.views import Views
from tutorial_lib.training.classifier import TrainingConfig, accuracy, train_classifier
from tutorial_lib.training.contrastive import ContrastiveConfig, train_contrastive
from tutorial_lib.training.loop import is_long
from tutorial_lib.training.trained import Task, cached_folder, kept, recipe, trained_classifier, untrained_classifier

__all__ = ["EPSILON", "KINDS", "NOISE", "STRENGTH", "DenoisedInput", "jensen_shannon", "noisy", "robust_classifier"]

KINDS = {
    "plain": "plain",
    "denoised": "plain, images denoised",
    "denoising": "trained on denoised images",
    "adversarial": "adversarial training",
    "simclr": "SimCLR",
    "noise": "noise augmentation",
    "augmix": "AugMix",
}
"""Every kind of first network, and how a reader calls it."""

NOISE = 0.1
"""Largest standard deviation of the noise that ``noise`` trains with, in [0, 1] pixels; each image draws its own."""

EPSILON = {"digits": 48 / 255, "mnist": 0.3}
"""How far PGD may change a pixel; on other studies 8/255. The box in which chapter 9 attacks the digits, and MNIST's."""

STRENGTH = {"digits": 0.1, "mnist": 0.1}
"""Of the denoiser, see `tutorial_lib.data.denoise.non_local_means`; on other studies 0.05. More takes more noise away, and
takes fine texture with it, which photographs are recognised by."""

CONTRASTIVE_EPOCHS = 100
"""Passes over the training images for SimCLR."""


class DenoisedInput(Normalize):
    """Non-local means, then the normalisation: a first layer for a classifier.

    Args:
        mean, std: see `tutorial_lib.models.base.Normalize`.
        strength: of the denoiser.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], strength: float) -> None:
        super().__init__(mean, std)
        self.strength = strength

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(non_local_means(images, self.strength))


def robust_classifier(
    study: Task, kind: str, network: str | None = None, seed: int = 0, progress: bool = False
) -> Classifier:
    """A network of a kind, in evaluation mode on the CPU: from the cache, else trained now and kept.

    Args:
        study: what it is trained for.
        kind: one of `KINDS`.
        network: one of ``tutorial_lib.models.NETWORKS``; the study's own when left out.
        seed: of initial weights, order and everything random while training.
        progress: show a bar while training.
    """
    if kind not in KINDS:
        raise ValueError(f"there is no first network {kind!r}; there are {', '.join(KINDS)}")
    network = network or study.network
    if kind in ("plain", "denoised"):
        model = trained_classifier(study, network, seed, progress)
        return _denoised(model, study) if kind == "denoised" else model
    config = recipe(study, network, seed)
    settings = f"{kind} {CONTRASTIVE_EPOCHS} {_source()}"  # the other settings are part of the source
    plain = cached_folder(study, network, config)
    folder = plain.with_name(f"{plain.name}_{kind}_{hashlib.sha256(settings.encode()).hexdigest()[:8]}")
    state, _ = kept(folder, lambda unfinished: _train(study, kind, network, config, progress, unfinished))
    model = untrained_classifier(study, network, seed)
    if kind == "denoising":
        model = _denoised(model, study)
    model.load_state_dict(state)
    return model.eval()


def noisy(images: Tensor, generator: torch.Generator, largest: float = NOISE) -> Tensor:
    """Float images (N, C, H, W) with Gaussian noise, of a standard deviation drawn for each image from 0 to ``largest``."""
    strength = largest * torch.rand(len(images), 1, 1, 1, generator=generator)
    return (images + (strength * torch.randn(images.shape, generator=generator)).to(images)).clamp(0, 1)


def jensen_shannon(logits: tuple[Tensor, ...]) -> Tensor:
    r"""Mean divergence, in nats, of M answers to N images from their common mean: :math:`\frac1M \sum_m KL(p_m \| \bar p)`.

    Args:
        logits: M tensors (N, K).

    >>> jensen_shannon((torch.tensor([[100.0, 0.0]]), torch.tensor([[0.0, 100.0]])))  # two that are sure and disagree
    tensor(0.6931)
    """
    answers = torch.stack([one.log_softmax(dim=1) for one in logits])  # (M, N, K)
    mean = answers.exp().mean(dim=0).clamp_min(1e-30).log()
    return (answers.exp() * (answers - mean)).sum(dim=2).mean()


def _denoised(model: Classifier, study: Task) -> Classifier:
    mean, std = (getattr(model.normalize, name).flatten().tolist() for name in ("mean", "std"))
    layer = DenoisedInput(mean, std, STRENGTH.get(study.name, 0.05))
    model.normalize = layer.to(next(model.parameters()).device)
    return model


def _source() -> str:
    """The code that decides what these networks become, besides that of the plain ones."""
    return source_hash(
        "attacks",
        "data/augmix.py",
        "data/denoise.py",
        "severity/contrastive.py",
        "severity/views.py",
        "training/contrastive.py",
        "training/robust.py",
    )


def _train(
    study: Task, kind: str, network: str, config: TrainingConfig, progress: bool, unfinished: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = untrained_classifier(study, network, config.seed).to(device)
    long = is_long(config.epochs, study.train.images)
    if kind == "denoising":
        model = _denoised(model, study)
    if kind == "simclr":
        steps = max(1, CONTRASTIVE_EPOCHS * len(study.train) // 128)
        contrast = ContrastiveConfig(steps=steps, views=Views(flip=bool(config.flip)), seed=config.seed)
        train_contrastive(model, study.train.images, None, contrast, progress)
    with one_thread(not long), seeded(config.seed):
        train_classifier(
            model,
            study.train,
            study.validation,
            config,
            device,
            progress,
            unfinished if long and kind != "simclr" else None,
            _losses(kind, model, EPSILON.get(study.name, 8 / 255)),
        )
    model.requires_grad_(True)
    record = {
        "study": study.name,
        "network": network,
        "kind": kind,
        "config": dataclasses.asdict(config),
        "validation_accuracy": accuracy(model, study.validation),
        "torch": torch.__version__,
    }
    return model.state_dict(), record


def _losses(kind: str, model: Classifier, epsilon: float) -> Callable[[Tensor, Tensor], Tensor] | None:
    """From images and labels to what is to be small; None for the cross-entropy of the images as they are.

    All random numbers are those of torch's CPU generator, which a stopped training keeps.
    """
    random = torch.default_generator
    if kind == "noise":
        return lambda images, labels: F.cross_entropy(model(noisy(images, random)), labels)
    if kind == "augmix":

        def consistent(images: Tensor, labels: Tensor) -> Tensor:
            three = torch.cat([images, augmix(images, random), augmix(images, random)])
            clean, one, two = model(three).chunk(3)
            return F.cross_entropy(clean, labels) + 12 * jensen_shannon((clean, one, two))

        return consistent
    if kind == "adversarial":
        attack = PGD(epsilon, epsilon / 4, steps=7, eight_bit=False)

        def attacked(images: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(model(attack(model, images, labels, random).images), labels)

        return attacked
    if kind == "simclr":
        return _linear_probe(model)
    return None


def _linear_probe(model: Classifier) -> Callable[[Tensor, Tensor], Tensor]:
    """Only the last layer learns; the features are those of evaluation mode."""
    model.requires_grad_(False)
    model.head.requires_grad_(True)
    body: nn.Module = model.backbone

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        body.eval()
        with torch.no_grad():
            features = model.features(images)
        return F.cross_entropy(model.head(features), labels)

    return loss
