"""Tables in Markdown: they read well in a terminal and render in the book."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean, and the standard deviation over seeds if there are several; a dash for none.

    >>> mean_and_spread([90.0, 92.0]), mean_and_spread([90.0]), mean_and_spread([])
    ('91.0 ± 1.4', '90.0', '–')
    """
    if not values:
        return "–"
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table whose columns line up; the first is set to the left, the others to the right.

    >>> print(markdown_table(["who", "AUROC"], [["energy", "91.0"]]))
    | who    | AUROC |
    | :----- | ----: |
    | energy |  91.0 |
    """
    wrong = [row for row in body if len(row) != len(head)]
    if wrong:
        raise ValueError(f"every row needs {len(head)} entries, got {wrong[0]}")
    widths = [max(3, *(len(row[i]) for row in [head, *body])) for i in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            entry.ljust(w) if i == 0 else entry.rjust(w) for i, (entry, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(head), line(rule), *(line(row) for row in body)])
