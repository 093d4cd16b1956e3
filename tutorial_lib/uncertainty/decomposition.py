r"""Take a predictive uncertainty apart: the part that lies in the data and the part that lies in the model.

Several plausible models (members of an ensemble, passes with dropout, samples of a posterior) answer the same question.
Where each of them is unsure by itself, the data are ambiguous: **aleatoric** uncertainty. Where each is sure and they
disagree, the model has not been determined by the data: **epistemic** uncertainty.

* Classification, members :math:`p_m`, mean :math:`\bar p`: total :math:`H(\bar p)`, aleatoric
  :math:`\frac1M \sum_m H(p_m)`, epistemic their difference, the mutual information of member and class.
* Regression, members :math:`N(\mu_m, \sigma_m^2)`: total the variance of the mixture, aleatoric
  :math:`\frac1M \sum_m \sigma_m^2`, epistemic :math:`\mathrm{Var}_m(\mu_m)`.

Sources: Depeweg et al., "Decomposition of Uncertainty in Bayesian Deep Learning for Efficient and Risk-sensitive
Learning", ICML 2018, section 3; Houlsby et al., "Bayesian Active Learning for Classification and Preference Learning",
2011 (mutual information); Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep
Ensembles", NeurIPS 2017, section 2.4 (mixture variance, disagreement). Derived by hand in chapter 1.

Every function here is larger where the model is less certain. All compute and return float64: a mutual information is
a small difference of large numbers, and rounded to float32 it can come out negative.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_SUM_TOLERANCE = 1e-3  # probabilities from half precision sum to one within this
_BFLOAT16_TOLERANCE = 2e-2  # and from bfloat16, whose every number is off by up to a 256th of itself, within this


class Decomposition(NamedTuple):
    """Three tensors (N,) with ``total = aleatoric + epistemic``, none negative.

    Entropies in nats for classification, variances (squared units of the target) for regression.
    """

    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor


def entropy(probabilities: Tensor) -> Tensor:
    r"""Shannon entropy :math:`-\sum_k p_k \log p_k` in nats over the last dimension: (..., K) to (...), in [0, log K].

    >>> round(entropy(torch.tensor([0.5, 0.5])).item(), 4)
    0.6931
    """
    return torch.special.entr(_probabilities(probabilities)).sum(-1)  # entr(0) = 0


def decompose_classification(member_probabilities: Tensor) -> Decomposition:
    """Entropy of the mean, mean entropy, and their difference, the mutual information.

    Args:
        member_probabilities: (M, N, K) softmax outputs of M >= 2 members for N inputs.

    Returns:
        :class:`Decomposition` of shape (N,), in nats, each in [0, log K].

    Two members that are sure of different classes: nothing is wrong with the input, everything with the model.

    >>> parts = decompose_classification(torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]))
    >>> [round(part.item(), 4) for part in parts]
    [0.6931, 0.0, 0.6931]
    """
    members = _members(member_probabilities)
    aleatoric = torch.special.entr(members).sum(-1).mean(0)
    # By Jensen's inequality the difference is not negative; rounding may leave it at -1e-16.
    epistemic = (torch.special.entr(members.mean(0)).sum(-1) - aleatoric).clamp_min(0)
    return Decomposition(aleatoric + epistemic, aleatoric, epistemic)


def mutual_information(member_probabilities: Tensor) -> Tensor:
    """Epistemic part of :func:`decompose_classification`: (M, N, K) to (N,), in nats, at most log min(M, K).

    Also known as the BALD score (Houlsby et al. 2011).
    """
    return decompose_classification(member_probabilities).epistemic


def disagreement(member_probabilities: Tensor) -> Tensor:
    r"""Sum over the members of :math:`KL(p_m \,\|\, \bar p)`: (M, N, K) to (N,), in nats.

    Lakshminarayanan et al. 2017, section 2.4. It is M times the mutual information.
    """
    return len(member_probabilities) * mutual_information(member_probabilities)


def member_variance(member_probabilities: Tensor) -> Tensor:
    r"""Variance of the probabilities over the members, summed over the classes: (M, N, K) to (N,), in [0, 1).

    :math:`\sum_k \mathrm{Var}_m(p_{mk})`, population variance.
    """
    return _members(member_probabilities).var(0, correction=0).sum(-1)


def variation_ratio(member_probabilities: Tensor) -> Tensor:
    """Share of the members that do not vote for the class with most votes: (M, N, K) to (N,), in [0, 1 - 1/min(M, K)].

    Freeman 1965; Gal, "Uncertainty in Deep Learning", 2016, section 3.3.1. Each member votes for its most probable
    class.
    """
    members = _members(member_probabilities)
    votes = torch.nn.functional.one_hot(members.argmax(-1), members.shape[-1]).double().mean(0)
    return 1 - votes.amax(-1)


def least_confidence(probabilities: Tensor) -> Tensor:
    """One minus the largest probability: (..., K) to (...), in [0, 1 - 1/K]."""
    return 1 - _probabilities(probabilities).amax(-1)


def margin_uncertainty(probabilities: Tensor) -> Tensor:
    """One minus the margin, the lead of the most probable class over the second: (..., K) to (...), in [0, 1]."""
    first, second = _probabilities(probabilities).topk(2, dim=-1).values.unbind(-1)
    return 1 - (first - second)


def decompose_regression(means: Tensor, variances: Tensor) -> Decomposition:
    r"""Law of total variance over the members of a mixture of Gaussians.

    :math:`\mathrm{Var}(y) = \frac1M\sum_m \sigma_m^2 + \frac1M\sum_m (\mu_m - \bar\mu)^2`, which is the mixture
    variance of Lakshminarayanan et al. 2017, section 2.4, written so that nothing cancels.

    Args:
        means: (M, N) means of M >= 2 members for N inputs.
        variances: (M, N) variances, in squared units of the target, not negative.

    Returns:
        :class:`Decomposition` of shape (N,) in squared units of the target; take the root for a standard deviation.

    >>> total, aleatoric, epistemic = decompose_regression(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [5.0]]))
    >>> total.item(), aleatoric.item(), epistemic.item()
    (5.0, 4.0, 1.0)
    """
    if means.shape != variances.shape or means.dim() != 2:
        raise ValueError(
            f"means and variances must both be (members, inputs), got {tuple(means.shape)} and {tuple(variances.shape)}"
        )
    _at_least_two(len(means))
    if not (torch.isfinite(means).all() and torch.isfinite(variances).all()):
        raise ValueError("means or variances are not finite; did a member's training diverge?")
    if (variances < 0).any():
        raise ValueError("a variance is negative; pass variances, not their logarithm or the raw output of a head")
    aleatoric = variances.double().mean(0)
    epistemic = means.double().var(0, correction=0)
    return Decomposition(aleatoric + epistemic, aleatoric, epistemic)


def _probabilities(values: Tensor) -> Tensor:
    """Float64 copy of probabilities (..., K), checked."""
    if values.dim() < 1 or values.shape[-1] < 2:
        raise ValueError(
            f"the last dimension must hold the probabilities of 2 or more classes, got {tuple(values.shape)}"
        )
    tolerance = _BFLOAT16_TOLERANCE if values.dtype == torch.bfloat16 else _SUM_TOLERANCE
    values = values.double()
    if not torch.isfinite(values).all():
        raise ValueError("probabilities are not finite")
    if (values < 0).any() or ((values.sum(-1) - 1).abs() > tolerance).any():
        raise ValueError("probabilities must be in [0, 1] and sum to one; these look like logits, apply softmax first")
    return values


def _members(values: Tensor) -> Tensor:
    if values.dim() != 3:
        raise ValueError(f"member probabilities must be (members, inputs, classes), got {tuple(values.shape)}")
    _at_least_two(len(values))
    return _probabilities(values)


def _at_least_two(members: int) -> None:
    if members < 2:
        raise ValueError(f"{members} member cannot disagree with itself; model uncertainty needs 2 or more members")
