"""Pictures of chapter 4: gradient norms and what they are made of, what they say, what they cost.

Norms are squared and span decades, so their axes are logarithmic.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator, StrMethodFormatter
from torch import Tensor, nn

from tutorial_lib.figures.common import apart, draw_table, queue, words
from tutorial_lib.gradients.toy import ToyData, introduced, plane
from tutorial_lib.plots import (
    DIVERGING,
    HATCHES,
    KNOWN,
    MARKERS,
    MODEL,
    MODEL_UNCERTAINTY,
    MUTED,
    PALETTE,
    UNKNOWN,
    WIDTH,
    label_line,
    show_image,
)

__all__ = [
    "cost",
    "factors",
    "gram",
    "label_bars",
    "layers",
    "maps",
    "moves",
    "one_pass",
    "profiles",
    "queue",
    "ratios",
    "scores",
    "seeds",
    "verdict_table",
]

NETWORKS = {
    "resnet18": "ResNet-18",
    "resnet20": "ResNet-20",
    "small_cnn": "small CNN",
    "densenet_bc_100_12": "DenseNet-BC",
}
"""Names of the networks of the benchmark, for readers."""

BAND = (0.05, 0.95)
"""Quantiles between which nine known images in ten lie."""

LEAST = 1e-30
"""Squared norms below this are drawn as this: a saturated softmax gives exact zeros."""


def profiles(images: Tensor, norms: Tensor, known: Tensor, titles: Sequence[str], colours: Sequence[str]) -> Figure:
    """A few images, and under each its squared gradient norms layer by layer, as multiples of a typical known image's.

    Args:
        images: (n, C, H, W).
        norms: their squared norms (n, P).
        known: squared norms (N, P) of known images; typical is the median, the band holds nine in ten.
        titles: n short texts.
        colours: n colours.
    """
    typical = known.median(dim=0).values
    low, high = (torch.quantile(known / typical, q, dim=0).numpy() for q in BAND)
    multiples, layers = (norms / typical).numpy(), np.arange(norms.shape[1])
    figure, axes = plt.subplots(
        2, len(images), figsize=(WIDTH, 4.1), height_ratios=[1, 1.25], sharey="row", squeeze=False
    )
    for image, bars, above, below, title, colour in zip(images, multiples, *axes, titles, colours, strict=True):
        show_image(above, image, title, colour)
        below.fill_between(_stretched(layers), _ends(low), _ends(high), color=KNOWN, alpha=0.18, linewidth=0)
        below.bar(layers, bars - 1, bottom=1, color=colour, hatch=HATCHES[colour], edgecolor="white", linewidth=0)
        below.axhline(1, color=MODEL, linewidth=1)
        below.set(yscale="log", xlim=(-0.7, len(layers) - 0.3))
        _name_layers(below, len(layers))
    largest = 1.15 * max(np.abs(np.log10(multiples)).max(), np.log10(high).max(), -np.log10(low).min())
    axes[1, 0].set(ylim=(10**-largest, 10**largest), ylabel="squared norm,\nmultiple of typical")
    _plain_multiples(axes[1, 0], 10**largest)
    return figure


def label_bars(
    images: Tensor, gradients: Mapping[str, Tensor], classes: Sequence[str], titles: Sequence[str]
) -> Figure:
    """What each label asks of the logits: one column per image, one row per label, one bar per class.

    Args:
        images: (n, C, H, W).
        gradients: for each label, the logit gradients δ (n, K). Drawn is the *demand*, −δ: up means that the logit is
            asked to rise.
        classes: names of the K classes.
        titles: n short texts.
    """
    figure, axes = plt.subplots(
        len(gradients) + 1, len(images), figsize=(WIDTH, 1.1 + 0.95 * len(gradients)),
        height_ratios=[1.15] + [1] * len(gradients), squeeze=False,
    )  # fmt: skip
    for axis, image, title in zip(axes[0], images, titles, strict=True):
        show_image(axis, image, title)
    for row, (label, delta) in zip(axes[1:], gradients.items(), strict=True):
        reach = 1.15 * max(1.0, float(delta.abs().max()))
        for axis, demand in zip(row, (-delta).numpy(), strict=True):
            axis.bar(range(len(demand)), demand, color=MODEL, width=0.65)
            axis.axhline(0, color=MUTED, linewidth=1)
            axis.set(ylim=(-reach, 2 * reach), xticks=range(len(classes)), xticklabels=[])
            axis.text(0.99, 1, f"|δ|² = {np.square(demand).sum():.2g}", transform=axis.transAxes, ha="right", va="top")
        row[0].set_ylabel(label, rotation=0, ha="right", va="center")
    for axis in axes[-1]:
        long = max(len(name) for name in classes) > 2
        axis.set_xticklabels(classes, rotation=90 if long else 0)
        axis.set_xlabel("class")
    return figure


def moves(net: nn.Module, data: ToyData, points: Mapping[str, Tensor], rate: float) -> Figure:
    """What moves when a contrast class is introduced at a point: the boundaries before, and after one gradient step.

    Args:
        net: the toy network, see :mod:`tutorial_lib.gradients.toy`.
        data: what it was trained on.
        points: a title for each point (2,).
        rate: of the gradient step.
    """
    ticks, grid = plane(3.2, 161)
    figure, axes = plt.subplots(1, len(points), figsize=(WIDTH, 3.5), sharex=True, sharey=True)
    for axis, (title, point) in zip(np.atleast_1d(axes), points.items(), strict=True):
        predicted = int(net(point[None]).argmax())
        _arcs(axis, data)
        _boundary(axis, net, ticks, grid, MUTED, "solid", 5, alpha=0.35)
        styles = iter([("Q₁", UNKNOWN, "dashed", 2.2), ("Q₂", MODEL_UNCERTAINTY, "dotted", 2.6)])
        for label in range(3):
            name, colour, style, width = ("P", MODEL, "solid", 1.2) if label == predicted else next(styles)
            _boundary(axis, introduced(net, point, label, rate), ticks, grid, colour, style, width)
            x, y = 1.75 * data.points[data.classes == label].mean(0)
            axis.text(x, y, name, color=colour, fontsize=14, fontweight="bold", ha="center", va="center")
        axis.plot(*point, marker="*", markersize=16, color=MODEL, markeredgecolor="white")
        axis.set(title=title, xticks=[], yticks=[], aspect="equal")
    return figure


def maps(data: ToyData, values: Mapping[str, Tensor], marks: Mapping[str, Tensor], extent: float) -> Figure:
    """Squared norms over the plane, one panel per label: dark is small, bright is large.

    Args:
        data: what the network was trained on.
        values: for each title, norms (steps²,) on the grid of :func:`tutorial_lib.gradients.toy.plane`.
        marks: named points (2,).
        extent: of that grid.
    """
    figure, axes = plt.subplots(1, len(values), figsize=(WIDTH, 3.7), sharex=True, sharey=True)
    for axis, (title, norms) in zip(np.atleast_1d(axes), values.items(), strict=True):
        side = round(len(norms) ** 0.5)
        ticks = np.linspace(-extent, extent, side)
        height = norms.clamp_min(1e-12).log10().view(side, side).numpy()
        drawn = axis.contourf(ticks, ticks, height, levels=14)
        axis.scatter(*data.points.T, s=4, color="white", linewidth=0)
        for name, point in marks.items():
            axis.plot(*point, marker="*", markersize=13, color=UNKNOWN, markeredgecolor="white")
            axis.annotate(
                name, point.tolist(), (0, -13), textcoords="offset points", ha="center", color="white", fontsize=12,
                fontweight="bold",
            )  # fmt: skip
        axis.set(title=title, xticks=[], yticks=[], aspect="equal")
        bar = figure.colorbar(drawn, ax=axis, orientation="horizontal", shrink=0.9, pad=0.02)
        powers = np.linspace(math.ceil(height.min()), math.floor(height.max()), 3).round()
        bar.set_ticks(np.unique(powers).tolist())
        bar.ax.xaxis.set_major_formatter(lambda power, _: f"$10^{{{power:.0f}}}$")
    return figure


def factors(panels: Mapping[str, tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]], stranger: str) -> Figure:
    """The two factors of the last layer's squared norm against each other, one panel per label.

    Args:
        panels: for each title, |h|² and |δ|² of the known images, and |h|² and |δ|² of the strangers, each (N,).
        stranger: what to call the strangers.
    """
    figure, axes = plt.subplots(1, len(panels), figsize=(WIDTH, 3.6), sharex=True)
    for axis, (title, ((known_h, known_delta), (strange_h, strange_delta))) in zip(axes, panels.items(), strict=True):
        for h, delta, colour in ((known_h, known_delta, KNOWN), (strange_h, strange_delta, UNKNOWN)):
            axis.scatter(
                h,
                delta.clamp_min(LEAST),
                s=9,
                alpha=0.45,
                color=colour,
                marker=MARKERS[colour],
                linewidth=0,
                rasterized=True,
            )
        axis.set(xscale="log", yscale="log", title=title)
        axis.title.set_fontsize(12)
        limits, product = axis.axis(), float((known_h * known_delta).median())
        across = np.array(limits[:2])
        axis.plot(across, product / across, color=MODEL, linewidth=1.2, linestyle="dashed")
        axis.axis(limits)
        if limits[3] / limits[2] < 30:  # less than two powers of ten: name some numbers between
            axis.yaxis.set_minor_formatter(lambda y, _: f"{y:.2g}" if f"{y:e}"[0] in "235" else "")
        else:
            axis.yaxis.set_minor_formatter(NullFormatter())
    axes[0].set(ylabel="|δ|², what the label asks")
    figure.supxlabel("|h|², how strongly the last hidden layer is excited", fontsize=12)
    axes[0].text(0.03, 0.97, stranger, transform=axes[0].transAxes, color=UNKNOWN, fontweight="bold", va="top")
    axes[0].text(0.97, 0.03, "known", transform=axes[0].transAxes, color=KNOWN, fontweight="bold", ha="right")
    return figure


def seeds(values: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Figure:
    """AUROC of "larger is stranger", one row per network, one group per shift, one dot per seed.

    Args:
        values: for each shift, for each network, its seeds' AUROC.
        title: one sentence.
    """
    networks = list(dict.fromkeys(name for group in values.values() for name in group))
    colours = (MODEL, *PALETTE[2:])
    figure, axes = plt.subplots(figsize=(WIDTH, 0.9 + 0.62 * len(values) * max(1, len(networks) / 3)))
    for row, group in enumerate(values.values()):
        for place, name in enumerate(networks):
            y = row + 0.62 * ((place + 0.5) / len(networks) - 0.5)
            found = np.array(group[name])
            axes.plot([found.min(), found.max()], [y, y], color=colours[place], linewidth=1.2, alpha=0.6)
            axes.plot(
                found, [y] * len(found), linestyle="none", marker="osD^v"[place], markersize=7, color=colours[place],
                markeredgecolor="white", label=name if row == 0 else None,
            )  # fmt: skip
    axes.axvline(0.5, color=MUTED, linestyle="dashed", linewidth=1)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(values) - 0.45, -0.6), title=title)
    axes.set(yticks=range(len(values)), yticklabels=[words(shift) for shift in values])
    axes.set_xlabel("AUROC of “larger is stranger”")
    axes.legend(loc="upper center", bbox_to_anchor=(0.42, -0.6 / figure.get_figheight()), ncols=4, columnspacing=1.2)
    return figure


def layers(panels: Mapping[str, tuple[Tensor, Mapping[str, Tensor]]]) -> Figure:
    """Norms through the network: the band of the known images, and the median of each kind of stranger.

    Args:
        panels: for each title, of the known images the base-10 logarithms of the norms between which nine in ten lie and
            of their median (3, P: low, median, high), and by name those of the median norms of strangers (P,).
    """
    figure, axes = plt.subplots(len(panels), 1, figsize=(WIDTH, 3.4 * len(panels)), squeeze=False)
    for axis, (title, (known, strange)) in zip(axes[:, 0], panels.items(), strict=True):
        low, typical, high = known
        depth = np.arange(len(typical))
        axis.fill_between(depth, low - typical, high - typical, color=KNOWN, alpha=0.25, linewidth=0)
        axis.plot(depth, 0 * depth, color=KNOWN)
        ends = {"known": 0.0}
        for (name, median), marker in zip(strange.items(), "^vD<>sPX*p", strict=False):
            axis.plot(
                depth, median - typical, color=UNKNOWN, linewidth=1.5, marker=marker, markeredgecolor="white",
                markersize=6 if len(depth) < 12 else 3,
            )  # fmt: skip
            ends[words(name)] = float(median[-1] - typical[-1])
        bottom, top = axis.get_ylim()
        for name, y in zip(ends, apart(list(ends.values()), 0.075 * (top - bottom)), strict=True):
            colour = KNOWN if name == "known" else UNKNOWN
            axis.plot(depth[-1] * np.array([1.01, 1.05]), [ends[name], y], color=colour, linewidth=0.8)
            label_line(axis, depth[-1] * 1.06, y, name, colour)
        axis.set(xlim=(-0.03 * depth[-1], depth[-1] * 1.38), title=title, ylabel="squared norm,\nmultiple of typical")
        powers = [power for power in np.log10([0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]) if bottom <= power <= top]
        axis.set_yticks(powers, [f"{10**power:.2g}" for power in powers])
        _name_layers(axis, len(depth))
    return figure


def scores(values: Mapping[str, Mapping[str, float]], title: str) -> Figure:
    """AUROC of several scores side by side: one row per kind of stranger, one marker per score.

    Args:
        values: for each score, for each kind of stranger, its AUROC.
        title: one sentence.
    """
    strangers = list(next(iter(values.values())))
    figure, axes = plt.subplots(figsize=(WIDTH, 1.3 + 0.42 * len(strangers)))
    styles = zip((UNKNOWN, MODEL, KNOWN, MODEL_UNCERTAINTY), ("^", "s", "o", "D"), strict=True)
    for row in range(len(strangers)):
        axes.axhline(row, color="#e4e4e4", linewidth=1, zorder=0)
    for (name, found), (colour, marker) in zip(values.items(), styles, strict=False):
        axes.plot(
            list(found.values()), range(len(strangers)), linestyle="none", marker=marker, markersize=9, color=colour,
            markeredgecolor="white", label=name,
        )  # fmt: skip
    axes.axvline(0.5, color=MUTED, linestyle="dashed", linewidth=1)
    axes.set(xlim=(-0.02, 1.03), ylim=(len(strangers) - 0.5, -0.5), title=title, xlabel="AUROC")
    axes.set(yticks=range(len(strangers)), yticklabels=[words(name) for name in strangers])
    axes.legend(loc="upper center", bbox_to_anchor=(0.42, -0.72 / figure.get_figheight()), ncols=4, columnspacing=1.2)
    return figure


def one_pass(images: Tensor, x: Tensor, g: Tensor) -> Figure:
    """One layer in one backward pass: for every image its own input, its own output gradient, and so its own norm.

    Args:
        images: (n, C, H, W).
        x: inputs of a linear layer (n, D).
        g: gradients of the summed loss at its output (n, K).
    """
    n = len(images)
    figure, axes = plt.subplots(n, 4, figsize=(WIDTH, 0.56 * n + 0.7), width_ratios=[0.55, 3, 1.3, 1.7])
    inputs, gradients = x.abs().numpy(), g.abs().numpy()
    norms = np.square(inputs).sum(1) * np.square(gradients).sum(1)
    for row, image, forward, backward, norm in zip(axes, images, inputs, gradients, norms, strict=True):
        show_image(row[0], image)
        for axis, vector, largest, colours in (
            (row[1], forward, inputs.max(), "Blues"),
            (row[2], backward, gradients.max(), "Oranges"),
        ):
            axis.imshow(vector[None], aspect="auto", cmap=colours, vmin=0, vmax=largest)
            axis.set(xticks=[], yticks=[])
        row[3].barh(0, norm, color=MODEL, height=0.6)
        row[3].set(xlim=(0, 1.5 * norms.max()), ylim=(-0.6, 0.6), xticks=[], yticks=[])
        row[3].text(
            norm + 0.04 * norms.max(),
            0,
            f"{norm:,.0f}" if norms.max() > 100 else f"{norm:.3g}",
            va="center",
            fontsize=11,
        )
        for side in ("bottom", "left"):
            row[3].spines[side].set_visible(False)
    for axis, title in zip(
        axes[0], ("", "input $h_n$ →", "← gradient $\\delta_n$", "$|\\delta_n|^2 |h_n|^2$"), strict=True
    ):
        axis.set_title(title, loc="center", fontsize=12)
    return figure


def gram(x: Tensor, g: Tensor) -> Figure:
    """The Gram form of one image at one convolution: two tables of positions against positions, and their product.

    Args:
        x: inner products of the input patches (T, T).
        g: inner products of the output gradients (T, T).
    """
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH, 2.6))
    tables = {
        "$U^{\\!\\top} U$, inputs": x.numpy(),
        "$G^{\\!\\top} G$, gradients": g.numpy(),
        "product": (x * g).numpy(),
    }
    for axis, (title, table), sign in zip(axes, tables.items(), ("×", "=", ""), strict=True):
        reach = np.abs(table).max()
        axis.imshow(table, cmap=DIVERGING, vmin=-reach, vmax=reach)
        axis.set_title(title, loc="center", fontsize=12)
        axis.set(xticks=[], yticks=[])
        axis.text(1.11, 0.5, sign, transform=axis.transAxes, fontsize=18, va="center", ha="center")
    axes[2].set_xlabel(f"sum of all: {float((x * g).sum()):.4g}")
    axes[0].set_xlabel(f"{len(x)} × {len(x)} positions")
    return figure


def ratios(values: Mapping[str, float], title: str) -> Figure:
    """How long each way takes, as a multiple of the first."""
    first = next(iter(values.values()))
    names, found = list(values), [value / first for value in values.values()]
    figure, axes = plt.subplots(figsize=(WIDTH, 0.7 + 0.5 * len(names)))
    axes.barh(names, found, color=[MUTED, MODEL, *[UNKNOWN] * len(names)][: len(names)], height=0.6)
    for row, value in enumerate(found):
        axes.text(value + 0.015 * max(found), row, f"{value:.2g}", va="center")
    axes.axvline(1, color=MODEL, linewidth=1, linestyle="dashed")
    axes.set(xlim=(0, 1.12 * max(found)), ylim=(len(names) - 0.5, -0.5), title=title)
    axes.set_xlabel("time, multiple of the first")
    return figure


def verdict_table(tables: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Figure:
    """AUROC of many scores and shifts as a table of colours: orange above one half, violet below.

    Args:
        tables: for each title, for each score, for each kind of stranger, its AUROC.
    """
    rows = [len(table) for table in tables.values()]
    figure, axes = plt.subplots(
        len(tables), 1, figsize=(WIDTH, 0.37 * sum(rows) + 1.75 * len(tables)), height_ratios=rows, squeeze=False,
        layout=ConstrainedLayoutEngine(h_pad=0.12),  # slanted names reach up to the title below
    )  # fmt: skip
    for axis, (title, table) in zip(axes[:, 0], tables.items(), strict=True):
        strangers = list(next(iter(table.values())))
        draw_table(axis, [[row[name] for name in strangers] for row in table.values()], list(table), title)
        names = [words(name) for name in strangers]
        axis.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    return figure


def cost(
    table: Mapping[str, Mapping[str, Mapping[int, float]]],
    networks: Sequence[str] = ("resnet18", "resnet20", "small_cnn"),
) -> Figure:
    """Cost of every sample's norms in plain training steps, against the batch size; one panel per network.

    Args:
        table: for each network, for each way, its cost by batch size, see
            `tutorial_lib.benchmarks.gradients.ratios`. Of the ways, ``"one pass"`` is the thick black line, ``"loop"``
            dashed, everything else grey.
        networks: which to draw; those that the table lacks are left out.
    """
    networks = [name for name in networks if name in table]
    if not networks:
        raise ValueError("the table holds none of these networks; run: python -m tutorial_lib benchmark gradients")
    figure, panels = plt.subplots(1, len(networks), sharey=True, squeeze=False, figsize=(WIDTH, 3.4))
    batches: set[int] = set()
    for axes, name in zip(panels[0], networks, strict=True):
        for method, by_batch in table[name].items():
            ours, loop = method == "one pass", method == "loop"
            axes.plot(
                list(by_batch), list(by_batch.values()), "o-" if ours else "s--" if loop else "-",
                color=MODEL if ours else MUTED, linewidth=3 if ours else 1.2, markersize=6 if ours else 4, zorder=3 if ours else 2,
            )  # fmt: skip
            batches |= set(by_batch)
        axes.axhline(1, color=MUTED, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", yscale="log", title=NETWORKS.get(name, name))
        axes.xaxis.set(
            major_locator=FixedLocator(sorted(batches)),
            minor_locator=NullLocator(),
            major_formatter=StrMethodFormatter("{x:.0f}"),
        )
        axes.yaxis.set(
            major_locator=FixedLocator([0.5, 1, 2, 4, 8]),
            minor_locator=NullLocator(),
            major_formatter=StrMethodFormatter("{x:g}"),
        )
    first = panels[0][0]
    first.set_ylabel("time, in plain steps")
    lowest = min(min(table[name][method].values()) for name in networks for method in table[name])
    first.set_ylim(bottom=0.6 * lowest)  # room for words below the lowest line
    last = table[networks[0]]
    for method, side in (("one pass", "left"), ("loop", "right")):
        if method in last:  # below the line, at the end where no other passes
            n = min(last[method]) if side == "left" else max(last[method])
            first.annotate(
                method,
                (n, last[method][n]),
                xytext=(0, -20),
                textcoords="offset points",
                ha=side,
                fontsize=11,
            )
    figure.supxlabel("images in the batch", fontsize=12)
    figure.suptitle("All norms for about the price of one training step", x=0.01, ha="left")
    return figure


def _arcs(axis: Axes, data: ToyData) -> None:
    for label, marker in enumerate("osD"):
        x, y = data.points[data.classes == label].T
        axis.scatter(x, y, s=9, color=KNOWN, marker=marker, linewidth=0, alpha=0.7)


def _boundary(
    axis: Axes,
    net: nn.Module,
    ticks: Tensor,
    grid: Tensor,
    colour: str,
    style: str,
    width: float,
    alpha: float = 1.0,
) -> None:
    with torch.no_grad():
        z = net(grid)
    for label in range(z.shape[1]):  # where this class overtakes the best of the others
        others = torch.cat([z[:, :label], z[:, label + 1 :]], dim=1).amax(1)
        lead = (z[:, label] - others).view(len(ticks), len(ticks))
        axis.contour(ticks, ticks, lead, levels=[0], colors=colour, linestyles=style, linewidths=width, alpha=alpha)


def _name_layers(axis: Axes, count: int) -> None:
    axis.set_xticks([0, count - 1], ["first", "last\nlayer"])


def _stretched(places: np.ndarray) -> np.ndarray:
    """Half a bar more at both ends."""
    return np.concatenate([[places[0] - 0.7], places, [places[-1] + 0.7]])


def _ends(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[:1], values, values[-1:]])


def _plain_multiples(axis: Axes, reach: float) -> None:
    steps = [step for step in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100) if 1 / reach <= step <= reach]
    axis.set_yticks(steps, [f"{step:.1g}" if step < 0.1 else f"{step:g}" for step in steps])
    axis.yaxis.set_minor_formatter(NullFormatter())
