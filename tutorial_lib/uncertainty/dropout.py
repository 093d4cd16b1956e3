"""Monte-Carlo dropout: keep dropping units at test time, and see how much the answer moves.

Gal & Ghahramani, "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep Learning", ICML 2016.
Each pass is one network with some units removed; T passes are an ensemble of T networks that share their weights.

A pass here draws one mask for all images: one thinned network answers all of them, like a member of an ensemble. So the
answer for an image does not depend on the images beside it, and, for one seed, not on the batch size. For one image the
distribution over passes is the same as with a mask of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from tutorial_lib.models.base import Classifier
from tutorial_lib.models.predict import predict_features, predict_logits, preserved

_CHANNELS = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_UNKNOWN = (nn.AlphaDropout, nn.FeatureAlphaDropout)  # these replace units by a value other than zero


class DropoutBeforeHead(nn.Module):
    """A classifier with dropout between its penultimate features and its last layer.

    The weights are shared with the classifier, not copied. Train it, or use it on a network that was trained without
    dropout; the second is cheap and has no Bayesian reading, so say so when you report it.

    Args:
        model: has ``features`` (images to (N, D)) and ``head`` (a linear layer), see
            ``tutorial_lib.models.Classifier``.
        p: share of the features dropped, in (0, 1).
    """

    def __init__(self, model: Classifier, p: float = 0.3) -> None:
        super().__init__()
        if not (hasattr(model, "features") and hasattr(model, "head")):
            raise TypeError(f"{type(model).__name__} has no features and head; use a tutorial_lib.models.Classifier")
        if not 0 < p < 1:
            raise ValueError(f"p must be between 0 and 1, got {p}")
        self.model = model
        self.dropout = nn.Dropout(p)
        self.train(model.training)

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features (N, D), dropout applied in training mode."""
        return self.dropout(self.model.features(images))

    def forward(self, images: Tensor) -> Tensor:
        return self.model.head(self.features(images))


def mc_dropout_probabilities(
    model: nn.Module, images: Tensor, passes: int = 50, seed: int = 0, batch_size: int = 512
) -> Tensor:
    """Softmax outputs of ``passes`` thinned networks.

    Only dropout is active. Batch normalisation keeps its running statistics, otherwise the answer for an image would
    depend on its batch. The model, its mode and torch's random state are left as they were found.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K), with at least one dropout layer.
        images: (N, C, H, W), ``uint8`` or float in [0, 1].
        passes: T >= 2.
        seed: of the masks; the same masks on every device.
        batch_size: images in one forward pass; does not change the result.

    Returns:
        Probabilities (T, N, K), float64 on the CPU, ready for ``decompose_classification``.

    Raises:
        ValueError: no dropout layer, or one with p = 0 everywhere, or fewer than two passes.
        TypeError: a kind of dropout that this function does not know.
    """
    if passes < 2:
        raise ValueError(f"passes must be 2 or more to disagree, got {passes}")
    if isinstance(model, DropoutBeforeHead) and not any(isinstance(m, _DropoutNd) for m in model.model.modules()):
        # What lies before the only dropout is the same in every pass.
        images = predict_features(model.model, images, batch_size)
        model = nn.Sequential(model.dropout, model.model.head)
    generator = torch.Generator().manual_seed(seed)
    answers = []
    with preserved(model):
        for _ in range(passes):
            with _thinned(model, generator):
                answers.append(predict_logits(model, images, batch_size))
    return torch.stack(answers).double().softmax(-1)


@contextmanager
def _thinned(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """One draw of masks. Dropout layers, idle in evaluation mode, multiply by a mask that is kept for the block."""
    layers = [module for module in model.modules() if isinstance(module, _DropoutNd)]
    unknown = [module for module in model.modules() if isinstance(module, _UNKNOWN)]
    if unknown:
        raise TypeError(f"{type(unknown[0]).__name__} is not supported; use nn.Dropout or nn.Dropout2d")
    if not any(layer.p > 0 for layer in layers):
        raise ValueError(
            "the model has no dropout to sample from; wrap it in DropoutBeforeHead, or train one with nn.Dropout"
        )
    masks: dict[nn.Module, Tensor] = {}

    def drop(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(layer, _DropoutNd)
        if layer not in masks:
            shape = list(output.shape[1:])
            if isinstance(layer, _CHANNELS):  # whole channels
                shape[1:] = [1] * (len(shape) - 1)
            kept = torch.rand(1, *shape, generator=generator) >= layer.p
            masks[layer] = kept / (1 - layer.p)  # the mean stays what it was
        return output * masks[layer].to(output)

    handles = [layer.register_forward_hook(drop) for layer in layers if layer.p > 0]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
