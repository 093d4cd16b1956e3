r"""Sparse autoencoder with a linear decoder: 192 numbers, 400 units that are silent most of the time, 192 numbers.

.. math:: h = \sigma(W_1 x + b_1), \quad \hat x = W_2 h + b_2

.. math:: J = \frac{1}{2M} \sum_m \lVert \hat x_m - x_m \rVert^2 + \frac{\lambda}{2} (\lVert W_1 \rVert^2 +
          \lVert W_2 \rVert^2) + \beta \sum_j KL(\rho \,\|\, \bar h_j)

with :math:`\bar h_j` the mean of unit j over the patches, :math:`\rho = 0.035, \beta = 5, \lambda = 0.003`, minimised by
L-BFGS (200 iterations). Settings of the UNIQUE code, which has them from Ng's UFLDL course, "Linear decoders".
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.optimize
import scipy.special
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tutorial_lib.storage import Damaged, write_atomically

__all__ = ["SparseAutoencoder", "cost_and_gradient", "fit_autoencoder", "initial_autoencoder"]

UNITS = 400
SPARSITY, SPARSITY_WEIGHT, DECAY = 0.035, 5.0, 3e-3
CHUNK = 2000
_NAMES = ("encoder", "encoder_bias", "decoder", "decoder_bias")
_RECORD = "record"


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """The weights.

    Attributes:
        encoder: W1, (units, inputs).
        encoder_bias: b1, (units,).
        decoder: W2, (inputs, units).
        decoder_bias: b2, (inputs,).
    """

    encoder: NDArray[np.float64]
    encoder_bias: NDArray[np.float64]
    decoder: NDArray[np.float64]
    decoder_bias: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.encoder.ndim != 2:
            raise ValueError(f"the encoder must be (units, inputs), got {self.encoder.shape}")
        units, inputs = self.encoder.shape
        shapes = tuple(part.shape for part in self.parts())
        if shapes != ((units, inputs), (units,), (inputs, units), (inputs,)):
            raise ValueError(f"weights of an autoencoder do not fit each other: {shapes}")

    def parts(self) -> tuple[NDArray[np.float64], ...]:
        """W1, b1, W2, b2."""
        return self.encoder, self.encoder_bias, self.decoder, self.decoder_bias

    def hidden(self, patches: NDArray[np.floating]) -> NDArray[Any]:
        """h of patches (inputs, M): (units, M), in (0, 1)."""
        return scipy.special.expit(self.encoder @ patches + self.encoder_bias[:, None])

    def reconstruct(self, hidden: NDArray[np.floating]) -> NDArray[Any]:
        """What the decoder makes of h (units, M): (inputs, M)."""
        return self.decoder @ hidden + self.decoder_bias[:, None]

    def save(self, path: Path | str, half: bool = False, record: Mapping[str, object] | None = None) -> None:
        """Write the weights to a ``.npz`` file, whole or not at all.

        Args:
            path: of the file.
            half: in half precision, one part in 2,000 of a weight, in place of float32: a file of half the size.
            record: what made them, kept beside the weights as JSON.
        """
        stream = io.BytesIO()
        named: dict[str, Any] = {
            name: part.astype(np.float16 if half else np.float32)
            for name, part in zip(_NAMES, self.parts(), strict=True)
        }
        if record is not None:
            named[_RECORD] = np.array(json.dumps(dict(record)))
        np.savez_compressed(stream, **named)
        write_atomically(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path | str) -> SparseAutoencoder:
        """Read what `save` wrote."""
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls(*(archive[name].astype(np.float64) for name in _NAMES))
        except FileNotFoundError:
            raise
        except Exception as error:  # zip, header and shapes each have their own
            raise Damaged(f"{path} does not hold an autoencoder ({error}); delete it and train again") from error

    @staticmethod
    def read_record(path: Path | str) -> dict[str, Any]:
        """What made the weights in a file that `save` wrote; empty if it was not said."""
        with np.load(path, allow_pickle=False) as archive:
            return dict(json.loads(str(archive[_RECORD]))) if _RECORD in archive.files else {}


def initial_autoencoder(inputs: int, units: int = UNITS, seed: int = 0) -> SparseAutoencoder:
    """Weights uniform in ±√(6 / (inputs + units + 1)), biases zero."""
    generator = np.random.default_rng(seed)
    bound = (6 / (inputs + units + 1)) ** 0.5
    encoder, decoder = (generator.uniform(-bound, bound, size) for size in ((units, inputs), (inputs, units)))
    return SparseAutoencoder(encoder, np.zeros(units), decoder, np.zeros(inputs))


def cost_and_gradient(
    autoencoder: SparseAutoencoder,
    patches: NDArray[np.floating],
    sparsity: float = SPARSITY,
    sparsity_weight: float = SPARSITY_WEIGHT,
    decay: float = DECAY,
) -> tuple[float, SparseAutoencoder]:
    """J of patches (inputs, M), and its gradient in the form of weights.

    Both are computed in the precision of the patches and weights given.
    """
    count, kind = patches.shape[1], patches.dtype
    parts = [patches[:, start : start + CHUNK] for start in range(0, count, CHUNK)]  # what a processor's cache holds
    hidden = [autoencoder.hidden(part) for part in parts]
    active = np.sum([h.sum(axis=1, dtype=np.float64) for h in hidden], axis=0) / count
    divergence = scipy.special.rel_entr(sparsity, active) + scipy.special.rel_entr(1 - sparsity, 1 - active)
    pull = (sparsity_weight * ((1 - sparsity) / (1 - active) - sparsity / active) / count).astype(kind)[:, None]
    squares = 0.0
    encoder, encoder_bias, decoder, decoder_bias = (np.zeros_like(part, dtype=kind) for part in autoencoder.parts())
    for part, h in zip(parts, hidden, strict=True):
        error = autoencoder.reconstruct(h) - part
        squares += float(np.vdot(error, error))
        error /= count
        decoder += error @ h.T
        decoder_bias += error.sum(axis=1)
        back = autoencoder.decoder.T @ error
        back += pull
        back *= h
        back *= np.subtract(1, h, out=h)  # h is not needed any more
        encoder += back @ part.T
        encoder_bias += back.sum(axis=1)
    encoder += kind.type(decay) * autoencoder.encoder
    decoder += kind.type(decay) * autoencoder.decoder
    weights = sum(float(np.vdot(part, part)) for part in (autoencoder.encoder, autoencoder.decoder))
    cost = squares / count / 2 + decay / 2 * weights + sparsity_weight * float(divergence.sum())
    return cost, SparseAutoencoder(encoder, encoder_bias, decoder, decoder_bias)


def fit_autoencoder(
    patches: NDArray[np.floating],
    units: int = UNITS,
    iterations: int = 200,
    seed: int = 0,
    sparsity: float = SPARSITY,
    sparsity_weight: float = SPARSITY_WEIGHT,
    decay: float = DECAY,
    progress: bool = True,
) -> SparseAutoencoder:
    """Train by L-BFGS.

    Args:
        patches: (inputs, M), whitened (`tutorial_lib.image_quality.patches.whiten`). The authors take 100,000 patches of
            ImageNet; an iteration with 10,000 patches costs about 6 GFLOP at full size. Patches in float32 are computed
            with in float32, in half the time; L-BFGS itself keeps float64.
        units: of the hidden layer.
        iterations: at most so many.
        seed: of the initial weights.
        sparsity, sparsity_weight, decay: ρ, β and λ.
        progress: show a bar.
    """
    if patches.ndim != 2 or not patches.size or patches.dtype.kind != "f" or not np.isfinite(patches).all():
        raise ValueError(f"patches must be (inputs, M), M >= 1, float and finite, got {patches.dtype} {patches.shape}")
    start = initial_autoencoder(len(patches), units, seed)
    shapes = [part.shape for part in start.parts()]

    def unpacked(vector: NDArray[np.float64]) -> SparseAutoencoder:
        ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1]
        return SparseAutoencoder(*(p.reshape(s) for p, s in zip(np.split(vector, ends), shapes, strict=True)))

    def packed(autoencoder: SparseAutoencoder) -> NDArray[np.float64]:
        return np.concatenate([part.ravel() for part in autoencoder.parts()]).astype(np.float64)

    def cost(vector: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = unpacked(vector.astype(patches.dtype))
        value, gradient = cost_and_gradient(weights, patches, sparsity, sparsity_weight, decay)
        return value, packed(gradient)

    with tqdm(total=iterations, desc="sparse autoencoder", disable=not progress) as bar:
        found = scipy.optimize.minimize(
            cost,
            packed(start),
            jac=True,
            method="L-BFGS-B",
            callback=lambda _: bar.update() and None,
            options={"maxiter": iterations, "maxcor": 20, "maxfun": 2 * iterations + 20},
        )
    return unpacked(found.x)
