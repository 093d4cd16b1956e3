"""Deep SVDD: a network that brings what is known close to one point.

Ruff et al., "Deep one-class classification", ICML 2018, eq. 4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tutorial_lib.data.images import as_float
from tutorial_lib.detectors.base import Detector, checked
from tutorial_lib.detectors.evidence import IMAGES, Evidence

__all__ = ["DeepSVDD"]


class DeepSVDD(Detector):
    r"""Squared distance :math:`\lVert \phi(x) - c \rVert^2` from the point that known images are brought to.

    Larger is stranger. The network is trained in ``fit``: convolutions of stride 2 and a linear layer, all without
    biases and with leaky ReLUs, since a network with biases could map every image to c. c is the mean output before
    training, each coordinate at least 0.1 away from 0. The paper starts from the encoder of a trained autoencoder; here
    the start is random.

    Args:
        widths: channels of the convolutions.
        size: dimension of the output.
        epochs, training_batch, learning_rate, weight_decay: of the training with Adam; a tenth of the learning rate for the
            last third of the epochs.
        seed: of the initial weights and the order of the images.

    ``fit(known)`` is given the training images. Challenging data seen in ``fit``: none.

    >>> known = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0)) / 4
    >>> detector = DeepSVDD(widths=(4,), size=4, epochs=5).fit(known)
    >>> bool(detector.predict(torch.ones(1, 1, 8, 8)) > detector.predict(known).max())
    True
    """

    requires_fit = True
    from_training_images = True

    def __init__(
        self,
        widths: tuple[int, ...] = (16, 32),
        size: int = 32,
        epochs: int = 50,
        training_batch: int = 64,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-6,
        seed: int = 0,
    ) -> None:
        super().__init__(nn.Identity())  # fit makes the network
        if checked("epochs", epochs) < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        self.widths, self.size, self.epochs, self.seed = widths, size, epochs, seed
        self.training_batch = training_batch
        self.learning_rate = checked("learning_rate", learning_rate, 0, above=True)
        self.weight_decay = checked("weight_decay", weight_decay, 0)

    def _fit(self, seen: Evidence) -> None:
        pictures = as_float(seen[IMAGES]).clone()
        generator = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng(devices=[]), torch.inference_mode(False), torch.enable_grad():
            torch.random.default_generator.manual_seed(self.seed)
            network = _network(tuple(pictures.shape[1:]), self.widths, self.size).to(pictures.device)
            with torch.no_grad():
                centre = torch.cat([network(part) for part in pictures.split(self.batch_size)]).mean(0)
                self._centre = torch.where(centre < 0, centre.clamp_max(-0.1), centre.clamp_min(0.1))
            optimizer = torch.optim.Adam(network.parameters(), self.learning_rate, weight_decay=self.weight_decay)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, max(1, 2 * self.epochs // 3), gamma=0.1)
            for _ in range(self.epochs):
                for chosen in torch.randperm(len(pictures), generator=generator).split(self.training_batch):
                    loss = (network(pictures[chosen]) - self._centre).square().sum(1).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                schedule.step()
        self.model = network.eval()

    def _score(self, seen: Evidence) -> Tensor:
        return (self.model(seen[IMAGES]) - self._centre).square().sum(1)


def _network(shape: tuple[int, ...], widths: tuple[int, ...], size: int) -> nn.Sequential:
    channels, height, width = shape
    layers: list[nn.Module] = []
    for after in widths:
        layers += [nn.Conv2d(channels, after, 5, stride=2, padding=2, bias=False), nn.LeakyReLU(0.1)]
        channels, height, width = after, (height + 1) // 2, (width + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, size, bias=False))
