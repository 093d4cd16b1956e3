"""Which axis counts samples is known by how a tensor came about, never by a size that happens to equal N.

Every network here has an axis of length 6 that is not the samples', and is asked about 5, 6 and 7 samples, and one.
"""

from __future__ import annotations

import warnings

import one_by_one
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tutorial_lib.gradients import FallbackWarning, alignment, contrast_squared_norms, squared_norms

T, D = 6, 8


class Head(nn.Module):
    """A linear layer to three logits behind what a subclass computes, (N, T, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(D, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inside(x)).mean(1))


class Positions(Head):
    def __init__(self) -> None:
        super().__init__()
        self.word, self.position = nn.Linear(D, D), nn.Embedding(T, D)

    def inside(self, x: Tensor) -> Tensor:
        return self.word(x) + self.position(torch.arange(T))


class Queries(Head):
    """Learned queries, through a layer that the samples use as well."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.project = nn.Parameter(torch.randn(T, D)), nn.Linear(D, D)

    def inside(self, x: Tensor) -> Tensor:
        keys, queries = self.project(x), self.project(self.queries)
        return F.scaled_dot_product_attention(queries.expand(len(x), -1, -1), keys, keys)


class Coordinates(Head):
    """A small network on fixed coordinates makes a table that is added to all samples."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("coordinates", torch.linspace(-1, 1, T)[:, None].repeat(1, 2))
        self.net, self.word = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, D)), nn.Linear(D, D)

    def inside(self, x: Tensor) -> Tensor:
        return self.word(x) * self.net(self.coordinates)


class ScaledTable(Head):
    def __init__(self) -> None:
        super().__init__()
        self.alpha, self.table = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.randn(T, D))

    def inside(self, x: Tensor) -> Tensor:
        return x + self.alpha * self.table


class Transposing(Head):
    """A weight-normed layer on (N, T, D), then plain layers on (T, N, D)."""

    def __init__(self) -> None:
        super().__init__()
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(D, D))
        self.plain, self.norm = nn.Linear(D, D), nn.LayerNorm(D)

    def inside(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.normed(x)).transpose(0, 1)
        return self.norm(self.plain(y)).transpose(0, 1)


class Mixer(Head):
    """A matrix between positions, from the left."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.other = nn.Parameter(torch.randn(T, T)), nn.Parameter(torch.randn(D, D))

    def inside(self, x: Tensor) -> Tensor:
        return torch.tanh(self.mix @ x) @ self.other


class ClassToken(Head):
    def __init__(self) -> None:
        super().__init__()
        self.token, self.layer = nn.Parameter(torch.randn(1, 1, D)), nn.Linear(D, D)
        self.bias = nn.Parameter(torch.randn(T + 2, 1))

    def inside(self, x: Tensor) -> Tensor:
        first = self.token.expand(len(x), -1, -1)
        return self.layer(torch.cat([first, x, self.token.repeat(len(x), 1, 1)], dim=1)) * self.bias


class Windows(Head):
    """Windows and a folded sequence: samples share an axis with positions, inside and outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.conv = nn.Linear(D, D), nn.Linear(D, D), nn.Conv1d(D, D, 2)
        self.scale = nn.Parameter(torch.randn(3, D))

    def inside(self, x: Tensor) -> Tensor:
        n = len(x)
        windows = self.inner(x.reshape(n * 2, 3, D)) * self.scale
        pairs = self.conv(windows.reshape(n * 3, 2, D).mT).reshape(n, 3, D)
        folded = self.outer(windows.reshape(n, T, D).transpose(0, 1).reshape(T * n, D))
        return folded.reshape(T, n, D).transpose(0, 1)[:, ::2] + pairs


class Frames(Head):
    """Images folded into the batch, as the frames of a film are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.group = nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.GroupNorm(1, 2)
        self.out = nn.Linear(16, D)

    def inside(self, x: Tensor) -> Tensor:
        films = x.reshape(len(x) * T, 1, 2, 4)
        return self.out(self.group(self.norm(self.conv(films))).reshape(len(x), T, 16))


class Stranger(Head):
    """Two layers with a function between them that nobody can look into: the axis is found by comparison with one image."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(D, D), nn.Linear(T, D)

    def inside(self, x: Tensor) -> Tensor:
        return self.after(torch.cdist(self.before(x), x))


class Twice(Head):
    """Samples on axis 1 and, by the same layer, on axis 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, D)

    def inside(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).transpose(0, 1).tanh()).transpose(0, 1) + self.layer.bias


class Attending(Head):
    def __init__(self, batch_first: bool = True) -> None:
        super().__init__()
        self.batch_first = batch_first
        self.itself = nn.MultiheadAttention(D, 2, batch_first=batch_first)
        self.other = nn.MultiheadAttention(D, 2, kdim=D, vdim=D, batch_first=batch_first, bias=False)
        self.memory = nn.Parameter(torch.randn(T, D))

    def inside(self, x: Tensor) -> Tensor:
        if not self.batch_first:
            x = x.transpose(0, 1)
        mask = torch.full((x.shape[1 - (not self.batch_first)],) * 2, -torch.inf).triu(1).to(x)
        y, _ = self.itself(x, x, x, attn_mask=mask, need_weights=False)
        z, _ = self.other(y, x + 1, x)
        return z if self.batch_first else z.transpose(0, 1)


class Memory(Head):
    """Learned queries in attention, computed from parameters alone, the samples as keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.norm = nn.Parameter(torch.randn(1, T, D)), nn.LayerNorm(D)
        self.attention = nn.MultiheadAttention(D, 2, batch_first=True)

    def inside(self, x: Tensor) -> Tensor:
        queries = self.norm(self.queries).expand(len(x), -1, -1)
        return self.attention(queries, x, x)[0]


class Bias(Head):
    """Attention with a bias from a table that a network makes, as in Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("distances", (torch.arange(T)[:, None] - torch.arange(T)).float()[..., None] / T)
        self.net, self.qkv = (
            nn.Sequential(nn.Linear(1, 4), nn.ReLU(inplace=True), nn.Linear(4, 2, bias=False)),
            nn.Linear(D, 3 * D),
        )
        self.scale = nn.Parameter(torch.randn(2, 1, 1))

    def inside(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(len(x), -1, 3, 2, D // 2).permute(2, 0, 3, 1, 4)
        weights = q @ k.transpose(-2, -1) * self.scale.exp() + self.net(self.distances).permute(2, 0, 1)[None]
        return (weights.softmax(-1) @ v).transpose(1, 2).reshape(len(x), -1, D)


class Written(Head):
    """Tensors that are filled piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last, self.start = nn.Linear(D, D), nn.Linear(D, D), nn.Parameter(torch.randn(D))

    def inside(self, x: Tensor) -> Tensor:
        y = torch.zeros(len(x), T + 1, D, dtype=x.dtype)
        y[:, 0] = self.start
        y[:, 1:] = self.layer(x)
        return self.last(y)


class Formula(Head):
    def __init__(self) -> None:
        super().__init__()
        self.core, self.layer = nn.Parameter(torch.randn(D, D)), nn.Linear(D, D)

    def inside(self, x: Tensor) -> Tensor:
        y = torch.einsum("ntd,de->nte", self.layer(x), self.core)
        return self.layer(torch.einsum("nte,nse->nts", y, x) @ x)


class PerStep(Head):
    """A weight of its own for each of six steps, chosen by a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.bias = nn.Parameter(torch.randn(T, D, D)), nn.Parameter(torch.randn(T, D))

    def inside(self, x: Tensor) -> Tensor:
        steps = [F.linear(x[:, t], self.weights[t], self.bias[t]) for t in range(T)]
        return torch.stack(steps, dim=1)


class Conditional(Head):
    """A weight that is made from the sample itself."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = nn.Linear(D, D * D)

    def inside(self, x: Tensor) -> Tensor:
        return x @ self.maker(x.mean(1)).view(-1, D, D)


BATCHED = [
    Positions, Queries, Coordinates, ScaledTable, Transposing, Mixer, ClassToken, Windows, Frames, Twice, Attending,
    lambda: Attending(batch_first=False), Memory, Bias, PerStep, Conditional,
]  # fmt: skip
FOUND_OTHERWISE = [Stranger, Written, Formula]


def name(make) -> str:
    return getattr(make, "__name__", "").replace("<lambda>", "Attending, sequence first")


@pytest.mark.parametrize("samples", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("make", BATCHED, ids=name)
def test_an_axis_of_as_many_entries_as_samples(make, samples):
    torch.manual_seed(0)
    one_by_one.assert_exact(one_by_one.randomised(make()), torch.randn(samples, T, D), single=False)


@pytest.mark.filterwarnings("ignore::tutorial_lib.gradients.FallbackWarning")
@pytest.mark.parametrize("samples", [1, 2, 6, 7])
@pytest.mark.parametrize("make", FOUND_OTHERWISE, ids=name)
def test_an_axis_that_is_found_otherwise(make, samples):
    torch.manual_seed(0)
    model = one_by_one.randomised(make())
    one_by_one.assert_exact(model, torch.randn(samples, T, D), fallback=True, single=False)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.filterwarnings("ignore::tutorial_lib.gradients.FallbackWarning")
@pytest.mark.parametrize("make", BATCHED + FOUND_OTHERWISE, ids=name)
def test_all_labels_and_cosines(make):
    torch.manual_seed(0)
    model, images = one_by_one.randomised(make()).double(), torch.randn(T, T, D).double()
    contrast = contrast_squared_norms(model, images)
    reference = {name: torch.randn_like(p) for name, p in model.named_parameters()}
    cosines = alignment(model, images, reference, "ones", "bce")
    for n, image in enumerate(images.split(1)):
        for k in range(3):
            gradients = one_by_one.gradients(model, image, lambda z, k=k: F.cross_entropy(z, torch.tensor([k])))
            wanted = torch.stack([g.square().sum() for g in gradients])
            torch.testing.assert_close(contrast[n, k], wanted, rtol=1e-9, atol=1e-18)
        gradients = one_by_one.gradients(model, image, one_by_one.bce_ones)
        for p, (g, r) in enumerate(zip(gradients, reference.values(), strict=True)):
            if g.norm() > 1e-12:
                assert cosines[n, p].item() == pytest.approx(
                    (g * r).sum().item() / (g.norm() * r.norm()).item(), abs=1e-9
                )


# ------------------------------------------------------------------ samples that meet each other
class Centred(Head):
    def inside(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Whitened(Head):
    def inside(self, x: Tensor) -> Tensor:
        return x / x.std()  # of all entries


class Neighbours(Head):
    def inside(self, x: Tensor) -> Tensor:
        return x + 0.1 * x.roll(1, 0)


class Similar(Head):
    def inside(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return ((flat @ flat.T).softmax(-1) @ flat).view_as(x)


class Numbered(Head):
    """An embedding of the place in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Embedding(10, D)

    def inside(self, x: Tensor) -> Tensor:
        return x + self.place(torch.arange(len(x)))[:, None]


class Hidden(Head):
    """Mixing where we cannot look."""

    def inside(self, x: Tensor) -> Tensor:
        return x * torch.from_numpy(x.detach().numpy().mean(0, keepdims=True)).cumprod(1) + torch.trapezoid(x, dim=0)


class Number(Head):
    """A statistic of the batch as a Python number."""

    def inside(self, x: Tensor) -> Tensor:
        return x - x.mean().item()


class Numbers(Head):
    def inside(self, x: Tensor) -> Tensor:
        return x + torch.tensor(x[:, 0].mean(0).tolist(), dtype=x.dtype)


class Array(Head):
    def inside(self, x: Tensor) -> Tensor:
        return x + torch.from_numpy(x.detach().numpy().mean(0))


class Filled(Head):
    def inside(self, x: Tensor) -> Tensor:
        return x + torch.full_like(x, x.max())


class Decided(Head):
    """For all images as the first of them wants it; the last, alone, wants the same."""

    def inside(self, x: Tensor) -> Tensor:
        return x / 255 if x.max() > 100 else x


class Cut(Head):
    """To the length of the longest, as sentences are."""

    def inside(self, x: Tensor) -> Tensor:
        return x[:, : (x.sum(-1) > 0).sum(1).max()]


class Scripted(Head):
    """A function that is not watched, though its result has the shape of the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.rolled = torch.jit.trace(lambda x: x.roll(1, 0), torch.zeros(3, 2, 2), check_trace=False)

    def inside(self, x: Tensor) -> Tensor:
        return x + self.rolled(x)


class Gathered(Head):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("index", torch.stack([torch.arange(T).roll(n) for n in range(4)]))

    def inside(self, x: Tensor) -> Tensor:
        return x.gather(1, self.index[: len(x), :, None].expand(-1, -1, D)) * torch.arange(1.0, T + 1)[:, None]


class LookedUp(Head):
    """The sample before, from a table of the samples."""

    def inside(self, x: Tensor) -> Tensor:
        return F.embedding(x[:, 0, 0].argsort().argsort(), x.flatten(1)).view_as(x)


class Diagonal(Head):
    def inside(self, x: Tensor) -> Tensor:
        return x + x.diagonal(0, 0, 1).T[:, None]


class Smallest(Head):
    def inside(self, x: Tensor) -> Tensor:
        return x * x.square().mean((1, 2), keepdim=True).kthvalue(1, 0, keepdim=True).values


MIXING = [Centred, Whitened, Neighbours, Similar, Numbered, Hidden, Number, Numbers, Array, Filled, Decided, Cut]
MIXING += [Scripted, Gathered, LookedUp, Diagonal, Smallest]


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("make", MIXING, ids=name)
def test_samples_that_meet_each_other_are_found_out(make):
    """Said, and each image goes through the network alone: its numbers are its own."""
    torch.manual_seed(0)
    model, images = one_by_one.randomised(make()).double(), torch.randn(4, T, D).double()
    if make is Decided:
        images[0, 0, 0] = 200
    with pytest.warns(FallbackWarning, match=r"mixes the samples|depends on the batch around it|no rule covers"):
        got, _ = squared_norms(model, images)
    torch.testing.assert_close(got, one_by_one.norms(model, images).detach(), rtol=1e-9, atol=1e-20)


def test_mixing_that_reaches_no_output_is_nobodys_business():
    class Logged(Centred):
        def inside(self, x: Tensor) -> Tensor:
            self.mean = x.mean().item()
            assert (x.abs() < 100).all()
            return x

    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        squared_norms(Logged(), torch.randn(4, T, D))


# ------------------------------------------------------------------ gradients inside the forward pass
class Saliency(Head):
    """A gate from the gradient of a part of the network."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.unused = nn.Linear(D, D), nn.Linear(D, D)

    def inside(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.unused(self.gate(x)).tanh().sum(), x)
        return x * slope.detach()


class Energy(Head):
    """A force field: the output is the gradient of an energy."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(D, D), nn.Linear(D, 1)

    def inside(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            energy = self.two(torch.tanh(self.one(x))).sum()
            return torch.autograd.grad(energy, x, create_graph=True)[0]


class Backward(Saliency):
    def inside(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            self.gate(x).tanh().sum().backward(inputs=[x])
        return self.unused(x * x.grad)


class Functional(Energy):
    def inside(self, x: Tensor) -> Tensor:
        return torch.func.grad(lambda x: self.two(torch.tanh(self.one(x))).sum())(x)


@pytest.mark.filterwarnings("ignore::tutorial_lib.gradients.FallbackWarning")
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("make", [Saliency, Energy, Backward, Functional], ids=name)
def test_gradients_inside_the_forward_pass(make, samples, monkeypatch):
    torch.manual_seed(0)
    model, images = one_by_one.randomised(make()).double(), torch.randn(samples, T, D).double()
    wanted = one_by_one.norms(model, images).detach()
    for worth_avoiding in (1, 1 << 20):
        monkeypatch.setattr("tutorial_lib.gradients._engine.WORTH_AVOIDING", worth_avoiding)
        got, _ = squared_norms(model, images)
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-20)
    contrast = contrast_squared_norms(model, images)
    for k in range(3):
        torch.testing.assert_close(contrast[:, k], squared_norms(model, images, k, "ce")[0], rtol=1e-9, atol=1e-20)


# ------------------------------------------------------------------ networks of other people
@pytest.mark.parametrize("net", ["swin_v2_t", "vit", "swin_t"])
def test_transformers_of_torchvision(net):
    """Windows, shifts, attention, position tables made by a network: nothing falls back."""
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    if net == "vit":
        model, size = models.VisionTransformer(16, 8, 2, 2, 24, 32, num_classes=3), 16
    else:
        kind = models.swin_transformer
        v2 = {"block": kind.SwinTransformerBlockV2, "downsample_layer": kind.PatchMergingV2} if "v2" in net else {}
        model, size = kind.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [4, 4], num_classes=3, **v2), 32
    model = one_by_one.randomised(model).double()
    images = torch.randn(4, 3, size, size).double()
    wanted = one_by_one.norms(model, images).detach()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        got, _ = squared_norms(model, images)
    assert ((got - wanted).abs() <= 1e-9 * wanted + 1e-15 * wanted.sum(1, keepdim=True)).all()
