"""Which of our rows stand beside which published number: one function per published table.

The published files keep the names of the authors; result rows have ours. A `Match` says for one published number what it
is called, which columns of our rows it corresponds to, and, where the course lacks something for it, what. A table whose
columns are those of result rows needs no function of its own: `by_columns` reads it, and so a new experiment has its place
beside its published numbers as soon as both files are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tutorial_lib.results.published import published_names

__all__ = ["Match", "PublishedTable", "by_columns", "published_tables"]

Columns = Mapping[str, str]
FLIPPED = "flipped"
"""Beside the columns of a control: its score is read the other way round, so that its AUROC is one minus ours."""
Published = Mapping[str, Any]


@dataclass(frozen=True)
class Match:
    """What corresponds to one published number.

    Args:
        what: the line of the table: data, condition, network.
        method: whose number it is, as it is printed.
        metric: as it is printed.
        columns: of our rows, by name; a row that has all of these values belongs to this number. A value that ends with ``*`` says
            how the column begins.
        held_out: the same with the challenging data held out; None where nothing is fitted on any.
        controls: by title, the columns of what is to be beaten. Those of another experiment name it as their
            ``experiment``.
        studies: whose rows count as the published data, the first that has rows; None leaves all of them out.
        stand_in: a study that is shown where those have no rows, and never judged.
        on_stand_in: columns, of ours and of the controls, that have another value there.
        mean_over: number of conditions that the printed number is a mean of, where it is one; 0 for as many as the study has. A seed
            counts if it has all.
        offset, scale: from our unit to the printed one, ``offset + scale * ours``.
        point: one point in the printed unit.
        seen: challenging data that the published method saw.
        missing: what the course would need for it and does not have.
        on_the_slides: whether it is among the numbers that the slides show or take from a paper they cite.
    """

    what: str
    method: str
    metric: str
    columns: Columns = field(default_factory=dict)
    held_out: Columns | None = None
    controls: Mapping[str, Columns] = field(default_factory=dict)
    studies: tuple[str, ...] = ()
    stand_in: str = ""
    on_stand_in: Columns = field(default_factory=dict)
    mean_over: int = 1
    offset: float = 0.0
    scale: float = 1.0
    point: float = 0.01
    seen: str = "none"
    missing: str = ""
    on_the_slides: bool = True


@dataclass(frozen=True)
class PublishedTable:
    """One table of published numbers.

    Args:
        name: of its file.
        title: for readers.
        match: from a published row to what corresponds to it.
        chapter: name of the notebook that is about it; empty if there is none.
        experiment: name of the experiment that makes our rows; usually that of the file.
        differs: how our setting differs from the published one.
        doubts: what looks wrong in print; empty if nothing.
    """

    name: str
    title: str
    match: Callable[[Published], Match]
    chapter: str = ""
    experiment: str = ""
    differs: str = ""
    doubts: str = ""


PURVIEW_METHODS = {
    "msp": "MSP",
    "lid": "LID",
    "odin_tuned": "ODIN",
    "mahalanobis": "Mahalanobis (V)",
    "mahalanobis_p": "Mahalanobis (P)",
    "mahalanobis_fe": "Mahalanobis (FE)",
    "mahalanobis_p_fe": "Mahalanobis (P+FE)",
    "purview": "Purview gradients",
}
LOGITS, PENULTIMATE, ACTIVATIONS = "H on logits", "H on penultimate features", "H on activation norms"
CONTROLS = {"control_logits": LOGITS, "control_penultimate": PENULTIMATE, "control_activations": ACTIVATIONS}
CONDITIONS = {
    "svhn": "SVHN",
    "cifar10": "CIFAR-10",
    "tiny_imagenet": "Tiny ImageNet",
    "lsun": "LSUN",
    "cure_tsr": "CURE-TSR",
    "mean": "mean of ten classes",
}


def by_columns(row: Published, **more: Any) -> Match:
    """A published row whose columns are those of result rows; ``more`` goes into the `Match`."""
    seen = row.get("challenging_data") or "none"
    columns = {
        name: row[name]
        for name in ("method", "condition", "metric", "network", "variant", "protocol")
        if row.get(name) is not None
    }
    columns["challenging_data"] = seen
    where = [str(row.get(name) or "") for name in ("study", "network", "condition")]
    made: dict[str, Any] = {
        "what": " · ".join(CONDITIONS.get(part, part) for part in where if part),
        "method": row.get("method", ""),
        "metric": row.get("metric", ""),
        "columns": columns,
        "held_out": {**columns, "challenging_data": "other"} if seen == "same" else None,
        "studies": (row["study"],) if row.get("study") else (),
        "seen": seen,
    }
    return Match(**{**made, **more})


def _against_controls(row: Published, columns: Columns) -> dict[str, Columns]:
    """MSP; and for what learns from challenging images, the same second stage on what the forward pass has."""
    if row["method"] == "msp":
        return {}
    cheap: dict[str, Columns] = {"MSP": {**columns, "method": "msp", "challenging_data": "none"}}
    if row["challenging_data"] == "none":
        return cheap
    return cheap | {title: {**columns, "method": name} for name, title in CONTROLS.items()}


def _gradcon_class(row: Published) -> Match:
    network, method = row["method"].split("/")
    columns = {"network": network, "method": method, "metric": "auroc"}
    trivial = {"brightness": "brightness alone", "complexity": "complexity alone"}
    known: dict[str, Columns] = {
        title: {"experiment": "anomaly_detection", "method": name, "metric": "auroc"} for name, title in trivial.items()
    }
    if network.endswith("_grad"):
        known["the same without the constraint"] = {**columns, "network": network.removesuffix("_grad")}
    if method != "grad":
        known["the same score, smaller = stranger"] = {**columns, FLIPPED: "yes"}
    if row["condition"] != "mean":
        columns["condition"] = row["condition"]
        known = {title: {**control, "condition": row["condition"]} for title, control in known.items()}
    models = {
        "cae": "CAE",
        "cae_grad": "CAE + gradient constraint",
        "vae": "VAE",
        "vae_grad": "VAE + gradient constraint",
    }
    return Match(
        f"CIFAR-10 · normal: {CONDITIONS.get(row['condition'], row['condition'])}",
        f"{models[network]}: {method}",
        "AUROC",
        columns,
        controls=known,
        studies=("cifar10_full", "cifar10"),
        mean_over=10 if row["condition"] == "mean" else 1,
    )


def _adversarial(row: Published) -> Match:
    ours = {"resnet": "resnet20", "densenet": "densenet_bc_100_12"}[row["network"]]
    columns = {**by_columns(row).columns, "network": ours, "protocol": ""}
    titles = {
        "fgsm": "FGSM",
        "bim": "BIM",
        "carlini_wagner": "C&W",
        "pgd": "PGD",
        "iterll": "IterLL",
        "semantic": "Semantic",
    }
    return by_columns(
        row,
        what=f"CIFAR-10 · {'ResNet' if row['network'] == 'resnet' else 'DenseNet'} · {titles[row['condition']]}",
        method=PURVIEW_METHODS[row["method"]],
        metric="AUROC",
        columns=columns,
        held_out={**columns, "challenging_data": "other"} if row["challenging_data"] == "same" else None,
        controls=_against_controls(row, columns),
        stand_in="digits" if row["network"] == "resnet" else "",
        missing="a DenseNet that was trained on CIFAR-10" if row["network"] == "densenet" else "",
    )


def _corruption(row: Published) -> Match:
    columns = {**by_columns(row).columns, "protocol": ""}
    held_out = {**columns, "challenging_data": "other", "protocol": "leave_one_out"}
    name, level = row["condition"].split("/")
    return by_columns(
        row,
        what=f"{'CIFAR-10' if row['study'] == 'cifar10' else 'CURE-TSR'} · {name.replace('_', ' ')}, level {level}",
        method=PURVIEW_METHODS[row["method"]],
        metric="AUROC",
        columns=columns,
        held_out=held_out,
        controls={CONTROLS[name]: {**columns, "method": name} for name in ("control_logits", "control_activations")},
        stand_in="digits" if row["study"] == "cifar10" else "",
        missing="the files of CURE-TSR" if row["study"] == "cure_tsr" else "",
    )


def _out_of_distribution(row: Published) -> Match:
    metric, printed = {
        "auroc": ("auroc", "AUROC"),
        "aupr": ("aupr_out", "AUPR"),
        "detection_accuracy": ("detection_accuracy", "detection accuracy"),
    }[row["metric"]]
    columns = {**by_columns(row).columns, "metric": metric, "network": "resnet20", "protocol": ""}
    return by_columns(
        row,
        what=f"{CONDITIONS[row['study']]} against {CONDITIONS[row['condition']]}",
        method=PURVIEW_METHODS[row["method"]],
        metric=printed,
        columns=columns,
        held_out={**columns, "challenging_data": "other"} if row["challenging_data"] == "same" else None,
        controls=_against_controls(row, columns),
        missing="LSUN in the copy that ODIN's authors resized" if row["condition"] == "lsun" else "",
    )


def _open_set(row: Published) -> Match:
    what, printed = row["unknowns"], row["metric"]
    ours = {"Softmax": ("msp", "none"), "Gradients (confounding label)": ("purview", "other")}.get(row["method"])
    if row["task"] == "open-set classification":
        missing = "the metric: the paper prints none, and no open-set classifier is among the methods"
        return Match(f"{what} · classification", row["method"], printed, missing=missing)
    if ours is None:
        return Match(what, row["method"], printed, missing=f"an implementation of {row['method']}")
    columns = {
        "method": ours[0],
        "challenging_data": ours[1],
        "metric": "auroc",
        "condition": "unknown_classes",
        "protocol": "open_set",
    }
    controls = {title: {**columns, "method": name} for name, title in CONTROLS.items()} if ours[0] != "msp" else {}
    return Match(what, row["method"], printed, columns, None, controls, ("cifar10",), "digits", seen=ours[1])


def _calibration(row: Published) -> Match:
    metric = str(row["metric"])
    ours, scale, offset, printed = {
        "test_error_percent": ("accuracy", -100.0, 100.0, "test error %"),
        "ECE15_percent_uncalibrated": ("ece", 100.0, 0.0, "ECE %"),
        "ECE15_percent_temperature": ("ece", 100.0, 0.0, "ECE % with temperature"),
        "NLL_uncalibrated": ("nll", 1.0, 0.0, "NLL"),
        "NLL_temperature": ("nll", 1.0, 0.0, "NLL with temperature"),
    }[metric]
    method = "temperature" if metric.endswith("temperature") else ""
    columns = {"method": method, "condition": "known", "metric": ours, "network": "lenet"}
    data = {"CIFAR-10": "cifar10", "SVHN": "svhn"}.get(row["dataset"])
    lenet, missing = row["network"] == "LeNet-5", []
    if data is None:
        missing.append(f"a study on {row['dataset']}")
    if not lenet:
        missing.append(f"a trained {row['network'].split(' (Figure')[0]}")
    return Match(
        f"{row['dataset']} · {row['network']}",
        "with temperature" if method else "as trained",
        printed,
        columns if lenet and data else {},
        controls={"as trained": {**columns, "method": ""}} if method and lenet and data else {},
        studies=(data,) if data else (),
        scale=scale,
        offset=offset,
        point=1.0 if "percent" in metric else 0.01,
        missing=" and ".join(missing),
    )


def _ensembles(row: Published) -> Match:
    images = row["dataset"] == "ImageNet"
    missing = "the images of ImageNet and networks trained on them" if images else "a trained Wide ResNet-28-10"
    if row["method"] == "DUQ":
        fashion = str(row["dataset"]).startswith("Fashion")
        missing = "a study whose known images are Fashion-MNIST" if fashion else "a ResNet-18 trained as DUQ"
    percent = "percent" in row["metric"]
    return Match(
        str(row["dataset"]),
        row["method"],
        row["metric"].replace("_percent", " %").replace("_", " "),
        missing=missing,
        point=1.0 if percent else 0.01,
        on_the_slides=images,
    )


def _introspective_ood(row: Published) -> Match:
    metric, printed, scale = {
        "FPR_at_95TPR": ("fpr_at_95_tpr_in", "FPR at 95 % TPR", 100.0),
        "detection_error": ("detection_error", "detection error %", 100.0),
        "AUROC": ("auroc", "AUROC %", 100.0),
    }[row["metric"]]
    looks_twice = row["inference"] == "introspective"
    data = {"Textures": "textures", "SVHN": "svhn"}.get(row["ood_dataset"])
    variant = "introspective_ce" if looks_twice else "feed_forward"
    columns = {"method": row["method"].lower(), "condition": data or "", "metric": metric, "variant": variant}
    twins = {"control_refit": "last layer refitted", "control_features": "H on features", "feed_forward": "one look"}
    return Match(
        f"CIFAR-10 against {row['ood_dataset']}",
        f"{row['method']}, {row['inference']}",
        printed,
        columns if data else {},
        controls={title: {**columns, "variant": name} for name, title in twins.items()} if looks_twice and data else {},
        studies=("cifar10",),
        scale=scale,
        point=1.0,
        missing="" if data else f"the images of {row['ood_dataset']}",
    )


PLUGIN_KINDS = {
    "ResNet-18": "plain",
    "Denoising": "denoising",
    "Adversarial training": "adversarial",
    "SimCLR": "simclr",
    "Augment noise": "noise",
    "AugMix": "augmix",
}


def _introspective_plugin(row: Published) -> Match:
    looks_twice = row["inference"] == "introspective"
    method = "introspective_ce" if looks_twice else "feed_forward"
    kind = PLUGIN_KINDS[row["method"]]
    columns = {"method": method, "metric": "accuracy", "condition": "corrupted/*", "protocol": kind}
    twins = {
        "feed_forward": "one look",
        "control_refit": "last layer refitted",
        "control_features": "H on features",
        "control_logits": LOGITS,
        "feed_forward_balanced": "one look, classes balanced",
    }
    return Match(
        f"CIFAR-10-C · {row['method']}",
        row["inference"],
        "accuracy %",
        columns,
        controls={title: {**columns, "method": name} for name, title in twins.items()} if looks_twice else {},
        # The study cifar10 has none of the first networks that take many hours to train.
        studies=("cifar10_full", "cifar10") if kind == "plain" else ("cifar10_full",),
        stand_in="digits",
        mean_over=5,
        scale=100.0,
        point=1.0,
    )


def _active_learning(row: Published) -> Match:
    looks_twice, strategy = row["inference"] == "introspective", row["strategy"].lower().replace(" ", "_")
    test = {"original": "clean", "gaussian_noise": "gaussian_noise"}[row["test_set"]]
    look = "introspective" if looks_twice else "feed_forward"
    columns = {"method": strategy, "metric": "accuracy", "condition": f"{test}/*", "variant": look}
    controls: dict[str, Columns] = {"random, the same look": {**columns, "method": "random"}}
    if looks_twice:
        controls["one look"] = {**columns, "variant": "feed_forward"}
        controls["H on features"] = {**columns, "variant": "control_features"}
    larger = row["network"] == "ResNet-34"
    return Match(
        f"CIFAR-10 · {row['network']} · {row['test_set'].replace('_', ' ')}",
        f"{row['strategy']}, {row['inference']}",
        "mean accuracy of the rounds",
        {} if larger else columns,
        controls={} if larger else controls,
        studies=("cifar10_full", "cifar10"),
        stand_in="digits",
        mean_over=0,
        missing="a ResNet-34" if larger else "",
    )


def _image_quality(row: Published) -> Match:
    what, study = str(row["database"]), {"MULTI-LIVE": "multi_live", "TID2013": "tid2013"}[row["database"]]
    metric = {"OR": "outlier_ratio", "RMSE": "rmse", "PLCC": "plcc", "SRCC": "srcc", "KRCC": "krcc"}[row["criterion"]]
    ours = {"Feed-Forward UNIQUE": "unique", "Introspective UNIQUE": "unique_introspective"}.get(row["estimator"])
    missing = f"the images and opinions of {what}"
    if ours is None:
        missing += f", and an implementation of {row['estimator']}"
        return Match(what, row["estimator"], row["criterion"], missing=missing)
    columns = {"method": ours, "metric": metric, "condition": "all", "protocol": ""}
    twins = {"psnr": "PSNR", "control_patches": "whitened patches", "control_untrained": "UNIQUE, untrained"}
    twins |= {"control_random_filters": "random filters", "unique": "UNIQUE, one look"} if ours != "unique" else {}
    controls = {title: {**columns, "method": name} for name, title in twins.items()}
    # The others have units, those of opinions; and MULTI-LIVE is of two distortions at once, which the ladder has not.
    comparable = metric in ("plcc", "srcc", "krcc") and study == "tid2013"
    return Match(
        what,
        row["estimator"],
        row["criterion"],
        columns,
        controls=controls,
        studies=(study,),
        stand_in="ladder" if comparable else "",
        on_stand_in={"protocol": "level", "condition": "*"},
        mean_over=0,
        missing=missing,
    )


def _severity(row: Published) -> Match:
    percent = "percent" in row["metric"]
    what, missing = f"{row['dataset']} · {row['labels']}", "the scans of OLIVES"
    return Match(
        what,
        "",
        row["metric"].replace("_", " "),
        point=1.0 if percent else 0.01,
        missing=missing,
        on_the_slides=False,
    )


_PURVIEW = "Their ResNet is larger and its attacks, shares and H are not all printed; ours is a ResNet-20, fitted on fewer images."
_TABLES = (
    PublishedTable(
        "gradcon_class",
        "GradCON: which images are not of the one class that was learned?",
        _gradcon_class,
        "06_gradcon",
        differs="They train for 1000 epochs; the study cifar10 trains for as long as two processor cores have patience for, "
        "and cifar10_full for as long as they do.",
    ),
    PublishedTable(
        "out_of_distribution",
        "Purview: which images are none of those the network was trained for?",
        _out_of_distribution,
        "08_out_of_distribution",
        differs=f"{_PURVIEW} Which class of an AUPR counts as positive is not said; the unknown one fits the numbers.",
    ),
    PublishedTable(
        "adversarial",
        "Purview: which images were changed on purpose?",
        _adversarial,
        "09_adversarial",
        differs=_PURVIEW,
        doubts="The slide names no metric; the paper's abstract says AUROC.",
    ),
    PublishedTable(
        "corruption",
        "Purview: which images were corrupted?",
        _corruption,
        "10_corruptions",
        differs=f"{_PURVIEW} The corruptions are made anew, in whole grey levels.",
        doubts="The gradients' CIFAR-10 block lies between 99.75 and 100 at every level, level 1 included. "
        "Chapter 10 shows what else has such numbers: clean images that were stored once more.",
    ),
    PublishedTable(
        "calibration",
        "Guo et al.: is a network right as often as it says?",
        _calibration,
        "11_calibration",
        differs="Our LeNet stands beside their LeNet-5; the larger networks have no counterpart here. One point is as much as "
        "some of these calibration errors themselves, so that being within it says little of them.",
    ),
    PublishedTable(
        "introspective_plugin",
        "Introspection as a plug-in: accuracy under corruption",
        _introspective_plugin,
        "13_introspection_as_plug_in",
        differs="Their first networks are ResNet-18, ours ResNet-20, and the corruptions are made anew, in whole grey levels.",
        doubts="Whether the network behind the denoising was trained on denoised images is not said.",
    ),
    PublishedTable(
        "introspective_ood",
        "Introspection: are strangers easier to see at a second look?",
        _introspective_ood,
        "13_introspection_as_plug_in",
        differs="Their ResNet-18, our ResNet-20.",
        doubts="Introspective ODIN on Textures has AUROC 91.9 beside an FPR of 9.31 and an error of 6.12, "
        "to which 97.9 would fit; 89.39 is printed for MSP on SVHN and on Places365.",
    ),
    PublishedTable(
        "active_learning",
        "Introspection: which images to have labelled next?",
        _active_learning,
        "14_active_learning",
        differs="Start, query, rounds and training are not printed, so ours are our own choice, with a ResNet-20 in the study "
        "cifar10_full and a LeNet in cifar10. Their noise costs twelve points of accuracy by one look, ours less than one, so "
        "that the numbers under noise, and the gains there, cannot be compared.",
        doubts="That the numbers are means over rounds is not said; near 0.37, they hardly are accuracies after the last one.",
    ),
    PublishedTable(
        "image_quality",
        "Introspection: how good does an image look?",
        _image_quality,
        "15_image_quality",
        differs="Without the databases' opinions, the correlations of the ladder stand in: how one curve from the measure to "
        "the level of a distortion fits nine photographs, the mean over blur, JPEG, noise and contrast. "
        "That is consistency, not agreement with people.",
    ),
    PublishedTable(
        "open_set",
        "Gradients: is this a class that nobody told the network of?",
        _open_set,
        "08_out_of_distribution",
        experiment="out_of_distribution",
        differs="Which classes are known, and how many runs were averaged, is not printed; ours are drawn anew for every seed.",
    ),
    PublishedTable(
        "single_pass_vs_ensembles",
        "Ensembles and one-pass distances on large networks",
        _ensembles,
        "03_single_pass",
    ),
    PublishedTable(
        "severity",
        "Severity: retinal scans",
        _severity,
        "07_severity",
        doubts="The table by biomarker could not be had; these two numbers are from abstracts.",
    ),
)


def published_tables(folder: Path | None = None) -> list[PublishedTable]:
    """Every table that has a file, the known ones first; a file that nobody has described is read `by_columns`."""
    names = published_names() if folder is None else sorted(path.stem for path in folder.glob("*.csv"))
    known = [table for table in _TABLES if table.name in names]
    others = sorted(set(names) - {table.name for table in known})
    return known + [
        PublishedTable(name, name.replace("_", " ").capitalize(), partial(by_columns, on_the_slides=False))
        for name in others
    ]
