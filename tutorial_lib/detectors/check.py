"""Is this a detector? The whole contract, for detectors of the library and for anybody's own.

>>> from tutorial_lib.detectors import Energy
>>> check_detector(Energy, only=["scores are finite"])

As scikit-learn does for estimators: `CHECKS` is the list, `check_detector` runs it, and a class says in its ``tags`` which
promises cannot be asked of it:

================  =====================================================================================================
``weak``          says little about the strangers here; which way it points is shown elsewhere
``weak fitted``   the same for one that had to be fitted
``no sign``       which way it points depends on network and data, and it says so
``simple``        takes simple images for known ones; it meets noise instead of smooth patches of photographs
``any channels``  knows no model that could be offended by the number of channels
================  =====================================================================================================
"""

from __future__ import annotations

import copy
import functools
import math
import pickle
import random
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import clone
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tutorial_lib.detectors.base import Detector, NotFittedError
from tutorial_lib.metrics import auroc

__all__ = ["CHECKS", "Case", "check_detector"]

Make = Callable[[nn.Module], Detector]
"""From a classifier to an unfitted detector."""


class Case:
    """A detector to be checked, on the digits, and what is fitted once for all checks.

    Args:
        make: from a classifier, images (N, C, 8 to 16, 8 to 16) to logits, to an unfitted detector.
    """

    def __init__(self, make: Make) -> None:
        self.make = make
        self.digits = _digits()

    def new(self, network: nn.Module | None = None) -> Detector:
        """An unfitted one, on the digits' classifier if no other is given."""
        return self.make(self.digits.model if network is None else network)

    def fit(self, detector: Detector, known: Any, challenging: Any) -> Detector:
        return detector.fit(known, challenging) if detector.supervised else detector.fit(known)

    @cached_property
    def fitted(self) -> Detector:
        """Fitted to the digits, and not changed by any check."""
        return self.fit(self.new(), self.digits.known, self.digits.strange)

    def has(self, tag: str) -> bool:
        return tag in self.fitted.tags


class _Digits:
    def __init__(self) -> None:
        from tutorial_lib.studies import load_study

        study = load_study("digits")
        self.model: nn.Module = study.classifier()
        self.known, self.test = study.validation, study.test
        photographs = study.shift("photographs")  # neighbouring patches look alike
        self.strange = photographs.subset(range(0, 400, 2))
        self.unmet = photographs.subset(range(1, 400, 2))
        self.noise = study.shift("noise")
        self.few = self.unmet.images[:20]


@functools.cache
def _digits() -> _Digits:
    return _Digits()


def check_detector(make: Make, only: Iterable[str] | None = None) -> None:
    """Hold a detector to the contract, on a small network of handwritten digits; a few seconds.

    Args:
        make: from a classifier to an unfitted detector: the class itself, a ``functools.partial`` of it, a function.
        only: names of the checks to run, see `CHECKS`; all, if left out.

    Raises:
        AssertionError: a promise is broken; the message begins with its name.
    """
    case = Case(make)
    for name in CHECKS if only is None else only:
        try:
            CHECKS[name](case)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error


# --- scores -----------------------------------------------------------------------------------------------------------


def scores_are_finite(case: Case) -> None:
    """float64 (N,), finite, with few ties: ties hide what is stranger."""
    scores = case.fitted.predict(case.digits.unmet.images)
    assert type(scores) is np.ndarray and scores.dtype == np.float64, f"{type(scores)}, {scores.dtype}"
    assert scores.shape == (len(case.digits.unmet),), scores.shape
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 0.9 * len(scores), f"{len(np.unique(scores))} values for {len(scores)} images"


def larger_is_stranger(case: Case) -> None:
    """Known digits score lower than strangers, on the whole. The bound is low: networks differ between machines."""
    detector, digits = case.fitted, case.digits
    if case.has("no sign") or case.has("weak") or (case.has("weak fitted") and detector.requires_fit):
        return
    met = digits.noise if case.has("simple") else digits.unmet
    value = auroc(detector.predict(digits.test), detector.predict(met))
    assert value > 0.6, f"AUROC {value:.3f}"


def the_batch_does_not_matter(case: Case) -> None:
    """In any order, company and batch size an image has the same score."""
    detector = copy.copy(case.fitted)
    images = torch.cat([case.digits.test.images[:40], case.digits.unmet.images[:40]])
    together = detector.predict(images)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    tolerance = {"rtol": 1e-4, "atol": 1e-4 * together.std()}  # float32 sums in another order
    np.testing.assert_allclose(detector.predict(images[order]), together[order], **tolerance)
    np.testing.assert_allclose(detector.predict(images[7:8]), together[7:8], **tolerance)
    detector.batch_size = 11
    np.testing.assert_allclose(detector.predict(images), together, **tolerance)


def uint8_and_float_agree(case: Case) -> None:
    """The same images as numbers of either kind, and as an `ImageSet`."""
    detector, images = case.fitted, case.digits.few
    expected = detector.predict(images)
    np.testing.assert_array_equal(detector.predict(images.float() / 255), expected)
    np.testing.assert_array_equal(detector.predict(case.digits.unmet.subset(range(20))), expected)


def gradient_modes_do_not_matter(case: Case) -> None:
    """Under ``no_grad``, ``inference_mode`` and with images that want gradients, the same scores."""
    detector, images = case.fitted, case.digits.few
    expected = detector.predict(images)
    with torch.no_grad():
        np.testing.assert_array_equal(detector.predict(images), expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(detector.predict(images.float() / 255), expected)
    np.testing.assert_array_equal(detector.predict((images.float() / 255).requires_grad_()), expected)


# --- fitting ----------------------------------------------------------------------------------------------------------


def fitting_again_forgets(case: Case) -> None:
    """Fitted to other images and then to the same, whatever the global random states, it is the same detector."""
    detector, digits = case.new(), case.digits
    assert case.fit(detector, digits.known.subset(range(0, len(digits.known), 2)), digits.unmet) is detector
    states = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002 (what a detector must not listen to)
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002
    try:
        case.fit(detector, digits.known, digits.strange)
        scores = detector(digits.few)
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
    assert scores.dtype == torch.float64
    np.testing.assert_array_equal(scores.numpy(), case.fitted.predict(digits.few))


def unfitted_is_said(case: Case) -> None:
    """``predict`` and ``predict_from`` before ``fit``: `NotFittedError`, or scores if nothing has to be fitted."""
    detector, images = case.new(), case.digits.few[:4]
    if not detector.requires_fit:
        assert detector.predict(images).shape == (4,)
        return
    for ask in (detector.predict, lambda images: detector.predict_from(logits=images.flatten(1).float())):
        try:
            ask(images)
        except NotFittedError as error:
            assert "not fitted; call fit(known" in str(error), error
        else:
            raise AssertionError("scores without a fit")


def bad_images_leave_it_unfitted(case: Case) -> None:
    """Images in 0 to 255 as floats are refused by ``fit``, which leaves nothing behind."""
    detector, digits = case.new(), case.digits
    if not detector.requires_fit:
        return
    case.fit(detector, digits.known, digits.strange)
    _refused(
        ValueError, "[0, 1]", case.fit, detector, (digits.known.images.float(), digits.known.labels), digits.strange
    )


def challenging_data_are_declared(case: Case) -> None:
    """``challenging_data`` before and after; challenging images are asked for or refused."""
    detector, digits = case.new(), case.digits
    assert detector.challenging_data == "none"
    if detector.supervised:
        _refused(ValueError, "challenging", detector.fit, digits.known)
        seen = [case.fitted.challenging_data_for(name) for name in ("photographs", "noise")]
        assert (case.fitted.challenging_data, *seen) == ("same", "same", "other"), seen
    else:
        _refused(ValueError, "known images alone", detector.fit, digits.known, digits.strange)
        assert case.fitted.challenging_data == case.fitted.challenging_data_for("photographs") == "none"


def other_sizes_are_refused(case: Case) -> None:
    """Fitted to 8x8, it does not score 12x12."""
    if case.fitted.requires_fit:
        says = "fitted on images of 1x8x8, got 1x12x12"
        _refused(ValueError, says, case.fitted.predict, torch.rand(2, 1, 12, 12))


def what_is_no_image_is_refused(case: Case) -> None:
    """Shapes, ranges, types: one error that names what is wrong."""
    predict = case.fitted.predict
    _refused(ValueError, "(N, C, H, W)", predict, torch.rand(1, 8, 8))
    _refused(ValueError, "empty", predict, torch.rand(0, 1, 8, 8))
    _refused(ValueError, "[0, 1]", predict, torch.rand(2, 1, 8, 8) * 255)
    _refused(ValueError, "NaN", predict, torch.full((2, 1, 8, 8), math.nan))
    _refused(TypeError, "uint8", predict, torch.zeros(2, 1, 8, 8, dtype=torch.int64))
    _refused(TypeError, "torch.Tensor", predict, np.zeros((2, 1, 8, 8)))
    if not case.has("any channels"):
        _refused(ValueError, "", predict, torch.rand(2, 3, 8, 8))


# --- doors ------------------------------------------------------------------------------------------------------------


def both_doors_agree(case: Case) -> None:
    """``fit_from`` and ``predict_from`` of what was observed are ``fit`` and ``predict``."""
    digits, detector = case.digits, case.fitted
    seen = detector.observe(digits.few)
    np.testing.assert_allclose(detector.predict_from(seen), detector.predict(digits.few), rtol=1e-6, atol=1e-9)
    if not detector.requires_fit or detector.uses_reference:
        return
    again = case.new()
    known, strange = again.observe(digits.known, to_fit=True), again.observe(digits.strange, to_fit=True)
    again.fit_from(known, strange) if again.supervised else again.fit_from(known)
    np.testing.assert_array_equal(again.predict(digits.few), detector.predict(digits.few))


def loaders_are_read(case: Case) -> None:
    """A loader, a torch data set and a batch as a loader gives it are the images that are in them."""
    digits, detector = case.digits, case.fitted
    labels = torch.zeros(len(digits.few), dtype=torch.uint8)
    data = TensorDataset(digits.few, labels)
    expected = detector.predict(digits.few)
    tolerance = {"rtol": 1e-4, "atol": 1e-4 * expected.std()}
    for form in (DataLoader(data, batch_size=7), data, next(iter(DataLoader(data, batch_size=20)))):
        np.testing.assert_allclose(detector.predict(form), expected, **tolerance)


# --- the model --------------------------------------------------------------------------------------------------------


def _numpy_state() -> NDArray[np.uint32]:
    """The words of NumPy's global generator."""
    state = np.random.get_state(legacy=False)  # noqa: NPY002 (a detector must not move it)
    assert isinstance(state, dict)
    return state["state"]["key"].copy()


def the_model_is_left_as_it_was(case: Case) -> None:
    """Weights, ``.grad``, ``requires_grad``, modes, buffers, hooks and random states, on a network in colour in training
    mode; the images as well."""
    network = _colour_network()
    network.train()
    network.head.eval()  # type: ignore[operator, union-attr]
    for i, parameter in enumerate(network.parameters()):
        parameter.requires_grad_(i % 2 == 0)
        parameter.grad = torch.full_like(parameter, 0.25) if i % 3 == 0 else None
    grads = [parameter.grad for parameter in network.parameters()]
    before = copy.deepcopy(network)
    states = torch.get_rng_state(), _numpy_state(), random.getstate()

    detector, images = _small_case(case, network, (3, 16, 16))
    original = images.clone()
    assert np.isfinite(detector.predict(images)).all()
    blank = torch.stack([torch.zeros(3, 16, 16), torch.ones(3, 16, 16)])
    assert np.isfinite(detector.predict(blank)).all()

    assert torch.equal(images, original), "the images were changed"
    for here, there in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(here, there), "weights were changed"
        assert here.requires_grad == there.requires_grad, "requires_grad was changed"
    for parameter, grad in zip(network.parameters(), grads, strict=True):
        assert parameter.grad is grad, "gradients were left behind"
        assert grad is None or bool((grad == 0.25).all()), "gradients were changed"
    for now, then in zip(network.buffers(), before.buffers(), strict=True):
        assert torch.equal(now, then), "buffers were changed"
    assert [m.training for m in network.modules()] == [m.training for m in before.modules()], "modes were changed"
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in network.modules()), "hooks"
    assert torch.equal(states[0], torch.get_rng_state()), "torch's random state was changed"
    assert (states[1] == _numpy_state()).all(), "NumPy's random state was changed"
    assert states[2] == random.getstate(), "Python's random state was changed"


# --- as an estimator --------------------------------------------------------------------------------------------------


def it_can_be_pickled(case: Case) -> None:
    """A fitted one comes back with the same scores."""
    copied = pickle.loads(pickle.dumps(case.fitted))
    np.testing.assert_array_equal(copied.predict(case.digits.few), case.fitted.predict(case.digits.few))


def it_can_be_cloned(case: Case) -> None:
    """``get_params`` gives every setting back, ``sklearn.base.clone`` an unfitted detector of the same model."""
    settings, copied = case.fitted.get_params(deep=False), clone(case.fitted)
    assert copied is not case.fitted and copied.get_params(deep=False).keys() == settings.keys()
    for name, value in settings.items():
        if isinstance(value, nn.Module | int | float | str | None):
            assert getattr(copied, name) is value or getattr(copied, name) == value, name
    if not copied.requires_fit:
        return
    _refused(NotFittedError, "", copied.predict, case.digits.few)
    case.fit(copied, case.digits.known, case.digits.strange)
    np.testing.assert_array_equal(copied.predict(case.digits.few), case.fitted.predict(case.digits.few))


def settings_that_are_no_numbers_are_refused(case: Case) -> None:
    """NaN for any setting that is a number, in the constructor and by ``set_params``, which then changes nothing."""
    settings = case.fitted.get_params(deep=False)
    for name, value in settings.items():
        if type(value) in (int, float) and name != "seed" and "size" not in name and "batch" not in name:
            _refused(ValueError, "", type(case.fitted), **{**settings, name: math.nan})
            copied = clone(case.fitted)
            _refused(ValueError, "", copied.set_params, **{name: math.nan})
            assert getattr(copied, name) == value, f"{name} was changed"


CHECKS: dict[str, Callable[[Case], None]] = {
    check.__name__.replace("_", " "): check
    for check in (
        scores_are_finite,
        larger_is_stranger,
        the_batch_does_not_matter,
        uint8_and_float_agree,
        gradient_modes_do_not_matter,
        fitting_again_forgets,
        unfitted_is_said,
        bad_images_leave_it_unfitted,
        challenging_data_are_declared,
        other_sizes_are_refused,
        what_is_no_image_is_refused,
        both_doors_agree,
        loaders_are_read,
        the_model_is_left_as_it_was,
        it_can_be_pickled,
        it_can_be_cloned,
        settings_that_are_no_numbers_are_refused,
    )
}
"""Every promise by name."""


def _refused(error: type[Exception], says: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    try:
        call(*arguments, **named)
    except error as raised:
        assert says in str(raised), f"the error should say {says!r}, it says {str(raised)!r}"
    else:
        raise AssertionError(f"{call} takes {named or arguments} without a word; {error.__name__} expected")


def _small_case(case: Case, network: nn.Module, shape: tuple[int, int, int]) -> tuple[Detector, torch.Tensor]:
    """Fitted to random images, and these."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(120, *shape, generator=generator)
    images[:, :, :4] *= torch.rand(120, 1, 1, 1, generator=generator)  # some structure, so that features differ
    return case.fit(case.new(network), (images, torch.arange(120) % 3), 1 - images[:60] / 4), images


def _colour_network() -> nn.Module:
    """Convolutions, batch normalisation, shortcuts; its statistics are not the initial ones."""
    from tutorial_lib.models import Classifier, Normalize
    from tutorial_lib.models.resnet import cifar_resnet_backbone

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(Normalize([0.5] * 3, [0.25] * 3), cifar_resnet_backbone(3, 8), 64, 3).train()
        with torch.no_grad():
            network(torch.rand(64, 3, 16, 16))
    return network
