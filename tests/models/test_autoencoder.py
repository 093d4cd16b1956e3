"""The published autoencoder, counted; other sizes; the latent loss against torch's own divergence."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from tutorial_lib.models.autoencoder import Autoencoder, Posterior, VariationalAutoencoder, build_autoencoder


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(("channels", "count"), [(1, 230_721), (3, 232_771)])
def test_the_published_size(channels, count):
    model = build_autoencoder("cae", (channels, 28, 28))
    assert parameters(model) == count
    latent = model.encode(torch.zeros(2, channels, 28, 28))
    assert latent.shape == (2, 64, 3, 3)
    # three linear layers of 576 in the variational one
    assert parameters(build_autoencoder("vae", (channels, 28, 28))) == count + 3 * (576 * 576 + 576)


def test_the_published_way_down_and_up():
    model = build_autoencoder("cae", (1, 28, 28))
    sides, x = [], torch.zeros(1, 1, 28, 28)
    for layer in (*model.encoder, *model.decoder):
        x = layer(x)
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            sides.append((x.shape[1], x.shape[2]))
    assert sides == [(32, 15), (32, 8), (64, 5), (64, 3), (64, 4), (32, 8), (32, 14), (1, 28)]
    assert [type(m).__name__ for m in model.decoder][-1] == "Sigmoid"
    assert [type(m).__name__ for m in model.encoder][1::2] == ["ReLU"] * 4


@pytest.mark.parametrize("kind", ["cae", "vae"])
@pytest.mark.parametrize(
    "shape", [(1, 8, 8), (3, 16, 16), (1, 20, 20), (3, 32, 32), (1, 28, 16), (1, 64, 64), (1, 6, 6)]
)
def test_images_come_back_in_their_own_size(kind, shape):
    model = build_autoencoder(kind, shape, width=0.25)
    out = model(torch.rand(3, *shape))
    assert out.shape == (3, *shape)
    assert 0 < out.min() and out.max() < 1
    assert torch.equal(model.eval()(torch.full((1, *shape), 255, dtype=torch.uint8)), model(torch.ones(1, *shape)))


def test_the_latent_loss_is_the_divergence_from_a_standard_normal():
    torch.manual_seed(0)
    model = VariationalAutoencoder((1, 8, 8), (4, 2))
    mean, log_variance = torch.randn(5, 18), torch.randn(5, 18)
    expected = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(model.latent_loss(Posterior(mean, log_variance)), expected)
    assert torch.equal(Autoencoder((1, 8, 8), (4, 2)).latent_loss(torch.rand(5, 2, 3, 3)), torch.zeros(5))


def test_a_latent_is_drawn_in_training_and_the_mean_in_evaluation():
    torch.manual_seed(0)
    model = VariationalAutoencoder((1, 8, 8), (4, 2))
    posterior = model.encode(torch.rand(4, 1, 8, 8))
    noise = torch.randn(4, 18)
    drawn = posterior.mean + posterior.log_variance.exp().sqrt() * noise
    torch.testing.assert_close(model.decode(posterior, noise), model.decode(drawn))
    assert not torch.equal(model.decode(posterior), model.decode(posterior))
    model.eval()
    assert torch.equal(model.decode(posterior), model.decode(posterior.mean))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: build_autoencoder("gan", (1, 8, 8)), "kind must be one of cae, vae"),
        (lambda: build_autoencoder("cae", (1, 9, 9)), "even height and width.*1x9x9"),
        (lambda: build_autoencoder("cae", (1, 8)), r"\(C, H, W\)"),
        (lambda: build_autoencoder("cae", (1, 8, 8), width=0), "width must be positive"),
        (lambda: Autoencoder((1, 8, 8), ()), "widths must be positive"),
        (lambda: build_autoencoder("cae", (1, 8, 8))(torch.zeros(2, 1, 28, 28)), "images of 1x8x8, got 1x28x28"),
        (lambda: build_autoencoder("vae", (3, 8, 8))(torch.zeros(2, 1, 8, 8)), "images of 3x8x8, got 1x8x8"),
    ],
)
def test_what_does_not_fit_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
