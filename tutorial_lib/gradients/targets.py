"""Labels: what a network is told an image to be, most of them labels that it was never trained on.

A label is a target for the network's outputs (logits (N, K) for a classifier). *Confounding labels* (all ones, n ones, none, uniform)
name no class; the gradient says what would have to change for such a label to be true (Lee and AlRegib, "Open-set recognition
with gradient-based representations", ICIP 2021; Lee et al., "Probing the purview of neural networks via gradient analysis", 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import torch
from torch import Tensor

Label = str | int | Tensor | Callable[[Tensor], Tensor]

NAMES = ("ones", "zeros", "uniform", "predicted", "input")


def n_ones(n: int) -> Callable[[Tensor], Tensor]:
    """The label with ones for the first ``n`` of the K classes and zeros for the others, 0 <= n <= K.

    >>> n_ones(2)(torch.zeros(1, 3))
    tensor([[1., 1., 0.]])
    """

    def label(logits: Tensor) -> Tensor:
        classes = logits.shape[1]
        if not 0 <= n <= classes:
            raise ValueError(f"n_ones({n}) needs at least {n} classes, the network has {classes}")
        ones = (torch.arange(classes, device=logits.device) < n).to(logits.dtype)
        return ones.view(-1, *[1] * (logits.dim() - 2)).expand_as(logits)  # classes stand on axis 1

    return label


def check_length(label: Label | None, samples: int) -> None:
    """A label tensor with an entry a sample must have one for every sample."""
    if not isinstance(label, Tensor):
        return
    if label.dim() == 0:
        raise ValueError("a label tensor needs one entry a sample; give the class of all images as an int")
    if len(label) != samples and (label.dim() > 1 or not label.is_floating_point()):
        raise ValueError(f"the label has {len(label)} entries for {samples} images")


def target(label: Label, outputs: Tensor, images: Tensor, samples: slice) -> Tensor:
    """The target of the outputs that ``label`` means, in the outputs' shape and type.

    Args:
        label: a name: ``"ones"``, ``"zeros"``, ``"uniform"`` (1/K each), ``"predicted"`` (one-hot, the largest logit), ``"input"`` (the
            images themselves, for an autoencoder); an ``int`` Q (one-hot, the same class for every image); a tensor of class indices
            (N,), of one target (K,) for all, or of one a sample in the outputs' shape; a function of the outputs, such as `n_ones`.
            For outputs (N, K, ...), one decision a pixel say, an ``int`` is the class of every pixel, and indices are (N, ...).
        outputs: (n, K), (n, K, ...), or anything (n, ...) for what is not a classifier.
        images: (n, ...).
        samples: which of the N samples these are.

    Raises:
        ValueError: unknown name, class out of range, wrong shape. TypeError: anything else.
    """
    if isinstance(label, str) and label not in NAMES:
        raise ValueError(
            f"unknown label {label!r}; there are {', '.join(map(repr, NAMES))}, a class, a tensor or a function of the outputs"
        )
    if isinstance(label, str):
        if label == "input":
            wanted = images
        elif label == "predicted":
            return _one_hot(outputs.argmax(min(1, outputs.dim() - 1)), outputs)
        else:
            if outputs.dim() == 1 and label == "uniform":
                raise ValueError("'uniform' is a label for logits (N, K), but the network returns one number a sample")
            return torch.full_like(outputs, 1 / outputs.shape[1] if label == "uniform" else label == "ones")
    elif isinstance(label, Integral) and not isinstance(label, bool):  # NumPy's numbers, too
        return _one_hot(torch.full((len(outputs), *outputs.shape[2:]), int(label), device=outputs.device), outputs)
    elif isinstance(label, Tensor):
        wanted = _from_tensor(label, outputs, samples)
    elif callable(label):
        wanted = label(outputs)
    else:
        raise TypeError(
            f"label must be a name, a class, a tensor or a function of the outputs, got {type(label).__name__}"
        )
    if wanted.shape != outputs.shape:
        raise ValueError(f"the label has the shape {tuple(wanted.shape)}, the network's output {tuple(outputs.shape)}")
    if not wanted.isfinite().all():
        raise ValueError("the label holds NaN or infinite values")
    return wanted.to(outputs.device, outputs.dtype)


def _one_hot(classes: Tensor, outputs: Tensor) -> Tensor:
    if outputs.dim() < 2:
        raise ValueError(f"a class is a label for logits (N, K), but the network returns {tuple(outputs.shape)}")
    if classes.shape != (len(outputs), *outputs.shape[2:]):
        raise ValueError(
            f"classes of the shape {tuple(classes.shape)} are no label for outputs of the shape {tuple(outputs.shape)}"
        )
    if classes.min() < 0 or classes.max() >= outputs.shape[1]:
        raise ValueError(
            f"classes must lie in 0..{outputs.shape[1] - 1}, got {int(classes.min())}..{int(classes.max())}"
        )
    return torch.nn.functional.one_hot(classes, outputs.shape[1]).movedim(-1, 1).to(outputs.dtype)  # (n, K, ...)


def _from_tensor(label: Tensor, outputs: Tensor, samples: slice) -> Tensor:
    label = label.to(outputs.device)
    if label.dim() > 0 and label.dim() == outputs.dim() - 1 and not label.is_floating_point():
        return _one_hot(label[samples].long(), outputs)  # (n, ...)
    if label.dim() == 1 and outputs.dim() == 2:
        return label.expand_as(outputs) if len(label) == outputs.shape[1] else label
    if label.dim() == 1 and outputs.dim() > 2 and not label.is_floating_point():
        return label
    return label[samples]
