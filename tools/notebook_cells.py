"""The cells that every chapter opens with, and the form in which every notebook is stored.

A chapter is read in four places: the built book, Jupyter, GitHub and Colab. Its first two cells make that work, so
they are written here once and nowhere else:

* a Markdown cell with the title and the "Open In Colab" badge, which opens the chapter's notebook for learners (written by
  ``tools/make_learner.py`` into ``colab/``), and a link to the solved one;
* a code cell, tagged ``colab-setup``, that installs the library when the notebook runs in Colab and never touches Colab's
  own PyTorch. Where the library is not to be had, it says so in one sentence and stops the run.

Command line::

    python tools/notebook_cells.py notebooks/*.ipynb            # bring notebooks into stored form
    python tools/notebook_cells.py --check notebooks/*.ipynb    # say what is not in it, change nothing

Stored form: both opening cells as above, no outputs, no execution counts, the ``python3`` kernel and no other
notebook metadata, cell ids that follow from the text of the cells (so that a regenerated notebook gives a small diff).
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
BRANCH = "main"
SETUP_TAG = "colab-setup"
LEARNERS = "colab"
"""Folder of the notebooks that Colab opens."""
BADGE_IMAGE = "https://colab.research.google.com/assets/colab-badge.svg"

#: Every tag a cell may carry, and what the tag means.
TAGS = {
    SETUP_TAG: "installs the library in Colab; the same in every chapter",
    "hide-input": "code folded in the book",
    "hide-output": "output folded in the book",
    "hide-cell": "code and output folded in the book",
    "remove-input": "code not in the book",
    "remove-output": "output not in the book",
    "remove-cell": "cell not in the book, but run",
    "exercise": "Markdown: a task, the expected answer, a hint",
    "solution": "code: what a learner has to write stands between # BEGIN SOLUTION and # END SOLUTION",
    "check": "code: tells a learner whether the solution is right",
    "solution-note": "Markdown: why the tempting answer fails",
    "instructor": "Markdown: notes for the teacher, not in the book",
    "quiz": "Markdown: a question whose options each carry a reason",
    "live": "code that needs a running kernel to be of use",
    "raises-exception": "code that must fail, to show the error",
    "nbval-check-output": "output compared with the stored one",
    "full-width": "figure as wide as the page",
    "margin": "shown in the margin",
}

_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}

_SETUP = """\
# @title Set-up (only does something in Colab)
import importlib.util
import subprocess
import sys

source = "git+{address}"
install = "-m pip install --quiet --no-input --no-deps".split()
try:
    import google.colab

    del google  # it was only to see whether it is there
    subprocess.run([sys.executable, *install, source], capture_output=True)
    importlib.invalidate_caches()
except ImportError:
    pass  # not in Colab: the library is installed already
if importlib.util.find_spec("tutorial_lib") is None:
    error = type("NotInstalled", (Exception,), {{}})
    error._render_traceback_ = lambda self: [str(self)]  # the sentence alone
    raise error(
        "The library of the course is not here and could not be fetched from "
        f"{{source[4:]}}: see whether that page opens, run "
        f"'pip install --no-deps {{source}}', restart the kernel, "
        "and run this cell again."
    )
del importlib, install, source, subprocess, sys"""

BADGE_LINE = re.compile(r"^\[!\[[^\]]*\]\(\S*colab-badge\S*\)\]\(\S*\)( \[[^\]]*\]\(\S*\))?\s*$", re.MULTILINE)
"""The line of badge and link under the title, as :func:`badge_line` writes it."""


def repository_address() -> str:
    """Address of the repository, without a slash at its end: ``project.urls.Repository`` of pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]["urls"]["Repository"].rstrip("/")


def colab_link(path: str | Path, address: str | None = None) -> str:
    """Link that opens a notebook of the repository in Colab.

    Args:
        path: the notebook, relative to the root of the repository or absolute.
        address: of the repository; default :func:`repository_address`.
    """
    owner_and_name = (address or repository_address()).removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{owner_and_name}/blob/{BRANCH}/{_in_repository(path)}"


def learner_path(path: str | Path, solved: bool = False) -> Path:
    """Where the notebook of a chapter lies that Colab opens, relative to the root of the repository.

    >>> learner_path("notebooks/08_out_of_distribution.ipynb", solved=True).as_posix()
    'colab/08_out_of_distribution_solved.ipynb'
    """
    return Path(LEARNERS) / f"{Path(path).stem}{'_solved' if solved else ''}.ipynb"


def badge_line(path: str | Path, address: str | None = None) -> str:
    """The line of Markdown under a title: the badge opens the learner's notebook in Colab, a link the solved one."""
    learner, solved = (colab_link(learner_path(path, solved), address) for solved in (False, True))
    return f"[![Open In Colab]({BADGE_IMAGE})]({learner}) [with solutions]({solved})"


def setup_source(address: str | None = None) -> str:
    """Source of the set-up cell."""
    return _SETUP.format(address=address or repository_address())


def title_cell(title: str, path: str | Path, address: str | None = None) -> nbformat.NotebookNode:
    """First cell of a chapter: its title and its badge."""
    return nbformat.v4.new_markdown_cell(f"# {title}\n\n{badge_line(path, address)}")


def setup_cell(address: str | None = None) -> nbformat.NotebookNode:
    """Second cell of a chapter: the set-up for Colab. The book leaves it out; Colab shows it as a form."""
    metadata = {"cellView": "form", "tags": [SETUP_TAG, "remove-cell"]}
    return nbformat.v4.new_code_cell(setup_source(address), metadata=metadata)


def tags_of(cell: nbformat.NotebookNode) -> list[str]:
    """Tags of a cell, an empty list if it has none."""
    return list(cell.metadata.get("tags", []))


def stored_form(notebook: nbformat.NotebookNode, path: str | Path, address: str | None = None) -> nbformat.NotebookNode:
    """A copy of a notebook in the form in which it is stored.

    Args:
        notebook: any version 4 notebook whose first cell is Markdown and starts with ``# Title``.
        path: where the notebook lies, relative to the root of the repository or absolute.
        address: of the repository; default :func:`repository_address`.

    Raises:
        ValueError: the first cell has no title.
    """
    cells = [nbformat.from_dict(dict(cell)) for cell in notebook.cells]
    if not cells or cells[0].cell_type != "markdown" or not cells[0].source.startswith("# "):
        raise ValueError(f"{path}: the first cell must be Markdown and start with '# Title'")
    heading, _, rest = BADGE_LINE.sub("", cells[0].source).partition("\n")
    cells[0].source = f"{heading.rstrip()}\n\n{badge_line(path, address)}"
    if rest.strip():
        cells[0].source += f"\n\n{rest.strip()}"
    cells = [cells[0], setup_cell(address)] + [cell for cell in cells[1:] if SETUP_TAG not in tags_of(cell)]

    taken: set[str] = set()
    for cell in cells:
        cell.id = _cell_id(cell, taken)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
        if "instructor" in tags_of(cell) and "remove-cell" not in tags_of(cell):
            cell.metadata["tags"] = [*tags_of(cell), "remove-cell"]  # the book knows only this one
        for key in ("execution", "collapsed", "lines_to_next_cell"):  # left by programs that ran or converted it
            cell.metadata.pop(key, None)
    return nbformat.v4.new_notebook(cells=cells, metadata=_METADATA, nbformat_minor=5)


def problems_of(path: Path, address: str | None = None) -> list[str]:
    """What keeps a notebook file from being in stored form; empty if nothing does."""
    stored = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(stored, as_version=4)
    try:
        wanted = _written(stored_form(notebook, path, address))
    except ValueError as error:
        return [str(error)]
    if stored == wanted:
        return []
    remedy = f"run: python tools/notebook_cells.py {_in_repository(path)}"
    return [f"{_in_repository(path)}: not in stored form (badge, set-up cell, outputs, metadata or cell ids); {remedy}"]


def store(path: Path, address: str | None = None) -> bool:
    """Rewrite a notebook file in stored form; True if that changed it."""
    stored = path.read_text(encoding="utf-8")
    wanted = _written(stored_form(nbformat.reads(stored, as_version=4), path, address))
    if stored != wanted:
        path.write_text(wanted, encoding="utf-8")
    return stored != wanted


def _in_repository(path: str | Path) -> str:
    path = Path(path)
    return path.resolve().relative_to(ROOT).as_posix() if path.is_absolute() else path.as_posix()


def _cell_id(cell: nbformat.NotebookNode, taken: set[str]) -> str:
    digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
    name, count = digest, 1
    while name in taken:
        count += 1
        name = f"{digest}-{count}"
    taken.add(name)
    return name


def _written(notebook: nbformat.NotebookNode) -> str:
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Bring notebooks into the form in which they are stored.")
    parser.add_argument("notebooks", nargs="+", help="notebook files")
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 if something is to change")
    options = parser.parse_args(arguments)
    failed = False
    for name in options.notebooks:
        path = Path(name).resolve()
        if options.check:
            found = problems_of(path)
            failed |= bool(found)
            print("\n".join(found) or f"{name}: as it should be")
        else:
            print(f"{name}: {'rewritten' if store(path) else 'as it should be'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
