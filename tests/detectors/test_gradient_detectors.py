"""Gradient detectors against ordinary gradients, and which way each of them points."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2
from sklearn.covariance import LedoitWolf

from tutorial_lib.detectors import (
    KNN,
    MSP,
    Combination,
    Energy,
    GradientDensity,
    GradientFusion,
    GradientSum,
    GradNorm,
    LogitsControl,
    Tail,
    log_squared_norms,
)
from tutorial_lib.detectors.base import split
from tutorial_lib.metrics import auroc


def gradients(network, image, loss):
    """Of one image, by one ordinary backward pass."""
    return torch.autograd.grad(loss(network(image[None])[0]), list(network.parameters()))


def bce_ones(logits):
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="sum")


def ce_uniform(logits):
    return -logits.log_softmax(0).mean()


@pytest.mark.parametrize(("label", "loss", "by_hand"), [("ones", "bce", bce_ones), ("uniform", "ce", ce_uniform)])
def test_log_norms_are_those_of_one_backward_pass_an_image(colour_network, label, loss, by_hand):
    network = colour_network.double()
    images = torch.rand(5, 3, 16, 16, dtype=torch.float64)
    rows = [[g.square().sum().log() for g in gradients(network, image, by_hand)] for image in images]
    ours = log_squared_norms(network, images, label, loss)
    colour_network.float()
    assert ours.dtype == torch.float64
    np.testing.assert_allclose(ours, rows, rtol=1e-9)


def test_gradient_sum_is_the_log_of_the_sum_and_has_two_directions(colour_network):
    images = torch.rand(4, 3, 16, 16)
    sums = [sum(g.square().sum().double() for g in gradients(colour_network, image, bce_ones)) for image in images]
    np.testing.assert_allclose(GradientSum(colour_network).predict(images), np.log(sums), rtol=1e-4)
    large, small = (GradientSum(colour_network, direction).predict(images) for direction in ("large", "small"))
    np.testing.assert_array_equal(large, -small)
    with pytest.raises(ValueError, match="'large' or 'small'"):
        GradientSum(colour_network, "up")


def test_gradnorm_is_minus_the_l1_norm_of_the_last_gradient(colour_network):
    images = torch.rand(4, 3, 16, 16)
    names = [name for name, _ in colour_network.named_parameters()]
    last = names.index("head.weight")
    norms = [gradients(colour_network, image, ce_uniform)[last].abs().sum().item() for image in images]
    np.testing.assert_allclose(GradNorm(colour_network).predict(images), [-norm for norm in norms], rtol=1e-4)


def test_gradnorm_points_towards_indecision(model, known):
    """Softmax near uniform: p - u vanishes, so the norm is small and the score high."""
    import copy

    undecided = copy.deepcopy(model)
    with torch.no_grad():
        undecided.head.weight.mul_(1e-3)
        undecided.head.bias.zero_()
    assert (GradNorm(undecided).predict(known) > GradNorm(model).predict(known)).all()


def test_gradient_density_is_ledoit_and_wolf_around_the_predicted_class(model, known, strange):
    norms, test = (log_squared_norms(model, x.float(), "uniform", "ce").numpy() for x in (known, strange[1]))
    with torch.no_grad():
        answers, test_answers = (model(x.float()).argmax(1).numpy() for x in (known, strange[1]))
    means = np.stack([norms[answers == c].mean(0) for c in range(8)])
    inverse = LedoitWolf(assume_centered=True).fit(norms - means[answers]).precision_
    centred = test - means[test_answers]
    by_hand = np.einsum("nd,de,ne->n", centred, inverse, centred)
    np.testing.assert_allclose(GradientDensity(model).fit(known).predict(strange[1]), by_hand, rtol=1e-3)


def test_gradient_density_does_not_look_at_labels(model, known, strange):
    without = GradientDensity(model).fit(known.images).predict(strange[1])
    np.testing.assert_array_equal(GradientDensity(model).fit(known).predict(strange[1]), without)


def test_density_finds_what_the_sum_mistakes(model, known, study, strange):
    """The course's point in one line: not the size of the gradient gives the stranger away, but its shape."""
    test, photographs = study.test.images, strange[1].images
    published = GradientSum(model)
    density = GradientDensity(model).fit(known)
    assert auroc(published.predict(test), published.predict(photographs)) < 0.2
    assert auroc(density.predict(test), density.predict(photographs)) > 0.98


def test_an_answer_that_fit_never_saw_is_scored_all_the_same(model, known, study):
    detector = GradientDensity(model).fit(known.subset(known.labels < 6))
    assert np.isfinite(detector.predict(study.test)).all()


def test_tail_at_calibration_scores_is_the_conformal_p_value():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=50).round(1)  # with ties
    by_hand = [(1 + sum(scores >= s)) / 51 for s in scores]
    np.testing.assert_allclose(np.exp(-Tail(scores).surprise(scores)), by_hand, rtol=1e-12)


def test_tail_promises_no_more_than_alpha():
    """Whatever the distribution, a known image gets p <= alpha with probability at most alpha."""
    generator = np.random.default_rng(1)
    alpha, trials, n = 0.1, 2000, 39
    below = sum(
        np.exp(-Tail(generator.standard_cauchy(n)).surprise(generator.standard_cauchy(1)))[0] <= alpha
        for _ in range(trials)
    )
    assert below / trials <= alpha + 3 * np.sqrt(alpha * (1 - alpha) / trials)
    assert below / trials > 0.05  # and not much less


def test_tail_never_falls_and_goes_on_beyond_the_largest():
    scores = np.random.default_rng(2).exponential(size=200)
    grid = np.linspace(-1, 3 * scores.max(), 1000)
    surprise = Tail(scores).surprise(grid)
    assert (np.diff(surprise) >= 0).all()
    assert (np.diff(surprise[grid > scores.min()]) > 0).all()
    assert surprise[0] == 0
    # an exponential's tail is exp(-s), so the surprise far out is about s
    assert surprise[-1] == pytest.approx(grid[-1], rel=0.35)


def test_tail_of_constant_scores():
    surprise = Tail(np.zeros(30)).surprise(np.array([-1.0, 0.0, 1.0]))
    assert surprise[0] == surprise[1] == 0 and surprise[2] > 0


def test_fishers_sum_of_independent_scores_follows_chi_square(known):
    """-2 sum log p of two independent uniform p has four degrees of freedom."""

    class Random(MSP):
        def __init__(self, model, column):
            super().__init__(model)
            self.column = column

        def _score(self, images):
            return images.flatten(1)[:, self.column]

    images = torch.rand(60_000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    model = torch.nn.Flatten()
    combination = Combination([Random(model, 0), Random(model, 3)]).fit(images[:30_000])
    twice = 2 * combination.predict(images[30_000:])
    for quantile in (0.5, 0.9, 0.99):
        assert (twice <= chi2(4).ppf(quantile)).mean() == pytest.approx(quantile, abs=0.01)


def test_a_combination_of_one_orders_as_that_one(model, known, strange):
    scores, alone = Combination([Energy(model)]).fit(known).predict(strange[1]), Energy(model).predict(strange[1])
    order = np.argsort(alone)
    assert (np.diff(scores[order]) >= 0).all()


def test_fusion_is_never_far_behind_its_best_part(model, known, study):
    fusion = GradientFusion(model).fit(known, reference=study.train)
    for name in study.shift_names:
        images = study.shift(name)
        best = max(auroc(part.predict(study.test), part.predict(images)) for part in fusion.detectors)
        assert auroc(fusion.predict(study.test), fusion.predict(images)) > best - 0.015


def test_fusion_by_hand(model, known, study, strange):
    """Gradients speak beyond one nat; energy and confidence share a vote."""
    fusion = GradientFusion(model).fit(known, reference=study.train)
    held, _, calibration, _ = split(known.images, None, 2 / 3)
    parts = [
        GradientDensity(model, "uniform", "ce").fit(held),
        GradientDensity(model, "ones", "bce").fit(held),
        Energy(model),
        MSP(model),
        KNN(model).fit(study.train),
    ]
    g, h, energy, confidence, neighbours = (
        Tail(part.predict(calibration)).surprise(part.predict(strange[1])) for part in parts
    )
    by_hand = np.clip((g + h) / 2 - 1, 0, None) + (energy + confidence) / 2 + neighbours
    np.testing.assert_allclose(fusion.predict(strange[1]), by_hand, rtol=1e-9)


def test_the_reference_goes_to_those_that_papers_fit_to_training_images(model, known, study):
    fusion = GradientFusion(model).fit(known, reference=study.train)
    density, *_, neighbours = fusion.detectors
    np.testing.assert_array_equal(neighbours.predict(study.test), KNN(model).fit(study.train).predict(study.test))
    held = split(known.images, None, 2 / 3)[0]
    np.testing.assert_array_equal(density.predict(study.test), GradientDensity(model).fit(held).predict(study.test))
    without = GradientFusion(model).fit(known, reference=study.train).fit(known)  # a second fit forgets the reference
    np.testing.assert_array_equal(without.predict(study.test), GradientFusion(model).fit(known).predict(study.test))


def test_weights_are_votes(model, known, strange):
    one = Combination([Energy(model), MSP(model)], weights=[2, 1]).fit(known).predict(strange[1])
    other = Combination([Energy(model), Energy(model), MSP(model)]).fit(known).predict(strange[1])
    np.testing.assert_allclose(one, other, rtol=1e-9)
    for weights in ([1.0], [1.0, 0.0]):
        with pytest.raises(ValueError, match="2 positive numbers"):
            Combination([Energy(model), MSP(model)], weights)


def test_combinations_that_make_no_sense_are_refused(model, grey_network, known):
    with pytest.raises(ValueError, match="at least one detector"):
        Combination([])
    with pytest.raises(ValueError, match="same model"):
        Combination([MSP(model), MSP(grey_network)])
    with pytest.raises(ValueError, match="LogitsControl needs challenging images"):
        Combination([LogitsControl(model)])
    with pytest.raises(ValueError, match="at least 20 held-out images, a third of known; got 30"):
        Combination([MSP(model)]).fit(known.images[:30])
