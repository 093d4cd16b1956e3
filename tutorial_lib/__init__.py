"""Uncertainty at inference in neural networks: the library behind the course.

Start here::

    from tutorial_lib import load_study

    study = load_study()          # scikit-learn's digits: no download, no GPU
    model = study.classifier()    # a trained network, from the cache if there is one
    strange = study.shift("photographs")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tutorial_lib.studies import load_study

__all__ = ["__version__", "load_study"]

__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """PyTorch is imported when a study is asked for: ``--help`` should not take seconds."""
    if name == "load_study":
        from tutorial_lib.studies import load_study

        return load_study
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
