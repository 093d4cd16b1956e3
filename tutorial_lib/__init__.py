"""Uncertainty at inference in neural networks: the library behind the course.

Start here::

    from tutorial_lib import load_study

    study = load_study()          # scikit-learn's digits: no download, no GPU
    model = study.classifier()    # a trained network, from the cache if there is one
    strange = study.shift("photographs")
"""

from tutorial_lib.studies import load_study

__all__ = ["__version__", "load_study"]

__version__ = "0.1.0"
