"""GradCON: autoencoders whose gradients are constrained, so that a stranger's gradient stands out.

* `build_autoencoder`: the published networks, and narrower ones for smaller images;
* `GradientConstraint`: the constraint and its running average;
* `train_autoencoder`: training with or without it; resumable, the same for the same seed;
* `train_side_by_side`: several small ones at once;
* `trained_autoencoder`: one, kept in the cache;
* `one_class_split`: one class is normal, all others are strange.

The scores are in `tutorial_lib.detectors`. Derived by hand in chapter 6.
"""

from tutorial_lib.gradcon.constraint import ALPHA, GradientConstraint, decoder_weights
from tutorial_lib.gradcon.one_class import OneClassSplit, one_class_split
from tutorial_lib.gradcon.side_by_side import train_side_by_side
from tutorial_lib.gradcon.trained import TrainedAutoencoder, trained_autoencoder
from tutorial_lib.gradcon.training import (
    AutoencoderConfig,
    AutoencoderHistory,
    Losses,
    reconstruction_errors,
    train_autoencoder,
    training_step,
)
from tutorial_lib.models.autoencoder import Autoencoder, VariationalAutoencoder, build_autoencoder

__all__ = [
    "ALPHA",
    "Autoencoder",
    "AutoencoderConfig",
    "AutoencoderHistory",
    "GradientConstraint",
    "Losses",
    "OneClassSplit",
    "TrainedAutoencoder",
    "VariationalAutoencoder",
    "build_autoencoder",
    "decoder_weights",
    "one_class_split",
    "reconstruction_errors",
    "train_autoencoder",
    "train_side_by_side",
    "trained_autoencoder",
    "training_step",
]
