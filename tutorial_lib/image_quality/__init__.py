"""How much worse does this picture look? Full-reference image quality, by signal, by structure and by a network's gradient."""

from tutorial_lib.image_quality.agreement import (
    Agreement,
    agreement,
    fitted_scores,
    pairwise_accuracy,
    same_correlation,
    significance_flag,
)
from tutorial_lib.image_quality.autoencoder import SparseAutoencoder, cost_and_gradient, fit_autoencoder
from tutorial_lib.image_quality.changes import (
    CHANGES,
    JPEG_SCALE,
    Change,
    changed,
    jpeg_equivalent,
    jpeg_scale,
    matched,
)
from tutorial_lib.image_quality.databases import (
    LiveCrops,
    OpinionDatabase,
    load_live_crops,
    load_multi_live,
    load_tid2013,
)
from tutorial_lib.image_quality.fidelity import psnr, ssim, ssim_map
from tutorial_lib.image_quality.ladder import (
    DISTORTIONS,
    FAINT,
    Ladder,
    LadderScore,
    against_level,
    faint_ladder,
    ladder,
    score_ladder,
)
from tutorial_lib.image_quality.pairs import Quality
from tutorial_lib.image_quality.patches import patches_of, random_patches, whiten
from tutorial_lib.image_quality.references import REFERENCES, Reference, reference_images
from tutorial_lib.image_quality.unique import RandomFilters, Unique, WhitenedPatches

__all__ = [
    "CHANGES",
    "DISTORTIONS",
    "FAINT",
    "JPEG_SCALE",
    "REFERENCES",
    "Agreement",
    "Change",
    "Ladder",
    "LadderScore",
    "LiveCrops",
    "OpinionDatabase",
    "Quality",
    "RandomFilters",
    "Reference",
    "SparseAutoencoder",
    "Unique",
    "WhitenedPatches",
    "against_level",
    "agreement",
    "changed",
    "cost_and_gradient",
    "faint_ladder",
    "fit_autoencoder",
    "fitted_scores",
    "jpeg_equivalent",
    "jpeg_scale",
    "ladder",
    "load_live_crops",
    "load_multi_live",
    "load_tid2013",
    "matched",
    "pairwise_accuracy",
    "patches_of",
    "psnr",
    "random_patches",
    "reference_images",
    "same_correlation",
    "score_ladder",
    "significance_flag",
    "ssim",
    "ssim_map",
    "whiten",
]
