"""A network that has not been told all classes, and a second stage taught with some of those it has not been told.

The protocol of Lee & AlRegib, "Open-set recognition with gradient-based representations", ICIP 2021, section 3: of ten
classes, the network learns four; H learns to tell them from two others, which play the unknown; the test asks about the
remaining four and about other data sets. H sees challenging images, but none of the kind it is tested on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from tutorial_lib.data.images import ImageSet
from tutorial_lib.data.splits import of_classes
from tutorial_lib.studies import Splits, Study

__all__ = ["OpenSet", "open_set"]

KNOWN, PRETENDED = 4, 2
"""Classes that the network learns, and classes that play the unknown while H is fitted."""

EPOCHS = {"cifar10": 15, "svhn": 6}
"""Fewer than in the study's own recipe: a network of four classes is easier to train, and one is needed for each seed.
"""


@dataclass(frozen=True)
class OpenSet:
    """The classes of a study, divided.

    Attributes:
        study: four known classes, with the shifts of the original study.
        pretended: validation images of the two classes that H learns from.
        unknown: test images of all others.
    """

    study: Study
    pretended: ImageSet
    unknown: ImageSet


def open_set(study: Study, seed: int) -> OpenSet:
    """Divide a study's classes; another seed, another division.

    >>> from tutorial_lib import load_study
    >>> opened = open_set(load_study("digits"), seed=0)
    >>> opened.study.num_classes, len(opened.study.class_names)
    (4, 4)
    """
    if study.num_classes <= KNOWN + PRETENDED:
        raise ValueError(
            f"{study.name} has {study.num_classes} classes; the open-set protocol needs more than {KNOWN + PRETENDED}"
        )
    order = torch.randperm(study.num_classes, generator=torch.Generator().manual_seed(seed)).tolist()
    known, pretended, unknown = sorted(order[:KNOWN]), order[KNOWN : KNOWN + PRETENDED], order[KNOWN + PRETENDED :]

    def splits() -> Splits:
        return tuple(_relabelled(images, known) for images in (study.train, study.validation, study.test))  # type: ignore[return-value]

    epochs = EPOCHS.get(study.name)
    recipes = {name: {**recipe, **({"epochs": epochs} if epochs else {})} for name, recipe in study.recipes.items()}
    small = replace(
        study,
        name=f"{study.name}_open{seed}",
        title=f"{study.title}, classes {', '.join(study.class_names[c] for c in known)}",
        class_names=tuple(study.class_names[c] for c in known),
        splits=splits,
        recipes=recipes,
    )
    return OpenSet(
        small,
        replace(of_classes(study.validation, pretended), name="pretended_classes"),
        replace(of_classes(study.test, unknown), name="unknown_classes"),
    )


def _relabelled(images: ImageSet, classes: list[int]) -> ImageSet:
    """Images of some classes, labelled 0, 1, … in the order given."""
    chosen = of_classes(images, classes)
    labels = torch.searchsorted(torch.tensor(classes), chosen.labels)
    return replace(chosen, labels=labels, class_names=tuple(images.class_names[c] for c in classes))
