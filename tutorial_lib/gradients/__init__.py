"""Gradients as features: what every sample's gradient looks like, layer by layer, without forming it.

* `squared_norms`: squared norm of each sample's gradient for each parameter tensor, for one label (N, P).
* `contrast_squared_norms`: the same for every class as the label (N, C, P).
* `introspective_features`: the last layer's gradients for every class, in closed form (N, C, D).
* `alignment`: cosine of each sample's gradient with a reference (N, P).

How it works, from the outside in: `engine` runs one forward and one backward pass for the whole batch, `interception` listens to both,
and a rule from `rules` turns what it hears at a layer, the input and the output's gradient, into norms. `targets` and `losses` say where
the backward pass starts. Derived by hand in chapter 4.
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
