"""A small network that answers, and small folders of images of two kinds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

SIZE = 8


def small_network() -> nn.Sequential:
    """8x8 grey images to three classes; its batch normalisation has seen images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
            *(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)),
        )
        network(torch.rand(64, 1, SIZE, SIZE))
    return network.eval()


def write_images(folder: Path, count: int, seed: int, noise: bool = False) -> list[Path]:
    """Blocks of one grey with a little noise, or noise alone, in three folders."""
    generator = np.random.default_rng(seed)
    paths = []
    for number in range(count):
        flat = generator.integers(40, 200) + generator.normal(0, 6, (SIZE, SIZE))
        pixels = generator.integers(0, 256, (SIZE, SIZE)) if noise else flat
        path = folder / str(number % 3) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
        paths.append(path)
    return paths


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """A folder with ``net.pt2``, ``net.pt`` (TorchScript), ``net.py:make`` and images; nobody changes it."""
    folder = tmp_path_factory.mktemp("own")
    network, images = small_network(), torch.rand(2, 1, SIZE, SIZE)
    config = {"config.json": json.dumps({"input_size": [1, SIZE, SIZE], "mean": [0.5], "std": [0.25]})}
    program = torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, folder / "net.pt2", extra_files=config)
    torch.jit.save(torch.jit.trace(network, images), folder / "net.pt", _extra_files=config)
    torch.save(network.state_dict(), folder / "state.pt")
    (folder / "net.py").write_text(CODE)
    write_images(folder / "normal", 120, seed=0)
    write_images(folder / "new", 60, seed=1)
    write_images(folder / "new" / "strange", 20, seed=2, noise=True)
    return folder


CODE = """
import torch
from torch import nn

def make():
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3),
    )
    network.config = {"input_size": [1, 8, 8], "mean": [0.5], "std": [0.25]}
    return network

def number():
    return 7
"""
