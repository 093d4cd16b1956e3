"""Strategies against slow loops, closed forms and what must hold for any pool."""

import math

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch

from tutorial_lib.active_learning import (
    STRATEGIES,
    UTILITIES,
    Prediction,
    badge,
    gradient_factors,
    highest,
    k_means_plus_plus,
    random,
)
from tutorial_lib.uncertainty import decomposition


@pytest.fixture
def pool():
    """60 images, 4 classes, 7 features, 5 members; everything different."""
    generator = torch.Generator().manual_seed(0)
    members = (2 * torch.randn(5, 60, 4, generator=generator)).double().softmax(-1)
    features = torch.randn(60, 7, generator=generator).double()
    return Prediction(members.mean(0), features, members)


def shuffled(prediction: Prediction, order: np.ndarray) -> Prediction:
    return Prediction(
        prediction.probabilities[order],
        prediction.features[order],
        prediction.members[:, order],
        prediction.names[order],
    )


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_choice_does_not_depend_on_the_order_of_the_pool(pool, name):
    order = np.random.default_rng(1).permutation(len(pool))
    there = STRATEGIES[name](shuffled(pool, order), 9, 3)
    assert pool.names[order][there].tolist() == STRATEGIES[name](pool, 9, 3).tolist()


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_choice_has_no_image_twice_and_may_be_all(pool, name):
    assert sorted(STRATEGIES[name](pool, len(pool), 0)) == list(range(len(pool)))
    with pytest.raises(ValueError, match="cannot choose 61"):
        STRATEGIES[name](pool, 61, 0)


def test_utilities_are_those_of_the_decomposition(pool):
    twins = {
        "entropy": decomposition.entropy(pool.probabilities),
        "least_confidence": decomposition.least_confidence(pool.probabilities),
        "margin": decomposition.margin_uncertainty(pool.probabilities),
        "bald": decomposition.mutual_information(pool.members),
    }
    assert twins.keys() == UTILITIES.keys()
    for name, utility in UTILITIES.items():
        torch.testing.assert_close(utility(pool), twins[name], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", UTILITIES)
def test_the_most_useful_come_first(pool, name):
    utility = UTILITIES[name](pool).tolist()
    by_hand = sorted(range(len(pool)), key=lambda i: -utility[i])[:8]
    assert STRATEGIES[name](pool, 8, 0).tolist() == by_hand


def test_ties_are_drawn_and_not_taken_from_the_front():
    know_nothing = Prediction(torch.full((200, 4), 0.25))
    chosen = [STRATEGIES["entropy"](know_nothing, 20, seed) for seed in range(50)]
    assert np.mean(chosen) == pytest.approx(99.5, abs=8)  # standard error 1.8
    assert not np.array_equal(chosen[0], chosen[1])


def test_random_is_even(pool):
    counts = np.bincount([i for seed in range(600) for i in random(pool, 6, seed)], minlength=60)
    assert scipy.stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("mean, variance", [(0.0, 4.0), (0.7, 1.0), (-2.0, 9.0), (1.5, 0.01)])
def test_bald_of_a_linear_model_with_gaussian_weights(mean, variance):
    """y = 1 where w·x + noise > 0 and w·x is N(mean, variance): Houlsby et al. 2011, eqs. 3 and 4."""
    quantiles = scipy.stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    probability = scipy.stats.norm.cdf(mean + variance**0.5 * quantiles)
    members = torch.tensor(np.stack([probability, 1 - probability], axis=-1)[:, None])
    ours = UTILITIES["bald"](Prediction(members.mean(0), members=members)).item()

    def binary_entropy(p):
        return scipy.stats.entropy([p, 1 - p])

    total = binary_entropy(scipy.stats.norm.cdf(mean / math.sqrt(1 + variance)))  # exact
    expected, _ = scipy.integrate.quad(
        lambda z: scipy.stats.norm.pdf(z) * binary_entropy(scipy.stats.norm.cdf(mean + variance**0.5 * z)), -9, 9
    )
    assert ours == pytest.approx(total - expected, abs=2e-4)
    c = math.sqrt(math.pi * math.log(2) / 2)
    approximate = math.log(2) * c / math.hypot(variance**0.5, c) * math.exp(-(mean**2) / (2 * (variance + c**2)))
    assert ours == pytest.approx(total - approximate, abs=0.01)


def naive_badge(pool: Prediction, count: int, seed: int) -> list[int]:
    """The gradients written out as autograd finds them, and loops over pairs."""
    gradients = []
    for probabilities, features in zip(pool.probabilities, pool.features, strict=True):
        weights = torch.zeros(len(probabilities), len(features), dtype=torch.float64, requires_grad=True)
        logits = probabilities.log() + weights @ features  # a layer that says these probabilities
        loss = torch.nn.functional.cross_entropy(logits[None], probabilities.argmax()[None])
        gradients.append(torch.autograd.grad(loss, weights)[0].flatten().numpy())
    chosen = [max(range(len(gradients)), key=lambda i: float(gradients[i] @ gradients[i]))]
    for step in range(1, count):
        race = np.random.default_rng([seed, step]).exponential(size=len(gradients))
        times = []
        for i, gradient in enumerate(gradients):
            squared = min(float(((gradient - gradients[c]) ** 2).sum()) for c in chosen)
            times.append(race[i] / squared if i not in chosen else math.inf)
        chosen.append(int(np.argmin(times)))
    return chosen


@pytest.mark.parametrize("seed", range(4))
def test_badge_is_the_naive_one(pool, seed):
    assert badge(pool, 12, seed).tolist() == naive_badge(pool, 12, seed)


def test_gradient_factors_are_short_where_the_model_is_sure():
    errors, features = gradient_factors(Prediction(torch.tensor([[0.98, 0.02], [0.5, 0.5]]), torch.ones(2, 3)))
    assert errors.norm(dim=1)[0] < errors.norm(dim=1)[1]
    assert features.shape == (2, 3)


def test_the_second_centre_is_drawn_by_squared_distance():
    left = torch.tensor([[9.0], [8.0], [7.0], [5.0]])  # times one: 9 is the first centre
    second = [k_means_plus_plus(left, torch.ones(4, 1), 2, seed)[1] for seed in range(1500)]
    expected = 1500 * np.array([1, 4, 16]) / 21
    assert scipy.stats.chisquare(np.bincount(second, minlength=4)[1:], expected).pvalue > 1e-4


def test_copies_are_drawn_last_and_rounding_is_no_distance():
    generator = torch.Generator().manual_seed(0)
    left = 1e6 * torch.randn(3, 5, generator=generator).double()
    right = torch.randn(3, 40, generator=generator).double()
    copies = torch.tensor([0, 0, 0, 1, 0, 2, 0, 0])
    for seed in range(20):
        chosen = k_means_plus_plus(left[copies], right[copies], 8, seed)
        assert {int(copies[i]) for i in chosen[:3]} == {0, 1, 2}
        assert sorted(chosen) == list(range(8))


def test_a_pool_without_gradients_is_drawn_evenly():
    sure = Prediction(torch.eye(2).repeat(10, 1), torch.ones(20, 3))
    assert len({tuple(badge(sure, 3, seed)) for seed in range(10)}) > 5


def test_what_a_strategy_needs_is_said(pool):
    bare = Prediction(pool.probabilities)
    with pytest.raises(ValueError, match="BADGE needs features"):
        STRATEGIES["badge"](bare, 3, 0)
    with pytest.raises(ValueError, match="BALD needs members"):
        STRATEGIES["bald"](bare, 3, 0)
    with pytest.raises(ValueError, match="60 of 60 are not"):
        highest(bare, torch.full((60,), math.nan), 3, 0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((torch.zeros(3, 4),), "sum to one"),
        ((torch.tensor([[2.0, -1.0]]),), "softmax"),
        ((torch.ones(3),), r"\(N, K\)"),
        ((torch.full((3, 2), 0.5), torch.zeros(2, 4)), "features must be"),
        ((torch.full((3, 2), 0.5), None, torch.full((1, 3, 2), 0.5)), "members must be"),
        ((torch.full((2, 2), 0.5), None, None, np.array([4, 4])), "different whole numbers"),
    ],
)
def test_predictions_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Prediction(*arguments)


@pytest.mark.parametrize("ids", [[0.5, 1, 2], [0, 1, 10**9], [0, 1, -1], [0, 1, 1], [0, 1]])
def test_names_are_small_different_whole_numbers(ids):
    with pytest.raises(ValueError, match="3 different whole numbers from 0 on, below"):
        Prediction(torch.full((3, 2), 0.5), ids=np.array(ids))


def test_wrong_counts_utilities_and_types_are_said_as_what_they_are(pool):
    for count in (0, len(pool) + 1, 2.0):
        for strategy in STRATEGIES.values():
            with pytest.raises(ValueError, match="cannot choose"):
                strategy(pool, count, 0)
    with pytest.raises(ValueError, match=f"finite, but 1 of {len(pool)} are not"):
        highest(pool, torch.tensor([np.inf] + [0.0] * (len(pool) - 1)), 2, 0)
    with pytest.raises(ValueError, match="one for each image"):
        highest(pool, torch.zeros(1), 1, 0)
    with pytest.raises(TypeError, match="torch.as_tensor"):
        Prediction(np.full((3, 2), 0.5))


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_pool_of_copies_and_a_pool_of_one_can_be_asked(name):
    for rows, count in ((6, 6), (1, 1)):
        same = torch.tensor([[0.75, 0.25]]).repeat(rows, 1)
        copies = Prediction(same, torch.ones(rows, 3), same.repeat(2, 1, 1))
        assert sorted(STRATEGIES[name](copies, count, 0)) == list(range(rows))


def test_copies_that_differ_by_rounding_are_drawn_evenly():
    """The squared distance of a matrix from its copy is rounding of either sign; it must not decide who is drawn."""
    generator = torch.Generator().manual_seed(0)
    stretch = torch.linspace(0.5, 2, 40, dtype=torch.float64)[:, None]
    left = torch.randn(1, 5, generator=generator, dtype=torch.float64) * stretch
    right = (
        1e4 * torch.randn(1, 7, generator=generator, dtype=torch.float64) / stretch
    )  # one product, rounded otherwise
    for seed in range(10):
        first, second = k_means_plus_plus(left, right, 2, seed)
        arrival = np.random.default_rng([seed, 1]).exponential(size=40)
        arrival[first] = np.inf
        assert second == arrival.argmin(), "the first to come, as if all were alike"


def test_rounds_draw_anew_and_a_strategy_and_its_twin_alike():
    from tutorial_lib.active_learning import Budget, run_rounds
    from tutorial_lib.data.images import ImageSet

    pool = ImageSet(
        "p", torch.zeros(40, 1, 1, 2, dtype=torch.uint8), torch.arange(40) % 2, ("a", "b"), torch.arange(40)
    )
    seeds = {0: [], 1: []}

    def nobody(images, labels, seed):
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2)).eval()

    for seed, met in seeds.items():

        def first(prediction, count, round_seed, met=met):
            met.append(round_seed)
            return np.arange(count)

        run_rounds(nobody, first, pool, {"t": pool}, Budget(4, 4, 4), seed, progress=False)
    assert len({*seeds[0], *seeds[1]}) == 6, "no two rounds, and no two runs, draw the same numbers"
