"""The networks that the benchmark runs, with weights and statistics as after training: images of 3×32×32 in, logits or images out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutorial_lib.models import build

SIZE = (3, 32, 32)


def small_cnn(classes: int) -> nn.Module:
    """Four convolutions and two linear layers, most of the parameters in the first of these."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 64, 128), nn.ReLU(), nn.Linear(128, classes),
    )  # fmt: skip


def autoencoder() -> nn.Module:
    """The convolutional autoencoder of gradient constraints (Kwon et al., 2020), on 32×32: four layers down, four up."""
    down = [nn.Conv2d(i, o, 4, 2, 1) for i, o in ((3, 32), (32, 32), (32, 64), (64, 64))]
    up = [nn.ConvTranspose2d(i, o, 4, 2, 1) for i, o in ((64, 64), (64, 32), (32, 32), (32, 3))]
    layers = [part for layer in (*down, *up) for part in (layer, nn.ReLU())]
    return nn.Sequential(*layers[:-1], nn.Sigmoid())


def vit(classes: int) -> nn.Module:
    """A small vision transformer, torchvision's: six layers of width 192 with three heads, patches of 4×4."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(SIZE[1], 4, num_layers=6, num_heads=3, hidden_dim=192, mlp_dim=768, num_classes=classes)


CLASSIFIERS = ("resnet18", "resnet20", "small_cnn", "densenet_bc_100_12", "vit")


def network(name: str, classes: int = 10, device: torch.device | str = "cpu") -> nn.Module:
    """A network in evaluation mode, its batch normalisation with the statistics of a batch of noise; the same one each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = (
            small_cnn(classes)
            if name == "small_cnn"
            else autoencoder()
            if name == "autoencoder"
            else vit(classes)
            if name == "vit"
            else build(name, classes, SIZE)
        )
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None  # the mean of the batches that it sees: here one
        with torch.no_grad():
            model.train()(images(64))
    return model.eval().to(device)


def images(n: int, device: torch.device | str = "cpu") -> Tensor:
    """Noise in [0, 1], the same each time. What the pixels show does not change the work."""
    return torch.rand(n, *SIZE, generator=torch.Generator().manual_seed(0)).to(device)
