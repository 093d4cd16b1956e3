r"""How much worse does this picture look? The table of chapter 15, and what can be asked without asking people.

Published: PSNR-HA and seven others beside UNIQUE and its introspective form on MULTI-LIVE and TID2013, by outlier ratio,
RMSE, PLCC, SRCC and KRCC, with flags of significance. The two databases must be asked for at their authors' pages; unpack
them into ``multi_live`` and ``tid2013`` of the data folder, and

    python -m tutorial_lib run image_quality --study multi_live --seeds 3
    python -m tutorial_lib run image_quality --study tid2013 --seeds 3

fills our side. For everybody:

    python -m tutorial_lib run image_quality --study ladder --seeds 3

with the photographs that come inside scikit-image and scikit-learn. By protocol:

* ``ladder``: five levels of blur, JPEG, noise and contrast; is the order within a photograph and distortion right?
* ``faint``: eight rungs close to what an eye can just notice;
* ``corruptions``: the twenty-three other corruptions of this course, on `FEW` photographs, by the first seed;
* ``level``: one curve from the measure to the level for all photographs, by distortion (`against_level`): the columns of
  the published table, with the level in the place of opinions;
* ``harmless``: pairs of a change that nobody minds and one that nobody misses, on the same photograph;
* ``jpeg``: each change, as bad as a JPEG of which quality?

``--study live_crops`` has the crops of LIVE in the course's shared data: ``ladder`` and ``level`` with the PSNR of the
*whole* image in the place of the level. PSNR is at home there; what it shows is whether the others keep the order.

``seed`` is that of the sparse autoencoder, and of the controls' random numbers. PSNR, SSIM and the whitened patches have
none, and stand in the first seed's rows only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats
import torch
from numpy.typing import NDArray

from tutorial_lib.data.files import data_folder
from tutorial_lib.image_quality import (
    CHANGES,
    DISTORTIONS,
    REFERENCES,
    Agreement,
    Ladder,
    LiveCrops,
    OpinionDatabase,
    Quality,
    RandomFilters,
    Unique,
    WhitenedPatches,
    against_level,
    agreement,
    changed,
    faint_ladder,
    jpeg_equivalent,
    jpeg_scale,
    ladder,
    load_live_crops,
    load_multi_live,
    load_tid2013,
    pairwise_accuracy,
    psnr,
    reference_images,
    score_ladder,
    significance_flag,
    ssim,
)
from tutorial_lib.image_quality.autoencoder import initial_autoencoder
from tutorial_lib.image_quality.ladder import CLASSICAL
from tutorial_lib.image_quality.patches import PATCH
from tutorial_lib.results.published import read_published
from tutorial_lib.results.rows import Row
from tutorial_lib.results.tables import TableText, markdown_table, mean_and_spread
from tutorial_lib.runs.experiment import Cell, CellResult, Experiment, Measurement
from tutorial_lib.training.sparse_autoencoder import sparse_autoencoder

__all__ = [
    "CRITERIA",
    "DATABASES",
    "EXPERIMENT",
    "METHODS",
    "consistency_table",
    "flags",
    "jpeg_table",
    "level_table",
    "measure_named",
    "order_table",
    "published_table",
    "values_of",
]

NAME = "image_quality"

VERSION = 1
"""Of the grid; cells of an older one are computed again."""

SIZE = 256
"""Side of the photographs, in pixels."""

FEW = ("china", "flower", "chelsea")
"""Photographs under the other corruptions."""


class Method(NamedTuple):
    """A measure.

    Attributes:
        title: for a reader.
        of_seed: the measure of a seed.
        seeded: whether the seed decides anything.
    """

    title: str
    of_seed: Callable[[int], Quality]
    seeded: bool


def _untrained(seed: int) -> Quality:
    return Unique(initial_autoencoder(3 * PATCH**2, seed=seed))


METHODS: Mapping[str, Method] = {
    "psnr": Method("PSNR", lambda seed: psnr, False),
    "ssim": Method("SSIM", lambda seed: ssim, False),
    "unique": Method("UNIQUE, feed-forward", lambda seed: Unique(sparse_autoencoder(seed)), True),
    "unique_introspective": Method(
        "UNIQUE, introspective", lambda seed: Unique(sparse_autoencoder(seed), introspective=True), True
    ),
    "control_patches": Method("control: whitened patches, no network", lambda seed: WhitenedPatches(), False),
    "control_untrained": Method("control: UNIQUE, untrained", _untrained, True),
    "control_random_filters": Method(
        "control: introspective, random filters",
        lambda seed: RandomFilters(sparse_autoencoder(seed), seed=seed),
        True,
    ),
}
"""What is compared, by name."""

DATABASES: Mapping[str, tuple[str, Callable[[], OpinionDatabase]]] = {
    "multi_live": ("MULTI-LIVE", lambda: load_multi_live(data_folder() / "multi_live")),
    "tid2013": ("TID2013", lambda: load_tid2013(data_folder() / "tid2013")),
}
"""Studies that have opinion scores: the name in the published table, and the reader."""

CRITERIA: Mapping[str, tuple[str, int]] = {
    "outlier_ratio": ("OR", 3),
    "rmse": ("RMSE", 3),
    "plcc": ("PLCC", 3),
    "srcc": ("SRCC", 3),
    "krcc": ("KRCC", 3),
}
"""Columns of the published table: metric, name there, digits."""

PUBLISHED_NAMES = {"unique": "Feed-Forward UNIQUE", "unique_introspective": "Introspective UNIQUE"}
"""Methods of ours that stand in the published table."""


def measure_named(name: str, seed: int = 0) -> Quality:
    """One of `METHODS`, ready to be called with references and distorted images."""
    return METHODS[name].of_seed(seed)


def cells(study: str, seeds: Sequence[int]) -> list[Cell]:
    """One cell per method and seed; those without a seed of their own once."""
    first = min(seeds, default=0)
    grid = [(seed, name) for seed in seeds for name, method in METHODS.items() if method.seeded or seed == first]
    return [
        Cell(NAME, study, seed, {"method": name} | ({"corruptions": True} if seed == first else {}), VERSION)
        for seed, name in grid
    ]


def compute(cell: Cell, device: torch.device) -> CellResult:
    """Everything that one measure says on a study. All of it is computed on the CPU, in float64."""
    name = cell.settings["method"]
    measure = measure_named(name, cell.seed)
    if cell.study in DATABASES:
        database = DATABASES[cell.study][1]()
        quality = database.quality(measure, progress=False)
        found = agreement(quality, database.opinions, database.deviations)
        return CellResult(list(_agreement_rows(name, "all", "", found)), {"quality": quality})
    if cell.study == "live_crops":
        return CellResult(list(_crop_rows(name, load_live_crops(), measure)))
    rows, equivalent = _ladder_rows(name, measure, bool(cell.settings.get("corruptions")))
    return CellResult(rows, {"jpeg": equivalent})


# ----------------------------------------------------------------------------------------------------------------------
# Ladders


@functools.cache
def _photographs() -> tuple[torch.Tensor, tuple[str, ...]]:
    return reference_images(size=SIZE), tuple(REFERENCES)


@functools.cache
def _ladders(corruptions: bool) -> dict[str, Ladder]:
    """By protocol; kept, since all measures look at the same pictures."""
    references, names = _photographs()
    made = {"ladder": ladder(references, names), "faint": faint_ladder(references, names)}
    if corruptions:
        chosen = [names.index(name) for name in FEW]
        others = [name for name in DISTORTIONS if name not in CLASSICAL]
        made["corruptions"] = ladder(references[chosen], FEW, others)
    return made


def _ladder_rows(name: str, measure: Quality, corruptions: bool) -> tuple[list[Measurement], NDArray[np.float64]]:
    rows = []
    for protocol, rungs in _ladders(corruptions).items():
        quality = rungs.quality(measure)
        score = score_ladder(rungs, quality)
        whole = {"srcc": score.srcc, "pairs_right": score.pairs_right, "neighbours_right": score.neighbours_right}
        rows += [Measurement(name, "all", m, v, len(rungs), protocol=protocol) for m, v in whole.items()]
        for kind, share in score.by_distortion.items():
            n = rungs.distortion.count(kind)
            rows.append(Measurement(name, kind, "pairs_right", share, n, protocol=protocol))
        if protocol == "ladder":
            for kind, found in against_level(rungs, quality).items():
                rows += _agreement_rows(name, kind, "level", found)
    values, equivalent = _changes(measure)
    rows += _harmless_rows(name, values)
    for change, by_photograph in zip(CHANGES, equivalent.T, strict=True):
        count = len(by_photograph)
        rows.append(Measurement(name, change, "jpeg_quality", by_photograph.mean(), count, protocol="jpeg"))
    return rows, equivalent


def _changes(measure: Quality) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each photograph and change (R, C): the measure's value, and the JPEG quality that it finds as good."""
    references, _ = _photographs()
    values, equivalent = [], []
    for photograph in references.split(1):
        scale = jpeg_scale(photograph)
        copies = torch.cat([changed(photograph, change) for change in CHANGES] + [scale])
        found = measure(photograph.expand(len(copies), -1, -1, -1), copies)
        values.append(found[: len(CHANGES)])
        equivalent.append(jpeg_equivalent(values[-1], found[len(CHANGES) :]))
    return np.stack(values), np.stack(equivalent)


def _harmless_rows(name: str, values: NDArray[np.float64]) -> Iterator[Measurement]:
    """Share of pairs on one photograph in which the harmless change got the better value; ties count half."""
    harmless = np.array([change.harmless for change in CHANGES.values()])
    mild, bad = values[:, harmless, None], values[:, None, ~harmless]
    right = (mild > bad) + 0.5 * (mild == bad)  # (photographs, harmless, harmful)
    yield Measurement(name, "all", "pairs_right", right.mean(), right.size, protocol="harmless")
    for axis, chosen in ((2, harmless), (1, ~harmless)):
        names = [change for change, is_in in zip(CHANGES, chosen, strict=True) if is_in]
        for change, share in zip(names, right.mean(axis=(0, axis)), strict=True):
            n = right.size // len(names)
            yield Measurement(name, change, "pairs_right", share, n, protocol="harmless")


def _crop_rows(name: str, crops: LiveCrops, measure: Quality) -> Iterator[Measurement]:
    quality = crops.quality(measure)
    kinds = np.array(crops.distortion)
    for kind in dict.fromkeys(crops.distortion):
        rows = kinds == kind
        mine, strength, photograph = quality[rows], -crops.psnr_full[rows], crops.reference[rows]
        right = pairwise_accuracy(mine, strength, photograph)
        ranks = [
            float(scipy.stats.spearmanr(mine[photograph == p], -strength[photograph == p]).statistic)
            for p in np.unique(photograph)
        ]
        yield Measurement(name, kind, "pairs_right", right, int(rows.sum()), protocol="ladder")
        yield Measurement(name, kind, "srcc", float(np.mean(ranks)), int(rows.sum()), protocol="ladder")
        yield from _agreement_rows(name, kind, "level", agreement(mine, strength))


def _agreement_rows(name: str, condition: str, protocol: str, found: Agreement) -> Iterator[Measurement]:
    for metric in CRITERIA:
        value = getattr(found, metric)
        if value is not None:
            yield Measurement(name, condition, metric, value, found.count, protocol=protocol)


# ----------------------------------------------------------------------------------------------------------------------
# Reading rows


def values_of(rows: Sequence[Row], method: str, metric: str, protocol: str, condition: str = "all") -> list[float]:
    """One value a seed, of rows of one study; empty if there are none."""
    wanted = (method, metric, protocol, condition)
    return [row.value for row in rows if (row.method, row.metric, row.protocol, row.condition) == wanted]


def flags(rows: Sequence[Row], protocol: str, condition: str, metric: str) -> dict[str, int]:
    """The published table's -1, 0 or 1 for our rows: each method beside the introspective one, means over seeds.

    Empty as long as the introspective one has no rows.
    """
    means = {name: values_of(rows, name, metric, protocol, condition) for name in METHODS}
    if not means["unique_introspective"]:
        return {}
    n = next(row.n for row in rows if (row.protocol, row.condition, row.metric) == (protocol, condition, metric))
    introspective = float(np.mean(means["unique_introspective"]))
    return {
        name: significance_flag(float(np.mean(values)), introspective, n)
        for name, values in means.items()
        if values and name != "unique_introspective"
    }


def published_table(rows: Sequence[Row] = ()) -> TableText:
    """The published table, all ninety numbers, and ours beside them where the database is there.

    Args:
        rows: of this experiment, of all studies.
    """
    blocks = []
    for study, (database, _) in DATABASES.items():
        mine = [row for row in rows if row.study == study]
        printed = read_published(NAME, database=database)
        by_cell = {(row["estimator"], row["criterion"]): row for row in printed}
        head = [database, *(criterion for criterion, _ in CRITERIA.values())]
        body = []
        for estimator in dict.fromkeys(row["estimator"] for row in printed):
            body.append([f"{estimator}, published", *_printed(by_cell, estimator)])
        for name, method in METHODS.items():
            line = [f"{method.title}, ours"]
            for metric, (_, digits) in CRITERIA.items():
                values = values_of(mine, name, metric, "")
                line.append(mean_and_spread(values, digits) if values else "needs it")
            body.append(line)
        blocks.append(
            f"{database}, slide 108. In brackets: significantly worse than the introspective measure (-1), or not to be "
            "told from it (0)."
        )
        blocks.append(markdown_table(head, body))
        if not mine:
            command = f"python -m tutorial_lib run {NAME} --study {study} --seeds 3 --save"
            blocks.append(
                f"Our side needs the files of {database}, unpacked into {study} of the data folder: {command}"
            )
    return TableText("\n\n".join(blocks))


def _printed(by_cell: Mapping[tuple[str, str], Mapping[str, object]], estimator: str) -> list[str]:
    entries = []
    for criterion, digits in CRITERIA.values():
        row = by_cell[estimator, criterion]
        flag = f" ({row['significance_flag']})" if row["significance_flag"] else ""
        entries.append(f"{row['value']:.{digits}f}{flag}")
    return entries


def table(rows: Sequence[Row]) -> TableText:
    """All that was measured, in Markdown, with the published table at the top."""
    blocks: list[str] = [published_table(rows)]
    for study, title in (("ladder", "Ladder"), ("live_crops", "LIVE crops")):
        mine = [row for row in rows if row.study == study]
        if not mine:
            continue
        blocks += [f"{title}: share of pairs in the right order, in %.", order_table(mine)]
        for kind in dict.fromkeys(row.condition for row in mine if row.protocol == "level"):
            said = "the level" if study == "ladder" else "the PSNR of the whole image"
            blocks += [f"{title}, {kind}: one curve to {said} for all photographs.", level_table(mine, kind)]
        if study == "ladder":
            blocks += ["As bad as a JPEG of which quality? Mean over photographs.", jpeg_table(mine)]
    return TableText("\n\n".join(blocks))


def order_table(rows: Sequence[Row]) -> TableText:
    """Share of pairs in the right order, in %, by protocol (of the crops, by distortion)."""
    kept = [row for row in rows if row.metric == "pairs_right" and (row.condition == "all" or row.study != "ladder")]
    columns = list(dict.fromkeys((row.protocol, row.condition) for row in kept))
    body = []
    for name, method in METHODS.items():
        values = [[100 * value for value in values_of(rows, name, "pairs_right", *column)] for column in columns]
        if any(values):
            body.append([method.title, *(mean_and_spread(found) for found in values)])
    heads = [protocol if condition == "all" else condition for protocol, condition in columns]
    return TableText(markdown_table(["", *heads], body))


def level_table(rows: Sequence[Row], condition: str) -> TableText:
    """The published table's columns with the level in the place of opinions, for one distortion; flags in brackets."""
    metrics = [metric for metric in CRITERIA if any((r.metric, r.protocol) == (metric, "level") for r in rows)]
    flagged = {m: flags(rows, "level", condition, m) for m in ("plcc", "srcc", "krcc")}
    body = []
    for name, method in METHODS.items():
        line = [method.title]
        for metric in metrics:
            flag = flagged.get(metric, {}).get(name)
            text = mean_and_spread(values_of(rows, name, metric, "level", condition), CRITERIA[metric][1])
            line.append(text + ("" if flag is None else f" ({flag})"))
        body.append(line)
    return TableText(markdown_table(["", *(CRITERIA[metric][0] for metric in metrics)], body))


def consistency_table(rows: Sequence[Row], metric: str = "srcc", digits: int = 2) -> TableText:
    """One column of `level_table` for every distortion; flags in brackets."""
    kinds = list(dict.fromkeys(row.condition for row in rows if row.protocol == "level"))
    flagged = {kind: flags(rows, "level", kind, metric) for kind in kinds}
    body = []
    for name, method in METHODS.items():
        line = [method.title]
        for kind in kinds:
            flag = flagged[kind].get(name)
            text = mean_and_spread(values_of(rows, name, metric, "level", kind), digits)
            line.append(text + ("" if flag is None else f" ({flag})"))
        body.append(line)
    return TableText(markdown_table(["", *kinds], body))


def jpeg_table(rows: Sequence[Row], methods: Sequence[str] = tuple(METHODS)) -> TableText:
    """For each change, the JPEG quality that a measure finds as bad."""
    body = []
    for name, change in CHANGES.items():
        values = [values_of(rows, method, "jpeg_quality", "jpeg", name) for method in methods]
        verdict = "harmless" if change.harmless else "harmful"
        body.append([f"{change.description} ({verdict})", *(mean_and_spread(found, 0) for found in values)])
    return TableText(markdown_table(["", *(METHODS[method].title for method in methods)], body))


EXPERIMENT = Experiment(
    NAME,
    "how much worse does this picture look? (chapter 15)",
    ("ladder", "live_crops", *DATABASES),
    cells,
    compute,
    table,
)
