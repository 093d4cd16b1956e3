"""Gradients as features: what every sample's gradient looks like, layer by layer, without forming it.

* `squared_norms`: squared norm of each sample's gradient for each parameter tensor, for one label (N, P).
* `contrast_squared_norms`: the same for every class as the label (N, C, P).
* `introspective_features`: the last layer's gradients for every class, in closed form (N, C, D).
* `alignment`: cosine of each sample's gradient with a reference (N, P).

The idea, on one linear layer y = W x + b:

>>> import torch
>>> layer, x = torch.nn.Linear(4, 3), torch.randn(5, 4)  # activations x (N, I)
>>> y = layer(x)  # (N, O)
>>> loss = torch.nn.functional.softplus(-y).sum()  # all classes are true, summed over outputs and over samples
>>> (g,) = torch.autograd.grad(loss, y)  # backprops (N, O): row n is sample n's own
>>> one = torch.outer(g[0], x[0])  # a sample's gradient of W, g xᵀ, has rank one,
>>> by_hand = g.square().sum(1) * x.square().sum(1)  # so its squared norm needs no product: (N,)
>>> torch.allclose(one.square().sum(), by_hand[0])
True
>>> norms, names = squared_norms(layer, x)  # (N, P) for W and b
>>> torch.allclose(norms[:, 0], by_hand.double(), rtol=1e-5)
True

In a network every layer has its own pair of activations and backprops, all samples' at once, from one forward and one backward pass;
`rules` has the formula for each kind of layer, and chapter 4 derives them. From the outside in: `_engine` takes the images in chunks;
`_batch_pass` runs one forward and backward, with every layer as a `_node`; `_sample_axis` knows on which axis of a tensor the samples
stand; where no rule holds, `_loop` takes the ordinary gradient one sample at a time. `targets` and `losses` say where the backward pass
starts.
"""

from tutorial_lib.gradients._engine import FallbackWarning
from tutorial_lib.gradients.alignment import alignment
from tutorial_lib.gradients.introspection import introspective_features
from tutorial_lib.gradients.norms import contrast_squared_norms, squared_norms
from tutorial_lib.gradients.targets import n_ones

__all__ = [
    "FallbackWarning",
    "alignment",
    "contrast_squared_norms",
    "introspective_features",
    "n_ones",
    "squared_norms",
]
