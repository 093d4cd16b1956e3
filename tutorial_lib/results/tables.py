"""Tables in Markdown: they read well in a terminal, and a notebook shows them as tables."""

from __future__ import annotations

import html
import re
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


class TableText(str):
    """Markdown made of tables and lines of text, which a notebook shows as such and ``print`` as it is.

    On a page narrower than a table, the table scrolls by itself. Readers of screens hear which row and column a number
    stands in.

    >>> TableText(markdown_table(["who", "AUROC"], [["energy", "91.0"]]))._repr_html_().count("<td>")
    1
    """

    def _repr_html_(self) -> str:
        shown = []
        for block in re.split(r"\n\s*\n", self.strip()):
            lines = block.split("\n")
            if all(line.startswith("|") for line in lines) and len(lines) > 1:
                shown.append(_html_table([_entries(line) for line in lines]))
            else:
                shown.append(f"<p>{html.escape(block)}</p>")
        return "\n".join(shown)


def _entries(line: str) -> list[str]:
    return [html.escape(entry.strip()) for entry in line.strip().strip("|").split("|")]


def _html_table(lines: Sequence[Sequence[str]]) -> str:
    head, _, *body = lines
    columns = "".join(f'<th scope="col">{entry}</th>' for entry in head)
    rows = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{entry}</td>" for entry in rest)}</tr>'
        for first, *rest in body
    )
    table = f'<table class="results"><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div class="results-table" tabindex="0" role="region" aria-label="table of results">{table}</div>'
