r"""Scores of an autoencoder that has learned what is normal: reconstruction, latent, gradient, and the two together.

Kwon et al., "Backpropagated gradient representations for anomaly detection", ECCV 2020, section 3. Derived by hand in
chapters 5 and 6. With :math:`\mathcal L` the mean squared error of an image, :math:`\phi_i` the weights of the
decoder's layer i and :math:`r_i` the average gradient of the training,

.. math:: \mathcal L_{grad}(x) = -\frac1I \sum_i \cos\left(r_i, \frac{\partial \mathcal L(x)}{\partial \phi_i}\right),
\qquad \text{GradCON}(x) = \mathcal L(x) + \beta\, \mathcal L_{grad}(x).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors.base import Detector, checked
from tutorial_lib.detectors.evidence import IMAGES, Evidence, as_input, guarded
from tutorial_lib.gradcon.constraint import GradientConstraint, decoder_weights
from tutorial_lib.gradcon.losses import reconstruction_errors
from tutorial_lib.gradients import alignment
from tutorial_lib.training.trained import TrainedAutoencoder

__all__ = ["BETA", "GradCON", "GradientAlignment", "LatentLoss", "ReconstructionError", "autoencoder_scores"]

#: Weight of the gradient loss in the published combined score: four times that of the constraint in training.
BETA = 0.12


class ReconstructionError(Detector):
    r"""Mean squared error a pixel, :math:`\mathcal L(x) = \frac1D \lVert x - \hat x \rVert^2`, in [0, 1].

    Larger is stranger: what was not learned is not reconstructed. Beware of simple strangers, which are reconstructed
    better than what was learned.

    Args:
        model: autoencoder, images (N, C, H, W) in [0, 1] to reconstructions of the same shape.

    Challenging data seen in ``fit``: none (nothing is fitted).

    >>> half = nn.Hardtanh(0, 0.5)  # reconstructs what is dark
    >>> ReconstructionError(half).predict(torch.tensor([[[[0.5, 0.25]]], [[[1.0, 0.5]]]]))
    array([0.   , 0.125])
    """

    tags = frozenset({"simple"})

    def _score(self, seen: Evidence) -> Tensor:
        return reconstruction_errors(self.model, seen[IMAGES])


class LatentLoss(Detector):
    """Kullback-Leibler divergence of the latent distribution from the standard normal one, in nats, at least 0.

    Larger is stranger: the latent lies where those of normal images were kept away from.

    Args:
        model: `tutorial_lib.models.autoencoder.VariationalAutoencoder`, or anything whose ``encode`` and
            ``latent_loss`` do the same.

    Raises:
        TypeError: the model has no latent loss, or one that is zero by construction.

    Challenging data seen in ``fit``: none (nothing is fitted).
    """

    tags = frozenset({"weak"})

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        if not hasattr(model, "latent_loss") or getattr(model, "kind", None) == "cae":
            raise TypeError(
                f"{type(model).__name__} puts no constraint on its latent; take a variational autoencoder: "
                'tutorial_lib.gradcon.build_autoencoder("vae", image_shape)'
            )

    def _score(self, seen: Evidence) -> Tensor:
        return self.model.latent_loss(self.model.encode(seen[IMAGES]))  # type: ignore[operator]


class GradientAlignment(Detector):
    r"""Gradient loss :math:`\mathcal L_{grad}(x)`: minus the mean cosine over the decoder's layers, in [-1, 1].

    Larger is stranger: the image asks the decoder for a change unlike those that normal images asked for. Cosines are
    computed for whole batches by `tutorial_lib.gradients.alignment`.

    Args:
        model: autoencoder with a ``decoder`` of convolutions.
        reference: average gradient of the training: the `tutorial_lib.gradcon.GradientConstraint` itself, or a tensor
            for each weight's name. Left out, ``fit`` computes the mean gradient of the reconstruction error of known
            images.

    Challenging data seen in ``fit``: none.

    >>> from tutorial_lib.models.autoencoder import build_autoencoder
    >>> _ = torch.manual_seed(0)
    >>> model, known = build_autoencoder("cae", (1, 8, 8), width=0.1), torch.rand(16, 1, 8, 8)
    >>> scores = GradientAlignment(model).fit(known).predict(known)
    >>> bool((abs(scores) <= 1).all() and scores.mean() < 0)
    True
    """

    def __init__(self, model: nn.Module, reference: GradientConstraint | Mapping[str, Tensor] | None = None) -> None:
        super().__init__(model)
        self.reference = reference
        self._names = tuple(decoder_weights(model)) if isinstance(getattr(model, "decoder", None), nn.Module) else ()
        self._reference: dict[str, Tensor] | None = None
        if isinstance(reference, GradientConstraint):
            self._reference = reference.reference()
        elif reference is not None:
            self._reference = dict(reference)
        elif not self._names:
            decoder_weights(model)  # says what is missing
        self.requires_fit = reference is None

    tags = frozenset({"simple", "weak fitted"})

    def _fit(self, seen: Evidence) -> None:
        self._reference = mean_gradient(self, seen[IMAGES], self._names)

    def _score(self, seen: Evidence) -> Tensor:
        return -self.cosines_of(seen[IMAGES]).mean(dim=1)

    def cosines_of(self, images: Tensor) -> Tensor:
        """Cosine for each image and layer (N, I) in [-1, 1], float64; layers in the order of the decoder."""
        assert self._reference is not None  # predict has seen to it
        device = next(self.model.parameters()).device
        return alignment(self.model, images, {name: r.to(device) for name, r in self._reference.items()})


class GradCON(GradientAlignment):
    r"""The combined score :math:`\mathcal L(x) + \beta\, \mathcal L_{grad}(x)`; larger is stranger.

    Args:
        model, reference: as for `GradientAlignment`.
        beta: weight of the gradient loss, at least 0; 0.12 in the paper.

    Challenging data seen in ``fit``: none.
    """

    def __init__(
        self,
        model: nn.Module,
        reference: GradientConstraint | Mapping[str, Tensor] | None = None,
        beta: float = BETA,
    ) -> None:
        super().__init__(model, reference)
        self.beta = checked("beta", beta, 0)

    def _score(self, seen: Evidence) -> Tensor:
        return reconstruction_errors(self.model, seen[IMAGES]) + self.beta * super()._score(seen)


def autoencoder_scores(trained: TrainedAutoencoder, images: ImageSet | Tensor) -> dict[str, NDArray[np.float64]]:
    """Every score (N,) that a trained autoencoder has for images, larger = stranger.

    ``reconstruction``, ``latent`` (of a variational autoencoder), ``gradient``, and ``combined``, which is what
    `GradCON` predicts, without a second pass. None has seen a stranger.
    """
    scores = {"reconstruction": ReconstructionError(trained.model).predict(images)}
    if trained.model.kind == "vae":
        scores["latent"] = LatentLoss(trained.model).predict(images)
    scores["gradient"] = GradientAlignment(trained.model, trained.constraint).predict(images)
    scores["combined"] = scores["reconstruction"] + BETA * scores["gradient"]
    return scores


def mean_gradient(detector: Detector, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    """Gradient of the mean reconstruction error of known images, for each named weight."""
    model = detector.model
    sums: dict[str, Tensor] = {}
    with guarded(model), torch.enable_grad():
        weights = [model.get_parameter(name).requires_grad_() for name in names]
        for part in images.split(detector.batch_size):
            error = reconstruction_errors(model, as_input(model, part)).sum() / len(images)
            for name, gradient in zip(names, torch.autograd.grad(error, weights), strict=True):
                sums[name] = sums[name] + gradient if name in sums else gradient
    return sums
