r"""Which images were corrupted, and how badly? The tables of chapter 10.

Eight corruptions at five levels meet a network, and detectors look for them. What a detector learns from are validation
images and their corrupted copies; it is tested on test images and theirs, so that no photograph is on both sides. Clean
and corrupted images go through the same program, in whole grey levels (`tutorial_lib.data.corruptions`).

* no protocol: each of the 40, by detectors that learned from clean images alone (challenging data ``none``), and from the
  very corruption and level (``same``, as published);
* ``leave_one_out``: learned from the seven other corruptions in turn, at the same level and from as many images;
* ``across_levels``: learned from level 3 of the corruption, tested on all levels;
* ``network``: accuracy and mean confidence of the network itself;
* ``severity``: Spearman's rank correlation of a score with the level, 0 for clean, for each corruption;
* ``planted``: clean images against clean images with an artefact that no reader would call a corruption.

    python -m tutorial_lib run corruption --study digits --seeds 3

The published table: Lee et al., "Probing the purview of neural networks via gradient analysis", IEEE Access 2023. Its
CIFAR-10 block lies between 99.75 and 100 at every level; ``planted`` asks what could make it so. CURE-TSR, the other half,
is run where its files are (`tutorial_lib.data.cure_tsr`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tutorial_lib.data.corruptions import CORRUPTIONS, LEVELS, corrupt, corruption_names
from tutorial_lib.data.cure_tsr import load_cure_tsr
from tutorial_lib.data.images import ImageSet
from tutorial_lib.data.registry import suggestion
from tutorial_lib.data.resize import resize
from tutorial_lib.experiments.adversarial import METHODS as ADVERSARIAL_METHODS
from tutorial_lib.experiments.comparison import LABEL_FREE, Comparison, Task, measured, scored
from tutorial_lib.experiments.out_of_distribution import Method, limited
from tutorial_lib.models.predict import predict_probabilities
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row
from tutorial_lib.results.stored import stored_rows
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.severity.labels import spearman
from tutorial_lib.studies import Study, load_study

__all__ = [
    "ARTEFACTS",
    "EXPERIMENT",
    "METHODS",
    "artefact_pairs",
    "corrupted",
    "each_of_stored",
    "jpeg",
    "mean_by_level",
    "mean_of_stored",
    "planted_values",
]

NAME = "corruption"

VERSION = 1
"""Of the grid; cells of an older one are computed again."""

IMAGES = {"digits": 1000, "cifar10": 300, "cure_tsr": 1000}
"""At most so many validation images to learn from, and as many test images."""

_SUPERVISED = ("mahalanobis_p_fe", "purview", "control_logits", "control_activations")

#: Every method by name, in the order of the table.
METHODS: Mapping[str, Method] = {
    name: method for name, method in ADVERSARIAL_METHODS.items() if name in (*LABEL_FREE, *_SUPERVISED)
}

PLANTED_METHODS = ("msp", "mahalanobis", "gradient_density", "activation_density", "purview", "control_activations")
"""Methods that look for the planted artefacts."""

ARTEFACTS: Mapping[str, str] = {
    "nothing": "a copy",
    "floor": "cut off to bytes, as in CIFAR-10-C",
    "jpeg_95": "stored as JPEG, quality 95",
    "jpeg_75": "stored as JPEG, quality 75",
    "resize": "made twice as large and small again",
    "normalisation": "normalised with the constants of ImageNet",
    "file_order": "from the second half of the file",
    "train": "from the training images",
    "noise_1": "honest noise, level 1",
}
"""What clean images are compared with, by name: what was done to them."""


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell for the network, one a method, and one a method for the planted artefacts."""
    network = _study(study).network
    grid = [{"network": network, "protocol": "network"}]
    grid += [{"network": network, "method": name} for name in METHODS]
    grid += [{"network": network, "method": name, "protocol": "planted"} for name in PLANTED_METHODS]
    return [Cell(NAME, study, seed, settings, VERSION) for seed in seeds for settings in grid]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """One cell of the grid."""
    study, network = _study(cell.study), cell.settings["network"]
    model = study.classifier(network, seed=cell.seed).to(device)
    protocol = cell.settings.get("protocol", "")
    if protocol == "network":
        return CellResult(list(_network_rows(study, network, model)))
    name = cell.settings["method"]
    if name not in METHODS:
        raise ValueError(f"there is no method {name!r}{suggestion(name, METHODS)}")
    if protocol == "planted":
        return CellResult(list(_planted_rows(study, network, model, METHODS[name], cell.seed)))
    return _method_result(study, network, model, METHODS[name], cell.seed)


def _study(name: str) -> Study:
    if name != "cure_tsr":
        return load_study(name)
    return Study(
        name="cure_tsr",
        title="Traffic signs (CURE-TSR)",
        class_names=tuple(f"sign {number}" for number in range(1, 15)),
        image_shape=(3, 28, 28),
        network="lenet",
        splits=_cure_splits,
        shifts={},
        recipes={"lenet": {"epochs": 10, "flip": False, "optimizer": "adam", "learning_rate": 3e-3}, "": {}},
    )


def _cure_splits() -> tuple[ImageSet, ImageSet, ImageSet]:
    everything = load_cure_tsr("train")
    held_out = everything.source % 5 == 0
    return everything.subset(~held_out), everything.subset(held_out), load_cure_tsr("test")


def corrupted(images: ImageSet, name: str, level: int, seed: int, study: str) -> ImageSet:
    """A corrupted copy of a set; of CURE-TSR, the authors' own files of the same photographs."""
    called = f"{name}/{level}"
    if study == "cure_tsr":
        split = "train" if images.note.endswith("train") else "test"
        theirs = load_cure_tsr(split, name, level)
        return replace(theirs.subset(torch.isin(theirs.source, images.source)), name=called)
    pixels = corrupt(images.images, name, level, torch.Generator().manual_seed(seed))
    return replace(images, name=called, images=pixels)


def _sides(study: Study) -> tuple[ImageSet, ImageSet]:
    """Validation images to learn from and test images."""
    limit = IMAGES[study.name]
    held_out, known = limited(study.validation, limit), limited(study.test, limit)
    return replace(held_out, note="train"), known


def _conditions(study: Study) -> list[tuple[str, int]]:
    return [(name, level) for name in corruption_names(study.image_shape[0]) for level in LEVELS]


def _network_rows(study: Study, network: str, model: nn.Module) -> Iterator[Measurement]:
    """Accuracy and mean confidence, clean and under every corruption."""
    known = _sides(study)[1]
    sets = {"clean": known}
    sets |= {f"{n}/{level}": corrupted(known, n, level, 1, study.name) for n, level in _conditions(study)}
    for condition, images in sets.items():
        probabilities = predict_probabilities(model, images.images)
        accuracy = float((probabilities.argmax(1) == images.labels).double().mean())
        values = {"accuracy": accuracy, "confidence": float(probabilities.amax(1).mean())}
        for metric, value in values.items():
            yield Measurement("", condition, metric, value, len(images), network=network, protocol="network")


def _method_result(study: Study, network: str, model: nn.Module, method: Method, seed: int) -> CellResult:
    held_out, known = _sides(study)
    conditions = _conditions(study)
    names = tuple(dict.fromkeys(name for name, _ in conditions))
    to_learn = {f"{n}/{level}": corrupted(held_out, n, level, 0, study.name) for n, level in conditions}
    to_test = {f"{n}/{level}": corrupted(known, n, level, 1, study.name) for n, level in conditions}
    tasks = [Task((f"{n}/{level}",), (f"{n}/{level}",), "same") for n, level in conditions]
    for n, level in conditions:
        to_learn[f"all but {n}/{level}"] = _mixed([to_learn[f"{other}/{level}"] for other in names if other != n])
        tasks.append(Task((f"all but {n}/{level}",), (f"{n}/{level}",), "other", "leave_one_out"))
    for n in names:
        tasks.append(Task((f"{n}/3",), tuple(f"{n}/{level}" for level in LEVELS), "other", "across_levels"))
    images = Comparison(limited(study.train, 10_000), held_out, known, to_learn, to_test)
    measurements: list[Measurement] = []
    arrays: dict[str, np.ndarray] = {}
    by_level: dict[str, dict[int, np.ndarray]] = {name: {} for name in names}
    seen = "none"
    for task, condition, scores_in, scores_out in scored(method, model, seed, images, tasks):
        measurements += measured(method.name, condition, scores_in, scores_out, task, network)
        name, at_level = condition.split("/")
        if task.protocol in ("", "across_levels") and task.seen != "same":
            by_level[name] |= {0: scores_in, int(at_level): scores_out}
            seen = task.seen
        if task.seen == "none":
            arrays["known"] = scores_in.astype(np.float32)
            arrays[condition] = scores_out.astype(np.float32)
    for name, levels in by_level.items():
        scores = np.concatenate([levels[number] for number in sorted(levels)])
        severity = np.repeat(sorted(levels), [len(levels[number]) for number in sorted(levels)])
        value = spearman(scores, severity)
        measurements.append(
            Measurement(method.name, name, "spearman", value, len(scores), seen, network, protocol="severity")
        )
    return CellResult(measurements, arrays)


def _mixed(sets: Sequence[ImageSet]) -> ImageSet:
    """One image of each set in turn: as many as one set has, so that what is compared is the kind and not the number."""
    first = sets[0]
    turn = torch.arange(len(first)) % len(sets)
    images = torch.stack([part.images for part in sets])[turn, torch.arange(len(first))]
    return replace(first, name="mixed", images=images)


# ----------------------------------------------------------------------------------------------------------------------
# Planted artefacts


def _floor(pixels: Tensor) -> Tensor:
    """Next to no noise, then cut off instead of rounded: half of the values fall by one."""
    generator = torch.Generator().manual_seed(0)
    noise = 1e-4 * torch.randn(pixels.shape, generator=generator)
    return (pixels.float() + noise).clamp(0, 255).floor().to(torch.uint8)


def jpeg(pixels: Tensor, quality: int) -> Tensor:
    """``uint8`` images (N, C, H, W), stored as JPEG of a quality from 1 to 100 and read again."""
    from PIL import Image

    results = []
    for image in pixels.permute(0, 2, 3, 1).numpy():
        stored = io.BytesIO()
        Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(stored, "JPEG", quality=quality)
        results.append(np.asarray(Image.open(stored)).reshape(image.shape))
    return torch.from_numpy(np.stack(results)).permute(0, 3, 1, 2)


def _resized(pixels: Tensor) -> Tensor:
    height, width = pixels.shape[2:]
    return resize(resize(pixels, (2 * height, 2 * width)), (height, width))


def _other_normalisation(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """What the network sees if somebody normalises with the constants of ImageNet, as pixels of the right pipeline."""
    own = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 1, 3, 1, 1)
    if pixels.shape[1] == 1:
        own = own.mean(dim=2, keepdim=True)
    seen = (pixels.float() / 255 - own[0]) / own[1]
    return ((seen * std + mean).clamp(0, 1) * 255).round().to(torch.uint8)


def artefact_pairs(study: Study, model: nn.Module) -> dict[str, tuple[ImageSet, ImageSet, ImageSet, ImageSet]]:
    """For each artefact: clean images to learn from, changed ones to learn from, clean and changed ones to test on."""
    held_out, known = _sides(study)
    normalize = model.normalize
    mean, std = (getattr(normalize, name).detach().cpu() for name in ("mean", "std"))
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "nothing": torch.clone,
        "floor": _floor,
        "jpeg_95": partial(jpeg, quality=95),
        "jpeg_75": partial(jpeg, quality=75),
        "resize": _resized,
        "normalisation": partial(_other_normalisation, mean=mean, std=std),
    }
    pairs = {}
    for name, change in changes.items():
        learn, test = (replace(part, name=name, images=change(part.images)) for part in (held_out, known))
        pairs[name] = (held_out, learn, known, test)
    first = [part.subset(torch.arange(len(part)) < len(part) // 2) for part in _in_file_order(held_out, known)]
    second = [part.subset(torch.arange(len(part)) >= len(part) // 2) for part in _in_file_order(held_out, known)]
    pairs["file_order"] = (
        first[0],
        replace(second[0], name="file_order"),
        first[1],
        replace(second[1], name="file_order"),
    )
    train = replace(limited(study.train, len(held_out) + len(known)), name="train")
    ours = torch.arange(len(train)) < len(held_out) * len(train) // (len(held_out) + len(known))
    pairs["train"] = (held_out, train.subset(ours), known, train.subset(~ours))
    noisy = [
        replace(part, name="noise_1", images=corrupt(part.images, "noise", 1, torch.Generator().manual_seed(seed)))
        for seed, part in enumerate((held_out, known))
    ]
    pairs["noise_1"] = (held_out, noisy[0], known, noisy[1])
    return {name: pairs[name] for name in ARTEFACTS}


def _in_file_order(*sets: ImageSet) -> list[ImageSet]:
    return [part.subset(part.source.argsort()) for part in sets]


def _planted_rows(study: Study, network: str, model: nn.Module, method: Method, seed: int) -> Iterator[Measurement]:
    """Each artefact by a detector that learned from it, or that learned from clean images alone."""
    train = limited(study.train, 10_000)
    for name, (held_out, learn, known, test) in artefact_pairs(study, model).items():
        images = Comparison(train, held_out, known, {name: learn}, {name: test})
        task = Task((name,), (name,), "same", "planted")
        for done, condition, scores_in, scores_out in scored(method, model, seed, images, [task]):
            done = replace(done, protocol="planted")
            yield from measured(method.name, condition, scores_in, scores_out, done, network)


# ----------------------------------------------------------------------------------------------------------------------
# What is stored, for pictures


def planted_values(study: str, methods: Mapping[str, str]) -> dict[str, dict[str, list[float]]]:
    """For each artefact and each detector, by the titles that are given, the stored AUROC, a value a network."""
    rows = [row for row in stored_rows(NAME, study) if (row.protocol, row.metric) == ("planted", "auroc")]
    found = {}
    for name, said in ARTEFACTS.items():
        here = [row for row in rows if row.condition == name]
        found[said] = {title: [row.value for row in here if row.method == method] for title, method in methods.items()}
    return found


def mean_by_level(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Mean over corruptions of published rows, for levels 1 to 5."""
    return [float(np.mean([r["value"] for r in rows if r["condition"].endswith(f"/{level}")])) for level in LEVELS]


def mean_of_stored(rows: Sequence[Row], method: str, seen: str, protocol: str = "") -> list[float]:
    """Mean AUROC over corruptions and networks of stored rows, for levels 1 to 5."""
    return [float(value) for value in each_of_stored(rows, method, seen, protocol).mean(axis=0)]


def each_of_stored(rows: Sequence[Row], method: str, seen: str, protocol: str = "") -> NDArray[np.float64]:
    """Mean AUROC over corruptions of stored rows, (networks, 5): levels 1 to 5 of each network."""
    wanted = (method, seen, protocol, "auroc")
    networks: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if (row.method, row.challenging_data, row.protocol, row.metric) == wanted:
            networks.setdefault(row.seed, []).append({"condition": row.condition, "value": row.value})
    if not networks:
        raise ValueError(f"no stored AUROC of {method!r} with challenging_data {seen!r} and protocol {protocol!r}")
    return np.array([mean_by_level(networks[seed]) for seed in sorted(networks)])


# ----------------------------------------------------------------------------------------------------------------------
# The table

BLOCKS = (
    ("none", "", "Learned from clean images alone"),
    ("same", "", "Learned from the very corruption and level it is tested on (the published protocol)"),
    ("other", "leave_one_out", "Learned from the other corruptions, at the same level"),
    ("other", "across_levels", "Learned from level 3 of the corruption"),
)


def table(rows: Sequence[Row]) -> str:
    """Tables in Markdown, in percent, mean and spread over seeds."""
    blocks = []
    published = {(r["study"], r["condition"], r["method"]): 100 * r["value"] for r in read_published(NAME)}
    for study in dict.fromkeys(row.study for row in rows):
        here = [row for row in rows if row.study == study]
        title = f"{study}, {len({row.seed for row in here})} seed(s)"
        blocks += _network_block(title, here)
        for seen, protocol, said in BLOCKS:
            chosen = [r for r in here if (r.challenging_data, r.protocol, r.metric) == (seen, protocol, "auroc")]
            if chosen:
                printed = {k[1:]: v for k, v in published.items() if k[0] == study and seen == "same"}
                beside = ", published numbers in parentheses" if printed else ""
                blocks += [f"{title}: AUROC in %, levels 1 to 5{beside}. {said}.", _by_corruption(chosen, printed)]
        ranks = [row for row in here if row.protocol == "severity"]
        if ranks:
            blocks += [
                f"{title}: rank correlation of the score with the level.",
                _plain(ranks, CORRUPTIONS, METHODS, 1, 2),
            ]
        planted = [row for row in here if row.protocol == "planted" and row.metric == "auroc"]
        if planted:
            said = "clean images against clean images with an artefact, AUROC in %"
            blocks += [f"{title}: {said}.", _planted_table(planted)]
    return TableText("\n\n".join(blocks))


def _network_block(title: str, rows: Sequence[Row]) -> list[str]:
    chosen = [row for row in rows if row.protocol == "network"]
    if not chosen:
        return []
    names = [name for name in CORRUPTIONS if any(row.condition.startswith(f"{name}/") for row in chosen)]
    body = []
    for metric in ("accuracy", "confidence"):
        clean = [100 * r.value for r in chosen if (r.condition, r.metric) == ("clean", metric)]
        line = [metric, mean_and_spread(clean)]
        for name in names:
            by_level = [
                [100 * r.value for r in chosen if (r.condition, r.metric) == (f"{name}/{k}", metric)] for k in LEVELS
            ]
            line.append(" ".join(f"{np.mean(values):.0f}" for values in by_level if values))
        body.append(line)
    return [f"{title}: the network itself, in %, levels 1 to 5.", markdown_table(["", "clean", *names], body)]


def _by_corruption(rows: Sequence[Row], printed: Mapping[tuple[str, str], float]) -> str:
    names = [name for name in CORRUPTIONS if any(row.condition.startswith(f"{name}/") for row in rows)]
    body = []
    for method, described in METHODS.items():
        mine = [row for row in rows if row.method == method]
        if not mine:
            continue
        line = [described.title]
        for name in names:
            entries = []
            for level in LEVELS:
                values = [100 * row.value for row in mine if row.condition == f"{name}/{level}"]
                if values:
                    theirs = printed.get((f"{name}/{level}", method))
                    entries.append(f"{np.mean(values):.0f}" + (f" ({theirs:.0f})" if theirs is not None else ""))
            line.append(" ".join(entries))
        body.append(line)
    return markdown_table(["Method", *names], body)


def _plain(
    rows: Sequence[Row], conditions: Mapping[str, object], methods: Mapping[str, Method], unit: float, digits: int
) -> str:
    names = [name for name in conditions if any(row.condition == name for row in rows)]
    body = []
    for method, described in methods.items():
        mine = [row for row in rows if row.method == method]
        if mine:
            values = [[unit * row.value for row in mine if row.condition == name] for name in names]
            body.append([described.title, *(mean_and_spread(v, digits) for v in values)])
    return markdown_table(["Method", *names], body)


def _planted_table(rows: Sequence[Row]) -> str:
    body = [
        [
            said,
            *(
                mean_and_spread([100 * r.value for r in rows if (r.condition, r.method) == (name, m)])
                for m in PLANTED_METHODS
            ),
        ]
        for name, said in ARTEFACTS.items()
    ]
    return markdown_table(["What was done", *(METHODS[name].title for name in PLANTED_METHODS)], body)


EXPERIMENT = Experiment(
    NAME, "which images were corrupted, and how badly? (chapter 10)", tuple(IMAGES), cells, compute, table
)
