"""Dropout at test time: thinned networks, batch normalisation at rest, the model as it was found."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tutorial_lib.models import build
from tutorial_lib.uncertainty.dropout import DropoutBeforeHead, mc_dropout_probabilities


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout2d(0.3), nn.Flatten(), nn.Dropout(0.5)
        )
        self.last = nn.Linear(4 * 36, 3)
        nn.init.normal_(self.last.weight)

    def forward(self, images):
        return self.last(self.layers(images.float()))


@pytest.fixture
def model():
    torch.manual_seed(0)
    net = Net()
    net.layers[1].running_mean.normal_()  # statistics that a batch would not have
    return net


@pytest.fixture
def images():
    return torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_passes_differ_and_a_seed_repeats_them(model, images):
    first = mc_dropout_probabilities(model, images, passes=4, seed=3)
    assert first.shape == (4, 20, 3) and first.dtype == torch.float64
    torch.testing.assert_close(first.sum(-1), torch.ones(4, 20, dtype=torch.float64))
    assert (first[0] - first[1]).abs().max() > 0.05
    assert torch.equal(first, mc_dropout_probabilities(model, images, passes=4, seed=3))
    assert not torch.equal(first, mc_dropout_probabilities(model, images, passes=4, seed=4))


def test_an_image_is_answered_alike_in_any_company(model, images):
    together = mc_dropout_probabilities(model, images, passes=3)
    torch.testing.assert_close(
        mc_dropout_probabilities(model, images, passes=3, batch_size=7), together, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        mc_dropout_probabilities(model, images[4:5], passes=3), together[:, 4:5], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_found(model, images, training):
    model.train(training)
    model.layers[3].train(not training)
    model.last.weight.grad = torch.ones_like(model.last.weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    mc_dropout_probabilities(model, images, passes=2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [m.training for m in model.modules()].count(not training) == 1 and model.layers[3].training is not training
    assert torch.equal(model.last.weight.grad, torch.ones_like(model.last.weight))
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_and_modes_are_removed_after_an_error(model):
    model.train()
    with pytest.raises(RuntimeError):
        mc_dropout_probabilities(model, torch.rand(2, 1, 9, 9), passes=2)
    assert model.training and model.layers[1].training
    assert not any(module._forward_hooks for module in model.modules())


def test_masks_keep_the_mean_and_drop_whole_channels():
    seen = []

    class Spy(nn.Module):
        def forward(self, hidden):
            seen.append(hidden.clone())
            return hidden.flatten(1)[:, :2]

    for layer, constant_in_a_channel in ((nn.Dropout2d(0.25), True), (nn.Dropout(0.25), False)):
        seen.clear()
        mc_dropout_probabilities(nn.Sequential(layer, Spy()), torch.ones(2, 3, 4, 4), passes=400)
        hidden = torch.stack(seen)  # (passes, images, channels, height, width)
        torch.testing.assert_close(hidden.unique(), torch.tensor([0, 4 / 3]))
        assert (hidden[:, 0] == hidden[:, 1]).all(), "one mask a pass, for all images"
        assert hidden.mean().item() == pytest.approx(1, abs=0.06)
        same = (hidden.flatten(3) == hidden.flatten(3)[..., :1]).all(-1)
        assert same.all() if constant_in_a_channel else same.float().mean() < 0.2


def test_mean_over_passes_agrees_with_pytorchs_own_dropout():
    """Another route to the same distribution: PyTorch's dropout in training mode, one image at a time."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 3))
    image = torch.rand(1, 1, 8, 8)
    ours = mc_dropout_probabilities(model, image, passes=4000)[:, 0]
    with torch.no_grad():
        theirs = model.train()(image.expand(4000, -1, -1, -1)).double().softmax(-1)
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.01)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), atol=0.01)


def test_dropout_before_the_head_shares_the_weights():
    torch.manual_seed(0)
    classifier = build("lenet", 4, (1, 8, 8)).eval()
    wrapped = DropoutBeforeHead(classifier, p=0.5)
    images = torch.rand(6, 1, 8, 8)
    assert not wrapped.training
    torch.testing.assert_close(wrapped(images), classifier(images))
    spread = mc_dropout_probabilities(wrapped, images, passes=10).std(0)
    assert (spread > 0).all()
    assert next(wrapped.parameters()) is next(classifier.parameters())


def test_features_computed_once_change_nothing(images):
    torch.manual_seed(0)
    wrapped = DropoutBeforeHead(build("lenet", 4, (1, 8, 8)), p=0.5).train()
    one_by_one = mc_dropout_probabilities(nn.Sequential(wrapped), images, passes=3)
    torch.testing.assert_close(mc_dropout_probabilities(wrapped, images, passes=3), one_by_one, rtol=1e-5, atol=1e-6)
    assert wrapped.training and wrapped.model.training and wrapped.dropout.training


def test_misuse_is_named(images):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ValueError, match="no dropout to sample from"):
        mc_dropout_probabilities(plain, images)
    with pytest.raises(ValueError, match="no dropout to sample from"):
        mc_dropout_probabilities(nn.Sequential(nn.Flatten(), nn.Dropout(0.0), nn.Linear(64, 3)), images)
    with pytest.raises(TypeError, match="AlphaDropout"):
        mc_dropout_probabilities(nn.Sequential(nn.Flatten(), nn.AlphaDropout(0.1), nn.Linear(64, 3)), images)
    with pytest.raises(ValueError, match="2 or more"):
        mc_dropout_probabilities(plain, images, passes=1)
    with pytest.raises(TypeError, match="features and head"):
        DropoutBeforeHead(plain)
    with pytest.raises(ValueError, match="between 0 and 1"):
        DropoutBeforeHead(build("lenet", 4, (1, 8, 8)), p=1.0)


# ----------------------------------------------------------------------------------------------------------------------
# Dropout in every place where networks have it


class _TwoUses(nn.Module):
    """One layer of dropout, used twice; ``widths`` of its two inputs."""

    def __init__(self, widths):
        super().__init__()
        self.widths, self.dropout = widths, nn.Dropout(0.5)

    def forward(self, images):
        first, second = (self.dropout(images.new_ones(len(images), width)) for width in self.widths)
        if self.widths[0] == self.widths[1]:
            return torch.stack([(first * second).ne(0).float().mean(1), first.ne(0).float().mean(1)], 1)
        return torch.stack([first.mean(1), second.mean(1)], 1)


def test_one_layer_used_twice_has_two_masks():
    images = torch.rand(3, 1, 2, 2)
    logits = mc_dropout_probabilities(_TwoUses((64, 64)), images, passes=200).log()
    kept_by_both_minus_kept = (logits[..., 0] - logits[..., 1]).mean().item()
    assert kept_by_both_minus_kept == pytest.approx(0.25 - 0.5, abs=0.02)  # 0.00 with one mask for both
    assert mc_dropout_probabilities(_TwoUses((64, 20)), images, passes=2).std() > 0


class _Functional(nn.Module):
    def __init__(self, guarded=False):
        super().__init__()
        self.linear, self.guarded = nn.Linear(16, 3), guarded

    def forward(self, images):
        hidden = images.flatten(1)
        if self.training or not self.guarded:
            hidden = F.dropout(hidden, 0.5, self.training)
        return self.linear(F.dropout(hidden, 0.9, training=False))


class _Attention(nn.Module):
    def __init__(self, batch_first, **options):
        super().__init__()
        self.batch_first = batch_first
        self.attention = nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=batch_first, **options)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        tokens = images.flatten(1).unflatten(1, (-1, 8))  # (N, T, 8)
        if not self.batch_first:
            tokens = tokens.transpose(0, 1)
        mixed, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        return self.head(mixed.mean(1 if self.batch_first else 0))


class _SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3)
        self.head = nn.Linear(8, 3)

    def forward(self, images):
        return self.head(self.layer(images.flatten(1).unflatten(1, (-1, 8)).transpose(0, 1))[0])


class _Fused(nn.Module):
    def forward(self, images):
        tokens = images.flatten(2)
        p = 0.3 if self.training else 0.0
        return F.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=p).mean(1)[:, :3]


EVERYWHERE = {
    "functional": _Functional,
    "attention": lambda: _Attention(True),
    "attention, sequence first": lambda: _Attention(False),
    "attention with bias_kv": lambda: _Attention(True, add_bias_kv=True, add_zero_attn=True),
    "transformer layer, sequence first": _SequenceFirst,
}


@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize("images", [8, 2])
def test_dropout_is_found_wherever_it_is(name, images):
    """Moments over passes are those of PyTorch in training mode, in any company."""
    torch.manual_seed(0)
    model = EVERYWHERE[name]().eval()
    images = torch.rand(images, 1, 4, 4)  # two tokens: with two images, two axes are of one length
    together = mc_dropout_probabilities(model, images, passes=300, seed=1)
    alone = mc_dropout_probabilities(model, images[1:2], passes=300, seed=1)
    torch.testing.assert_close(alone[:, 0], together[:, 1], rtol=1e-5, atol=1e-6)
    cut = mc_dropout_probabilities(model, images, passes=3, seed=1, batch_size=3)
    torch.testing.assert_close(cut, together[:3], rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        theirs = model.train()(images[1:2].expand(1000, -1, -1, -1)).double().softmax(-1)
    np.testing.assert_allclose(alone[:, 0].mean(0), theirs.mean(0), atol=0.25 * theirs.std(0).max() + 1e-3)
    np.testing.assert_allclose(alone[:, 0].std(0), theirs.std(0), rtol=0.25)


def test_attention_is_pytorchs_where_nothing_is_dropped():
    """The path with masks computes what the usual one does: masks of ones change nothing."""
    torch.manual_seed(0)
    model = _Attention(True).eval()
    model.attention.dropout = 1e-12
    images = torch.rand(4, 1, 4, 4)
    with torch.no_grad():
        expected = model(images).double().softmax(1)
    torch.testing.assert_close(mc_dropout_probabilities(model, images, passes=2)[1], expected, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_sampled_is_named():
    images = torch.rand(2, 1, 4, 4)
    with pytest.raises(TypeError, match="scaled_dot_product_attention"):
        mc_dropout_probabilities(_Fused(), images)
    with pytest.raises(TypeError, match="1 times in training mode|2 times in training mode"):
        mc_dropout_probabilities(_Functional(guarded=True), images)
    recurrent = nn.Sequential(nn.Flatten(2), nn.LSTM(16, 4, 2, dropout=0.2))
    with pytest.raises(TypeError, match="LSTM"):
        mc_dropout_probabilities(recurrent, images)
