"""Introspective learning: a network answers, then its gradients for every other answer feed a second network.

Prabhushankar and AlRegib, "Introspective learning: a two-stage approach for inference in neural networks", NeurIPS 2022
(chapters 12 and 13).
"""

from tutorial_lib.introspection.balance import balanced_logits
from tutorial_lib.introspection.classifier import Augment, IntrospectiveClassifier, View, views_of
from tutorial_lib.introspection.features import (
    LOSSES,
    QUESTIONS,
    last_layer_gradients,
    logit_scale,
    second_look,
)
from tutorial_lib.introspection.network import IntrospectiveNetwork
from tutorial_lib.introspection.variants import CONTROLS, INTROSPECTIVE, SECOND_LOOKS, second_network

__all__ = [
    "Augment",
    "CONTROLS",
    "INTROSPECTIVE",
    "LOSSES",
    "QUESTIONS",
    "SECOND_LOOKS",
    "IntrospectiveClassifier",
    "IntrospectiveNetwork",
    "View",
    "balanced_logits",
    "last_layer_gradients",
    "logit_scale",
    "second_look",
    "second_network",
    "views_of",
]
