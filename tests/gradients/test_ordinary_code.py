"""What ordinary networks return and do, beyond logits (N, K): each case works, or is refused in one sentence."""

from __future__ import annotations

import subprocess
import sys
import warnings

import one_by_one
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tutorial_lib.gradients import FallbackWarning, alignment, contrast_squared_norms, squared_norms


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def segmentation() -> nn.Module:
    return one_by_one.randomised(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 3, 1))).double()


CLASSES = torch.randint(0, 3, (4, 3, 4), generator=torch.Generator().manual_seed(0))
SOFT = torch.rand(4, 3, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PIXEL_LABELS = {
    "a class a pixel": (CLASSES, lambda z, n: CLASSES[n : n + 1]),
    "one class": (2, lambda z, n: torch.full((1, 3, 4), 2)),
    "predicted": ("predicted", lambda z, n: z.argmax(1)),
    "probabilities": (SOFT, lambda z, n: SOFT[n : n + 1]),
    "ones": ("ones", lambda z, n: torch.ones_like(z)),
    "uniform": ("uniform", lambda z, n: torch.full_like(z, 1 / 3)),
}


@pytest.mark.parametrize("label", PIXEL_LABELS)
def test_cross_entropy_of_pixels_is_torchs(label):
    """Classes stand on axis 1, whatever follows."""
    model, images = segmentation(), torch.randn(4, 2, 5, 6).double()
    given, wanted_target = PIXEL_LABELS[label]
    got, _ = squared_norms(model, images, given, "ce")
    wanted = torch.cat([
        one_by_one.norms(
            model, image, lambda z, n=n: F.cross_entropy(z, wanted_target(z.detach(), n), reduction="sum")
        )
        for n, image in enumerate(images.split(1))
    ])  # fmt: skip
    assert one_by_one.relative_error(got, wanted) < 1e-9


class OneNumber(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x).squeeze(1)


@pytest.mark.parametrize("samples", [1, 3])
def test_one_number_a_sample(samples):
    model, images = OneNumber(), torch.randn(samples, 4)
    one_by_one.assert_exact(model, images)
    squared_norms(model, images, "zeros", "mse")
    for label, loss in (("ones", "ce"), ("uniform", "bce"), ("predicted", "bce"), (0, "bce")):
        with pytest.raises(ValueError, match=r"logits \(N, K\)"):
            squared_norms(model, images, label, loss)


# ------------------------------------------------------------------ in place
class InPlace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.norm, self.shift = nn.LayerNorm(4), nn.Parameter(torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        h += x
        h = h.sin() + F.relu(self.one(x), inplace=True)
        y = self.norm(h).mul_(2)
        y += self.shift
        z = self.two(y).transpose(0, 1)
        z += 1
        z.clamp_(-3, 3)
        return self.head(z.transpose(0, 1).tanh_().mean(1))


@pytest.mark.parametrize("samples", [1, 3, 5])
def test_in_place_after_linear_on_tokens(samples):
    one_by_one.assert_exact(one_by_one.randomised(InPlace()), torch.randn(samples, 5, 4), single=False)


def test_an_input_that_is_overwritten_after_a_sum():
    class Overwritten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.position, self.head = nn.Linear(4, 4), nn.Parameter(torch.randn(4)), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            h = self.layer(x)
            y = h + self.position
            h += 1  # y does not need it any more
            return self.head((y * y).tanh() + h)

    one_by_one.assert_exact(one_by_one.randomised(Overwritten()), torch.randn(3, 4))


# ------------------------------------------------------------------ half precision
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_networks_with_batch_norm(dtype):
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8),
        nn.Flatten(), nn.Linear(8 * 16, 10),
    )  # fmt: skip
    images = torch.randn(4, 3, 6, 6)
    exact = one_by_one.norms(one_by_one.randomised(model).double(), images.double()).detach()
    model.to(dtype)
    for n in (4, 1):
        got, _ = squared_norms(model, images[:n])
        assert one_by_one.relative_error(got, exact[:n]) < 0.1
    contrast = contrast_squared_norms(model, images)
    assert one_by_one.relative_error(contrast[:, 3], squared_norms(model, images, 3, "ce")[0]) < 0.1


# ------------------------------------------------------------------ shapes
class Scalars(nn.Module):
    """Parameters without an axis, a layer on one vector, one-dimensional outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature, self.shift = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.tensor(0.2))
        self.code, self.film, self.head = nn.Parameter(torch.randn(2)), nn.Linear(2, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.film(self.code)
        return self.head((x * scale).tanh()).flatten() / self.temperature - self.shift.exp()


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_scalars_and_vectors(samples):
    one_by_one.assert_exact(one_by_one.randomised(Scalars()), torch.randn(samples, 4))


class VAE(nn.Module):
    """Returns its input among its outputs, and whole numbers."""

    def __init__(self, detached: bool = False) -> None:
        super().__init__()
        self.encode, self.decode, self.detached = nn.Linear(6, 2), nn.Linear(2, 6), detached

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        mean = self.encode(x)
        return self.decode(mean), x, mean.argmax(1), mean.detach() if self.detached else mean


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("detached", [False, True])
def test_outputs_that_need_no_gradient(samples, detached):
    model, x = one_by_one.randomised(VAE(detached)).double(), torch.randn(samples, 6).double()

    def loss(out: tuple[Tensor, ...]) -> Tensor:
        return (out[0] - out[1]).square().sum(1) + out[3].square().sum(1)

    got, _ = squared_norms(model, x, None, loss)
    assert one_by_one.relative_error(got, one_by_one.norms(model, x, lambda out: loss(out).sum()).detach()) < 1e-9


def test_a_loss_that_does_not_depend_on_the_network():
    with pytest.raises(ValueError, match="does not depend on the network's output"):
        squared_norms(nn.Linear(4, 2), torch.randn(3, 4), None, lambda z: torch.ones(len(z)))


def test_an_output_that_does_not_depend_on_the_parameters():
    class Stuck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).detach()

    for samples in (1, 3):
        assert (squared_norms(Stuck(), torch.randn(samples, 4))[0] == 0).all()


def test_outputs_with_the_samples_on_another_axis():
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).T

    with pytest.raises(ValueError, match="on the first axis"):
        squared_norms(Turned(), torch.randn(3, 4))


# ------------------------------------------------------------------ parameters of other kinds
class Spectral(nn.Module):
    """Complex weights between a Fourier transform and its inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.mix = (
            nn.Parameter(torch.randn(4, 5, dtype=torch.cfloat)),
            nn.Parameter(torch.randn(4, 4, dtype=torch.cfloat)),
        )
        self.layer, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:  # (N, 4, 8)
        spectrum = torch.fft.rfft(self.layer(x)) * self.weight
        return self.head(torch.fft.irfft(torch.einsum("nif,io->nof", spectrum, self.mix), n=8).mean(1))


@pytest.mark.parametrize("samples", [1, 4, 5])
def test_complex_parameters(samples):
    model = Spectral()
    for part in (model.layer, model.head):
        one_by_one.randomised(part)
    model, x = model.double(), torch.randn(samples, 4, 8).double()
    model.weight.data, model.mix.data = model.weight.data.cdouble(), model.mix.data.cdouble()
    wanted = torch.stack([
        torch.stack([g.abs().square().sum() for g in one_by_one.gradients(model, image, one_by_one.bce_ones)])
        for image in x.split(1)
    ])  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        got, _ = squared_norms(model, x)
        reference = {name: torch.randn_like(p) for name, p in model.named_parameters()}
        cosines = alignment(model, x, reference, "ones", "bce")
    assert one_by_one.relative_error(got, wanted) < 1e-9
    gradients = one_by_one.gradients(model, x[:1], one_by_one.bce_ones)
    for p, (g, r) in enumerate(zip(gradients, reference.values(), strict=True)):
        inner = (g.conj() * r).sum().real / (g.abs().square().sum() * r.abs().square().sum()).sqrt()
        assert cosines[0, p].item() == pytest.approx(inner.item(), abs=1e-9)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("bag", [False, True])
def test_sparse_embeddings(samples, bag):
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = (nn.EmbeddingBag if bag else nn.Embedding)(7, 4, sparse=True)
            self.tied, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, ids: Tensor) -> Tensor:
            y = self.table(ids)
            return self.head(self.tied(y if bag else y.mean(1)).tanh())

    model, ids = one_by_one.randomised(Words()).double(), torch.tensor([[1, 2, 2], [0, 0, 0], [6, 5, 1]])[:samples]
    wanted = torch.stack([
        torch.stack([g.to_dense().square().sum() for g in one_by_one.gradients(model, i, one_by_one.bce_ones)])
        for i in ids.split(1)
    ])  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if bag else "error", FallbackWarning)
        got, _ = squared_norms(model, ids)
    assert one_by_one.relative_error(got, wanted) < 1e-9


# ------------------------------------------------------------------ forward passes that run again, or leave traces
class Checkpointed(nn.Module):
    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.one, self.two, self.head, self.whole = nn.Linear(4, 6), nn.Linear(6, 4), nn.Linear(4, 3), whole

    def forward(self, x: Tensor) -> Tensor:
        def inner(x: Tensor) -> Tensor:
            return self.two(torch.tanh(self.one(x))) if self.whole else x.sin().square()

        return self.head(checkpoint(inner, self.one(x) if not self.whole else x, use_reentrant=False)[:, :4])


@pytest.mark.filterwarnings("ignore::tutorial_lib.gradients.FallbackWarning")
@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("worth_avoiding", [1, 1 << 20])
def test_checkpoints(samples, whole, worth_avoiding, monkeypatch):
    monkeypatch.setattr("tutorial_lib.gradients._engine.WORTH_AVOIDING", worth_avoiding)
    model = one_by_one.randomised(Checkpointed(whole))
    images = torch.randn(samples, 4)
    if whole:
        one_by_one.assert_exact(model, images, fallback=True)
    else:
        model, images = model.double(), images.double()
        wanted = one_by_one.norms(model, images).detach()
        torch.testing.assert_close(squared_norms(model, images)[0], wanted, rtol=1e-9, atol=1e-20)


@pytest.mark.filterwarnings("ignore::tutorial_lib.gradients.FallbackWarning")
def test_a_densenet_that_saves_memory():
    models = pytest.importorskip("torchvision").models
    model = models.DenseNet(4, (2, 2), 8, memory_efficient=True, num_classes=3)
    one_by_one.assert_exact(one_by_one.randomised(model), torch.rand(3, 3, 32, 32), fallback=True, single=False)


def test_a_forward_pass_that_changes_its_buffers():
    """Spectral normalisation in training mode: every call takes another step towards the largest singular value."""
    normed = nn.utils.parametrizations.spectral_norm(nn.Linear(6, 5))
    model, images = nn.Sequential(normed, nn.Tanh(), nn.Linear(5, 3)).double(), torch.randn(4, 6).double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for ask in (
        lambda: squared_norms(model.train(), images),
        lambda: contrast_squared_norms(model.train(), images[:1]),
    ):
        with pytest.raises(ValueError, match=r"changes its buffers.*model\.eval"):
            ask()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    one_by_one.assert_exact(model.eval(), images)


class Counting(nn.Module):
    """Puts another tensor under its buffer's name, instead of writing to it."""

    def __init__(self, matters: bool) -> None:
        super().__init__()
        self.layer, self.matters = nn.Linear(4, 3), matters
        self.register_buffer("calls", torch.ones(()))
        self.register_buffer("first", None)

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        if self.first is None:
            self.first = torch.arange(4.0).to(x)
        return self.layer(x + self.first) * (self.calls if self.matters else 1)


def test_a_forward_pass_that_replaces_its_buffers():
    for samples in (1, 3):
        model, images = Counting(matters=True), torch.randn(samples, 4)
        with pytest.raises(ValueError, match="changes its buffers"):
            squared_norms(model, images)
        assert model.calls == 1
        model = Counting(matters=False)
        squared_norms(model, images)
        contrast_squared_norms(model, images)
        assert model.calls == 1 and model.first is None
        one_by_one.assert_exact(model, images)


class NumbersOnly(nn.Module):
    """Functions that take a parameter for a number only if it has no axes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.number = nn.Linear(4, 4), nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x).masked_fill(x > 1, self.number)
        y[:, 0].fill_(self.number)
        return y.masked_fill_(x < -1, 2 * self.number)


def test_functions_that_take_numbers_only():
    one_by_one.assert_exact(NumbersOnly(), torch.randn(5, 4), fallback=True)


@pytest.mark.parametrize("samples", [1, 3])
def test_einsum_with_an_axis_of_size_one_for_the_samples(samples):
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.register_buffer("scale", torch.arange(4.0)[None])

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(torch.einsum("nd,nd->nd", x, self.scale))

    one_by_one.assert_exact(Scaled(), torch.randn(samples, 4))


class Overwriting(nn.Module):
    """Writes to what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return self.layer(x.mul_(2))


@pytest.mark.parametrize("samples", [1, 3])
def test_a_network_that_writes_to_its_input(samples):
    model, images = Overwriting().double(), torch.randn(samples, 4).double()
    before = images.clone()
    got, _ = squared_norms(model, images)
    assert torch.equal(images, before)
    contrast_squared_norms(model, images)
    assert torch.equal(images, before)
    assert one_by_one.relative_error(got, one_by_one.norms(model, before.clone()).detach()) < 1e-9


class FunctionsWithWeights(nn.Module):
    """addmm, as GPT-2 has it, and prelu."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6))
        self.one, self.each, self.head = nn.PReLU(), nn.PReLU(5), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:  # (N, 5, 4)
        y = torch.addmm(self.bias, x.view(-1, 4), self.weight).view(len(x), 5, 6)
        return self.head(self.each(self.one(y)).mean(1))


@pytest.mark.parametrize("samples", [1, 4, 5])
def test_functions_that_are_made_of_layers(samples):
    one_by_one.assert_exact(one_by_one.randomised(FunctionsWithWeights()), torch.randn(samples, 5, 4), single=False)


def test_a_torch_without_its_private_names_takes_the_public_way(monkeypatch):
    """Labels one after the other, and the other two are only asked what they would say."""
    script = (
        "import torch, torch._C._functorch as f, torch._functorch.pyfunctorch as p, torch.utils.checkpoint\n"
        "del f._add_batch_dim, p.temporarily_pop_interpreter_stack\n"
        "vars(torch._C._autograd).pop('_top_saved_tensors_default_hooks', None)\n"
        "from tutorial_lib.gradients import _node, contrast_squared_norms, squared_norms\n"
        "assert not _node.labels_together()\n"
        "torch.manual_seed(0)\n"
        "model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3)).double()\n"
        "x = torch.randn(3, 4).double()\n"
        "one = torch.stack([squared_norms(model, x, k, 'ce')[0] for k in range(3)], dim=1)\n"
        "assert torch.allclose(contrast_squared_norms(model, x), one, rtol=1e-9, atol=0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
