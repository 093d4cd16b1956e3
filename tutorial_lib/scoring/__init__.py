"""Your own network and your own images: scores, tail probabilities, thresholds, and a watch for drift (chapter 16).

``python -m tutorial_lib score`` and ``python -m tutorial_lib calibrate`` are these functions with a command line.
"""

from tutorial_lib.scoring.calibrate import Calibration, calibrate, calibrate_logits
from tutorial_lib.scoring.choice import USABLE, default_names, named_detectors
from tutorial_lib.scoring.contact_sheet import ends_of, write_contact_sheet
from tutorial_lib.scoring.decision import auroc_by_kind, good_ways
from tutorial_lib.scoring.drift import control_chart, online_p_values, wealth
from tutorial_lib.scoring.labels import folder_labels
from tutorial_lib.scoring.networks import Network, Overrides, open_network
from tutorial_lib.scoring.normal import Normal, fit_to_normal, tail_probability
from tutorial_lib.scoring.preprocessing import Preprocessing
from tutorial_lib.scoring.score import Outcome, commonest, plan_of, score_images
from tutorial_lib.scoring.sources import open_source, read_batches, write_images
from tutorial_lib.scoring.table import read_table
from tutorial_lib.scoring.tensors import read_safetensors, read_weights
from tutorial_lib.scoring.thresholds import (
    AnswerThreshold,
    alarm_threshold,
    allowed_above,
    answer_threshold,
    chance_of_more,
    upper_bound,
)

__all__ = [
    "USABLE",
    "AnswerThreshold",
    "Calibration",
    "Network",
    "Normal",
    "Outcome",
    "Overrides",
    "Preprocessing",
    "alarm_threshold",
    "allowed_above",
    "auroc_by_kind",
    "answer_threshold",
    "calibrate",
    "calibrate_logits",
    "chance_of_more",
    "commonest",
    "control_chart",
    "default_names",
    "ends_of",
    "fit_to_normal",
    "folder_labels",
    "good_ways",
    "named_detectors",
    "online_p_values",
    "open_network",
    "open_source",
    "plan_of",
    "read_batches",
    "read_safetensors",
    "read_table",
    "read_weights",
    "score_images",
    "tail_probability",
    "upper_bound",
    "wealth",
    "write_contact_sheet",
    "write_images",
]
