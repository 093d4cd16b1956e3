"""What every detector promises, checked for every detector.

A new detector goes into ``DETECTORS`` and is then held to all of it.
"""

import copy
import functools
import pickle
import random
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import tutorial_lib.detectors as detectors
from tutorial_lib.data.images import ImageSet
from tutorial_lib.detectors import (
    KNN,
    LID,
    MSP,
    ODIN,
    SVDD,
    ActivationNormsControl,
    Brightness,
    Combination,
    Complexity,
    DeepSVDD,
    Detector,
    Energy,
    Entropy,
    GradCON,
    GradientAlignment,
    GradientDensity,
    GradientFusion,
    GradientSum,
    GradNorm,
    LatentLoss,
    LogitsControl,
    Mahalanobis,
    MahalanobisEnsemble,
    MaxLogit,
    NotFittedError,
    OneClassSVM,
    PenultimateControl,
    Purview,
    ReconstructionError,
    RelativeMahalanobis,
    Tuned,
)
from tutorial_lib.gradcon import AutoencoderConfig, GradientConstraint, build_autoencoder, train_autoencoder
from tutorial_lib.metrics import auroc
from tutorial_lib.studies import load_study


@functools.cache
def autoencoder(kind, channels):
    """A small one and its constraint: trained on digits if grey, with its initial weights if in colour."""
    shape = (channels, 8, 8) if channels == 1 else (channels, 16, 16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_autoencoder(kind, shape, width=0.25)
    constraint = GradientConstraint(model)
    if channels == 1:
        train_autoencoder(model, load_study("digits").train, constraint, AutoencoderConfig(20), progress=False)
    else:
        constraint.update([torch.ones_like(mean) for mean in constraint.mean.values()])
    return model.eval(), constraint


def on_autoencoder(detector, kind="cae", constrained=False):
    """Detectors that look at an autoencoder get one for images like the classifier's."""

    def make(classifier):
        channels = classifier.normalize.mean.numel() if hasattr(classifier, "normalize") else 1
        model, constraint = autoencoder(kind, channels)
        return detector(model, constraint) if constrained else detector(model)

    return make


DETECTORS = {
    "msp": MSP,
    "entropy": Entropy,
    "max_logit": MaxLogit,
    "energy": Energy,
    "odin": ODIN,
    "knn": partial(KNN, k=5),
    "mahalanobis": Mahalanobis,
    "mahalanobis_p": partial(Mahalanobis, epsilon=0.002),
    "relative_mahalanobis": RelativeMahalanobis,
    "gradnorm": GradNorm,
    "gradient_sum_large": partial(GradientSum, direction="large"),
    "gradient_sum_small": partial(GradientSum, direction="small"),
    "gradient_density": GradientDensity,
    "gradient_density_ones": partial(GradientDensity, label="ones", loss="bce", by_class=False),
    "gradient_fusion": partial(GradientFusion, k=5),
    "combination": lambda model: Combination([MSP(model), KNN(model, k=3)]),
    "mahalanobis_fe": MahalanobisEnsemble,
    "mahalanobis_p_fe": partial(MahalanobisEnsemble, epsilon=0.002),
    "lid": partial(LID, k=10, reference_size=60),
    "purview": Purview,
    "purview_logistic": lambda model: Purview(model, LogisticRegression()),
    "logits_control": LogitsControl,
    "penultimate_control": PenultimateControl,
    "activation_norms_control": ActivationNormsControl,
    "tuned_odin": lambda model: Tuned([ODIN(model, 1000.0, e) for e in (0.0, 0.01)]),
    "tuned_mahalanobis": lambda model: Tuned([Mahalanobis(model, epsilon=e) for e in (0.0, 0.01)]),
    "reconstruction_error": on_autoencoder(ReconstructionError),
    "latent_loss": on_autoencoder(LatentLoss, "vae"),
    "gradient_alignment": on_autoencoder(GradientAlignment, constrained=True),
    "gradient_alignment_fitted": on_autoencoder(GradientAlignment),
    "gradcon": on_autoencoder(GradCON, constrained=True),
    "gradcon_vae": on_autoencoder(GradCON, "vae", constrained=True),
    "ocsvm": lambda model: OneClassSVM(),
    "ocsvm_features": OneClassSVM,
    "svdd": lambda model: SVDD(),
    "deep_svdd": lambda model: DeepSVDD(widths=(8,), size=8, epochs=5),
    "brightness": lambda model: Brightness(),
    "complexity": lambda model: Complexity(),
    "tuned_mahalanobis_fe": lambda model: Tuned([MahalanobisEnsemble(model, epsilon=e) for e in (0.0, 0.01)]),
}
every_detector = pytest.mark.parametrize("name", DETECTORS)
WRONG_WAY = {"gradient_sum_large"}  # on these images; its reason to be is to show that
# their sign is that of a closed form; that these strangers fool so small a model is another matter
SAYS_LITTLE = {"latent_loss", "gradient_alignment_fitted"}
# smooth patches of photographs are simple: easily reconstructed, and near the middle of all images
MEET_NOISE = {
    "reconstruction_error",
    "gradient_alignment",
    "gradcon",
    "gradcon_vae",
    "ocsvm",
    "svdd",
    "brightness",
    "complexity",
}


def fitted(name, model, known, challenging):
    detector = DETECTORS[name](model)
    return detector.fit(known, challenging) if detector.supervised else detector.fit(known)


@pytest.fixture(scope="session")
def on_digits(model, known, strange):
    """Every detector fitted on the digits, each made once and not changed by the tests."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = fitted(name, model, known, strange[0])
        return made[name]

    return get


def random_images(shape, n=160):
    generator = torch.Generator().manual_seed(1)
    known = torch.rand(n, *shape, generator=generator)
    known[:, :, :4] *= torch.rand(n, 1, 1, 1, generator=generator)  # some structure, so that features differ
    return known, torch.arange(n) % 3


def small_case(name, network, shape):
    images, labels = random_images(shape)
    return fitted(name, network, (images, labels), 1 - images[:80] / 4), images


@every_detector
def test_scores_are_finite_float64_one_an_image(name, on_digits, strange):
    scores = on_digits(name).predict(strange[1].images)
    assert type(scores) is np.ndarray
    assert scores.dtype == np.float64
    assert scores.shape == (len(strange[1]),)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 0.9 * len(scores)  # ties hide what is stranger


@every_detector
def test_larger_is_stranger(name, on_digits, study, strange):
    detector = on_digits(name)
    met = study.shift("noise") if name in MEET_NOISE else strange[1]
    value = auroc(detector.predict(study.test.images), detector.predict(met.images))
    if name in WRONG_WAY:
        assert value < 0.2
    elif name not in SAYS_LITTLE:
        assert value > 0.75


@every_detector
def test_a_score_does_not_depend_on_the_batch(name, on_digits, study, strange):
    detector = copy.copy(on_digits(name))
    images = torch.cat([study.test.images[:40], strange[1].images[:40]])
    together = detector.predict(images)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    tolerance = {"rtol": 1e-4, "atol": 1e-4 * together.std()}  # float32 sums in another order
    np.testing.assert_allclose(detector.predict(images[order]), together[order], **tolerance)
    np.testing.assert_allclose(detector.predict(images[7:8]), together[7:8], **tolerance)
    detector.batch_size = 11
    np.testing.assert_allclose(detector.predict(images), together, **tolerance)


@every_detector
def test_the_same_seed_gives_the_same_scores(name, model, known, strange, on_digits):
    torch.manual_seed(123)
    np.random.seed(123)  # noqa: NPY002 (what a detector must not listen to)
    again = fitted(name, model, known, strange[0])
    np.testing.assert_array_equal(again.predict(strange[1].images), on_digits(name).predict(strange[1].images))


@every_detector
def test_the_model_is_left_as_it_was(name, colour_network):
    network = copy.deepcopy(colour_network)
    network.train()
    network.head.eval()
    for i, parameter in enumerate(network.parameters()):
        parameter.requires_grad_(i % 2 == 0)
        parameter.grad = torch.full_like(parameter, 0.25) if i % 3 == 0 else None
    grads = [parameter.grad for parameter in network.parameters()]
    before = copy.deepcopy(network)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002

    detector, images = small_case(name, network, (3, 16, 16))
    original = images.clone()
    detector.predict(images)

    assert torch.equal(images, original)
    for here, there in zip(network.parameters(), before.parameters(), strict=True):
        assert torch.equal(here, there)
        assert here.requires_grad == there.requires_grad
    for parameter, grad in zip(network.parameters(), grads, strict=True):
        assert parameter.grad is grad
        assert grad is None or bool((grad == 0.25).all())
    for here, there in zip(network.buffers(), before.buffers(), strict=True):
        assert torch.equal(here, there)
    assert [m.training for m in network.modules()] == [m.training for m in before.modules()]
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in network.modules())
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert states[2] == random.getstate()


@every_detector
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour(name, channels, grey_network, colour_network):
    network, shape = (grey_network, (1, 8, 8)) if channels == 1 else (colour_network, (3, 16, 16))
    detector, images = small_case(name, network, shape)
    assert np.isfinite(detector.predict(images)).all()
    blank = detector.predict(torch.stack([torch.zeros(shape), torch.ones(shape)]))
    assert np.isfinite(blank).all()


@every_detector
def test_uint8_and_float_are_the_same_images(name, on_digits, strange):
    detector, images = on_digits(name), strange[1].images[:20]
    expected = detector.predict(images)
    np.testing.assert_array_equal(detector.predict(images.float() / 255), expected)
    np.testing.assert_array_equal(detector.predict(strange[1].subset(range(20))), expected)


@every_detector
def test_gradient_modes_of_the_caller_do_not_matter(name, on_digits, strange):
    detector, images = on_digits(name), strange[1].images[:20]
    expected = detector.predict(images)
    with torch.no_grad():
        np.testing.assert_array_equal(detector.predict(images), expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(detector.predict(images.float() / 255), expected)
    np.testing.assert_array_equal(detector.predict((images.float() / 255).requires_grad_()), expected)


@every_detector
def test_fit_returns_the_detector_and_calling_it_gives_a_tensor(name, model, known, strange):
    detector = DETECTORS[name](model)
    arguments = (known, strange[0]) if detector.supervised else (known,)
    assert detector.fit(*arguments) is detector
    scores = detector(strange[1].images)
    assert scores.dtype == torch.float64
    np.testing.assert_array_equal(scores.numpy(), detector.predict(strange[1].images))


@every_detector
def test_predict_before_fit_is_refused(name, grey_network):
    detector = DETECTORS[name](grey_network)
    images = torch.rand(4, 1, 8, 8)
    if detector.requires_fit:
        with pytest.raises(NotFittedError, match=r"not fitted; call fit\(known"):
            detector.predict(images)
    else:
        assert detector.predict(images).shape == (4,)


@every_detector
@pytest.mark.parametrize(
    ("bad", "error", "says"),
    [
        (torch.rand(1, 8, 8), ValueError, r"\(N, C, H, W\)"),
        (torch.rand(0, 1, 8, 8), ValueError, "empty"),
        (torch.rand(2, 3, 8, 8), ValueError, "channels|fitted on images of 1x8x8, got 3x8x8"),
        (torch.rand(2, 1, 8, 8) * 255, ValueError, r"\[0, 1\]"),
        (torch.full((2, 1, 8, 8), float("nan")), ValueError, "NaN"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.int64), TypeError, "uint8"),
        (np.zeros((2, 1, 8, 8)), TypeError, "torch.Tensor"),
    ],
)
def test_what_is_not_images_is_refused(name, bad, error, says, on_digits):
    if "channels" in says and name in ("brightness", "complexity"):
        return  # they know no model that could take offence
    with pytest.raises(error, match=says):
        on_digits(name).predict(bad)


@every_detector
def test_images_of_another_size_are_refused_after_fit(name, on_digits):
    detector = on_digits(name)
    if detector.requires_fit:
        with pytest.raises(ValueError, match="fitted on images of 1x8x8, got 1x12x12"):
            detector.predict(torch.rand(2, 1, 12, 12))


@every_detector
def test_bad_images_are_refused_by_fit_and_leave_the_detector_unfitted(name, model, known, strange):
    detector = DETECTORS[name](model)
    if not detector.requires_fit:
        return
    bad = known.images.float()  # 0 to 255
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        detector.fit((bad, known.labels), *((strange[0],) if detector.supervised else ()))
    with pytest.raises(NotFittedError):
        detector.predict(known.images)


@every_detector
def test_challenging_data_are_declared(name, model, known, strange):
    detector = DETECTORS[name](model)
    assert detector.challenging_data == "none"
    if detector.supervised:
        with pytest.raises(ValueError, match="challenging"):
            detector.fit(known)
        detector.fit(known, strange[0])
        assert detector.challenging_data == "same"
        assert detector.challenging_data_for("photographs") == "same"
        assert detector.challenging_data_for("noise") == "other"
    else:
        with pytest.raises(ValueError, match="known images alone"):
            detector.fit(known, strange[0])
        detector.fit(known)
        assert detector.challenging_data == "none"
        assert detector.challenging_data_for("photographs") == "none"


@every_detector
def test_a_detector_survives_pickling(name, on_digits, strange):
    detector = on_digits(name)
    copied = pickle.loads(pickle.dumps(detector))
    images = strange[1].images[:20]
    np.testing.assert_array_equal(copied.predict(images), detector.predict(images))


@every_detector
def test_fitting_again_forgets_the_first_time(name, model, known, strange, on_digits):
    detector = DETECTORS[name](model)
    if not detector.requires_fit:
        return
    first = known.subset(range(0, len(known), 2))
    detector.fit(first, *((strange[1],) if detector.supervised else ()))
    detector.fit(known, *((strange[0],) if detector.supervised else ()))
    images = strange[1].images[:20]
    np.testing.assert_array_equal(detector.predict(images), on_digits(name).predict(images))


def test_every_detector_of_the_package_is_held_to_the_contract():
    held = {type(make(torch.nn.Flatten())) for make in DETECTORS.values()}
    public = {
        value
        for value in vars(detectors).values()
        if isinstance(value, type) and issubclass(value, Detector) and not value.__abstractmethods__
    }
    assert public == held


@pytest.mark.parametrize("make", [DETECTORS[name] for name in ("msp", "knn", "purview")])
def test_the_model_must_be_a_module(make):
    with pytest.raises(TypeError, match="torch.nn.Module"):
        make(lambda images: images)


def test_logits_that_are_not_finite_are_reported():
    class Broken(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1) / 0

    with pytest.raises(ValueError, match="no finite score for 2 of 2 images"):
        MSP(Broken()).predict(torch.zeros(2, 1, 1, 2))


def test_known_images_come_in_any_form(model, known):
    """Tensor, set, pair, loader, and pytorch-ood's loader with unknown images marked by a negative label."""
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(known.float(), known.labels), batch_size=50)
    extra = torch.rand(30, 1, 8, 8)
    marked = (torch.cat([known.float(), extra]), torch.cat([known.labels, torch.full((30,), -1)]))
    expected = KNN(model).fit(known).predict(extra)
    for form in (known.images, (known.images, known.labels), loader, marked):
        np.testing.assert_allclose(KNN(model).fit(form).predict(extra), expected, rtol=1e-6)


def test_marked_unknown_images_are_the_challenging_ones(model, known, strange):
    images = torch.cat([known.images, strange[0].images])
    labels = torch.cat([known.labels, torch.full((len(strange[0]),), -1)])
    detector = LogitsControl(model).fit((images, labels))
    expected = LogitsControl(model).fit(known, strange[0])
    np.testing.assert_array_equal(detector.predict(strange[1]), expected.predict(strange[1]))
    assert detector.challenging_data_for("anything") == "same"  # nobody said what they were


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
    detector = MahalanobisEnsemble(model).fit(known, strange[0], study.train)
    expected = torch.stack([model.features(study.train.float())[study.train.labels == c].mean(0) for c in range(8)])
    torch.testing.assert_close(detector._gaussians[-1].means, expected.double(), rtol=1e-4, atol=1e-5)
    assert isinstance(study.train, ImageSet)
