"""A sample's numbers are its own: they do not depend on the batch, on the chunks, or on where the samples stand."""

from __future__ import annotations

import itertools

import one_by_one
import pytest
import torch
from torch import Tensor, nn

from tutorial_lib.gradients import alignment, contrast_squared_norms, squared_norms
from tutorial_lib.gradients._chunks import ChunkSizes
from tutorial_lib.gradients.rules._arithmetic import parts
from tutorial_lib.models import build


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return one_by_one.randomised(build("resnet20", 4, (3, 16, 16))).double()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(9, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("budget", [1, 3_000_000, None])
def test_chunks_change_nothing(model, images, budget):
    whole, _ = squared_norms(model, images, memory_budget=1 << 40)
    parts, _ = squared_norms(model, images, memory_budget=budget)
    assert one_by_one.relative_error(parts, whole) < 1e-9
    contrast = contrast_squared_norms(model, images[:3], memory_budget=1 << 40)
    assert one_by_one.relative_error(contrast_squared_norms(model, images[:3], memory_budget=budget), contrast) < 1e-9


def test_labels_follow_their_images_through_chunks(model, images):
    """A label an image, in chunks and one by one: the fallback and the small last chunk take the right ones."""
    classes = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 3])
    whole, _ = squared_norms(model, images, classes, "ce", memory_budget=1 << 40)
    parts, _ = squared_norms(model, images, classes, "ce", memory_budget=3_000_000)
    alone = torch.cat([squared_norms(model, images[n : n + 1], int(k), "ce")[0] for n, k in enumerate(classes)])
    assert one_by_one.relative_error(parts, whole) < 1e-9
    assert one_by_one.relative_error(alone, whole) < 1e-9


def test_the_rest_of_the_batch_changes_nothing(model, images):
    whole, _ = squared_norms(model, images)
    some, _ = squared_norms(model, images[[7, 2, 2]])
    assert one_by_one.relative_error(some, whole[[7, 2, 2]]) < 1e-9


def test_chunk_sizes_follow_what_the_first_chunk_took():
    sizes = ChunkSizes(torch.zeros(100, 3, 8, 8), budget=100_000_000)
    seen = []
    for samples in sizes:
        seen.append(samples.stop - samples.start)
        sizes.measured(activation_bytes=10_000_000 * seen[-1], samples=seen[-1])
    assert sum(seen) == 100
    assert set(seen[1:]) <= {9, 10}, "ten samples of 10 MB fit 100 MB; the last chunk is about as large as the others"


def test_many_labels_come_together_and_a_few_images_at_a_time(monkeypatch):
    """Chunks are so small that all labels' tensors have the size of a block, and one image shows how small that is."""
    torch.manual_seed(0)
    model = one_by_one.randomised(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10))
    ).double()
    images = torch.rand(12, 3, 8, 8, dtype=torch.float64)
    whole = contrast_squared_norms(model, images)
    batches = []
    model[1].register_forward_hook(lambda module, inputs, output: batches.append(len(output)))
    for images_at_once in (4, 1, 0.5):  # half an image: five of its ten labels
        batches.clear()
        monkeypatch.setattr("tutorial_lib.gradients._engine.SMALL_BLOCKS", int(images_at_once * 10 * 8 * 64 * 8))
        assert one_by_one.relative_error(contrast_squared_norms(model, images), whole) < 1e-9
        assert batches == [1, *[max(1, int(images_at_once))] * (12 // max(1, int(images_at_once)))]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_parts_of_a_batch_give_every_thread_whole_samples(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for samples, numbers in itertools.product((1, 2, 7, 32, 33), (1, 50, 70, 1000)):
        ranges = parts(samples, 10, numbers)
        sizes = [last - first for first, last in ranges]
        assert sum(sizes) == samples and ranges[0][0] == 0 and all(a[1] == b[0] for a, b in itertools.pairwise(ranges))
        assert max(sizes) * 10 <= numbers or max(sizes) == 1
        if numbers // 10 >= threads:
            assert all(size % threads == 0 for size in sizes[:-1])


def test_layers_of_one_shape_hand_on_their_memory():
    """What a layer leaves in it must not reach the next: neither the borders of its input nor the end of a larger part."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)], nn.Flatten(), nn.Linear(4 * 36, 3))
    one_by_one.assert_exact(one_by_one.randomised(model), torch.randn(5, 4, 6, 6))


def test_memory_follows_the_budget_and_not_the_batch():
    """The largest tensors alive at once are those of one chunk."""
    model = one_by_one.randomised(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 256, 2))
    )
    largest = []
    model[1].register_forward_hook(lambda module, inputs, output: largest.append(output.nbytes))
    for n in (64, 256):
        largest.clear()
        squared_norms(model, torch.rand(n, 3, 16, 16), memory_budget=2_000_000)
        assert max(largest) <= 1_000_000, f"{n} images: {max(largest)} bytes in one activation"


class SequenceFirst(nn.Module):
    """Inside, samples stand on the second axis, as in torch's recurrent and attention layers."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.inner, self.norm, self.head = nn.Linear(width, width), nn.LayerNorm(width), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:  # (N, T, D)
        x = self.norm(torch.tanh(self.inner(x.transpose(0, 1))))
        return self.head(x.mean(0))


@pytest.mark.parametrize("samples, steps", [(3, 5), (4, 4), (2, 4), (4, 2), (1, 4), (4, 1)])
def test_samples_on_another_axis(samples, steps):
    """Four samples of four steps: the shape does not say which axis is which, one image through the network does."""
    torch.manual_seed(0)
    one_by_one.assert_exact(one_by_one.randomised(SequenceFirst()), torch.randn(samples, steps, 4))


class Square(nn.Module):
    """Channels-last maps whose height and width may equal the number of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner, self.head = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(self.norm(x))).mean((1, 2)))


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 8])
def test_maps_as_large_as_the_batch(samples):
    torch.manual_seed(0)
    one_by_one.assert_exact(one_by_one.randomised(Square()), torch.randn(samples, 4, 4, 4))


class Windows(nn.Module):
    """Windows of a picture become samples of their own for a while, as in window attention."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:  # (N, 8, 4)
        windows = torch.tanh(self.inner(x.reshape(len(x) * 2, 4, 4)))
        return self.head(windows.reshape(len(x), 8, 4).mean(1))


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_samples_folded_into_windows(samples):
    """No axis holds the samples alone, but which entries belong to one is known."""
    torch.manual_seed(0)
    one_by_one.assert_exact(one_by_one.randomised(Windows()), torch.randn(samples, 8, 4))


def test_alignment_in_chunks(model, images):
    reference = {name: torch.randn_like(p) for name, p in model.named_parameters() if p.dim() > 1}
    whole = alignment(model, images, reference, "ones", "bce", memory_budget=1 << 40)
    parts = alignment(model, images, reference, "ones", "bce", memory_budget=3_000_000)
    assert (whole - parts).abs().max() < 1e-9


def test_devices_and_types_are_those_of_the_images_and_the_model(model, images):
    got, _ = squared_norms(model, images.float())
    assert got.dtype == torch.float64 and got.device == images.device
    bytes_ = (images * 255).round().to(torch.uint8)
    same, _ = squared_norms(model, bytes_.double() / 255)
    assert one_by_one.relative_error(squared_norms(model, bytes_)[0], same) < 1e-9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(model, images):
    wanted, _ = squared_norms(model, images)
    on_gpu = build("resnet20", 4, (3, 16, 16)).double().cuda().eval()
    on_gpu.load_state_dict(model.state_dict())
    assert one_by_one.relative_error(squared_norms(on_gpu, images)[0], wanted) < 1e-9
    assert squared_norms(on_gpu, images.cuda())[0].is_cuda
    one = contrast_squared_norms(on_gpu, images[:2])
    assert one_by_one.relative_error(one, contrast_squared_norms(model, images[:2])) < 1e-9
