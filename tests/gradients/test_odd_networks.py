"""Networks that people write: each is exact, or says what is the matter; one more case is one more entry of a list.

Every network has axes of length T that are not the samples', and is asked about T samples, and one. The truth is one image at a time.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import one_by_one
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from tutorial_lib.gradients import FallbackWarning, alignment, contrast_squared_norms, squared_norms

T, D = 6, 8

pytestmark = [
    pytest.mark.filterwarnings("ignore::tutorial_lib.gradients.FallbackWarning"),
    pytest.mark.filterwarnings("ignore:.*(deprecated|Full backward hook|enable_nested_tensor|performance drop|Dynamo)"),
]


class Net(nn.Module):
    """Parts by name, and what is done with them: (N, T, D) to (N, ·, D)."""

    def __init__(self, parts: dict[str, Any], inside: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.inside, self.head = inside, nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inside(self, x)).mean(1))


def table(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape))


def linear(inputs: int = D, outputs: int = D) -> nn.Linear:
    return nn.Linear(inputs, outputs)


CASES: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[Any, Tensor], Tensor]]] = {}


def case(name: str, **parts: Callable[[], Any]) -> Callable:
    def keep(inside: Callable[[Any, Tensor], Tensor]) -> Callable:
        CASES[name] = (lambda: {part: make() for part, make in parts.items()}), inside
        return inside

    return keep


# ------------------------------------------------------------------ products, and tables of T entries
case("pooling by a learned query", q=lambda: table(D), v=linear)(
    lambda m, x: ((x @ m.q).softmax(-1)[..., None] * m.v(x)).sum(1, keepdim=True)
)
case("a product with a vector from the left", w=lambda: table(T))(lambda m, x: (m.w @ x)[:, None] + x)
case("mm, mv and a linear layer of one vector", w=lambda: table(D, D), v=lambda: table(D))(
    lambda m, x: (
        torch.mm(x.flatten(0, 1), m.w).view_as(x)
        + torch.mv(x.reshape(-1, D), m.v).view(-1, T, 1)
        + F.linear(x, m.v)[..., None]
    )
)
case("positions before and behind the samples", p=lambda: table(T, 1, D), e=lambda: nn.Embedding(T, D), f=linear)(
    lambda m, x: m.f(x.transpose(0, 1) + m.p + m.e(torch.arange(T))[:, None]).transpose(0, 1)
)
case("a layer for each arrangement", a=lambda: linear(T, T), b=linear, p=lambda: table(D, 1, T), q=lambda: table(T, 1))(
    lambda m, x: (m.a(m.b(x).permute(2, 0, 1) + m.p).permute(2, 1, 0) * m.q[:, None]).transpose(0, 1)
)
case("kernels from a code of T numbers", code=lambda: table(T), make=lambda: linear(T, D * D * 3))(
    lambda m, x: F.conv1d(x.mT, m.make(m.code).view(D, D, 3), padding=1).mT
)
case("kernels from the sample itself", make=lambda: linear(D, D * D))(
    lambda m, x: F.conv1d(x.mT.reshape(1, -1, T), m.make(x.mean(1)).view(-1, D, 1), groups=len(x)).view(-1, D, T).mT
)
case("a memory of T entries", k=linear, v=linear, q=linear, bank=lambda: table(T, D))(
    lambda m, x: (m.q(x) @ m.k(m.bank).T).softmax(-1) @ m.v(m.bank)
)
case("attention by one vector a side", f=linear, a=lambda: table(D), b=lambda: table(D, 1))(
    lambda m, x: ((m.f(x) @ m.a).unsqueeze(1) + m.f(x) @ m.b).softmax(-1) @ x
)
case(
    "normalisation over odd axes",
    a=lambda: nn.LayerNorm([T, D]),
    b=lambda: nn.LayerNorm(T),
    c=lambda: nn.BatchNorm1d(T),
)(lambda m, x: m.c(m.b(m.a(x).mT).mT))
case("members that share a layer", r=lambda: table(T, D), s=lambda: table(T, D), f=linear)(
    lambda m, x: (m.f(x * m.r[:, None, None]) * m.s[:, None, None]).mean(0)
)
case("low-rank weights", f=linear, a=lambda: table(2, D), b=lambda: table(D, 2))(
    lambda m, x: m.f(x) + (x @ m.a.T) @ m.b.T + F.linear(x, m.b @ m.a)
)
case(
    "weight normalisation",
    f=lambda: parametrizations.weight_norm(linear()),
    o=lambda: parametrizations.orthogonal(linear()),
)(lambda m, x: m.o(m.f(x)))
case(
    "learned tokens in front", t=lambda: table(T, D), f=lambda: nn.TransformerEncoderLayer(D, 2, 16, batch_first=True)
)(lambda m, x: m.f(torch.cat([m.t.expand(len(x), -1, -1), x], 1)))
case(
    "keys of another width", f=lambda: nn.MultiheadAttention(D, 2, kdim=5, vdim=4, add_bias_kv=True, add_zero_attn=True)
)(lambda m, x: m.f(x.transpose(0, 1), x.transpose(0, 1)[..., :5], x.transpose(0, 1)[..., 4:])[0].transpose(0, 1))
case("a recurrent network", r=lambda: nn.GRU(D, D, batch_first=True, bidirectional=True), o=lambda: linear(2 * D, D))(
    lambda m, x: m.o(m.r(x)[0])
)
case("windows folded into the batch", n=lambda: nn.BatchNorm1d(D), f=linear, p=lambda: table(3, D))(
    lambda m, x: (m.f(m.n(x.reshape(-1, D)).view(-1, 3, D)) + m.p).reshape(-1, T, D)
)
case("channels as many as samples", a=lambda: nn.Conv1d(T, T, 3, groups=T, padding=1, padding_mode="circular"))(
    lambda m, x: m.a(x)
)
case("two views of a sample, stacked in front", f=linear)(
    lambda m, x: torch.stack(m.f(torch.stack([x, x.flip(1)])).unbind(0)).prod(0)
)
case("two views of a sample, joined on", f=linear)(lambda m, x: m.f(torch.cat([x, x.flip(1)])).view(2, -1, T, D).sum(0))


# ------------------------------------------------------------------ samples that are picked, sorted or moved
@case("sorted for an expert, and back", f=linear, gate=lambda: linear(D, 1))
def _(m: Any, x: Tensor) -> Tensor:
    order = m.gate(x.mean(1)).squeeze(1).argsort()
    return m.f(x[order])[order.argsort()]


@case("grouped by what is positive, and back", f=linear)
def _(m: Any, x: Tensor) -> Tensor:
    positive = x[:, 0, 0] > 0
    order = torch.cat([positive.nonzero()[:, 0], torch.where(~positive)[0]])
    return torch.empty_like(x).index_copy(0, order, m.f(x[order]))


@case("two experts, a mask each", a=linear, b=linear)
def _(m: Any, x: Tensor) -> Tensor:
    mask, y = x[:, 0, 0] > 0, torch.empty_like(x)
    y[mask], y[~mask] = m.a(x[mask]), m.b(x[~mask])
    return y


@case("tokens to two experts", gate=lambda: linear(D, 2), a=linear, b=linear)
def _(m: Any, x: Tensor) -> Tensor:
    flat = x[:, :2].reshape(-1, D)
    weight, chosen = m.gate(flat).softmax(-1).max(-1)
    y = torch.zeros_like(flat)
    for k, expert in enumerate((m.a, m.b)):
        tokens = (chosen == k).nonzero().squeeze(1)
        y = y.index_add(0, tokens, expert(flat[tokens]) * weight[tokens, None])
    return y.view(-1, 2, D)


@case("two neighbours change places", f=linear)
def _(m: Any, x: Tensor) -> Tensor:
    order = torch.arange(len(x))
    if len(x) > 2:
        order[:2] = torch.tensor([1, 0])
    return m.f(x.index_select(0, order)).index_select(0, order)


case("differences of neighbours that spare the last", f=linear)(
    lambda m, x: torch.diff(m.f(x), dim=0, append=torch.ones_like(x[:1]))
)
case("differences of neighbours that spare the first", f=linear)(
    lambda m, x: torch.diff(m.f(x), dim=0, prepend=torch.ones_like(x[:1]))
)
case("one sample after the other", f=linear)(lambda m, x: torch.stack([m.f(one) for one in x]))
case("one step after the other", f=linear)(lambda m, x: torch.stack([m.f(step) for step in x.transpose(0, 1)], dim=1))
case("the best tokens", f=linear, s=lambda: linear(D, 1))(
    lambda m, x: m.f(x[torch.arange(len(x))[:, None], m.s(x).squeeze(-1).topk(3, dim=1)[1]])
)
case("a branch by the batch", a=linear, b=linear)(lambda m, x: m.a(x) if x.sum() > 0 else m.b(x))


# ------------------------------------------------------------------ in place, hooks, sparse, compiled
@case("a computed weight that changes between its uses", a=lambda: table(D, D), b=lambda: table(D, 1))
def _(m: Any, x: Tensor) -> Tensor:
    weight = m.a * m.b
    y = F.linear(x, weight)
    weight.mul_(2)
    return y + F.linear(x, weight)


@case("a computed table that changes between its uses", a=lambda: table(T, D), b=lambda: table(T, 1))
def _(m: Any, x: Tensor) -> Tensor:
    weight = m.a * m.b
    y = x + weight
    weight.mul_(2)
    return y - weight


@case("in place wherever it goes", f=linear, p=lambda: table(T, D), c=lambda: nn.Conv1d(D, D, 1))
def _(m: Any, x: Tensor) -> Tensor:
    y = m.f(x)
    y += m.p
    y[:, 0] += m.p[0]
    y[:, 1:3] = x[:, 1:3]
    z = F.silu(m.c(y.mT), inplace=True)
    z.transpose(1, 2).sub_(m.p)
    return F.leaky_relu_(z.mT + 0.1)


@case("a view that is older than what is written", f=linear, p=lambda: table(T, D))
def _(m: Any, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    flat = y.view(-1, D)
    y.copy_(m.f(x))
    return m.f(flat).view_as(x) + flat.view_as(x) * m.p


@case("a sparse graph", f=linear)
def _(m: Any, x: Tensor) -> Tensor:
    graph = torch.eye(T, dtype=x.dtype).roll(1, 0).to_sparse()
    return torch.stack([torch.sparse.mm(graph, one) for one in m.f(x)])


@case("saved somewhere else", f=linear)
def _(m: Any, x: Tensor) -> Tensor:
    with torch.autograd.graph.save_on_cpu():
        return m.f(x).tanh()


@case("hooks", f=linear, g=linear)
def _(m: Any, x: Tensor) -> Tensor:
    y = m.f(x)
    if y.requires_grad:
        y.register_hook(lambda g: -0.3 * g)
    return m.g(y)


case("a scripted part", s=lambda: torch.jit.script(nn.Sequential(linear(), nn.Tanh())), f=linear)(
    lambda m, x: m.f(m.s(m.f(x)))
)
case("some members at once", a=linear, b=linear)(
    lambda m, x: torch.vmap(lambda w: F.linear(x, w))(torch.stack([m.a.weight, m.b.weight])).mean(0)
)


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    parts, inside = CASES[name]
    model = Net(parts(), inside)
    try:
        model = one_by_one.randomised(model)
    except (AttributeError, TypeError, RuntimeError):  # TorchScript's parts keep their first numbers
        model.eval()
    return model.double()


def some(samples: int) -> Tensor:
    return torch.randn(samples, T, D, generator=torch.Generator().manual_seed(samples)).double()


def close(got: Tensor, wanted: Tensor) -> bool:
    return bool(((got - wanted).abs() <= 1e-9 * wanted + 1e-13 * wanted.sum()).all())


@pytest.mark.parametrize("name", CASES)
def test_exact_for_as_many_samples_as_entries_and_for_one(name):
    model = made(name)
    before, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    for samples in (T, 1):
        images = some(samples)
        assert close(squared_norms(model, images)[0], one_by_one.norms(model, images).detach())
        contrast = contrast_squared_norms(model, images)
        for k in (0, 2):
            wanted = one_by_one.norms(model, images, lambda z, k=k: F.cross_entropy(z, torch.tensor([k])))
            assert close(contrast[:, k], wanted.detach())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("name", ["pooling by a learned query", "mm, mv and a linear layer of one vector"])
def test_cosines_of_products_with_a_vector(name):
    model, images = made(name), some(T)
    reference = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    cosines = alignment(model, images, reference, "ones", "bce")
    for n, image in enumerate(images.split(1)):
        gradients = one_by_one.gradients(model, image, one_by_one.bce_ones)
        for p, (g, r) in enumerate(zip(gradients, reference.values(), strict=True)):
            wanted = F.cosine_similarity(g.flatten(), r.flatten(), dim=0)
            assert cosines[n, p].item() == pytest.approx(wanted.item(), abs=1e-9)


def test_a_learned_query_needs_no_fallback():
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        squared_norms(made("pooling by a learned query"), some(T))


# ------------------------------------------------------------------ what stands around a network
def test_compiled_networks():
    """A stance of torch's lets what is compiled run as it was written."""
    plain = made("pooling by a learned query")
    wanted = squared_norms(plain, some(T))[0]
    compiled = torch.compile(plain, backend="eager")
    assert close(squared_norms(compiled, some(T))[0], wanted)
    assert close(contrast_squared_norms(compiled, some(1)), contrast_squared_norms(plain, some(1)))
    plain.compile(backend="eager")
    assert close(squared_norms(plain, some(T))[0], wanted)


@pytest.mark.parametrize("samples", [1, 3])
def test_reentrant_checkpoints_are_refused(samples):
    """They hide their parameters: the gradient would be zero, or torch's own error half-way."""
    model = Net(
        {"f": linear()},
        lambda m, x: checkpoint(lambda y: m.f(y).tanh(), x.clone().requires_grad_(), use_reentrant=True),
    )
    with pytest.raises(ValueError, match="use_reentrant=False"):
        squared_norms(model, torch.randn(samples, T, D))


class Labelled(Tensor):
    """A tensor with functions of its own, as of fastai or MONAI."""


def test_images_of_a_class_of_their_own_and_on_somebodys_graph():
    model = made("pooling by a learned query")
    images = some(T)
    wanted = squared_norms(model, images)[0]
    assert close(squared_norms(model, images.as_subclass(Labelled))[0], wanted)
    on_a_graph = images * model.q.sum() / model.q.sum()
    assert close(squared_norms(model, on_a_graph)[0], wanted)
    on_a_graph.sum().backward()  # which is still there


def test_types_that_are_refused_by_name():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3))
    images = torch.rand(2, 1, 6, 6)
    for wrong, said in (
        (images > 0.5, "torch.bool"),
        (images.long(), "torch.int64"),
        (images.cfloat(), "torch.complex64"),
    ):
        for network in (model, nn.Sequential(nn.Flatten(), nn.Linear(36, 3))):
            with pytest.raises(ValueError, match=said):
                squared_norms(network, wrong)
    with pytest.raises(TypeError, match="sparse"):
        squared_norms(model, images.to_sparse())
    with torch.inference_mode():
        model = nn.Linear(6, 3)
    with pytest.raises(ValueError, match="inference_mode"):
        squared_norms(model, torch.rand(2, 6))


def test_a_class_as_numpys_number():
    np = pytest.importorskip("numpy")
    model = made("pooling by a learned query")
    got, wanted = (squared_norms(model, some(2), label, "ce")[0] for label in (np.int64(1), 1))
    assert torch.equal(got, wanted)
    with pytest.raises(TypeError, match="bool"):
        squared_norms(model, some(2), True, "ce")


@pytest.mark.parametrize("kind", [nn.Embedding, nn.EmbeddingBag])
def test_tables_that_a_forward_pass_rescales_come_back(kind):
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = kind(9, D, max_norm=1.0), nn.Linear(D, 3)

        def forward(self, words: Tensor) -> Tensor:
            y = self.table(words)
            return self.head(y.tanh() if y.dim() == 2 else y.tanh().mean(1))

    model, words = one_by_one.randomised(Words()).double(), torch.tensor([[1, 2, 2], [0, 8, 1], [3, 3, 4]])
    before = model.table.weight.detach().clone()
    got = squared_norms(model, words)[0]
    assert torch.equal(model.table.weight, before)
    assert close(got, one_by_one.norms(model, words).detach())  # which does leave it changed
    assert not torch.equal(model.table.weight, before)
