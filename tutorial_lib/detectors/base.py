"""The contract that every detector keeps, and the code that keeps it.

A detector says how strange an image looks to a classifier:

* ``fit(known)`` returns the detector itself; a supervised one learns from challenging images, too: ``fit(known,
challenging)``;
* ``predict(images)`` returns a float64 array (N,), **larger = stranger**, always, and one image's score does not depend
on its batch;
* calling a detector returns the same scores as a tensor, which is what pytorch-ood's metrics take;
* `Detector.challenging_data` says what unusual data it has learned from;
* the classifier comes back as it was: weights, ``.grad``, ``requires_grad``, mode, buffers, random state.

A new detector is a subclass with a ``_score`` and, if it learns anything, a ``_fit``. Everything else happens here,
once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from tutorial_lib.data.images import ImageSet, as_float, check_images
from tutorial_lib.models.predict import device_of, preserved

__all__ = ["CHALLENGING_DATA", "Detector", "Images", "NotFittedError", "SupervisedDetector"]

Images = Tensor | ImageSet | tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]
"""Images to learn from: a tensor (N, C, H, W), an `ImageSet`, a pair (images, labels), or a loader of such pairs."""

CHALLENGING_DATA = ("none", "other", "same")


class Detector(ABC):
    """Base class of all detectors; one that learns from known images at most.

    Args:
        model: classifier, images (N, C, H, W) in [0, 1] to logits (N, K).
    """

    supervised: ClassVar[bool] = False
    """Does ``fit`` need challenging images?"""

    requires_fit: ClassVar[bool] = False
    """Must ``fit`` come before ``predict``?"""

    from_training_images: ClassVar[bool] = False
    """May ``fit`` be given the network's own training images, as in the detector's paper?"""

    uses_reference: ClassVar[bool] = False
    """Does ``fit`` take a further set of labelled known images, the training images in the papers?"""

    batch_size: int = 256
    """Images that go through the model together. A matter of memory; the scores do not depend on it."""

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        self.model = model
        self.challenging_names: tuple[str, ...] = ()
        self._fitted_shape: tuple[int, ...] | None = None

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

    def fit(self, known: Images, challenging: None = None, reference: Images | None = None) -> Self:
        """Learn what known images look like; with detectors that learn nothing, do nothing.

        Args:
            known: images, with labels where the detector uses classes. Labels below 0 mark unknown images
                (pytorch-ood's convention) and are left out. The images should not be those that the network was trained
                on, unless the detector
                says otherwise: on those, it is surer than it will ever be again.
            challenging: must be left out. The argument is there to refuse it with a reason.
            reference: labelled training images, for detectors with `uses_reference`.

        Returns:
            the detector itself.
        """
        if challenging is not None:
            raise ValueError(f"{self._name} learns from known images alone; leave the challenging ones out of fit")
        self._check_reference(reference)
        if not self.requires_fit:
            return self
        images, labels = without_unknown(*read_images(known, "known")[:2])
        self._check(images)
        self._fitted_shape = None
        if reference is not None:
            base, base_labels = without_unknown(*read_images(reference, "reference")[:2])
            self._check_like(base, images, "reference")
            self._fit_reference(base, base_labels)
        self._fit(images, labels)
        self._fitted_shape = tuple(images.shape[1:])
        return self

    def predict(self, images: Tensor | ImageSet) -> NDArray[np.float64]:
        """How strange each image is: float64 (N,), larger = stranger, finite.

        Args:
            images: (N, C, H, W), ``uint8`` or float in [0, 1], on any device.

        Raises:
            TypeError, ValueError: see `tutorial_lib.data.check_images`.
            NotFittedError: ``fit`` has not been called.
        """
        if self.requires_fit and self._fitted_shape is None:
            raise NotFittedError(f"this {self._name} is not fitted; call fit{self._fit_signature} first")
        if isinstance(images, ImageSet):
            images = images.images
        self._check(images)
        if self._fitted_shape is not None and tuple(images.shape[1:]) != self._fitted_shape:
            raise ValueError(
                f"this {self._name} was fitted on images of {_by(self._fitted_shape)}, got {_by(images.shape[1:])}"
            )
        scores = self._in_batches(self._score, images).to(torch.float64)
        if scores.shape != (len(images),):
            raise ValueError(f"{self._name} gave scores of shape {tuple(scores.shape)} for {len(images)} images")
        bad = int((~scores.isfinite()).sum())
        if bad:
            raise ValueError(f"{self._name} has no finite score for {bad} of {len(images)} images; are the logits?")
        return scores.numpy()

    def __call__(self, images: Tensor | ImageSet) -> Tensor:
        """`predict` as a float64 tensor on the CPU, the form that pytorch-ood's metrics take."""
        return torch.from_numpy(self.predict(images))

    @abstractmethod
    def _score(self, images: Tensor) -> Tensor:
        """Scores (N,) of one batch: floating point, on the model's device. The model is guarded and gradients are
        off."""

    def _fit(self, images: Tensor, labels: Tensor | None) -> None:  # noqa: B027 (what learns nothing needs none)
        """Learn from known images (N, C, H, W), still as they came, and their labels (N,) >= 0 or None."""

    def _fit_reference(self, images: Tensor, labels: Tensor | None) -> None:  # noqa: B027 (few take a reference)
        """Learn from the reference images (N, C, H, W), as they came, and their labels; called before the other two."""

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Evaluation mode and no gradients inside the block, even in a caller's inference mode; then all as before."""
        with torch.inference_mode(False), preserved(self.model), torch.no_grad():
            yield

    def _as_input(self, images: Tensor) -> Tensor:
        """Images as the model takes them: floating point, on its device, a copy (gradients need one in inference
        mode).
        """
        return as_float(images, dtype_of(self.model)).to(device_of(self.model)).clone()

    def _in_batches(self, function: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """``function`` of all images, batch by batch, as one tensor on the CPU; the model is left as it was found."""
        with self._guarded():
            return torch.cat([function(self._as_input(part)).cpu() for part in images.split(self.batch_size)])

    def _check(self, images: Tensor) -> None:
        mean = getattr(getattr(self.model, "normalize", None), "mean", None)
        check_images(images, channels=mean.numel() if isinstance(mean, Tensor) else None)

    def _check_like(self, images: Tensor, known: Tensor, name: str) -> None:
        self._check(images)
        if images.shape[1:] != known.shape[1:]:
            raise ValueError(f"known images are {_by(known.shape[1:])}, {name} ones {_by(images.shape[1:])}")

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

    def fit(  # type: ignore[override]
        self, known: Images, challenging: Images | Sequence[ImageSet] | None = None, reference: Images | None = None
    ) -> Self:
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
        self._check_reference(reference)
        images, labels, _ = read_images(known, "known")
        if challenging is None:
            if labels is None or not bool((labels < 0).any()):
                raise ValueError(f"{self._name} learns from challenging images, too: fit(known, challenging)")
            challenging = images[labels < 0]
        strange, _, names = read_images(challenging, "challenging")
        images, labels = without_unknown(images, labels)
        self._check(images)
        self._check_like(strange, images, "challenging")
        if reference is not None:
            base, base_labels = without_unknown(*read_images(reference, "reference")[:2])
            self._check_like(base, images, "reference")
        elif self.uses_reference:
            images, labels, base, base_labels = split(images, labels)
        self._fitted_shape, self.challenging_names = None, ()
        if self.uses_reference:
            self._fit_reference(base, base_labels)
        self._fit_both(images, labels, strange)
        self._fitted_shape, self.challenging_names = tuple(images.shape[1:]), names
        return self

    @abstractmethod
    def _fit_both(self, images: Tensor, labels: Tensor | None, challenging: Tensor) -> None:
        """Learn from known images, their labels or None, and challenging images, all as they came."""


def without_unknown(images: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Images and labels without those whose label is below 0, pytorch-ood's mark of unknown images."""
    if labels is None:
        return images, None
    return images[labels >= 0], labels[labels >= 0]


def split(
    images: Tensor, labels: Tensor | None, share: float = 0.5
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
    """Two parts of a set, drawn at random but always the same ones: images, labels, other images, other labels.

    The first part holds ``share`` of them.
    """
    first = round(share * len(images))
    if not 0 < first < len(images):
        raise ValueError(f"{len(images)} images are too few to set some of them aside")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    one, other = order[:first], order[first:]
    if labels is None:
        return images[one], None, images[other], None
    return images[one], labels[one], images[other], labels[other]


def dtype_of(model: nn.Module) -> torch.dtype:
    """Floating point type of the model's first parameter; float32 for a model without any."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def penultimate(model: nn.Module, images: Tensor) -> Tensor:
    """Features (N, D) that the last linear layer sees."""
    if not hasattr(model, "features") or not callable(model.features):
        raise TypeError(
            f"{type(model).__name__} has no method features(images); "
            "wrap it in tutorial_lib.models.Classifier or give it one"
        )
    features = model.features(images)
    if features.ndim != 2:
        raise ValueError(f"features must have the shape (N, D), got {tuple(features.shape)}; pool and flatten them")
    return features


def last_layer(model: nn.Module) -> nn.Module:
    """The linear layer from features to logits."""
    if not isinstance(getattr(model, "head", None), nn.Module):
        raise TypeError(f"{type(model).__name__} has no last layer `head`; wrap it in tutorial_lib.models.Classifier")
    return model.head  # type: ignore[return-value]


def read_images(data: Any, name: str) -> tuple[Tensor, Tensor | None, tuple[str, ...]]:
    """Images, labels or None, and names of the sets, from anything that `Images` describes."""
    if isinstance(data, Tensor):
        return data, None, ("unnamed",)
    if isinstance(data, ImageSet):
        return data.images, data.labels, (data.name,)
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        images, labels = data
        if labels.is_floating_point() or labels.is_complex():
            raise TypeError(f"{name}: labels must be integers, got {labels.dtype}")
        if labels.shape != images.shape[:1]:
            raise ValueError(f"{name}: {len(images)} images, but labels of shape {tuple(labels.shape)}")
        return images, labels.cpu(), ("unnamed",)
    if isinstance(data, Iterable) and not isinstance(data, str | bytes | np.ndarray):
        parts = [read_images(tuple(part) if isinstance(part, list) else part, name) for part in data]
        if not parts:
            raise ValueError(f"{name} is empty")
        labels = [part[1] for part in parts if part[1] is not None]
        names = tuple(dict.fromkeys(n for part in parts for n in part[2]))
        one_type = len({part[0].dtype for part in parts}) == 1  # cat would read uint8's 255 as 255.0
        images = torch.cat([(part[0] if one_type else as_float(part[0])).cpu() for part in parts])
        return images, torch.cat(labels) if len(labels) == len(parts) else None, names
    raise TypeError(
        f"{name} must be images, an ImageSet, (images, labels) or a loader of such pairs, got {type(data).__name__}"
    )


def _by(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in shape)
