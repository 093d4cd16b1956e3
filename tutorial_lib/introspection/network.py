"""H, the network that looks a second time.

Published: three layers, K·D to 300 to 100 to K, with sigmoids between them, trained on the features of the first
network's (clean) training images. Not published: epochs, learning rate, normalisation. Ours: every input standardised
by the training images and held to ten standard deviations, Adam with 1e-3 in batches of 64, and the epoch with the
lowest loss on validation images. (Accuracy is no guide there: it is high after two epochs, when H is not yet sure of
anything, and its probabilities would be useless.)

H is a scikit-learn classifier, so that any other can be put in its place. If it is the default one, `module` gives it
as a ``torch.nn.Module`` with the same answers, which can be differentiated (by ODIN, or an attack).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn

from tutorial_lib.introspection.features import second_look

CLAMP = 10.0
"""Standardised inputs are held to this many standard deviations: noise finds directions that training images lack."""


class IntrospectiveNetwork:
    """A classifier of what a first network's last layer shows of each image.

    Args:
        inputs: ``"gradients"``, or a control, see `tutorial_lib.introspection.second_look`.
        loss, question, scale: of the gradients, see `tutorial_lib.introspection.last_layer_gradients`.
        hidden: widths of the hidden layers; none (``()``) refits a linear layer.
        epochs: at most; one epoch is one view of the training images.
        patience: epochs without a lower validation loss after which training stops.
        clamp: inputs are held to this many standard deviations; None for no limit.
        second_stage: a scikit-learn classifier in place of the published one; it is fitted once, on all views.
        seed: of the initial weights and of the order of the images.

    Attributes:
        best_epoch: whose weights were kept, from 0.
        validation_loss: cross-entropy, nats per image, one number per epoch.
    """

    def __init__(
        self,
        inputs: str = "gradients",
        loss: str = "ce",
        question: str = "ones",
        scale: float = 1.0,
        hidden: Sequence[int] = (300, 100),
        epochs: int = 200,
        patience: int = 20,
        clamp: float | None = CLAMP,
        second_stage: Any = None,
        seed: int = 0,
    ) -> None:
        if epochs < 1 or patience < 1:
            raise ValueError(f"epochs and patience must be at least 1, got {epochs} and {patience}")
        if clamp is not None and not clamp > 0:
            raise ValueError(f"clamp must be positive or None, got {clamp}")
        self.inputs, self.loss, self.question, self.scale = inputs, loss, question, scale
        self.hidden, self.epochs, self.patience = tuple(hidden), epochs, patience
        self.clamp, self.second_stage, self.seed = clamp, second_stage, seed

    def fit(
        self,
        views: Sequence[tuple[Tensor, Tensor]],
        labels: Tensor,
        validation: tuple[Tensor, Tensor, Tensor],
    ) -> Self:
        """Learn the labels from what the first network shows.

        Args:
            views: pairs of logits (N, K) and features (N, D), each of the same training images, augmented anew: the
                first network fits its training images almost perfectly, so on those alone H learns to copy it.
            labels: (N,), integers from 0 to K - 1.
            validation: logits (M, K), features (M, D) and labels (M,) of images that neither network was trained on.

        Raises:
            ValueError: no view, one class, numbers that are not finite, labels that do not fit.
        """
        if not views:
            raise ValueError("H needs at least one view of the training images")
        self.classes = views[0][0].shape[1]
        if self.classes < 2:
            raise ValueError(f"H needs logits of at least two classes, got {self.classes}")
        for name, (*shown, true) in {"training": (*views[0], labels), "validation": validation}.items():
            _check_seen(name, shown, true, self.classes)
        first = self._look(*views[0])
        self._mean, self._std = first.mean(axis=0), first.std(axis=0)
        self._std[self._std < 1e-12 * max(1.0, float(self._std.max()))] = 1.0  # a constant column says nothing
        looks = [self._standardised(self._look(*view)) for view in views]
        answers = labels.cpu().numpy()
        if self.second_stage is not None:
            self._h = clone(self.second_stage).fit(np.concatenate(looks), np.tile(answers, len(looks)))
            return self
        held_out = self._standardised(self._look(*validation[:2])), validation[2].cpu().numpy()
        self._fit_by_epochs(looks, answers, held_out)
        return self

    def _fit_by_epochs(
        self,
        looks: Sequence[NDArray[np.float32]],
        labels: NDArray[np.int64],
        held_out: tuple[NDArray[np.float32], NDArray[np.int64]],
    ) -> None:
        h = MLPClassifier(
            self.hidden,
            activation="logistic",
            alpha=1e-4,
            batch_size=min(64, len(labels)),
            learning_rate_init=1e-3,
            random_state=self.seed,
        )
        self.validation_loss: list[float] = []
        self.best_epoch = -1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Got `batch_size`")
            for epoch in range(self.epochs):
                h.partial_fit(looks[epoch % len(looks)], labels, classes=np.arange(self.classes))
                of_label = h.predict_proba(held_out[0])[np.arange(len(held_out[1])), held_out[1]]
                loss = -float(np.log(np.maximum(of_label, 1e-300)).mean())
                if not self.validation_loss or loss < min(self.validation_loss):
                    self.best_epoch, self._h = epoch, copy.deepcopy(h)
                self.validation_loss.append(loss)
                if epoch - self.best_epoch >= self.patience:
                    break

    def predict_logits(self, logits: Tensor, features: Tensor) -> Tensor:
        """H's own logits, float64 (N, K) on the CPU, from the first network's logits (N, K) and features (N, D)."""
        self._fitted()
        seen = self._standardised(self._look(logits, features))
        if isinstance(self._h, MLPClassifier):
            with torch.no_grad():
                return _layers(self._h)(torch.from_numpy(seen).double())
        probabilities = np.zeros((len(seen), self.classes))
        probabilities[:, self._h.classes_] = self._h.predict_proba(seen)  # a class that it never saw has probability 0
        return torch.from_numpy(np.log(np.maximum(probabilities, 1e-300)))

    def module(self) -> SecondLook:
        """H as a module that takes logits and features and can be differentiated; see `SecondLook`."""
        if not isinstance(self._fitted(), MLPClassifier):
            raise TypeError(
                f"only the default H can be differentiated; {type(self._h).__name__} answers through predict_logits"
            )
        return SecondLook(self)

    def _fitted(self) -> Any:
        if not hasattr(self, "_h"):
            raise NotFittedError("this IntrospectiveNetwork is not fitted; call fit(views, labels, validation) first")
        return self._h

    def _look(self, logits: Tensor, features: Tensor) -> NDArray[np.float64]:
        seen = second_look(
            logits.detach().cpu().double(),
            features.detach().cpu().double(),
            self.inputs,
            self.loss,
            self.question,
            self.scale,
        )
        return seen.numpy()

    def _standardised(self, seen: NDArray[np.float64]) -> NDArray[np.float32]:
        limit = np.inf if self.clamp is None else self.clamp
        return np.clip((seen - self._mean) / self._std, -limit, limit).astype(np.float32)


def _check_seen(name: str, shown: Sequence[Tensor], labels: Tensor, classes: int) -> None:
    if not all(bool(part.isfinite().all()) for part in shown):
        raise ValueError(f"logits or features of the {name} images are not finite; leave those images out")
    if labels.shape != (len(shown[0]),) or len(labels) == 0:
        raise ValueError(f"{len(shown[0])} {name} images need as many labels (N,), got the shape {tuple(labels.shape)}")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(f"{name} labels must be 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}")


class SecondLook(nn.Module):
    """A fitted `IntrospectiveNetwork` in torch: first network's logits (N, K) and features (N, D) to logits (N, K)."""

    def __init__(self, network: IntrospectiveNetwork) -> None:
        super().__init__()
        self.look = {name: getattr(network, name) for name in ("inputs", "loss", "question", "scale")}
        self.limit = float("inf") if network.clamp is None else network.clamp
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.from_numpy(network._mean).float())
        self.register_buffer("std", torch.from_numpy(network._std).float())
        layers = list(_layers(network._h).float())
        self.body, self.head = nn.Sequential(*layers[:-1]), layers[-1]

    def features(self, logits: Tensor, features: Tensor) -> Tensor:
        """What H's own last layer sees, (N, width of the last hidden layer)."""
        seen = second_look(logits, features, **self.look)
        return self.body(((seen - self.mean) / self.std).clamp(-self.limit, self.limit))

    def forward(self, logits: Tensor, features: Tensor) -> Tensor:
        return self.head(self.features(logits, features))


def _layers(h: MLPClassifier) -> nn.Sequential:
    """scikit-learn's network as layers, float64, the softmax left out.

    For two classes scikit-learn keeps one logit; the other one is 0.
    """
    layers: list[nn.Module] = []
    weights = [np.array(w, dtype=np.float64) for w in h.coefs_]
    biases = [np.array(b, dtype=np.float64) for b in h.intercepts_]
    if h.n_outputs_ == 1:
        weights[-1] = np.concatenate([np.zeros_like(weights[-1]), weights[-1]], axis=1)
        biases[-1] = np.concatenate([np.zeros_like(biases[-1]), biases[-1]])
    for weight, bias in zip(weights, biases, strict=True):
        layer = nn.Linear(weight.shape[0], weight.shape[1], dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight.T))
            layer.bias.copy_(torch.from_numpy(bias))
        layers += [layer, nn.Sigmoid()]
    return nn.Sequential(*layers[:-1])
