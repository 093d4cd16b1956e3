"""A chapter of a dozen cells with one of everything, quick to run: what the tools are tried on."""

from __future__ import annotations

import nbformat

QUIZ = """\
**1. What does the coin know?**

<details>
<summary>A. Its next face</summary>

Not quite. A fair coin has no memory.

</details>

<details>
<summary>B. Nothing</summary>

Right. That is what fair means.

</details>
"""


LOOKING = "It lands on {glue:text}`rate:.2f`, says {cite:t}`guo2017calibration`; see {numref}`fig-coin`."

FIGURE = """\
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(2, 1))
axes.plot([0, 1])
plt.show()"""

SOLUTION = '''\
def heads(tosses):
    """Count."""
    # BEGIN SOLUTION
    count = sum(tosses)
    return count
    # END SOLUTION'''


def markdown(source, *tags, **metadata):
    return nbformat.v4.new_markdown_cell(source, metadata={**({"tags": list(tags)} if tags else {}), **metadata})


def code(source, *tags, **metadata):
    return nbformat.v4.new_code_cell(source, metadata={**({"tags": list(tags)} if tags else {}), **metadata})


def slide(kind, **more):
    return {"slide_type": kind, **more}


def coin_chapter():
    """Cells as a chapter has them; numpy only."""
    return nbformat.v4.new_notebook(
        cells=[
            markdown("# A coin\n\n[![Open In Colab](https://x.org/colab-badge.svg)](https://x.org)\n\nHow sure is it?"),
            markdown("**Teacher's note (5 min).** Toss one.", "instructor"),
            code("import numpy as np\nfrom tutorial_lib.plots import glue\nrate = np.mean([0, 1, 1, 0])"),
            code('glue("rate", rate)'),
            markdown(f"## Looking\n\n{LOOKING}"),
            markdown("## Half\n\n* one in {glue:text}`rate:.1f`, $p < 1$", "instructor", slideshow=slide("slide")),
            code(
                FIGURE,
                mystnb={
                    "image": {"alt": "A rising line."},
                    "figure": {"caption": "A line of {term}`heads`.", "name": "fig-coin"},
                },
                slideshow=slide("-"),
            ),
            markdown("**Note (3 min).** Ask who is sure.", "instructor"),
            markdown("## Exercises\n\n**Exercise 1.** Write `heads`.\n\n*Expected:* 3 of `[1, 1, 1, 0]`.", "exercise"),
            code(SOLUTION, "solution", "hide-input"),
            code('assert heads([1, 1, 1, 0]) == 3, "There are three."\nprint("Right: three.")', "check"),
            markdown("<details>\n<summary>Why not</summary>\n\n`len` counts tails too.\n\n</details>", "solution-note"),
            markdown("## Quiz\n\n" + QUIZ, "quiz"),
        ]
    )
