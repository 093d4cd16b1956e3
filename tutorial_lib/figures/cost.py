"""The benchmark as a picture."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from tutorial_lib.benchmarks.gradients import OURS, ratios
from tutorial_lib.plots import MODEL, MUTED, WIDTH
from tutorial_lib.results.rows import Row

TITLES = {
    "resnet18": "ResNet-18",
    "resnet20": "ResNet-20",
    "small_cnn": "small CNN",
    "densenet_bc_100_12": "DenseNet-BC",
}


def cost_figure(rows: Sequence[Row], networks: Sequence[str] = ("resnet18", "resnet20", "small_cnn")) -> Figure:
    """Cost of every sample's norms in plain training steps, against the batch size; one panel a network.

    The one pass of this library is the thick black line, the loop of the papers dashed, everything else grey.
    """
    table = ratios(rows, "norms")
    networks = [name for name in networks if name in table]
    if not networks:
        raise ValueError("the rows hold no norms of these networks; run: python -m tutorial_lib benchmark gradients")
    figure, panels = plt.subplots(1, len(networks), sharey=True, squeeze=False, figsize=(WIDTH, 3.4))
    batches: set[int] = set()
    for axes, name in zip(panels[0], networks, strict=True):
        for method, by_batch in table[name].items():
            ours, loop = method == OURS, method == "loop"
            axes.plot(
                list(by_batch), list(by_batch.values()), "o-" if ours else "s--" if loop else "-",
                color=MODEL if ours else MUTED, linewidth=3 if ours else 1.2, markersize=6 if ours else 4, zorder=3 if ours else 2,
            )  # fmt: skip
            batches |= set(by_batch)
        axes.axhline(1, color=MUTED, linewidth=0.8, linestyle=":")
        axes.set(xscale="log", yscale="log", title=TITLES.get(name, name))
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
    for method, words, end, side in ((OURS, "one pass", min, "left"), ("loop", "loop", max, "right")):
        if method in last:  # below the line, at the end where no other passes
            n = end(last[method])
            first.annotate(
                words,
                (n, last[method][n]),
                xytext=(0, -20),
                textcoords="offset points",
                ha=side,
                fontsize=11,
            )
    figure.supxlabel("images in the batch", fontsize=12)
    figure.suptitle("All norms for about the price of one training step", x=0.01, ha="left")
    return figure
