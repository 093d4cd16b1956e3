"""Detectors: scores that say "this image is strange", all behind one contract.

``fit`` returns the detector, ``predict`` a float64 array (N,), larger = stranger; see `Detector` for the whole of it.
`observe` goes through a network once for many detectors; ``predict_from`` takes logits or features that one has already.
`check_detector` holds a detector of one's own to the contract. For networks of one's own see
`tutorial_lib.models.as_classifier`.

==================================  ==================================================  ====================
looks at                            detectors                                           challenging data
==================================  ==================================================  ====================
logits                              `MSP`, `Entropy`, `MaxLogit`, `Energy`, `ODIN`      none
penultimate features                `KNN`, `Mahalanobis`, `RelativeMahalanobis`,        none
                                    `DDU`, `SNGP`
several networks' answers           `EnsembleUncertainty`, `DropoutUncertainty`         none
distances learned with the network  `DUQ`                                               none
last layer's gradient               `GradNorm`, `GradPCA`                               none
activations of every layer          `ActivationDensity`                                 none
gradients of every layer            `GradientSum`, `GradientDensity`                    none
what comes back to every layer      `BackpropDensity`, `LayerDensity`                   none
several of these                    `ActivationFusion`, `GradientFusion`,               none
                                    any `Combination`
stages, with a second stage         `MahalanobisEnsemble`, `LID`                        seen in ``fit``
gradients, with a second stage      `Purview`                                           seen in ``fit``
controls of the second stage        `LogitsControl`, `PenultimateControl`,              seen in ``fit``
                                    `ActivationNormsControl`
settings chosen with them           `Tuned`                                             seen in ``fit``
an autoencoder's answer             `ReconstructionError`, `LatentLoss`                 none
an autoencoder's gradients          `GradientAlignment`, `GradCON`                      none
a region around what is known       `OneClassSVM`, `SVDD`, `DeepSVDD`                   none
next to nothing (controls)          `Brightness`, `Complexity`                          none
==================================  ==================================================  ====================
"""

from tutorial_lib.detectors.base import Detector, NotFittedError, SupervisedDetector
from tutorial_lib.detectors.check import check_detector
from tutorial_lib.detectors.combination import ActivationFusion, Combination, GradientFusion, Tail
from tutorial_lib.detectors.controls import ActivationNormsControl, LogitsControl, PenultimateControl
from tutorial_lib.detectors.ddu import DDU
from tutorial_lib.detectors.deep_svdd import DeepSVDD
from tutorial_lib.detectors.duq import DUQ
from tutorial_lib.detectors.energy import Energy
from tutorial_lib.detectors.ensemble import DropoutUncertainty, EnsembleUncertainty
from tutorial_lib.detectors.entropy import Entropy
from tutorial_lib.detectors.evidence import Evidence, log_squared_norms, observe
from tutorial_lib.detectors.grad_pca import GradPCA
from tutorial_lib.detectors.gradcon import GradCON, GradientAlignment, LatentLoss, ReconstructionError
from tutorial_lib.detectors.gradient_sum import GradientSum
from tutorial_lib.detectors.gradnorm import GradNorm
from tutorial_lib.detectors.knn import KNN
from tutorial_lib.detectors.layers import stage_features, stage_names
from tutorial_lib.detectors.lid import LID
from tutorial_lib.detectors.mahalanobis import Mahalanobis
from tutorial_lib.detectors.mahalanobis_ensemble import MahalanobisEnsemble
from tutorial_lib.detectors.max_logit import MaxLogit
from tutorial_lib.detectors.msp import MSP
from tutorial_lib.detectors.norm_density import ActivationDensity, BackpropDensity, GradientDensity, LayerDensity
from tutorial_lib.detectors.odin import ODIN
from tutorial_lib.detectors.one_class import SVDD, OneClassSVM
from tutorial_lib.detectors.purview import Purview
from tutorial_lib.detectors.relative_mahalanobis import RelativeMahalanobis
from tutorial_lib.detectors.second_stage import SecondStageDetector, logistic_regression, two_layers
from tutorial_lib.detectors.sngp import SNGP
from tutorial_lib.detectors.trivial import Brightness, Complexity
from tutorial_lib.detectors.tuned import Tuned

__all__ = [
    "DDU",
    "DUQ",
    "SNGP",
    "DropoutUncertainty",
    "EnsembleUncertainty",
    "KNN",
    "LID",
    "MSP",
    "ODIN",
    "SVDD",
    "ActivationDensity",
    "ActivationFusion",
    "ActivationNormsControl",
    "BackpropDensity",
    "Brightness",
    "Combination",
    "Complexity",
    "DeepSVDD",
    "Detector",
    "Energy",
    "Entropy",
    "Evidence",
    "GradCON",
    "GradNorm",
    "GradPCA",
    "GradientAlignment",
    "GradientDensity",
    "GradientFusion",
    "GradientSum",
    "LatentLoss",
    "LayerDensity",
    "LogitsControl",
    "Mahalanobis",
    "MahalanobisEnsemble",
    "MaxLogit",
    "NotFittedError",
    "OneClassSVM",
    "PenultimateControl",
    "Purview",
    "ReconstructionError",
    "RelativeMahalanobis",
    "SecondStageDetector",
    "SupervisedDetector",
    "Tail",
    "Tuned",
    "check_detector",
    "log_squared_norms",
    "logistic_regression",
    "observe",
    "stage_features",
    "stage_names",
    "two_layers",
]
