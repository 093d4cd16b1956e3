"""Pictures of chapter 1: predictions and the two kinds of uncertainty, around a curve, among members, over sets of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike
from torch import Tensor

from tutorial_lib.figures.common import words
from tutorial_lib.plots import DATA_UNCERTAINTY, KNOWN, MODEL, MODEL_UNCERTAINTY, MUTED, UNKNOWN, label_line, show_image
from tutorial_lib.uncertainty.decomposition import Decomposition
from tutorial_lib.uncertainty.toy import LEFT_BAND, RIGHT_BAND, ToyData, noise_std, true_function

__all__ = [
    "draw_answers",
    "draw_confidence_gap",
    "draw_members",
    "draw_parts",
    "draw_passing",
    "draw_prediction",
    "draw_uncertainties",
]


def draw_prediction(
    axes: Axes,
    x: Tensor,
    mean: ArrayLike,
    aleatoric: ArrayLike | None = None,
    epistemic: ArrayLike | None = None,
    data: ToyData | None = None,
) -> None:
    """Predicted mean, two standard deviations around it, the training points and the truth.

    With both kinds of uncertainty the inner band is the data's and the outer edge that of the total.

    Args:
        axes: where to draw.
        x: inputs (N, 1).
        mean: predicted means (N,).
        aleatoric, epistemic: standard deviations (N,), either or both; None leaves a band out.
        data: training points.
    """
    at, mean = _flat(x), _flat(mean)
    inner, outer = (np.zeros_like(at) if part is None else _flat(part) for part in (aleatoric, epistemic))
    total = np.sqrt(inner**2 + outer**2)
    for sign in (-1, 1) if epistemic is not None else ():
        axes.fill_between(
            at, mean + 2 * sign * inner, mean + 2 * sign * total, color=MODEL_UNCERTAINTY, alpha=0.3, lw=0
        )
    if aleatoric is not None:
        axes.fill_between(at, mean - 2 * inner, mean + 2 * inner, color=DATA_UNCERTAINTY, alpha=0.3, lw=0)
    axes.plot(at, true_function(torch.from_numpy(at)), color=MUTED, lw=1.2, ls=(0, (4, 2)), zorder=2)
    axes.plot(at, mean, color=MODEL, lw=1.8, zorder=3)
    if data is not None:
        size = 26 if len(data.x) <= 80 else 12
        axes.scatter(data.x, data.y, s=size, color=KNOWN, edgecolor="white", linewidth=0.6, zorder=4)
    axes.set(xlim=(-1.5, 1.5), ylim=(-3, 3), ylabel="y")


def draw_uncertainties(
    axes: Axes, x: Tensor, aleatoric: ArrayLike | None, epistemic: ArrayLike, slope: float = 0.2
) -> None:
    """Both standard deviations over the input, the bands that hold data shaded, and the true noise inside them.

    Args:
        axes: where to draw.
        x: inputs (N, 1).
        aleatoric: standard deviations (N,); None leaves them and the true noise out.
        epistemic: standard deviations (N,).
        slope: of the true noise, see :func:`tutorial_lib.uncertainty.toy.noise_std`.
    """
    at = _flat(x)
    for band in (LEFT_BAND, RIGHT_BAND):
        axes.axvspan(*band, color=KNOWN, alpha=0.1, lw=0)
        label_line(axes, sum(band) / 2, 1.33, "points", KNOWN, ha="center")
    axes.plot(at, _flat(epistemic), color=MODEL_UNCERTAINTY, lw=2.2)
    if aleatoric is not None:
        for band in (LEFT_BAND, RIGHT_BAND):
            inside = torch.linspace(*band, 20)
            axes.plot(inside, noise_std(inside, slope), color=MUTED, lw=1.6, ls=(0, (4, 2)))
        axes.plot(at, _flat(aleatoric), color=DATA_UNCERTAINTY, lw=2.2, ls=(0, (6, 1)))
        label_line(axes, -0.98, 1.33, "model", MODEL_UNCERTAINTY, ha="center")
        label_line(axes, 1.05, 0.42, "data", DATA_UNCERTAINTY, ha="center")
    axes.set(xlim=(-1.5, 1.5), ylim=(0, 1.45), xlabel="x", ylabel="standard\ndeviation")


def draw_answers(axes: Axes, patches: Tensor, columns: int, answers: Sequence[str | None]) -> None:
    """Patches of a picture put together again; a box with the answer around each that has one.

    Args:
        axes: where to draw.
        patches: (N, C, S, S), row by row, in [0, 1] or ``uint8``.
        columns: patches in a row; divides N.
        answers: N short texts, None for a patch without a box.
    """
    size = patches.shape[-1]
    rows = patches.unflatten(0, (-1, columns))  # (rows, columns, C, S, S)
    show_image(axes, rows.permute(2, 0, 3, 1, 4).flatten(3, 4).flatten(1, 2))
    for number, answer in enumerate(answers):
        if answer is None:
            continue
        top, left = number // columns * size - 0.5, number % columns * size - 0.5
        axes.add_patch(Rectangle((left, top), size, size, fill=False, edgecolor=UNKNOWN, linewidth=2))
        box = {"color": UNKNOWN, "pad": 1.5, "lw": 0}
        axes.text(left, top, answer, color="white", fontsize=10 if len(answer) < 3 else 5, va="top", bbox=box)


def draw_members(axes: Axes, probabilities: Tensor, class_names: Sequence[str], title: str = "") -> None:
    """What every member says of one input: a row a member, a column a class, the darker the more probable.

    Args:
        axes: where to draw.
        probabilities: (M, K).
        class_names: K names.
        title: a few words above.
    """
    members, classes = probabilities.shape
    values = probabilities.detach().cpu().numpy().astype(np.float64)
    axes.imshow(values, cmap="Greys", vmin=0, vmax=1, aspect="auto", interpolation="none")
    axes.set_xticks(range(classes), class_names, rotation=90 if max(map(len, class_names)) > 2 else 0)
    axes.set_yticks([])
    axes.tick_params(length=0)
    axes.set_xticks(np.arange(0.5, classes - 1), minor=True)
    axes.set_yticks(np.arange(0.5, members - 1), minor=True)
    axes.grid(which="minor", color="white", lw=1.5 if members <= 10 else 0.5)
    axes.tick_params(which="minor", length=0)
    axes.set_title(title, loc="center", fontsize=11)
    for spine in axes.spines.values():
        spine.set(visible=True, color=MUTED)


def draw_parts(axes: Axes, parts: Mapping[str, Decomposition], known: Sequence[str] = ("known",)) -> None:
    """Mean uncertainty of several sets of inputs, a bar each, the least at the top: data, then model uncertainty.

    Args:
        axes: where to draw.
        parts: what :func:`tutorial_lib.uncertainty.decomposition.decompose_classification` said of each set.
        known: names of the sets that the model knows; they are blue, the others orange.
    """
    names = sorted(parts, key=lambda name: float(parts[name].total.mean()))
    aleatoric = np.array([float(parts[name].aleatoric.mean()) for name in names])
    epistemic = np.array([float(parts[name].epistemic.mean()) for name in names])
    places, ends = np.arange(len(names)), aleatoric + epistemic
    axes.barh(places, aleatoric, height=0.62, color=DATA_UNCERTAINTY, alpha=0.75)
    bars = axes.barh(places, epistemic, height=0.62, left=aleatoric, color=MODEL_UNCERTAINTY, alpha=0.75)
    for bar in bars:
        bar.set(hatch="///", edgecolor="white")
    for place, end in enumerate(ends.tolist()):
        axes.text(end + 0.02, place, f"{end:.2f}", va="center", fontsize=11)
    middles = aleatoric[-1] / 2, aleatoric[-1] + epistemic[-1] / 2  # both words fit into the longest bar
    for middle, word, colour in zip(middles, ("data", "model"), (DATA_UNCERTAINTY, MODEL_UNCERTAINTY), strict=True):
        box = {"color": colour, "pad": 1.5, "lw": 0}
        axes.text(middle, places[-1], word, color="white", ha="center", va="center", fontsize=11, bbox=box)
    _named_rows(axes, names, known)
    axes.set(xlabel="mean uncertainty in nats", xlim=(0, 1.18 * float(ends.max())))


def draw_confidence_gap(axes: Axes, confidence: Mapping[str, float], accuracy: Mapping[str, float | None]) -> None:
    """Mean confidence beside accuracy, a row a set of inputs; the bar between them is confidence that is not earned.

    The known set is at the top, in blue; the others follow, the most confident first.

    Args:
        axes: where to draw.
        confidence: mean confidence of every set, in [0, 1]; one of them is called ``"known"``.
        accuracy: share of right answers, in [0, 1]; None where no answer can be right, drawn hollow at zero.
    """
    names = sorted(confidence, key=lambda name: (name != "known", -confidence[name]))
    for place, name in enumerate(names):
        sure, right, colour = confidence[name], accuracy[name], KNOWN if name == "known" else UNKNOWN
        axes.plot([right or 0, sure], [place, place], color=colour, lw=5, alpha=0.35, solid_capstyle="butt", zorder=1)
        face = "white" if right is None else colour
        axes.scatter(right or 0, place, s=70, marker="o", facecolor=face, edgecolor=colour, linewidth=1.8, zorder=3)
        axes.scatter(sure, place, s=60, marker="s", color=MODEL, zorder=2)
    label_line(axes, accuracy["known"] or 0, -0.62, "right", KNOWN, ha="right")
    label_line(axes, confidence["known"], -0.62, " confident", MODEL, ha="left")
    _named_rows(axes, names, ("known",))
    axes.set(xlim=(-0.03, 1.2), ylim=(len(names) - 0.5, -1), xticks=np.linspace(0, 1, 6))
    axes.set_xlabel("accuracy (circle), mean confidence (square)")


def draw_passing(axes: Axes, confidences: Mapping[str, ArrayLike], sure: float = 0.9) -> None:
    """For every threshold the share of images whose confidence reaches it; a curve a set, named at the right.

    Args:
        axes: where to draw.
        confidences: (N,) in [0, 1] by set; ``"known"`` is blue, all others orange.
        sure: threshold that is marked, in (0, 1).
    """
    thresholds = np.linspace(0, 1, 501)
    shares = {name: (_flat(values)[:, None] >= thresholds).mean(0) for name, values in confidences.items()}
    order = sorted(shares, key=lambda name: -float((_flat(confidences[name]) >= sure).mean()))
    axes.axvline(sure, color=MUTED, lw=1)
    for number, name in enumerate(order):
        colour = KNOWN if name == "known" else UNKNOWN
        axes.plot(thresholds, shares[name], color=colour, lw=2.4 if name == "known" else 1.4)
        share = float((_flat(confidences[name]) >= sure).mean())
        place = (1 - number / max(1, len(order) - 1)) * 0.98  # evenly spaced, in order, so that no two names collide
        axes.plot([sure, 1.03], [share, place], color=colour, lw=0.6, clip_on=False)
        label_line(axes, 1.04, place, f"{name.replace('_', ' ')} {share:.0%}", colour, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share of images above it")


def _named_rows(axes: Axes, names: Sequence[str], known: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [words(name) for name in names])
    for name, label in zip(names, axes.get_yticklabels(), strict=True):
        label.set_color(KNOWN if name in known else UNKNOWN)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _flat(values: ArrayLike) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.float64).reshape(-1)
