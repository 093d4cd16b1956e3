"""Introspective features: the last layer's gradients for every class, without a backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tutorial_lib.gradients._network import Network, checked_images, run


def introspective_features(model: nn.Module, images: Tensor, loss: str = "ce") -> Tensor:
    r"""What the last layer would have to change to call each image a k, for all K classes k: "why k, rather than what you see?"

    The last layer is z = W h + b. For the one-hot label k the gradient of W is :math:`(p - e_k) h^\top`; its row k, the weights of class k
    themselves, is

    .. math:: r_{nk} = (p_{nk} - 1)\, h_n .

    The other rows, :math:`p_j h`, are the same for every other label, so the K rows r hold all there is to know. In closed form: the
    cost is a forward pass, and differentiable: the features can be trained through or attacked.

    Args:
        model: images (N, ...) to logits (N, K), whose last operation is a ``torch.nn.Linear``.
        images: (N, ...); their gradient flows through.
        loss: ``"ce"`` (p is softmax) or ``"bce"`` (p is sigmoid).

    Returns:
        (N, K, D) in the model's type and on its device, D the width of the last layer's input. Its squared norm is small where the
        network agrees.

    Prabhushankar and AlRegib, "Introspective learning", NeurIPS 2022, eq. 2.

    >>> model = nn.Linear(2, 2, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> introspective_features(model, torch.tensor([[4.0, 6.0]]))
    tensor([[[-2., -3.],
             [-2., -3.]]], grad_fn=<MulBackward0>)
    """
    network = Network.inspect(model)
    logits, features = _through_head(model, checked_images(images, network).to(network.device))
    if loss == "bce":
        disagreement = (-logits).sigmoid()  # 1 − p, without cancellation where the network is sure
    elif loss == "ce":
        classes = logits.shape[1]
        same = torch.eye(classes, dtype=torch.bool, device=logits.device)
        others = logits[:, None].expand(-1, classes, -1).masked_fill(same, -torch.inf).logsumexp(-1)
        disagreement = (others - logits).sigmoid()
    else:
        raise ValueError(f"unknown loss {loss!r}; introspective features have closed forms for 'ce' and 'bce'")
    return -disagreement[:, :, None] * features[:, None, :]


def _through_head(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and what the last linear layer made them from."""
    calls: list[tuple[Tensor, Tensor]] = []

    def remember(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        calls.append((inputs[0], output))

    hooks = [module.register_forward_hook(remember) for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        (logits,) = run(model, images)
    finally:
        for hook in hooks:
            hook.remove()
    if not calls or calls[-1][1] is not logits or logits.dim() != 2:
        raise ValueError(
            "introspective features need a network whose last operation is a torch.nn.Linear with logits (N, K)"
        )
    return logits, calls[-1][0]
