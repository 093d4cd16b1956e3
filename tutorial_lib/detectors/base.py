"""The contract that every detector keeps, and the code that keeps it.

A detector says how strange an image looks to a classifier:

* ``fit(known)`` returns the detector itself; a supervised one learns from challenging images, too: ``fit(known,
challenging)``;
* ``predict(images)`` returns a float64 array (N,), **larger = stranger**, always, and one image's score does not depend
on its batch;
* calling a detector returns the same scores as a tensor, which is what pytorch-ood's metrics take;
* `Detector.challenging_data` says what unusual data it has learned from;
* the classifier comes back as it was: weights, ``.grad``, ``requires_grad``, mode, buffers, random state.

There is a second door. A detector looks at quantities (`Detector.needs`: logits, features, norms), and whoever has them
already calls ``fit_from`` and ``predict_from`` with them. `tutorial_lib.detectors.observe` brings those of many detectors
in one forward pass.

A new detector is a subclass with ``needs`` and ``_score`` and, if it learns anything, a ``_fit``. Everything else happens
here, once; `tutorial_lib.detectors.check_detector` holds it to the contract. Detectors are scikit-learn estimators as far
as ``get_params``, ``set_params`` and ``sklearn.base.clone`` go; a clone looks at the same model.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from tutorial_lib.data.images import ImageSet, check_images
from tutorial_lib.detectors.evidence import IMAGES, Evidence, Quantity, as_input, guarded, look, observed
from tutorial_lib.models.inputs import Images, batches, check_labels, is_whole_numbers, read_images
from tutorial_lib.models.predict import channels_of

__all__ = [
    "CHALLENGING_DATA",
    "Detector",
    "Evidence",
    "Images",
    "NotFittedError",
    "SupervisedDetector",
    "checked",
    "split",
]

CHALLENGING_DATA = ("none", "other", "same")

Seen = Evidence | Tensor | Mapping[str, Tensor]
"""What ``fit_from`` and ``predict_from`` take: `Evidence`; tensors by name, ``{"logits": ...}``; or one tensor for a
detector that looks at one quantity."""


class _NoModel(nn.Module):
    """In place of the model of a detector that was made without one."""

    def forward(self, images: Tensor) -> Tensor:
        raise TypeError(
            "this detector has no model to look at images with; give it one, or use fit_from and predict_from"
        )

    features = forward

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> str:
        return "NO_MODEL"


NO_MODEL = _NoModel()


class Detector(BaseEstimator, ABC):
    """Base class of all detectors; one that learns from known images at most.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K). May be left out by those who come through the
            second door only.
    """

    supervised: ClassVar[bool] = False
    """Does ``fit`` need challenging images?"""

    requires_fit: bool = False
    """Must ``fit`` come before ``predict``?"""

    from_training_images: ClassVar[bool] = False
    """May ``fit`` be given the network's own training images, as in the detector's paper?"""

    uses_reference: ClassVar[bool] = False
    """Does ``fit`` take a further set of labelled known images, the training images in the papers?"""

    tags: ClassVar[frozenset[str]] = frozenset()
    """Which promises of `tutorial_lib.detectors.check_detector` do not hold for this class, and why: see there."""

    batch_size: int = 256
    """Images that go through the model together. A matter of memory; the scores do not depend on it."""

    def __init__(self, model: nn.Module | None = None) -> None:
        if model is None:
            model = NO_MODEL
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        self.model = model
        self.challenging_names: tuple[str, ...] = ()
        self._fitted = False
        self._fitted_shape: tuple[int, ...] | None = None

    # --- what a subclass says ---------------------------------------------------------------------------------------

    def needs(self) -> tuple[Quantity, ...]:
        """What ``predict`` looks at. Images themselves, unless a subclass says otherwise."""
        return (IMAGES,)

    def needs_to_fit(self) -> tuple[Quantity, ...]:
        """What ``fit`` looks at; the same, unless a subclass says otherwise."""
        return self.needs()

    @abstractmethod
    def _score(self, seen: Evidence) -> Tensor:
        """Scores (N,), floating point, from `needs`. The model is guarded and gradients are off; `IMAGES` are as the
        model takes them."""

    def _fit(self, seen: Evidence) -> None:
        """Learn from `needs_to_fit` of known images, on the CPU, with ``seen.labels`` >= 0 or None; `IMAGES` as they
        came."""

    def _reference_needs(self) -> tuple[Quantity, ...]:
        """What the reference images are looked at for."""
        return self.needs_to_fit()

    def _prepare_reference(self, image: Tensor) -> None:
        """Find out what depends on the network, with one reference image (1, C, H, W)."""

    def _fit_reference(self, seen: Evidence) -> None:
        """Learn from the reference images, with labels or None."""

    # --- the first door: images -------------------------------------------------------------------------------------

    @property
    def challenging_data(self) -> str:
        """What a table must say about this detector: ``"none"``, or ``"same"`` once it has learned from challenging
        images.

        Whether what it is tested on is ``"same"`` or ``"other"`` depends on the test: see `challenging_data_for`.
        """
        return "same" if self.challenging_names else "none"

    def challenging_data_for(self, test_set: str) -> str:
        """``"none"``, ``"same"`` or ``"other"``: has ``fit`` seen no challenging data, those of this name, or only
        others?

        Names are those of the image sets that ``fit`` was given.
        """
        if not self.challenging_names:
            return "none"
        return "same" if test_set in self.challenging_names or "unnamed" in self.challenging_names else "other"

    def fit(self, known: Images, challenging: Any = None, reference: Images | None = None) -> Self:
        """Learn what known images look like; with detectors that learn nothing, do nothing.

        A loader is gone through once, and of its images only what the detector looks at is kept.

        Args:
            known: images, with labels where the detector uses classes. Labels below 0 mark unknown images
                (pytorch-ood's convention) and are left out. The images should not be those that the network was trained
                on, unless the detector says otherwise: on those, it is surer than it will ever be again.
            challenging: must be left out. The argument is there to refuse it with a reason; labels (N,) of the known
                images are taken for what they are, as scikit-learn's ``fit(X, y)`` has them.
            reference: labelled training images, for detectors with `uses_reference`.

        Returns:
            the detector itself.
        """
        known, challenging = with_labels(known, challenging)
        if challenging is not None:
            raise ValueError(f"{self._name} learns from known images alone; leave the challenging ones out of fit")
        self._check_reference(reference)
        if not self.requires_fit:
            return self
        self._check_shapes(known, reference=reference)
        self._forget()
        if reference is not None:
            self._reference_from(reference)
        return self.fit_from(self._observed(known, self.needs_to_fit(), "known"))

    def predict(self, images: Images) -> NDArray[np.float64]:
        """How strange each image is: float64 (N,), larger = stranger, finite.

        Args:
            images: (N, C, H, W), ``uint8`` or float in [0, 1], on any device; or an `ImageSet`, a loader, a data set, which
                are gone through once and not kept.

        Raises:
            TypeError, ValueError: see `tutorial_lib.data.check_images`.
            NotFittedError: ``fit`` has not been called.
        """
        self._check_fitted()
        needs, scores = self.needs(), []
        with guarded(self.model):
            for batch in batches(images, "images", self.batch_size):
                check_images(batch.images, channels_of(self.model))
                self._check_shape(tuple(batch.images.shape[1:]))
                scores.append(self._scored(look(self.model, batch, needs)))
        return self._finished(scores)

    def __call__(self, images: Images) -> Tensor:
        """`predict` as a float64 tensor on the CPU, the form that pytorch-ood's metrics take."""
        return torch.from_numpy(self.predict(images))

    # --- the second door: what one has already ----------------------------------------------------------------------

    def observe(self, images: Images, to_fit: bool = False) -> Evidence:
        """What this detector looks at, once, for as many fits and scores as one likes; see `observe` of the package.

        Args:
            images: as for ``predict``; with ``to_fit``, as for ``fit``.
            to_fit: for ``fit_from`` instead of ``predict_from``. With some detectors they look at different things.

        Raises:
            NotFittedError: the detector compares with reference images; ``fit_reference`` comes first.
        """
        needs = self.needs_to_fit() if to_fit else self.needs()
        return self._observed(images, needs, "images")

    def fit_reference(self, reference: Images) -> Self:
        """Learn from the reference images, labelled known ones, alone; ``fit`` does so by itself."""
        if not self.uses_reference:
            raise ValueError(f"{self._name} compares with no reference images")
        self._forget()
        self._reference_from(reference)
        return self

    def fit_from(self, known: Seen, challenging: Seen | None = None, labels: Any = None) -> Self:
        """``fit`` from what ``observe(images, to_fit=True)`` gives, or from tensors that one has.

        Args:
            known: of known images.
            challenging: of challenging ones, for supervised detectors.
            labels: of the known images (N,), where ``known`` does not have them already.

        >>> from tutorial_lib.detectors import Mahalanobis
        >>> h = torch.tensor([[0.0, 0.0], [0.2, 0.0], [0.0, 0.2], [0.2, 0.2]])
        >>> Mahalanobis().fit_from(h, labels=torch.zeros(4, dtype=int)).predict_from(h[:1] + 0.5).round(3)
        array([16.])
        """
        if challenging is not None:
            raise ValueError(f"{self._name} learns from known images alone; leave the challenging ones out of fit")
        if not self.requires_fit:
            return self
        seen = self._finite(self._as_evidence(known, self.needs_to_fit(), labels).known(), "known")
        self._fitted = False
        self._fit(seen)
        self._fitted, self._fitted_shape = True, seen.shape
        return self

    def predict_from(self, seen: Seen | None = None, /, **named: Tensor) -> NDArray[np.float64]:
        """``predict`` from what ``observe(images)`` gives, or from tensors by name: ``predict_from(logits=z)``."""
        self._check_fitted()
        evidence = self._as_evidence(named if seen is None else seen, self.needs())
        self._check_shape(evidence.shape)
        scores = []
        with guarded(self.model):
            for part in evidence.parts(self.batch_size):
                if IMAGES in part:
                    part.values[IMAGES] = as_input(self.model, part[IMAGES])
                scores.append(self._scored(part))
        return self._finished(scores)

    # --- scikit-learn -----------------------------------------------------------------------------------------------

    def set_params(self, **params: Any) -> Self:
        """Other settings, checked as in the constructor; what was fitted with the old ones is forgotten.

        >>> from tutorial_lib.detectors import KNN
        >>> KNN(k=3).set_params(k=5)
        KNN(k=5)
        """
        own = {name: value for name, value in params.items() if name in self.get_params(deep=False)}
        type(self)(**{**self.get_params(deep=False), **own})  # raises before anything has changed
        super().set_params(**params)
        if params:
            self.__init__(**self.get_params(deep=False))  # type: ignore[misc]  # settings may be handed on to parts
        return self

    def __sklearn_clone__(self) -> Self:
        """Unfitted, with the same settings and the same model; detectors among the settings are cloned, too."""
        return type(self)(**{name: _cloned(value) for name, value in self.get_params(deep=False).items()})

    def __sklearn_is_fitted__(self) -> bool:
        return self._fitted or not self.requires_fit

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        settings = {k: v for k, v in self.get_params(deep=False).items() if not isinstance(v, nn.Module)}
        return f"{self._name}({', '.join(f'{k}={v!r}' for k, v in settings.items())})"

    # --- inside -----------------------------------------------------------------------------------------------------

    def _scored(self, seen: Evidence) -> Tensor:
        scores = self._score(seen)
        if scores.shape != (len(seen),):
            raise ValueError(f"{self._name} gave scores of shape {tuple(scores.shape)} for {len(seen)} images")
        return scores.detach().to("cpu", torch.float64)

    def _finished(self, parts: Sequence[Tensor]) -> NDArray[np.float64]:
        scores = torch.cat(list(parts))
        bad = int((~scores.isfinite()).sum())
        if bad:
            raise ValueError(f"{self._name} has no finite score for {bad} of {len(scores)} images; are the logits?")
        return scores.numpy()

    def _reference_from(self, reference: Images) -> None:
        stream = batches(reference, "reference")
        first = next(stream)
        check_images(first.images, channels_of(self.model))
        with guarded(self.model):
            self._prepare_reference(as_input(self.model, first.images[:1]))
        reference = chain([first], stream)
        seen = self._observed(reference, self._reference_needs(), "reference").known()
        self._fit_reference(self._finite(seen, "reference"))

    def _observed(self, images: Images, needs: Sequence[Quantity], name: str) -> Evidence:
        return observed(self.model, images, needs, self.batch_size, name)

    def _finite(self, seen: Evidence, name: str) -> Evidence:
        """What it is to learn from, unless the network has made NaN of it."""
        for quantity, value in seen.values.items():
            if value.is_floating_point() and not value.isfinite().all():
                bad = (
                    int((~value.flatten(1).isfinite().all(1)).sum())
                    if value.ndim > 1
                    else int((~value.isfinite()).sum())
                )
                raise ValueError(
                    f"{quantity.name} of {bad} of {len(value)} {name} images are NaN or infinite, so {self._name} cannot learn "
                    "from them; are the model's weights?"
                )
        return seen

    def _forget(self) -> None:
        self._fitted, self._fitted_shape, self.challenging_names = False, None, ()

    def _check_fitted(self) -> None:
        if self.requires_fit and not self._fitted:
            raise NotFittedError(f"this {self._name} is not fitted; call fit{self._fit_signature} first")

    def _check_shape(self, shape: tuple[int, ...] | None) -> None:
        if shape is not None and self._fitted_shape is not None and shape != self._fitted_shape:
            raise ValueError(f"this {self._name} was fitted on images of {_by(self._fitted_shape)}, got {_by(shape)}")

    def _check_shapes(self, known: Images, **others: Any) -> None:
        """Refuse sets of another size before the network meets them, where they can be looked at without reading."""
        one = _first_images(known)
        if one is None:
            return
        check_images(one, channels_of(self.model))
        for name, images in others.items():
            other = _first_images(images)
            if other is not None and other.shape[1:] != one.shape[1:]:
                check_images(other)
                raise ValueError(f"known images are {_by(one.shape[1:])}, {name} ones {_by(other.shape[1:])}")

    def _as_evidence(self, seen: Seen, needs: tuple[Quantity, ...], labels: Any = None) -> Evidence:
        if isinstance(seen, Evidence):
            found, names, shape = seen.values, seen.names, seen.shape
            labels = seen.labels if labels is None else labels
        else:
            if isinstance(seen, Tensor):
                if len(needs) != 1:
                    raise ValueError(f"{self._name} looks at {_and(needs)}; give them by name")
                seen = {needs[0].name: seen}
            found = {q: seen[q.name] for q in needs if q.name in seen}
            unknown = set(seen) - {q.name for q in needs}
            if unknown:
                raise ValueError(f"{self._name} looks at {_and(needs)}, not at {', '.join(sorted(unknown))}")
            names, shape = ("unnamed",), None
        missing = [q for q in needs if q not in found]
        if missing:
            raise ValueError(
                f"{self._name} looks at {_and(needs)}; there is no {_and(missing)}: observe(images) has it"
            )
        values = {q: torch.as_tensor(found[q]) for q in needs}
        counts = {len(value) for value in values.values()}
        if len(counts) > 1:
            raise ValueError(f"{self._name} needs one row for each image of every quantity, got {sorted(counts)} rows")
        count = counts.pop() if counts else len(seen)
        if not count:
            raise ValueError(f"{self._name} was given no image at all")
        labels = None if labels is None else check_labels(labels, count)
        return Evidence(values, labels, names, shape, count)

    def _check_reference(self, reference: Images | None) -> None:
        if reference is not None and not self.uses_reference:
            raise ValueError(f"{self._name} compares with no reference images; leave them out of fit")

    @property
    def _name(self) -> str:
        return type(self).__name__

    @property
    def _fit_signature(self) -> str:
        return "(known, challenging)" if self.supervised else "(known)"


class SupervisedDetector(Detector):
    """Base class of detectors that learn from known and challenging images."""

    supervised = True
    requires_fit = True

    def fit(self, known: Images, challenging: Any = None, reference: Images | None = None) -> Self:
        """Learn to tell known images from challenging ones.

        Args:
            known: images that the network was not trained on, as in `Detector.fit`.
            challenging: images of the kind to be detected; several `ImageSet` in a list are taken together. May be left
                out if ``known`` has labels below 0, pytorch-ood's mark of unknown images.
            reference: for detectors that compare with known images (`uses_reference`): those images, with labels. The
                papers take the training set. Left out, half of ``known`` is set aside for it.

        Returns:
            the detector itself.
        """
        known, challenging = with_labels(known, challenging)
        self._check_reference(reference)
        if challenging is None or (self.uses_reference and reference is None):
            images, labels, _ = read_images(known, "known")
            if challenging is None:
                if labels is None or not bool((labels < 0).any()):
                    raise ValueError(f"{self._name} learns from challenging images, too: fit(known, challenging)")
                challenging = images[labels < 0]
            if labels is not None:
                images, labels = images[labels >= 0], labels[labels >= 0]
            known = _pair(images, labels)
            self._check_shapes(known, challenging=challenging, reference=reference)
            if self.uses_reference and reference is None:
                images, labels, base, base_labels = split(images, labels)
                known, reference = _pair(images, labels), _pair(base, base_labels)
        self._check_shapes(known, challenging=challenging, reference=reference)
        self._forget()
        if reference is not None:
            self._reference_from(reference)
        needs = self.needs_to_fit()
        return self.fit_from(self._observed(known, needs, "known"), self._observed(challenging, needs, "challenging"))

    def fit_from(self, known: Seen, challenging: Seen | None = None, labels: Any = None) -> Self:
        """``fit`` from what ``observe(images, to_fit=True)`` gives of known and of challenging images; see `Detector`."""
        seen = self._as_evidence(known, self.needs_to_fit(), labels)
        if challenging is None:
            if seen.labels is None or not bool((seen.labels < 0).any()):
                raise ValueError(f"{self._name} learns from challenging images, too: fit(known, challenging)")
            strange = seen.subset(seen.labels < 0)
        else:
            strange = self._as_evidence(challenging, self.needs_to_fit())
        self._fitted, self.challenging_names = False, ()
        self._fit_both(self._finite(seen.known(), "known"), self._finite(strange, "challenging"))
        self._fitted, self._fitted_shape, self.challenging_names = True, seen.shape, strange.names or ("unnamed",)
        return self

    @abstractmethod
    def _fit_both(self, known: Evidence, challenging: Evidence) -> None:
        """Learn from `needs_to_fit` of known and of challenging images."""


def checked(name: str, value: float, low: float = -math.inf, high: float = math.inf, above: bool = False) -> float:
    """A setting that is a number between ``low`` and ``high``, above ``low`` if told so; NaN is none."""
    if not low <= value <= high or (above and value == low) or math.isinf(value):
        if (low, high) == (0, math.inf):
            raise ValueError(f"{name} must {'be positive' if above else 'not be negative'} and finite, got {value}")
        raise ValueError(f"{name} must lie in {'(' if above else '['}{low:g}, {high:g}], got {value}")
    return value


def split(
    images: Tensor, labels: Tensor | None, share: float = 0.5
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Two parts of a set, drawn at random but always the same ones: images, labels, other images, other labels.

    The first part holds ``share`` of them.
    """
    one, other = split_indices(len(images), share)
    if labels is None:
        return images[one], None, images[other], None
    return images[one], labels[one], images[other], labels[other]


def split_indices(count: int, share: float = 0.5) -> tuple[Tensor, Tensor]:
    """Indices of the two parts of `split`."""
    first = round(share * count)
    if not 0 < first < count:
        raise ValueError(f"{count} images are too few to set some of them aside")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:first], order[first:]


def needed(labels: Tensor | None, detector: Detector) -> Tensor:
    """The labels, or an error that asks for them."""
    if labels is None:
        raise ValueError(f"{type(detector).__name__} learns one mean a class and needs labels: fit((images, labels))")
    return labels


def with_labels(known: Any, second: Any) -> tuple[Any, Any]:
    """(known, challenging); if the second is labels (N,) of the first, as in ``fit(X, y)``, they join it."""
    are_labels = is_whole_numbers(second) or (isinstance(second, np.ndarray | Tensor) and second.ndim == 1)
    if are_labels and isinstance(known, Tensor):
        return (known, check_labels(second, len(known), "known")), None
    return known, second


def _first_images(data: Any) -> Tensor | None:
    """Images that can be had without reading anything."""
    if isinstance(data, ImageSet):
        return data.images
    if isinstance(data, tuple | list) and data:
        return _first_images(data[0])
    return data if isinstance(data, Tensor) else None


def _pair(images: Tensor, labels: Tensor | None) -> Tensor | tuple[Tensor, Tensor]:
    return images if labels is None else (images, labels)


def _cloned(value: Any) -> Any:
    if isinstance(value, list | tuple) and any(isinstance(one, BaseEstimator) for one in value):
        return type(value)(_cloned(one) for one in value)
    return clone(value) if isinstance(value, BaseEstimator) else value


def _and(quantities: Sequence[Quantity]) -> str:
    return " and ".join(quantity.name for quantity in quantities)


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape)
