"""Decomposition against scipy, against sampling, and against what must hold for any members."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tutorial_lib.uncertainty.decomposition import (
    decompose_classification,
    decompose_regression,
    disagreement,
    entropy,
    least_confidence,
    margin_uncertainty,
    member_variance,
    mutual_information,
    variation_ratio,
)


@pytest.fixture
def members():
    """(5, 40, 7) probabilities, from almost uniform to almost sure."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(-2, 2, 40)[None, :, None]
    return (scale * torch.randn(5, 40, 7, generator=generator)).double().softmax(-1)


def test_entropy_is_scipys(members):
    np.testing.assert_allclose(entropy(members), scipy.stats.entropy(members.numpy(), axis=-1), atol=1e-12)


def test_entropy_at_the_edges():
    assert entropy(torch.tensor([1.0, 0.0, 0.0])).item() == 0
    assert entropy(torch.full((8,), 1 / 8)).item() == pytest.approx(math.log(8))


def test_classification_parts_by_brute_force(members):
    parts = decompose_classification(members)
    p = members.numpy()
    total = scipy.stats.entropy(p.mean(0), axis=-1)
    aleatoric = np.mean([scipy.stats.entropy(member, axis=-1) for member in p], axis=0)
    divergence = np.mean([scipy.special.rel_entr(member, p.mean(0)).sum(-1) for member in p], axis=0)
    np.testing.assert_allclose(parts.total, total, atol=1e-12)
    np.testing.assert_allclose(parts.aleatoric, aleatoric, atol=1e-12)
    np.testing.assert_allclose(parts.epistemic, divergence, atol=1e-12)  # mutual information is a mean divergence
    np.testing.assert_allclose(disagreement(members), 5 * divergence, atol=1e-12)
    np.testing.assert_allclose(mutual_information(members), parts.epistemic)


def test_mutual_information_is_that_of_the_joint_table():
    """Member as one variable, class as the other: the textbook formula on their joint distribution."""
    generator = torch.Generator().manual_seed(1)
    p = torch.randn(3, 1, 4, generator=generator).double().softmax(-1)
    joint = p[:, 0].numpy() / 3
    expected = sum(
        joint[m, k] * math.log(joint[m, k] / (joint[m].sum() * joint[:, k].sum())) for m in range(3) for k in range(4)
    )
    assert mutual_information(p).item() == pytest.approx(expected, abs=1e-14)


def test_closed_forms():
    sure_of_different_things = torch.eye(4)[:, None, :]
    parts = decompose_classification(sure_of_different_things)
    assert parts.aleatoric.item() == 0
    assert parts.epistemic.item() == pytest.approx(math.log(4))
    all_undecided = torch.full((3, 1, 4), 0.25)
    parts = decompose_classification(all_undecided)
    assert parts.epistemic.item() == 0
    assert parts.aleatoric.item() == pytest.approx(math.log(4))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 6),
    st.integers(2, 5),
    st.floats(1e-3, 1e3),
    st.integers(0, 2**31),
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
)
def test_what_holds_for_any_members(m, k, scale, seed, dtype):
    """Scale 1000 gives probabilities of exactly 0 and 1; scale 0.001 gives members that almost agree."""
    generator = torch.Generator().manual_seed(seed)
    p = (scale * torch.randn(m, 30, k, generator=generator)).softmax(-1).to(dtype)
    total, aleatoric, epistemic = decompose_classification(p)
    assert total.dtype == torch.float64
    assert (epistemic >= 0).all() and (aleatoric >= 0).all()
    torch.testing.assert_close(total, aleatoric + epistemic, rtol=0, atol=1e-15)
    assert (total <= math.log(k) + 5e-3).all()  # float16 probabilities sum to one only within 1e-3
    assert (epistemic <= math.log(min(m, k)) + 5e-3).all()
    shuffled = p[torch.randperm(m, generator=generator)][..., torch.randperm(k, generator=generator)]
    torch.testing.assert_close(mutual_information(shuffled), epistemic, rtol=1e-9, atol=1e-12)


def test_saturated_float32_members_have_no_negative_mutual_information():
    logits = torch.tensor([[[100.0, 0.0, -5.0]], [[99.0, 0.0, 3.0]]]).repeat(1, 1000, 1)
    p = logits.softmax(-1)
    in_float32 = torch.special.entr(p.mean(0)).sum(-1) - torch.special.entr(p).sum(-1).mean(0)
    assert p.max() == 1 and in_float32.abs().max() < 1e-6
    assert (mutual_information(p) >= 0).all()
    assert (mutual_information(p[:1].repeat(2, 1, 1)) == 0).all()


def test_votes_margins_and_confidence_by_hand():
    p = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.5, 0.4, 0.1], [0.6, 0.1, 0.3]])[:, None]
    assert variation_ratio(p).item() == pytest.approx(1 / 4)
    mean = p.mean(0)
    assert least_confidence(mean).item() == pytest.approx(1 - 0.475)
    assert margin_uncertainty(mean).item() == pytest.approx(1 - (0.475 - 0.375))
    assert margin_uncertainty(torch.tensor([0.5, 0.5])).item() == 1
    variances = np.var(p[:, 0].numpy(), axis=0).sum()
    assert member_variance(p).item() == pytest.approx(variances)


def test_larger_means_less_certain_in_every_function():
    sure = torch.tensor([[0.98, 0.01, 0.01], [0.97, 0.02, 0.01]])[:, None]
    torn = torch.tensor([[0.90, 0.05, 0.05], [0.05, 0.05, 0.90]])[:, None]
    for score in (mutual_information, disagreement, member_variance, variation_ratio):
        assert score(torn) > score(sure), score.__name__
    for score in (entropy, least_confidence, margin_uncertainty):
        assert score(torn.mean(0)) > score(sure.mean(0)), score.__name__


def test_law_of_total_variance_against_sampling_and_the_papers_formula():
    generator = torch.Generator().manual_seed(2)
    means, variances = torch.randn(5, 3, generator=generator), torch.rand(5, 3, generator=generator)
    total, aleatoric, epistemic = decompose_regression(means, variances)
    draws = means[:, :, None] + variances.sqrt()[:, :, None] * torch.randn(5, 3, 200_000, generator=generator)
    torch.testing.assert_close(total.float(), draws.transpose(0, 1).reshape(3, -1).var(1), rtol=0.01, atol=0)
    paper = (variances + means**2).mean(0) - means.mean(0) ** 2
    torch.testing.assert_close(total.float(), paper)
    torch.testing.assert_close(total, aleatoric + epistemic)
    np.testing.assert_allclose(epistemic, np.var(means.double().numpy(), axis=0))


def test_regression_far_from_zero_keeps_its_digits():
    """The paper's formula loses everything here in float32: mean of squares 1e10, spread 1."""
    means, variances = torch.tensor([[1e5 - 1], [1e5 + 1]]), torch.zeros(2, 1)
    assert decompose_regression(means, variances).epistemic.item() == pytest.approx(1.0)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: decompose_classification(torch.randn(3, 5, 4)), "softmax first"),
        (lambda: decompose_classification(torch.full((3, 5, 4), 0.5)), "sum to one"),
        (lambda: decompose_classification(torch.full((5, 4), 0.25)), "members, inputs, classes"),
        (lambda: decompose_classification(torch.full((1, 5, 4), 0.25)), "cannot disagree"),
        (lambda: entropy(torch.ones(3, 1)), "2 or more classes"),
        (lambda: entropy(torch.tensor([float("nan"), 1.0])), "not finite"),
        (lambda: decompose_regression(torch.zeros(3, 2), torch.zeros(2, 3)), "members, inputs"),
        (lambda: decompose_regression(torch.zeros(1, 2), torch.zeros(1, 2)), "cannot disagree"),
        (lambda: decompose_regression(torch.zeros(2, 2), -torch.ones(2, 2)), "negative"),
        (lambda: decompose_regression(torch.full((2, 2), torch.inf), torch.ones(2, 2)), "not finite"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
