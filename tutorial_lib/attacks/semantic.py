"""The negative of an image: a change of meaning to nobody but the network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from tutorial_lib.attacks.base import Attack

__all__ = ["Semantic"]


@dataclass(frozen=True)
class Semantic(Attack):
    """The negative image, 1 - x.

    Hosseini et al., "On the limitation of convolutional neural networks in recognizing negative images", ICMLA 2017. The
    shape of a thing is the same in its negative, and people name it; CleverHans calls this the semantic attack. It asks
    nothing of the model, and has no size to choose: it works on some images and fails on the others.

    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = nn.init.eye_(model[1].weight)
    >>> Semantic()(model, torch.tensor([[[[0.8, 0.2]]]]), torch.tensor([0])).images
    tensor([[[[0.2000, 0.8000]]]])
    """

    eight_bit: bool = True

    def _change(self, model: nn.Module, clean: Tensor, labels: Tensor, logits: Tensor, seeds: list[int]) -> Tensor:
        return 1 - clean
