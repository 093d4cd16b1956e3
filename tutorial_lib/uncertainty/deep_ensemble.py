"""An ensemble of classifiers as one model, and the ways to turn its members' answers into one number an image.

Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS 2017,
section 2.4. Derived by hand in chapter 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from tutorial_lib.uncertainty.decomposition import (
    decompose_classification,
    disagreement,
    entropy,
    member_variance,
    mutual_information,
)

__all__ = ["UNCERTAINTIES", "DeepEnsemble"]

UNCERTAINTIES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "entropy": lambda p: entropy(p.mean(0)),
        "mutual_information": mutual_information,
        "mean_entropy": lambda p: decompose_classification(p).aleatoric,
        "disagreement": disagreement,
        "variance": member_variance,
    }
)
"""From member probabilities (M, N, K) to one number an image (N,), larger = less certain.

``entropy`` of the mean is everything that is uncertain; ``mutual_information`` the part that lies in the model,
``mean_entropy`` the part that lies in the data; ``disagreement`` is M times the mutual information; ``variance`` is
that of the probabilities over the members, summed over the classes: the slides' Var(y).
"""


class DeepEnsemble(nn.Module):
    """M classifiers as one: its logits are the logarithm of the mean of the members' probabilities.

    So the softmax of its answer is the mixture that the paper predicts with, and whatever takes a classifier takes an
    ensemble.

    Args:
        members: M >= 1 classifiers of the same K classes, images (N, C, H, W) in [0, 1] to logits (N, K).

    >>> undecided = nn.Flatten()
    >>> DeepEnsemble([undecided, undecided])(torch.zeros(1, 1, 1, 2)).exp()
    tensor([[0.5000, 0.5000]])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs members; got none")
        self.members = nn.ModuleList(members)

    @property
    def normalize(self) -> object:
        """That of the first member; tells how many channels an image must have."""
        return getattr(self.members[0], "normalize", None)

    def member_probabilities(self, images: Tensor) -> Tensor:
        """Softmax of every member, float64 (M, N, K): in half precision its rows would not sum to one."""
        return torch.stack([member(images) for member in self.members]).double().softmax(-1)

    def forward(self, images: Tensor) -> Tensor:
        """Logarithm of the mean probability (N, K)."""
        log_p = torch.stack([member(images) for member in self.members]).log_softmax(-1)
        return log_p.logsumexp(0) - torch.tensor(len(self.members), dtype=log_p.dtype, device=log_p.device).log()
