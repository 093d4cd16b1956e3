"""What every detector promises, checked for every detector, and that the checks can tell."""

import copy
import weakref

import numpy as np
import pytest
import torch
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import tutorial_lib.detectors as detectors
from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors import (
    KNN,
    MSP,
    Detector,
    Energy,
    GradientFusion,
    LogitsControl,
    Mahalanobis,
    MahalanobisEnsemble,
    MaxLogit,
    Purview,
    check_detector,
)
from tutorial_lib.detectors.check import CHECKS, Case
from tutorial_lib.detectors.evidence import LOGITS
from tutorial_lib.detectors.examples import examples
from tutorial_lib.metrics import auroc

EXAMPLES = examples()


@pytest.fixture(scope="module")
def cases():
    """Every detector fitted to the digits, each made once and not changed by the checks."""
    return {name: Case(make) for name, make in EXAMPLES.items()}


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("check", CHECKS)
def test_contract(check, name, cases):
    CHECKS[check](cases[name])


def test_every_detector_of_the_package_is_held_to_the_contract():
    public = {
        value
        for value in vars(detectors).values()
        if isinstance(value, type) and issubclass(value, Detector) and not value.__abstractmethods__
    }
    assert public == {type(make(nn.Flatten())) for make in EXAMPLES.values()}


# --- the checks can tell ----------------------------------------------------------------------------------------------


class OfTheBatch(MSP):
    def _score(self, seen):
        return super()._score(seen) - seen[LOGITS].mean()


class UpsideDown(MSP):
    def _score(self, seen):
        return -super()._score(seen)


class Coarse(MSP):
    def _score(self, seen):
        return super()._score(seen).round(decimals=1)


class Meddling(MSP):
    def _score(self, seen):
        next(self.model.parameters()).data.add_(1)
        return super()._score(seen)


class Listening(MSP):
    requires_fit = True

    def _fit(self, seen):
        self.noise = np.random.rand()  # noqa: NPY002

    def _score(self, seen):
        return super()._score(seen) + self.noise


class Forgetful(MSP):
    def __init__(self, model, strength=1.0):
        super().__init__(model)
        self.power = strength


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (OfTheBatch, "the batch does not matter"),
        (UpsideDown, "larger is stranger"),
        (Coarse, "scores are finite"),
        (Meddling, "the model is left as it was"),
        (Listening, "fitting again forgets"),
        (Forgetful, "it can be cloned"),
    ],
)
def test_a_broken_promise_is_named(broken, promise):
    with pytest.raises(AssertionError, match=promise):
        check_detector(broken, only=[promise])


def test_a_detector_of_ones_own_passes():
    """The whole of a new detector: what it looks at and its score."""

    class Margin(Detector):
        def needs(self):
            return (LOGITS,)

        def _score(self, seen):
            first, second = seen[LOGITS].double().topk(2, dim=1).values.unbind(1)
            return second - first

    check_detector(Margin, only=[name for name in CHECKS if name != "it can be pickled"])  # a class in a function


# --- what comes in ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [MSP, KNN, Purview])
def test_the_model_must_be_a_module(make):
    with pytest.raises(TypeError, match="torch.nn.Module"):
        make(lambda images: images)


def test_logits_that_are_not_finite_are_reported():
    class Broken(nn.Module):
        def forward(self, images):
            return images.flatten(1) / 0

    with pytest.raises(ValueError, match="no finite score for 2 of 2 images"):
        MSP(Broken()).predict(torch.zeros(2, 1, 1, 2))


@pytest.mark.parametrize("make", [MSP, Energy, MaxLogit, detectors.Entropy, detectors.ODIN])
def test_a_network_of_one_logit_is_refused(make):
    with pytest.raises(ValueError, match="one logit for each image"):
        make(nn.Sequential(nn.Flatten(), nn.Linear(4, 1))).predict(torch.rand(3, 1, 2, 2))


def test_known_images_come_in_any_form(model, known):
    """Tensor, set, pair, list, data set, loader, and pytorch-ood's loader with unknown images marked by a label < 0."""
    data = TensorDataset(known.float(), known.labels)
    extra = torch.rand(30, 1, 8, 8)
    marked = (torch.cat([known.float(), extra]), torch.cat([known.labels, torch.full((30,), -1)]))
    expected = KNN(model).fit(known).predict(extra)
    one_batch = next(iter(DataLoader(data, batch_size=len(data))))
    forms = (known.images, (known.images, known.labels), DataLoader(data, batch_size=50), data, one_batch, marked)
    for form in forms:
        np.testing.assert_allclose(KNN(model).fit(form).predict(extra), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_every_whole_kind(model, known, kind):
    expected = Mahalanobis(model).fit(known).predict(known)
    labels = known.labels.to(kind)
    for arguments in (((known.images, labels),), (known.images, labels), (known.images, labels.numpy())):
        np.testing.assert_array_equal(Mahalanobis(model).fit(*arguments).predict(known), expected)


def test_boolean_labels_are_two_classes(model, known):
    even = known.labels % 2 == 0
    expected = Mahalanobis(model).fit((known.images, even.long())).predict(known)
    np.testing.assert_array_equal(Mahalanobis(model).fit((known.images, even)).predict(known), expected)


def test_fit_x_y_with_marks_is_supervised(model, known, strange):
    images = torch.cat([known.images, strange[0].images])
    labels = torch.cat([known.labels, torch.full((len(strange[0]),), -1)])
    expected = LogitsControl(model).fit(known, strange[0])
    for arguments in ((images, labels), ((images, labels),)):
        detector = LogitsControl(model).fit(*arguments)
        np.testing.assert_array_equal(detector.predict(strange[1]), expected.predict(strange[1]))
        assert detector.challenging_data_for("anything") == "same"  # nobody said what they were
    with pytest.raises(ValueError, match="learns from challenging images, too"):
        LogitsControl(model).fit(known.images, known.labels)


def test_several_challenging_sets_are_taken_together(model, known, strange, study):
    detector = LogitsControl(model).fit(known, [strange[0], study.shift("noise")])
    assert detector.challenging_names == ("photographs", "noise")
    assert detector.challenging_data_for("noise") == "same"
    assert detector.challenging_data_for("rotated") == "other"


def test_mixed_uint8_and_float_batches_mean_the_same_images(model, known):
    half = len(known) // 2
    mixed = [(known.images[:half], known.labels[:half]), (known.float()[half:], known.labels[half:])]
    expected = KNN(model).fit(known).predict(known)
    np.testing.assert_allclose(KNN(model).fit(mixed).predict(known), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        ("digits", TypeError, "ImageSet"),
        ([], ValueError, "known is empty"),
        ((torch.rand(4, 1, 8, 8), torch.zeros(3, dtype=torch.int64)), ValueError, "4 images, but labels"),
        ((torch.rand(4, 1, 8, 8), torch.zeros(4)), TypeError, "integers"),
        (None, TypeError, "NoneType"),
    ],
)
def test_what_is_no_data_is_refused(model, data, error, says):
    with pytest.raises(error, match=says):
        KNN(model).fit(data)


def test_challenging_images_of_another_shape_are_refused(model, known):
    with pytest.raises(ValueError, match="known images are 1x8x8, challenging ones 1x9x9"):
        LogitsControl(model).fit(known, torch.rand(10, 1, 9, 9))


def test_the_reference_is_used_or_refused(model, study, known, strange):
    with pytest.raises(ValueError, match="Purview compares with no reference"):
        Purview(model).fit(known, strange[0], study.train)
    with pytest.raises(ValueError, match="KNN compares with no reference"):
        KNN(model).fit(known, reference=study.train)
    with pytest.raises(ValueError, match="known images are 1x8x8, reference ones 1x4x4"):
        GradientFusion(model).fit(known, reference=torch.rand(50, 1, 4, 4))
    with pytest.raises(ValueError, match="Purview compares with no reference"):
        Purview(model).fit_reference(known)
    detector = MahalanobisEnsemble(model).fit(known, strange[0], study.train)
    expected = torch.stack([model.features(study.train.float())[study.train.labels == c].mean(0) for c in range(8)])
    torch.testing.assert_close(detector._gaussians[-1].means, expected.double(), rtol=1e-4, atol=1e-5)
    assert isinstance(study.train, ImageSet)


# --- size -------------------------------------------------------------------------------------------------------------


class Alive:
    """A loader that makes its batches as it goes, and counts how many of them are alive at once."""

    def __init__(self, count=40, size=16):
        self.count, self.size, self.most, self.made = count, size, 0, []

    def __iter__(self):
        generator = np.random.default_rng(0)
        for i in range(self.count):
            pixels = generator.random((self.size, 1, 8, 8), dtype=np.float32)
            self.made.append(weakref.ref(pixels))  # any view of the tensor keeps it alive
            self.most = max(self.most, sum(ref() is not None for ref in self.made))
            yield torch.from_numpy(pixels), torch.arange(i, i + self.size) % 3
            del pixels


@pytest.mark.parametrize("name", ["Energy", "KNN", "Mahalanobis", "GradientDensity", "ActivationFusion", "Purview"])
def test_a_loader_is_read_as_one_goes(name, grey_network):
    """Neither ``fit`` nor ``predict`` keeps images: three batches at most are alive, of forty."""
    detector, read = EXAMPLES[name](grey_network), Alive()
    detector.fit(read, Alive()) if detector.supervised else detector.fit(read)
    if detector.requires_fit:
        assert 1 <= read.most <= 3
    read = Alive()
    assert len(detector.predict(read)) == 640 and read.most <= 3


def test_four_scores_of_the_logits_take_one_pass(model, study):
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    asked = [MSP(model), Energy(model), MaxLogit(model), detectors.Entropy(model)]
    seen = detectors.observe(model, study.test, *asked, batch_size=1000)
    scores = [detector.predict_from(seen) for detector in asked]
    handle.remove()
    assert len(passes) == 1
    for detector, score in zip(asked, scores, strict=True):
        np.testing.assert_allclose(detector.predict(study.test), score, rtol=1e-5)


def test_a_fusion_takes_one_pass(model, known):
    """Activations, logits and features of one forward pass; the layers are found out before, once."""
    detectors.ActivationDensity(model).fit(known)
    passes = []
    handle = model.register_forward_hook(lambda *_: passes.append(1))
    detectors.ActivationFusion(model, k=5).fit(known)
    handle.remove()
    assert len(passes) == 1 + (len(known) > 256)


# --- scikit-learn -----------------------------------------------------------------------------------------------------


def test_settings_can_be_searched(model, known, strange):
    """scikit-learn's grid search over ours: clones, ``set_params``, ``fit(X, y)``."""

    class OnArrays(KNN):
        """scikit-learn cuts arrays, not tensors."""

        def fit(self, known, challenging=None, reference=None):
            return super().fit(torch.from_numpy(known[challenging == 0]))

    def quality(detector, x, y):
        scores = detector.predict(torch.from_numpy(x))
        return auroc(scores[y == 0], scores[y == 1])

    images = torch.cat([known.images, strange[0].images]).numpy()
    unknown = np.repeat([0, 1], [len(known), len(strange[0])])
    halves = StratifiedKFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(OnArrays(model), {"k": [1, 5]}, scoring=quality, cv=halves, error_score="raise")
    search.fit(images, unknown)
    assert search.best_params_["k"] in (1, 5) and search.best_estimator_.model is model


def test_combination_and_tuned_copy_what_they_are_given(model, known, strange):
    mine = KNN(model, k=3).fit(known.subset(range(50)))
    before = mine.predict(strange[1])
    whole = detectors.Combination([mine, MSP(model)]).fit(known)
    tuned = detectors.Tuned([mine, KNN(model, k=7)]).fit(known, strange[0])
    np.testing.assert_array_equal(mine.predict(strange[1]), before)
    assert whole.detectors[0] is tuned.candidates[0] is mine
    assert all(part is not mine for part in (whole.detectors_[0], tuned.chosen))


@pytest.mark.parametrize("name", ["LID", "MahalanobisEnsemble (FE)", "MahalanobisEnsemble (P+FE)", "Tuned ODIN"])
def test_observing_before_the_reference_is_refused(name, model, known):
    with pytest.raises(detectors.NotFittedError):
        EXAMPLES[name](model).observe(known)


def test_two_threads_may_ask_one_ensemble(model, known, strange):
    import threading

    detector = MahalanobisEnsemble(model, epsilon=0.002).fit(known, strange[0])
    expected, found = detector.predict(strange[1]), []
    threads = [threading.Thread(target=lambda: found.append(detector.predict(strange[1]))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    for scores in found:
        np.testing.assert_array_equal(scores, expected)


def test_a_detector_without_a_model_says_so():
    for ask in (Energy().predict, KNN().fit, copy.deepcopy(MSP()).predict):
        with pytest.raises(TypeError, match="no model to look at images with"):
            ask(torch.rand(20, 1, 2, 2))


def test_the_second_door_says_what_is_missing():
    logits = torch.randn(4, 3)
    np.testing.assert_array_equal(MSP().predict_from(logits), MSP().predict_from({"logits": logits}))
    with pytest.raises(ValueError, match="GradNorm looks at features and logits; give them by name"):
        detectors.GradNorm().predict_from(logits)
    with pytest.raises(ValueError, match="there is no features"):
        detectors.GradNorm().predict_from(logits=logits)
    with pytest.raises(ValueError, match="looks at logits, not at features"):
        Energy().predict_from(logits=logits, features=logits)
    with pytest.raises(ValueError, match=r"got \[3, 4\] rows"):
        detectors.GradNorm().predict_from(logits=logits, features=logits[:3])
