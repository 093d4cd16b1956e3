"""Severity: how ill is ill, from a score that has seen healthy images only.

* `spearman`, `among`: what a score is worth as a severity, and where an image falls among the healthy.
* `quantile_bins`, `expected_companions`: severity labels, and how many images of a batch share one.
* `supervised_contrastive_loss`: representations in which images of one label lie together; trained by
  `tutorial_lib.training.train_contrastive`.
* `linear_probe`: what such a representation knows.

Lesions of known severity are painted by `tutorial_lib.data.lesions`. Derived by hand in chapter 7.
"""

from tutorial_lib.severity.contrastive import supervised_contrastive_loss
from tutorial_lib.severity.labels import among, expected_companions, quantile_bins, spearman
from tutorial_lib.severity.probe import Probe, linear_probe
from tutorial_lib.severity.views import Views, random_views

__all__ = [
    "Probe",
    "Views",
    "among",
    "expected_companions",
    "linear_probe",
    "quantile_bins",
    "random_views",
    "spearman",
    "supervised_contrastive_loss",
]
