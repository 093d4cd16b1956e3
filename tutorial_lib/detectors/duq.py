r"""DUQ: distance to the nearest of K centroids, learned with the network.

van Amersfoort et al., "Uncertainty Estimation Using a Single Deep Deterministic Neural Network", ICML 2020. Each class c
has its own linear map of the features, :math:`W_c f(x)`, and a centroid :math:`e_c`; the kernel

.. math:: K_c(x) = \exp\left(-\frac{\overline{(W_c f(x) - e_c)^2}}{2 \ell^2}\right) \in (0, 1]

(the bar is a mean over dimensions, eq. 1) is 1 at the centroid and falls off around it. Training: binary cross-entropy of the K
kernels against the label (eq. 2), a two-sided penalty :math:`\lambda (\lVert \nabla_x \sum_c K_c \rVert - 1)^2` that is to
keep the features from ignoring their input (eq. 6), and centroids as running means of the mapped features (eqs. 3 to 5),
moved after every step. Derived by hand in chapter 3.

The kernel falls where classes meet, too: DUQ does not tell an ambiguous image from a foreign one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.evidence import LOGITS, Evidence, Quantity
from tutorial_lib.reproducible import seeded
from tutorial_lib.studies import Study
from tutorial_lib.training.classifier import TrainingHistory, train_classifier
from tutorial_lib.training.trained import recipe, untrained_classifier

__all__ = ["DUQ", "DUQNetwork", "train_duq"]


class DUQNetwork(nn.Module):
    """A classifier whose last layer measures distances to centroids.

    ``forward`` returns the logarithms of the kernels (N, K): the largest is the class, and their softmax is the kernels
    divided by their sum (the paper gives no probabilities).

    Args:
        model: has ``features`` (inputs to (N, D)), see `tutorial_lib.models.Classifier`; its last layer is not used.
        num_classes: K.
        width: D.
        size: dimensions of the space of a class; D when left out, as in the code of the paper.
        length_scale: l > 0 of the kernel; the paper chooses it by validation accuracy and uses 0.1.
        momentum: g in (0, 1) of the centroids; the paper's is 0.999, for tens of thousands of steps. A few hundred steps
            need 0.99, or the centroids stay where they were drawn.
        penalty: lambda >= 0.
        seed: of the maps and the first centroids.
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        width: int,
        size: int | None = None,
        length_scale: float = 0.1,
        momentum: float = 0.999,
        penalty: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not hasattr(model, "features"):
            raise TypeError(f"{type(model).__name__} has no features; use a tutorial_lib.models.Classifier")
        if not (length_scale > 0 and 0 < momentum < 1 and penalty >= 0):
            raise ValueError(
                "length_scale must be positive, momentum in (0, 1) and penalty not negative; "
                f"got {length_scale}, {momentum} and {penalty}"
            )
        self.model, self.length_scale, self.momentum, self.penalty = model, length_scale, momentum, penalty
        size = size or width
        self.counts: Tensor
        self.sums: Tensor
        with seeded(seed):
            self.maps = nn.Parameter(torch.randn(num_classes, size, width) * (2 / width) ** 0.5)
            self.register_buffer("counts", torch.full((num_classes,), 13.0))
            self.register_buffer("sums", 13 * 0.05 * torch.randn(num_classes, size))

    @property
    def normalize(self) -> object:
        """That of the network below; tells how many channels an image must have."""
        return getattr(self.model, "normalize", None)

    @property
    def centroids(self) -> Tensor:
        """(K, size)."""
        return self.sums / self.counts[:, None]

    def log_kernels(self, features: Tensor) -> Tensor:
        """Features (N, D) to the logarithms of the K kernels (N, K), at most 0."""
        mapped = torch.einsum("nd,ksd->nks", features, self.maps)
        return -(mapped - self.centroids).square().mean(2) / (2 * self.length_scale**2)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.log_kernels(self.model.features(inputs))  # type: ignore[operator]

    def loss(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Binary cross-entropy of the kernels, and the penalty on the gradient at the (normalised) inputs."""
        normalize: Any = getattr(self.model, "normalize", None)
        if self.penalty and normalize is not None:  # the paper's inputs are normalised ones
            inputs = normalize(inputs).detach().requires_grad_()
            log_kernels = self.log_kernels(self.model.backbone(inputs))  # type: ignore[operator]
        else:
            inputs = inputs.detach().requires_grad_(self.penalty > 0)
            log_kernels = self(inputs)
        targets = F.one_hot(labels, log_kernels.shape[1]).to(log_kernels)
        # log(1 - K) from log K, finite also where K rounds to 1
        log_complement = torch.log(-torch.expm1(log_kernels.clamp_max(-1e-6)))
        loss = -(targets * log_kernels + (1 - targets) * log_complement).mean()
        if self.penalty:
            (slope,) = torch.autograd.grad(log_kernels.exp().sum(), inputs, create_graph=True)
            loss = loss + self.penalty * (slope.flatten(1).norm(dim=1) - 1).square().mean()
        return loss

    @torch.no_grad()
    def move_centroids(self, inputs: Tensor, labels: Tensor) -> None:
        """One step of the running means, with the network in evaluation mode."""
        training = self.training
        self.eval()
        features = self.model.features(inputs)  # type: ignore[operator]
        self.train(training)
        members = F.one_hot(labels, len(self.counts)).to(features)  # (N, K)
        sums = torch.einsum("nk,nd,ksd->ks", members, features, self.maps)
        self.counts.lerp_(members.sum(0), 1 - self.momentum)
        self.sums.lerp_(sums, 1 - self.momentum)


def train_duq(
    study: Study,
    seed: int = 0,
    penalty: float = 0.0,
    network: str | None = None,
    momentum: float = 0.99,
    length_scale: float = 0.1,
    **settings: Any,
) -> tuple[DUQNetwork, TrainingHistory]:
    """A DUQ network for a study, trained from its initial weights with the library's trainer.

    Args:
        study: its images and its recipe.
        seed: of weights, centroids, order and augmentation.
        penalty, network, momentum, length_scale: see `DUQNetwork`.
        **settings: of the trainer, in place of the recipe's.
    """
    network = network or study.network
    classifier = untrained_classifier(study, network, seed)
    width: Any = classifier.head.in_features
    duq = DUQNetwork(
        classifier,
        study.num_classes,
        width,
        length_scale=length_scale,
        momentum=momentum,
        penalty=penalty,
        seed=seed,
    )
    config = replace(recipe(study, network, seed), **({"precision": "float32"} | settings))
    history = train_classifier(
        duq, study.train, config=config, progress=False, loss_of=duq.loss, after_step=duq.move_centroids
    )
    return duq, history


class DUQ(Detector):
    """Distance to the nearest centroid, minus the logarithm of the largest kernel.

    Larger is stranger: 0 at a centroid. (The logarithm orders images as the kernel does, and does not round to 0.)

    Args:
        model: a trained `DUQNetwork`.

    Challenging data seen in ``fit``: none (nothing is fitted).
    """

    def __init__(self, model: DUQNetwork) -> None:
        super().__init__(model)
        if not isinstance(model, DUQNetwork):
            raise TypeError(f"model must be a DUQNetwork, got {type(model).__name__}")

    def needs(self) -> tuple[Quantity, ...]:
        return (LOGITS,)

    def _score(self, seen: Evidence) -> Tensor:
        return -seen[LOGITS].double().amax(dim=1)
