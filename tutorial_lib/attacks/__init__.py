"""Adversarial attacks: images changed so that the network errs, and attacks that know the detector as well.

``attack(model, images, labels, generator)`` returns an `Attacked`; see `tutorial_lib.attacks.base` for the three rules
that all of them keep. Pixels are in [0, 1] and the model normalises, so an epsilon of 8/255 is eight grey levels.

================================= ========================================================= ===================
attack                            what it does                                              knows the detector
================================= ========================================================= ===================
`FGSM`, `BIM`, `PGD`              steps along the sign of the loss's gradient, in a box      no
`IterLL`                          steps towards the least likely class, in a box            no
`CarliniWagner`                   the smallest change (L2) that fools                       no
`Semantic`                        the negative image                                        no
`LogitMatching`                   the logits of a clean image of another class              what it looks at
`FeatureMatching`                 the features of a clean image of another class            what it looks at
`SelectivePGD`, `OrthogonalPGD`   fool the classifier and quiet the detector                all of it
================================= ========================================================= ===================

`check_attack` puts an attack through the tests that an evaluation should pass.
"""

from tutorial_lib.attacks.adaptive import FeatureMatching, LogitMatching, OrthogonalPGD, SelectivePGD
from tutorial_lib.attacks.base import Attack, Attacked, noise_of_the_same_size
from tutorial_lib.attacks.carlini_wagner import CarliniWagner
from tutorial_lib.attacks.checks import Check, check_attack, fallen
from tutorial_lib.attacks.differentiable import differentiable_log_norms, second_stage_in_torch
from tutorial_lib.attacks.gradient_sign import BIM, FGSM, PGD, IterLL
from tutorial_lib.attacks.semantic import Semantic

__all__ = [
    "BIM",
    "FGSM",
    "PGD",
    "Attack",
    "Attacked",
    "CarliniWagner",
    "Check",
    "FeatureMatching",
    "IterLL",
    "LogitMatching",
    "OrthogonalPGD",
    "SelectivePGD",
    "Semantic",
    "check_attack",
    "differentiable_log_norms",
    "fallen",
    "noise_of_the_same_size",
    "second_stage_in_torch",
]
