"""GradCON: autoencoders whose gradients are constrained, so that a stranger's gradient stands out.

* `GradientConstraint`: the constraint and its running average;
* `training_step`: the gradients of one batch's loss, constraint included;
* `MODELS`: the published autoencoders, with the constraint and without;
* `one_class_split`: one class is normal, all others are strange.

They are trained by `tutorial_lib.training` (`train_autoencoder`, `trained_autoencoder`); the scores are in
`tutorial_lib.detectors`. Derived by hand in chapter 6.
"""

from tutorial_lib.gradcon.constraint import ALPHA, MODELS, GradientConstraint, decoder_weights
from tutorial_lib.gradcon.losses import Losses, losses_of, reconstruction_errors, training_step
from tutorial_lib.gradcon.one_class import OneClassSplit, one_class_split

__all__ = [
    "ALPHA",
    "MODELS",
    "GradientConstraint",
    "Losses",
    "OneClassSplit",
    "decoder_weights",
    "losses_of",
    "one_class_split",
    "reconstruction_errors",
    "training_step",
]
