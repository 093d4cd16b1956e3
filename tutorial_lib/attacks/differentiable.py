"""Detectors as functions that torch can differentiate by the image: what an attack that knows them needs.

The exact per-sample norms of `tutorial_lib.gradients` are formed outside of autograd. Here the same numbers come from
``torch.func``, slower, with a graph: the gradient of a gradient's norm (double backward).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["differentiable_log_norms", "second_stage_in_torch"]

TINY = 1e-60
"""Squared norms of 0 count as this, as in `tutorial_lib.detectors`."""


def differentiable_log_norms(model: nn.Module, images: Tensor, label: str = "ones", loss: str = "bce") -> Tensor:
    """Log squared norm of each image's gradient for each parameter tensor, float64 (N, P), differentiable by the images.

    The same numbers as `tutorial_lib.gradients.squared_norms`, whose order of parameters they follow.

    Args:
        model: in evaluation mode, images (N, C, H, W) to logits (N, K).
        images: floating point.
        label, loss: ``"ones"`` with ``"bce"`` (Purview's), or ``"uniform"`` with ``"ce"`` (the gradient density's).

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False))
    >>> _ = nn.init.zeros_(model[1].weight)  # the gradient is -x/2, its squared norm x²/4, and d log(x²/4) / dx = 2/x
    >>> image = torch.full((1, 1, 1, 1), 0.5, requires_grad=True)
    >>> torch.autograd.grad(differentiable_log_norms(model, image).sum(), image)[0].flatten()
    tensor([4.])
    """
    losses: dict[tuple[str, str], Callable[[Tensor], Tensor]] = {
        ("ones", "bce"): lambda z: F.softplus(-z).sum(),
        ("uniform", "ce"): lambda z: z.logsumexp(-1) - z.mean(),
    }
    if (label, loss) not in losses:
        known = " or ".join(f"label={a!r}, loss={b!r}" for a, b in losses)
        raise ValueError(f"there is no differentiable form of label={label!r}, loss={loss!r}; take {known}")
    of_logits = losses[label, loss]
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def of_one(weights: dict[str, Tensor], image: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(model, (weights, buffers), (image[None],))
        return of_logits(logits[0])

    gradients = torch.func.vmap(torch.func.grad(of_one), in_dims=(None, 0))(parameters, images)
    norms = [gradient.double().flatten(1).square().sum(dim=1) for gradient in gradients.values()]
    return torch.stack(norms, dim=1).clamp(min=TINY).log()


def second_stage_in_torch(second_stage: Any) -> Callable[[Tensor], Tensor]:
    """A fitted scikit-learn second stage as a function of features (N, F) that torch can differentiate: log odds (N,).

    Args:
        second_stage: a fitted pipeline of a ``StandardScaler`` and either an ``MLPClassifier`` with ReLU units and two
            classes, or a ``LogisticRegression``.

    Raises:
        TypeError: anything else.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler

    steps = [step for _, step in second_stage.steps] if isinstance(second_stage, Pipeline) else [second_stage]
    if len(steps) != 2 or not isinstance(steps[0], StandardScaler):
        raise TypeError(
            f"the second stage must be a pipeline of a StandardScaler and a classifier, got {second_stage!r}"
        )
    scaler, classifier = steps
    if isinstance(classifier, LogisticRegression):
        layers = [(classifier.coef_.T, classifier.intercept_)]
    elif isinstance(classifier, MLPClassifier) and classifier.activation == "relu":
        layers = list(zip(classifier.coefs_, classifier.intercepts_, strict=True))
    else:
        raise TypeError(f"cannot differentiate a {type(classifier).__name__}; take an MLPClassifier with relu")
    tensors = [(torch.as_tensor(w), torch.as_tensor(b)) for w, b in layers]
    mean, scale = torch.as_tensor(scaler.mean_), torch.as_tensor(scaler.scale_)

    def log_odds(features: Tensor) -> Tensor:
        there = features.device
        values = (features.double() - mean.to(there)) / scale.to(there)
        for i, (weight, bias) in enumerate(tensors):
            values = values @ weight.to(there) + bias.to(there)
            if i < len(tensors) - 1:
                values = values.relu()
        return values[:, 0]

    return log_odds
