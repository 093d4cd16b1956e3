r"""What the last layer would have to change for another answer: "why P, rather than Q?", for all Q, in closed form.

The last layer is z = W h + b, with features h (D numbers) and logits z (K numbers). For any loss J and any label t the
gradient of its weights is a product of two vectors,

.. math:: \nabla_W J = \frac{\partial J}{\partial z}\, h^\top,

so no backward pass is needed: ``tutorial_lib.gradients.losses.logit_gradient`` gives the first factor. With
:math:`p` the softmax, :math:`s` the sigmoid, :math:`e_Q` the one-hot label and M its height, row j is

=======  ====================================  ============================
loss     one-hot label Q, row j                all ones, row j
=======  ====================================  ============================
``ce``   :math:`M (p_j - [j = Q])\, h`         :math:`M (K p_j - 1)\, h`
``bce``  :math:`(s_j - M [j = Q])\, h`         :math:`(s_j - M)\, h`
``mse``  :math:`2 (z_j - M [j = Q])\, h`       :math:`2 (z_j - M)\, h`
=======  ====================================  ============================

For cross-entropy the gradient is linear in the label, and the all-ones gradient is exactly the sum of the K one-hot
ones. The other two losses are affine in the label: there the sum is the all-ones gradient plus K - 1 times that of the
empty label. Losses are sums over the outputs, as everywhere in `tutorial_lib.gradients`; the published mean differs by
a factor of K, which standardised features do not see.

Whatever the loss, **the feature is a function of (z, h)**, and so of h alone. It cannot hold anything that h lacks.
`second_look` therefore also makes the inputs that a gradient must be compared with.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tutorial_lib.gradients.losses import logit_gradient

LOSSES = ("ce", "bce", "mse")

QUESTIONS = ("ones", "own", "each")
"""Which labels are introduced: all ones in one go; each Q, of whose gradient row Q is kept; each Q, with all rows."""

INPUTS = ("gradients", "features", "logits", "features and logits", "random products")
"""What a second network can look at: the gradients, and the controls."""


def last_layer_gradients(
    logits: Tensor, features: Tensor, loss: str = "ce", question: str = "ones", scale: float = 1.0
) -> Tensor:
    """Gradients of the last layer's weights for labels that the network did not choose.

    Args:
        logits: (N, K).
        features: (N, D), what the last linear layer made the logits from.
        loss: ``"ce"``, ``"bce"`` or ``"mse"`` (squared error of the logits).
        question: ``"ones"``: the label of all ones, (N, K, D). ``"own"``: for every Q the row of W that belongs to Q,
            (N, K, D). ``"each"``: for every Q all rows, (N, K, K, D), the Q on axis 1.
        scale: M > 0, the height of the ones; see `logit_scale`.

    Differentiable in both tensors. Prabhushankar and AlRegib, NeurIPS 2022, section 3.

    >>> last_layer_gradients(torch.zeros(1, 2), torch.tensor([[4.0, 6.0]]), question="own")
    tensor([[[-2., -3.],
             [-2., -3.]]])
    """
    _check(logits, features)
    if loss not in LOSSES:
        raise ValueError(f"unknown loss {loss!r}; there are {', '.join(LOSSES)}")
    if question not in QUESTIONS:
        raise ValueError(f"unknown question {question!r}; there are {', '.join(QUESTIONS)}")
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be positive and finite, got {scale}")
    if question == "ones":
        return _product(logit_gradient(logits, torch.full_like(logits, scale), loss), features)
    classes = logits.shape[1]
    one_hot = scale * torch.eye(classes, dtype=logits.dtype, device=logits.device)
    asked = logit_gradient(
        logits[:, None].expand(-1, classes, -1), one_hot.expand(len(logits), -1, -1), loss
    )  # (N, Q, K)
    if question == "own":
        return _product(asked.diagonal(dim1=1, dim2=2), features)
    return asked[..., None] * features[:, None, None]


def logit_scale(logits: Tensor) -> float:
    """Height M of the ones for the squared error: the mean of the largest logits (N, K), of training images.

    A one is no target for logits that reach 15; M asks for what the network is used to say. Our choice: the paper
    gives none.
    """
    scale = float(logits.amax(dim=1).mean())
    if not scale > 0:
        raise ValueError(
            f"the largest logits are {scale:.3g} in the mean; without a positive one, give a scale yourself"
        )
    return scale


def second_look(
    logits: Tensor,
    features: Tensor,
    inputs: str = "gradients",
    loss: str = "ce",
    question: str = "ones",
    scale: float = 1.0,
    seed: int = 0,
) -> Tensor:
    """What a second network sees of each image, flat: (N, F).

    Args:
        logits: (N, K).
        features: (N, D).
        inputs: ``"gradients"``, or a control: ``"features"`` (F = D), ``"logits"`` (K), ``"features and logits"``
            (D + K), ``"random products"`` (K·D: what gradients look like, but with K fixed random combinations of the
            features in the place of the loss, so that nothing in it is a question).
        loss, question, scale: of the gradients, see `last_layer_gradients`.
        seed: of the random combinations.
    """
    _check(logits, features)
    if inputs == "gradients":
        return last_layer_gradients(logits, features, loss, question, scale).flatten(1)
    if inputs == "features":
        return features
    if inputs == "logits":
        return logits
    if inputs == "features and logits":
        return torch.cat([features, logits], dim=1)
    if inputs == "random products":
        generator = torch.Generator().manual_seed(seed)
        width = features.shape[1]
        weights = torch.randn(width, logits.shape[1], generator=generator, dtype=torch.float64) / width**0.5
        return _product(features @ weights.to(features), features).flatten(1)
    raise ValueError(f"unknown inputs {inputs!r}; there are {', '.join(INPUTS)}")


def _product(outputs: Tensor, features: Tensor) -> Tensor:
    return outputs[:, :, None] * features[:, None, :]  # (N, K, D)


def _check(logits: Tensor, features: Tensor) -> None:
    if logits.ndim != 2 or features.ndim != 2 or len(logits) != len(features):
        raise ValueError(
            f"logits must be (N, K) and features (N, D) of the same images, got {tuple(logits.shape)} and "
            f"{tuple(features.shape)}"
        )
