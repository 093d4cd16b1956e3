r"""Contrastive learning: pull together what belongs together, push away all else.

Khosla et al., "Supervised contrastive learning", NeurIPS 2020, eq. 2:

.. math:: \mathcal{L} = \sum_{i \in I} \frac{-1}{|P(i)|} \sum_{p \in P(i)}
          \log \frac{\exp(z_i \cdot z_p / \tau)}{\sum_{a \in A(i)} \exp(z_i \cdot z_a / \tau)}

Every image i of a batch appears in two views, each an anchor; A(i) are all other views of the batch and P(i) those of
the same label. Without labels, P(i) is the other view of the same image alone, and the loss is NT-Xent, the loss of
SimCLR (Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020, eq. 1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["supervised_contrastive_loss"]


def supervised_contrastive_loss(projections: Tensor, labels: Tensor | None = None, temperature: float = 0.07) -> Tensor:
    """The loss above as the mean over all anchors, a scalar.

    Args:
        projections: (N, V, D), V at least 2 views of N images; they are scaled to length one here.
        labels: (N,); images of one label are positives for each other. None: SimCLR.
        temperature: positive; the paper uses 0.07 to 0.1.

    Raises:
        ValueError: wrong shapes, or a temperature that is not positive.

    >>> apart = torch.eye(2).repeat_interleave(2, dim=0).view(2, 2, 2)  # two images, views alike
    >>> round(supervised_contrastive_loss(apart, temperature=1.0).item(), 4)  # log(e + 1 + 1) - 1
    0.5514
    """
    if projections.ndim != 3 or projections.shape[1] < 2:
        raise ValueError(
            f"projections must have the shape (N, V, D) with two views or more, got {tuple(projections.shape)}"
        )
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    count, views, _ = projections.shape
    names = torch.arange(count, device=projections.device) if labels is None else labels.to(projections.device)
    if names.shape != (count,):
        raise ValueError(f"labels must be one an image, {count}, got shape {tuple(names.shape)}")
    z = F.normalize(projections.float(), dim=2).flatten(0, 1)  # (N V, D): half precision would round 1 / 0.07 away
    names = names.repeat_interleave(views)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_probability = (z @ z.T / temperature).masked_fill(itself, -torch.inf).log_softmax(dim=1)
    positive = (names[:, None] == names) & ~itself
    per_anchor = -log_probability.masked_fill(~positive, 0).sum(dim=1) / positive.sum(dim=1)
    return per_anchor.mean()
