r"""Which way gradient norms point, at full scale: the stored half of chapter 4.

For each label and loss, how well "a larger squared gradient norm is stranger" separates known test images from each
shift of a study: AUROC 1 means the strangers' norms are larger, 0 that they are smaller, and one score's two directions
add up to 1. Beside the sum over all parameter tensors stand the two factors of the last layer, whose gradient is u hᵀ,
and a score without a direction (`Unusual`).

Command::

    python -m tutorial_lib.experiments.gradients_as_features mnist --seeds 0 1 2
    python -m tutorial_lib.experiments.gradients_as_features digits --seeds 0 1 2 --variants

writes rows to ``results/gradients_as_features.csv`` and, for the last seed named, the spread of the norms of every
parameter tensor to ``results/gradients_as_features_STUDY.npz``.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutorial_lib.data.errors import DataDamaged, DataUnavailable
from tutorial_lib.data.images import ImageSet
from tutorial_lib.experiments.rows import (
    RESULTS,
    Row,
    make_row,
    provenance,
    read_arrays,
    read_rows,
    write_arrays,
    write_rows,
)
from tutorial_lib.gradients import squared_norms
from tutorial_lib.gradients.losses import logit_gradient
from tutorial_lib.gradients.targets import target
from tutorial_lib.metrics import auroc
from tutorial_lib.models import build
from tutorial_lib.models.predict import predict_features, predict_logits
from tutorial_lib.studies import STUDIES, Study, load_study
from tutorial_lib.trained import recipe
from tutorial_lib.training import accuracy, train_classifier

__all__ = ["QUESTIONS", "VARIANTS", "Question", "Unusual", "measure", "stored_rows", "stored_spread"]

EXPERIMENT = "gradients_as_features"
LIMIT = 1000
"""Images of each set. They are drawn at random with a fixed seed."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Question:
    """What the network is told, and by which loss: see :func:`tutorial_lib.gradients.squared_norms`."""

    label: str
    loss: str

    @property
    def name(self) -> str:
        return f"{self.label}/{self.loss}"

    def logit_norm(self, z: Tensor) -> Tensor:
        """|u|² (N,), the squared norm of the loss gradient at the logits (N, K)."""
        t = target(self.label, z, z, slice(0, len(z)))
        return logit_gradient(z, t, self.loss).square().sum(1)


QUESTIONS = (
    Question("ones", "bce"),
    Question("zeros", "bce"),
    Question("ones", "mse"),
    Question("ones", "ce"),
    Question("predicted", "ce"),
)
"""The published feature first. A uniform label with cross-entropy is a K-th of all ones, so it is not asked for."""


class Unusual:
    r"""A score without a direction: how unusual the norms are together, :math:`(v - \mu)^\top \Sigma^{-1} (v - \mu)`.

    v are the natural logarithms of the P squared norms, :math:`\mu` and :math:`\Sigma` their mean and covariance on
    in-distribution images that the network was not trained on. Larger is stranger, whichever way the norms went.
    The covariance is shrunk (Ledoit & Wolf, 2004), since P can be of the order of the number of images.

    Args:
        norms: squared norms (N, P) of the in-distribution images.
    """

    def __init__(self, norms: Tensor) -> None:
        from sklearn.covariance import LedoitWolf

        self._fitted = LedoitWolf().fit(self._logarithm(norms))

    def __call__(self, norms: Tensor) -> NDArray[np.float64]:
        """Scores (M,) of images with the squared norms (M, P)."""
        return self._fitted.mahalanobis(self._logarithm(norms))

    @staticmethod
    def _logarithm(norms: Tensor) -> NDArray[np.float64]:
        # a norm can be exactly zero (a dead unit, a saturated softmax); the floor keeps it finite and still extreme
        return norms.double().clamp_min(1e-30).log().numpy()


def measure(
    model: nn.Module, study: Study, questions: Sequence[Question], limit: int = LIMIT
) -> Iterator[tuple[str, str, str, float, int]]:
    """AUROC of "larger = stranger" of every question, for every shift that is on this machine.

    Args:
        model: classifier of the study's images, in evaluation mode.
        study: known images and shifts.
        questions: labels and losses.
        limit: most images taken from a set.

    Yields:
        (question, shift, metric, value, number of images). Question ``"any"``: what no label changes. Metrics:
        ``auroc_sum``: sum of the squared norms of all parameter tensors; ``auroc_last_layer``: the last layer's weight;
        ``auroc_activation`` and ``auroc_logit_gradient``: its factors |h|² and |u|²; ``auroc_unusual``: `Unusual`;
        ``auroc_confidence``: one minus the largest probability.
    """
    sets = {"known": study.test} | {name: study.shift(name) for name in study.available_shifts()}
    images = {name: _some(chosen, limit) for name, chosen in sets.items()}
    held_out = _some(study.validation, limit)

    def compared(question: str, metric: str, score: Callable[[Tensor], Tensor | NDArray], of: Mapping[str, Tensor]):
        scores = {name: score(given) for name, given in of.items()}
        for name in list(scores)[1:]:
            n = len(scores["known"]) + len(scores[name])
            yield question, name, metric, auroc(scores["known"], scores[name]), n

    logits = {name: predict_logits(model, x).double() for name, x in images.items()}
    features = {name: predict_features(model, x).double() for name, x in images.items()}
    yield from compared("any", "auroc_activation", lambda h: h.square().sum(1), features)
    yield from compared("any", "auroc_confidence", lambda z: 1 - z.softmax(1).amax(1), logits)
    for question in questions:
        ask = partial(squared_norms, model, label=question.label, loss=question.loss)
        parameters = ask(held_out[:1])[1]
        norms = {name: ask(x)[0] for name, x in images.items()}
        last = parameters.index("head.weight")
        yield from compared(question.name, "auroc_sum", lambda v: v.sum(1), norms)
        yield from compared(question.name, "auroc_last_layer", lambda v, column=last: v[:, column], norms)
        yield from compared(question.name, "auroc_logit_gradient", question.logit_norm, logits)
        yield from compared(question.name, "auroc_unusual", Unusual(ask(held_out)[0]), norms)


def spread(model: nn.Module, study: Study, question: Question = QUESTIONS[0], limit: int = LIMIT) -> dict[str, NDArray]:
    """Quantiles of the squared norms of every parameter tensor, for the known test images and for every shift.

    Returns:
        ``parameters`` (P,) names; ``quantiles`` (Q,); and for ``known`` and each shift an array (Q, P).
    """
    sets = {"known": study.test} | {name: study.shift(name) for name in study.available_shifts()}
    arrays: dict[str, NDArray] = {"quantiles": np.array(QUANTILES)}
    for name, images in sets.items():
        norms, parameters = squared_norms(model, _some(images, limit), question.label, question.loss)
        arrays[name] = np.quantile(norms.numpy(), QUANTILES, axis=0)
        arrays["parameters"] = np.array(parameters)
    return arrays


# ----------------------------------------------------------------------------------------------------------------------
# Networks that differ in one thing


def _as_it_is(study: Study, seed: int) -> nn.Module:
    return study.classifier(seed=seed)


def _raw_pixels(study: Study, seed: int) -> nn.Module:
    return _trained(study, study.network, seed, normalised=False)


def _untrained(study: Study, seed: int) -> nn.Module:
    return _built(study, study.network, seed, normalised=True)


def _residual(study: Study, seed: int) -> nn.Module:
    return study.classifier("resnet20", seed=seed)


VARIANTS: Mapping[str, Callable[[Study, int], nn.Module]] = {
    "as in the book": _as_it_is,
    "raw pixels": _raw_pixels,
    "ResNet-20": _residual,
    "untrained": _untrained,
}
"""The study's own network; the same on pixels as they are; another architecture; the first with its initial weights."""


def _built(study: Study, network: str, seed: int, normalised: bool) -> nn.Module:
    pixels, channels = study.train.float(), study.image_shape[0]
    mean, std = ((0.0,) * channels, (1.0,) * channels)
    if normalised:
        mean, std = pixels.mean((0, 2, 3)).tolist(), pixels.std((0, 2, 3)).tolist()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(network, study.num_classes, study.image_shape, mean, std).eval()


def _trained(study: Study, network: str, seed: int, normalised: bool) -> nn.Module:
    model = _built(study, network, seed, normalised)
    train_classifier(model, study.train, config=recipe(study, network, seed), progress=False)
    return model


# ----------------------------------------------------------------------------------------------------------------------
# Results


def stored_rows(study: str | None = None) -> list[Row]:
    """The rows that the command wrote, of one study or of all."""
    rows = read_rows(RESULTS / f"{EXPERIMENT}.csv")
    return [row for row in rows if study in (None, row.study)]


def stored_spread(study: str) -> dict[str, NDArray]:
    """What :func:`spread` found for the study's own network."""
    return read_arrays(RESULTS / f"{EXPERIMENT}_{study}.npz")


def run(study: Study, seeds: Sequence[int], variants: Sequence[str], limit: int = LIMIT) -> list[Row]:
    """Measure and store; the rows that are new."""
    command = f"python -m {__spec__.name if __spec__ else EXPERIMENT} {study.name} --seeds {' '.join(map(str, seeds))}"
    source = provenance(command + (" --variants" if len(variants) > 1 else ""))
    rows: list[Row] = []
    for variant in variants:
        for seed in seeds:
            start = time.perf_counter()
            model = VARIANTS[variant](study, seed)
            make = partial(make_row, source, experiment=EXPERIMENT, study=study.name, seed=seed)
            found = [
                make(
                    method=f"{variant}: any",
                    condition="known",
                    metric="accuracy",
                    value=accuracy(model, study.test),
                    n=len(study.test),
                )
            ]
            for question, shift, metric, value, n in measure(model, study, QUESTIONS, limit):
                found.append(make(method=f"{variant}: {question}", condition=shift, metric=metric, value=value, n=n))
            print(
                f"{study.name}, {variant}, seed {seed}: {len(found)} numbers in {time.perf_counter() - start:.0f} s",
                file=sys.stderr,
            )
            write_rows(RESULTS / f"{EXPERIMENT}.csv", found)
            rows += found
            if variant == "as in the book":
                write_arrays(RESULTS / f"{EXPERIMENT}_{study.name}.npz", spread(model, study, limit=limit))
    return rows


def _some(images: ImageSet, limit: int) -> Tensor:
    return (images if len(images) <= limit else images.sample(limit, seed=0)).float()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=f"python -m tutorial_lib.experiments.{EXPERIMENT}", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the networks")
    parser.add_argument("--variants", action="store_true", help="also networks that differ in one thing")
    options = parser.parse_args(arguments)
    try:
        run(load_study(options.study), options.seeds, list(VARIANTS) if options.variants else ["as in the book"])
    except (DataUnavailable, DataDamaged) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
