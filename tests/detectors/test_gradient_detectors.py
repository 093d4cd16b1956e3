"""Gradient detectors against ordinary gradients, and which way each of them points."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from torch import nn

from tutorial_lib.detectors import (
    KNN,
    MSP,
    ActivationDensity,
    ActivationFusion,
    Combination,
    Energy,
    GradientDensity,
    GradientFusion,
    GradientSum,
    GradNorm,
    GradPCA,
    LogitsControl,
    Tail,
    log_squared_norms,
    observe,
)
from tutorial_lib.detectors.base import split
from tutorial_lib.detectors.evidence import IMAGES, LOGITS, ActivationNorms, BackpropNorms, GradientNorms
from tutorial_lib.gradients import squared_norms
from tutorial_lib.metrics import auroc
from tutorial_lib.models import Classifier


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


def test_density_finds_small_what_the_sum_calls_known():
    """The course's point in one line: not the size of a gradient gives a stranger away, but its shape. Norms written down:
    strangers' are smaller in all, and in other proportions."""
    generator = torch.Generator().manual_seed(0)
    size = torch.randn(400, 1, generator=generator, dtype=torch.float64)  # all layers go together
    norms = size + 0.1 * torch.randn(400, 5, generator=generator, dtype=torch.float64)
    strange = norms[:100] - 2 + torch.tensor([0.6, -0.6, 0.6, -0.6, 0.6])
    logits = torch.zeros(400, 3)
    density = GradientDensity().fit_from({"logits": logits[:300], "gradient_norms": norms[100:]})
    scores = [density.predict_from(logits=logits[:100], gradient_norms=part) for part in (norms[:100], strange)]
    assert auroc(*scores) > 0.95
    assert auroc(*(GradientSum().predict_from(part) for part in (norms[:100], strange))) < 0.2


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

        def needs(self):
            return (IMAGES,)

        def _score(self, seen):
            return seen[IMAGES].flatten(1)[:, self.column]

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


@pytest.mark.parametrize("make", [GradientFusion, ActivationFusion])
def test_fusion_by_hand(make, model, known, study, strange):
    """One vote each, as chapter 8 has it: minus the logarithms of the shares of known images that score as high."""
    fusion = make(model).fit(known, reference=study.train)
    held, _, calibration, _ = split(known.images, None, 2 / 3)
    density = GradientDensity if make is GradientFusion else ActivationDensity
    by_hand = np.zeros(len(strange[1]))
    for part in (density(model).fit(held), Energy(model), KNN(model).fit(study.train)):
        scores, among = part.predict(strange[1]), part.predict(calibration)
        by_hand += Tail(among).surprise(scores)
        inside = scores <= among.max()  # beyond the largest, there is nothing left to count
        counted = (1 + (among >= scores[:, None]).sum(1)) / (1 + len(among))
        surprise = Tail(among).surprise(scores)
        assert (np.abs(np.exp(-surprise) - counted)[inside] < 1.5 / len(among)).all()
    np.testing.assert_allclose(fusion.predict(strange[1]), by_hand, rtol=1e-6)


def test_the_reference_goes_to_those_that_papers_fit_to_training_images(model, known, study):
    fusion = GradientFusion(model).fit(known, reference=study.train)
    density, _, neighbours = fusion.detectors_
    trained = KNN(model).fit(study.train)
    np.testing.assert_allclose(neighbours.predict(study.test), trained.predict(study.test), rtol=1e-6)
    held = split(known.images, None, 2 / 3)[0]
    fitted = GradientDensity(model).fit(held)
    np.testing.assert_allclose(density.predict(study.test), fitted.predict(study.test), rtol=1e-3)
    without = GradientFusion(model).fit(known, reference=study.train).fit(known)  # a second fit forgets the reference
    np.testing.assert_array_equal(without.predict(study.test), GradientFusion(model).fit(known).predict(study.test))


# --- activations and what comes back ----------------------------------------------------------------------------------


def test_activation_norms_are_those_of_the_layers_outputs(colour_network):
    images = torch.rand(3, 3, 16, 16)
    layers = [module for module in colour_network.modules() if any(True for _ in module.parameters(recurse=False))]
    columns = []
    for layer in layers:
        met = []
        handle = layer.register_forward_hook(lambda _, __, output, met=met: met.append(output.detach().clone()))
        colour_network(images)
        handle.remove()
        columns.append(met[0].double().flatten(1).square().sum(1).log())
    ours = observe(colour_network, images, ActivationNorms())[ActivationNorms()]
    torch.testing.assert_close(ours, torch.stack(columns, 1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("label", "loss", "by_hand"), [("ones", "bce", bce_ones), ("uniform", "ce", ce_uniform)])
def test_backprop_norms_are_those_of_one_backward_pass_an_image(colour_network, label, loss, by_hand):
    images, quantity = torch.rand(3, 3, 16, 16), BackpropNorms(label, loss)
    layers = [module for module in colour_network.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)]
    rows = []
    for image in images:
        outputs = []
        handles = [layer.register_forward_hook(lambda _, __, output, to=outputs: to.append(output)) for layer in layers]
        value = by_hand(colour_network(image[None])[0])
        for handle in handles:
            handle.remove()
        rows.append([g.double().square().sum().log() for g in torch.autograd.grad(value, outputs)])
    ours = observe(colour_network, images, quantity)[quantity]
    np.testing.assert_allclose(ours, rows, rtol=1e-3, atol=1e-3)


def test_a_linear_layers_gradient_norm_is_the_product_of_both():
    """log |dW|² = log |delta|² + log |a|²: side by side the two know no less than their sum."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(4, 6, bias=False), torch.nn.Linear(6, 3, bias=False)
    )
    images = torch.rand(5, 1, 2, 2)
    asked = GradientNorms("ones", "bce"), BackpropNorms("ones", "bce"), ActivationNorms()
    seen = observe(network, images, *asked)
    gradients, deltas, outputs = (seen[quantity] for quantity in asked)
    inputs = torch.stack([images.double().flatten(1).square().sum(1).log(), outputs[:, 0]], 1)
    torch.testing.assert_close(gradients, deltas + inputs, rtol=1e-4, atol=1e-4)


def test_in_place_layers_and_frozen_weights_change_nothing(colour_network):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(108, 4))
    other = copy.deepcopy(plain)
    other[1].inplace = True
    other[0].requires_grad_(False)
    images = torch.rand(4, 1, 8, 8)
    for quantity in (BackpropNorms(), ActivationNorms()):
        torch.testing.assert_close(
            observe(other, images, quantity)[quantity], observe(plain, images, quantity)[quantity]
        )
    assert not other[0].weight.requires_grad


def test_what_does_not_count_images_has_no_norm():
    """A layer that runs on queries, of which there may be as many as images, is found out and left out."""

    class Queries(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.mix, self.out = torch.nn.Embedding(6, 4), torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)

        def forward(self, images):
            queries = self.mix(self.table.weight)
            return self.out(images.flatten(1) + queries.mean(0))

    model, quantity = Queries(), ActivationNorms()
    for count in (1, 3, 6):
        assert observe(model, torch.rand(count, 1, 2, 2), quantity)[quantity].shape == (count, 1)


def test_a_confident_answers_signal_does_not_drown():
    """p - u of a logit 200 ahead is 0 in float32 under the predicted label; in float64 it has a logarithm."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2, bias=False))
    torch.nn.init.eye_(model[1].weight).data.mul_(400)
    quantity = BackpropNorms("predicted", "ce")
    (norm,) = observe(model, torch.tensor([[[[0.5, 0.0]]]]), quantity)[quantity][0]
    assert norm.item() == pytest.approx(2 * -200 + math.log(2), rel=1e-6)


@pytest.mark.parametrize("question", ["loss", "output"])
def test_gradpca_is_pca_of_the_classes_mean_gradients(question):
    """Every gradient formed and laid out; scikit-learn's PCA of the class means."""
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(90, 5, generator=generator, dtype=torch.float64)
    z = h[:, :3] * 2
    p, answer = z.softmax(1), F.one_hot(z.argmax(1), 3)
    gradients = (((p if question == "loss" else 0) - answer)[:, :, None] * h[:, None]).flatten(1)
    means = torch.stack([gradients[:60][answer[:60, c] == 1].mean(0) for c in range(3)])
    pca = PCA(2).fit(means.numpy())
    centred = gradients[60:].numpy() - pca.mean_
    by_hand = 1 - (pca.transform(gradients[60:].numpy()) ** 2).sum(1) / (centred**2).sum(1)
    detector = GradPCA(question=question).fit_from({"features": h[:60], "logits": z[:60]})
    np.testing.assert_allclose(detector.predict_from(features=h[60:], logits=z[60:]), by_hand, rtol=1e-6, atol=1e-9)


# --- heads of other kinds ---------------------------------------------------------------------------------------------


class FunctionalHead(torch.nn.Module):
    """The last weights lie in no layer, and are registered first."""

    def __init__(self):
        super().__init__()
        self.last = torch.nn.Parameter(torch.randn(3, 4))
        self.first = torch.nn.Linear(16, 4)

    def forward(self, images):
        return F.linear(self.first(images.flatten(1)).relu(), self.last)


@pytest.mark.parametrize("kind", ["layers", "functional", "scaled"])
def test_gradnorm_is_the_last_gradient_whatever_the_head(kind):
    """One image, one backward pass; a head of two layers, one that is code, one whose logits are divided afterwards."""
    torch.manual_seed(0)
    images = torch.rand(5, 1, 4, 4)
    if kind == "layers":
        head = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
        backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
        model = Classifier(torch.nn.Identity(), backbone, head=head)
        weights = head[2].weight
    elif kind == "functional":
        model = FunctionalHead()
        weights = model.last
    else:
        layer = torch.nn.Linear(16, 3)
        model = torch.nn.Sequential(torch.nn.Flatten(), layer, Halved())
        weights = layer.weight
    by_hand = []
    for image in images:
        (gradient,) = torch.autograd.grad(ce_uniform(model(image[None])[0]), weights)
        by_hand.append(-gradient.abs().sum().item())
    np.testing.assert_allclose(GradNorm(model).predict(images), by_hand, rtol=1e-4)


class Halved(torch.nn.Module):
    def forward(self, logits):
        return logits / 2


def test_combinations_that_make_no_sense_are_refused(model, grey_network, known):
    with pytest.raises(ValueError, match="at least one detector"):
        Combination([])
    with pytest.raises(ValueError, match="same model"):
        Combination([MSP(model), MSP(grey_network)])
    with pytest.raises(ValueError, match="LogitsControl needs challenging images"):
        Combination([LogitsControl(model)])
    with pytest.raises(ValueError, match="at least 20 held-out images, a third of known; got 30"):
        Combination([MSP(model)]).fit(known.images[:30])


class Counting(nn.Module):
    """Counts how many images it is asked about."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 3)
        self.asked = 0

    def forward(self, images):
        self.asked += len(images)
        return self.layer(images.flatten(1))


def test_the_answers_come_with_the_gradients():
    """Who wants both pays for one forward pass, and gets what he would have got from two."""
    torch.manual_seed(0)
    model, images = Counting(), torch.rand(10, 1, 4, 4)
    apart = observe(model, images, GradientNorms()), observe(model, images, LOGITS)
    model.asked = 0
    seen = observe(model, images, LOGITS, GradientNorms(), batch_size=4)
    assert model.asked == 10
    torch.testing.assert_close(seen[GradientNorms()], apart[0][GradientNorms()], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen[LOGITS], apart[1][LOGITS])


def test_the_answers_come_in_any_number_of_parts():
    torch.manual_seed(0)
    model, images = Counting(), torch.rand(10, 1, 4, 4)
    for budget in (1, None):
        heard = torch.full((10, 3), float("nan"))

        def keep(outputs, samples, heard=heard):
            heard[samples] = outputs[0]

        norms, _ = squared_norms(model, images, memory_budget=budget, outputs=keep)
        torch.testing.assert_close(norms, squared_norms(model, images)[0], rtol=1e-5, atol=0)
        torch.testing.assert_close(heard, model(images).detach())
