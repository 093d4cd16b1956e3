"""The second looks that are compared, by name: the introspective ones, and the controls that must stand beside them.

A control looks at the same layer through the same network H, trained on the same views with the same budget; what it
lacks is the question. If it does as well, the question is not what helped.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from tutorial_lib.introspection.features import logit_scale
from tutorial_lib.introspection.network import IntrospectiveNetwork

__all__ = ["CONTROLS", "INTROSPECTIVE", "SECOND_LOOKS", "SecondLookAt", "second_network"]


class SecondLookAt(NamedTuple):
    """A row of the comparison: its title, and the settings of `IntrospectiveNetwork`."""

    title: str
    settings: Mapping[str, Any]


INTROSPECTIVE: Mapping[str, SecondLookAt] = MappingProxyType(
    {
        "introspective_ce": SecondLookAt("introspective, cross-entropy", {"loss": "ce"}),
        "introspective_bce": SecondLookAt("introspective, binary cross-entropy", {"loss": "bce"}),
        "introspective_mse": SecondLookAt("introspective, squared error", {"loss": "mse"}),
    }
)
"""Gradients for the label of all ones, under three losses."""

CONTROLS: Mapping[str, SecondLookAt] = MappingProxyType(
    {
        "control_features": SecondLookAt("H on features", {"inputs": "features"}),
        "control_logits": SecondLookAt("H on logits", {"inputs": "logits"}),
        "control_both": SecondLookAt("H on features and logits", {"inputs": "features and logits"}),
        "control_random": SecondLookAt("H on random products", {"inputs": "random products"}),
        "control_refit": SecondLookAt("last layer trained again", {"inputs": "features", "hidden": ()}),
    }
)
"""The same H without a question, and no H at all."""

SECOND_LOOKS: Mapping[str, SecondLookAt] = MappingProxyType({**INTROSPECTIVE, **CONTROLS})


def second_network(name: str, training_logits: Tensor, seed: int = 0, **settings: Any) -> IntrospectiveNetwork:
    """An unfitted H by its name in `SECOND_LOOKS`.

    Args:
        name: of the second look.
        training_logits: (N, K), which the height of the ones is measured on where the loss is the squared error.
        seed: of H.
        settings: further arguments of `IntrospectiveNetwork`.
    """
    if name not in SECOND_LOOKS:
        raise ValueError(f"there is no second look {name!r}; there are {', '.join(SECOND_LOOKS)}")
    chosen = {**SECOND_LOOKS[name].settings, **settings}
    if chosen.get("loss") == "mse":
        chosen.setdefault("scale", logit_scale(training_logits))
    return IntrospectiveNetwork(**chosen, seed=seed)
