"""Active learning: a model says which images it wants labelled, and is compared with one that takes what comes."""

from tutorial_lib.active_learning.comparison import (
    SUMMARIES,
    area_under_curve,
    last_round,
    mean_interval,
    mean_over_rounds,
    paired_difference,
)
from tutorial_lib.active_learning.loop import Budget, History, Round, Train, run_rounds, run_with_twin, start_set
from tutorial_lib.active_learning.prediction import Prediction, Sampler, predict_pool
from tutorial_lib.active_learning.strategies import (
    STRATEGIES,
    UTILITIES,
    Strategy,
    badge,
    bald,
    entropy,
    gradient_factors,
    highest,
    k_means_plus_plus,
    least_confidence,
    margin,
    random,
)
from tutorial_lib.active_learning.trainer import FixedSteps

__all__ = [
    "STRATEGIES",
    "SUMMARIES",
    "UTILITIES",
    "Budget",
    "FixedSteps",
    "History",
    "Prediction",
    "Round",
    "Sampler",
    "Strategy",
    "Train",
    "area_under_curve",
    "badge",
    "bald",
    "entropy",
    "gradient_factors",
    "highest",
    "k_means_plus_plus",
    "last_round",
    "least_confidence",
    "margin",
    "mean_interval",
    "mean_over_rounds",
    "paired_difference",
    "predict_pool",
    "random",
    "run_rounds",
    "run_with_twin",
    "start_set",
]
