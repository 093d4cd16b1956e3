"""Is a network right as often as it says? Bins, calibration errors, proper scores, temperature scaling (chapter 11)."""

from tutorial_lib.calibration.bins import ReliabilityBins, reliability_bins
from tutorial_lib.calibration.errors import (
    adaptive_ece,
    chance_ece,
    classwise_ece,
    debiased_ece,
    ece,
    mce,
    reflected_interval,
    squared_ece,
)
from tutorial_lib.calibration.inputs import confidence_and_correct
from tutorial_lib.calibration.scores import (
    BrierDecomposition,
    brier_decomposition,
    brier_score,
    negative_log_likelihood,
)
from tutorial_lib.calibration.temperature import TemperatureScaling

__all__ = [
    "BrierDecomposition",
    "ReliabilityBins",
    "TemperatureScaling",
    "adaptive_ece",
    "reflected_interval",
    "brier_decomposition",
    "brier_score",
    "chance_ece",
    "classwise_ece",
    "confidence_and_correct",
    "debiased_ece",
    "ece",
    "mce",
    "negative_log_likelihood",
    "reliability_bins",
    "squared_ece",
]
