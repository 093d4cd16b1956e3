"""Variation within the outputs: ensembles of classifiers and Monte-Carlo dropout, as detectors.

Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles", NeurIPS 2017;
Gal & Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016. Both ask several networks the same question; they
differ in where the networks come from. Derived by hand in chapter 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from tutorial_lib.detectors.base import Detector
from tutorial_lib.detectors.evidence import IMAGES, Evidence
from tutorial_lib.studies import Study
from tutorial_lib.training.side_by_side import train_side_by_side
from tutorial_lib.training.trained import recipe, untrained_classifier
from tutorial_lib.uncertainty.deep_ensemble import UNCERTAINTIES, DeepEnsemble
from tutorial_lib.uncertainty.dropout import mc_dropout_probabilities

__all__ = ["DropoutUncertainty", "EnsembleUncertainty", "train_ensemble"]


def train_ensemble(
    study: Study, seeds: Sequence[int], network: str | None = None, adversarial_step: float = 0.0, epochs: int = 0
) -> DeepEnsemble:
    """Train one network a seed on the whole training set of a study, side by side.

    Each has the initial weights, the order and the augmentation of ``study.classifier(network, seed)`` and ends where
    that does, but for rounding.

    Args:
        study: whose training images and whose recipe are used.
        seeds: one a member, all different.
        network: the study's own when left out.
        adversarial_step: see `train_side_by_side`.
        epochs: fewer or more than the recipe's; 0 for the recipe's.
    """
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"equal seeds make equal members; give one seed a member, all different, got {tuple(seeds)}")
    network = network or study.network
    config = recipe(study, network)
    members = [untrained_classifier(study, network, seed) for seed in seeds]
    config = replace(config, epochs=epochs or config.epochs)
    train_side_by_side(members, study.train, config, seeds, adversarial_step)
    return DeepEnsemble(members).eval()


class _Uncertainty(Detector):
    def __init__(self, model: nn.Module, score: str) -> None:
        super().__init__(model)
        if score not in UNCERTAINTIES:
            raise ValueError(f"score must be one of {', '.join(UNCERTAINTIES)}, got {score!r}")
        self.score = score


class EnsembleUncertainty(_Uncertainty):
    """How unsure an ensemble is: of everything, or only where its members disagree.

    Larger is stranger.

    Args:
        model: a `DeepEnsemble`.
        score: one of `UNCERTAINTIES`: ``"mutual_information"`` (the members disagree), ``"entropy"`` (they disagree or
            each is unsure), ``"disagreement"``, ``"variance"``, ``"mean_entropy"``.

    Challenging data seen in ``fit``: none (nothing is fitted).

    >>> import torch
    >>> members = [nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Softmax(1))]
    >>> EnsembleUncertainty(DeepEnsemble(members)).predict(torch.tensor([[[[0.0, 0.0]]], [[[0.0, 1.0]]]])).round(4)
    array([0.    , 0.0079])
    """

    def __init__(self, model: DeepEnsemble, score: str = "mutual_information") -> None:
        super().__init__(model, score)
        if not isinstance(model, DeepEnsemble):
            raise TypeError(f"model must be a DeepEnsemble, got {type(model).__name__}")
        if len(model.members) < 2 and score != "entropy":
            raise ValueError("one member cannot disagree with itself; give two or more, or score='entropy'")

    def _score(self, seen: Evidence) -> Tensor:
        return UNCERTAINTIES[self.score](self.model.member_probabilities(seen[IMAGES]))  # type: ignore[operator]


class DropoutUncertainty(_Uncertainty):
    """How unsure the thinned networks are that Monte-Carlo dropout draws from one.

    Larger is stranger. Every image meets the same thinned networks, so its score does not depend on its batch.

    Args:
        model: classifier with dropout, see `mc_dropout_probabilities`; `DropoutBeforeHead` gives one to any classifier.
        score: one of `UNCERTAINTIES`, as for `EnsembleUncertainty`.
        passes: thinned networks, 2 or more.
        seed: of their masks.

    Challenging data seen in ``fit``: none (nothing is fitted).
    """

    def __init__(self, model: nn.Module, score: str = "mutual_information", passes: int = 50, seed: int = 0) -> None:
        super().__init__(model, score)
        if not passes >= 2:  # NaN is refused, too
            raise ValueError(f"passes must be 2 or more to disagree, got {passes}")
        self.passes, self.seed = passes, seed

    def _score(self, seen: Evidence) -> Tensor:
        images = seen[IMAGES]
        p = mc_dropout_probabilities(self.model, images, self.passes, self.seed, batch_size=len(images))
        return UNCERTAINTIES[self.score](p)
