"""Detectors by name, as one types them: ``energy``, ``knn:k=50``, ``GradientDensity:label=ones,loss=bce``."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from torch import nn

from tutorial_lib import detectors as library
from tutorial_lib.data.registry import suggestion
from tutorial_lib.detectors import Detector, SupervisedDetector

__all__ = ["USABLE", "default_names", "named_detectors"]


def _usable() -> dict[str, type[Detector]]:
    """Those that a classifier and normal images are enough for."""
    found = {}
    for name in library.__all__:
        cls: Any = getattr(library, name)
        if not isinstance(cls, type) or not issubclass(cls, Detector) or cls.__abstractmethods__:
            continue
        needed = [
            p.name
            for p in list(inspect.signature(cls).parameters.values())
            if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        ]
        of_something_else = cls.__module__.endswith(
            (".gradcon", ".duq", ".ensemble", ".tuned", ".deep_svdd", ".one_class")
        )
        if set(needed) <= {"model"} and not issubclass(cls, SupervisedDetector) and not of_something_else:
            found[name.lower()] = cls
    return found


USABLE = _usable()
"""The detectors that can be named, in small letters. The others need challenging images, several networks, an autoencoder
or a network trained for them."""


def default_names(fitted: bool, features: bool) -> list[str]:
    """What is taken when nothing is named: confidence, and with normal images also neighbours, layers and a control."""
    names = ["msp", "energy"]
    if fitted:
        names += [*(["knn"] if features else []), "activationdensity", "brightness"]
    return names


def named_detectors(names: Sequence[str], model: nn.Module) -> dict[str, Detector]:
    """Detectors of a model by the names they were asked for by, in small letters, settings included.

    Raises:
        ValueError: no such detector, none that this command can make, or a setting that it does not have.

    >>> list(named_detectors(["MSP", "knn:k=5"], nn.Flatten()))
    ['msp', 'knn:k=5']
    """
    found: dict[str, Detector] = {}
    for text in names:
        name, _, settings = text.strip().partition(":")
        cls = USABLE.get(name.lower())
        if cls is None:
            there = {other.lower() for other in library.__all__}
            if name.lower() in there:
                raise ValueError(f"{name} needs more than a classifier and normal images, so it cannot be used here")
            raise ValueError(f"there is no detector {name!r}{suggestion(name, USABLE)}")
        arguments = dict(_setting(part, cls, name) for part in settings.split(",") if part)
        key = ":".join([name.lower(), settings]).removesuffix(":")
        if key in found:
            raise ValueError(f"{text} is named twice")
        takes_model = "model" in inspect.signature(cls).parameters
        try:
            found[key] = cls(model, **arguments) if takes_model else cls(**arguments)
        except TypeError as error:  # a word where a number is wanted
            raise ValueError(f"{text} has a setting of the wrong kind: {error}") from error
    if not found:
        raise ValueError(f"name at least one detector{suggestion('', USABLE)}")
    return found


def _setting(text: str, cls: type[Detector], name: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    known = [parameter for parameter in inspect.signature(cls).parameters if parameter != "model"]
    if key not in known or not value:
        settings = f"; it has {', '.join(known)}" if known else "; it has none"
        raise ValueError(f"{name} has no setting {text!r}{settings}")
    for read in (int, float):
        try:
            return key, read(value)
        except ValueError:
            continue
    return key, {"true": True, "false": False}.get(value.lower(), value)
