"""A workshop in a box: student and instructor notebooks, and a zip that teaches a room without a network.

Command line::

    python tools/make_workshop.py                # into _build/workshop

``student/``
    Every chapter with a gap and a clear error where each solution was; the expected answer and the check stay, notes
    for the teacher and the explanation of wrong answers go.
``instructor/``
    Every chapter as it is, executed, with the notes for the teacher, and a table of minutes to teach and seconds to
    compute for each of its parts.
``workshop.zip``, ``workshop-students.zip``
    The notebooks, the library as a wheel, a README with the commands, and a script that says whether a machine is
    ready. The second one is without the answers.

The notebooks run on the study that comes with the library, so nothing but the installed packages is needed.
"""

from __future__ import annotations

import argparse
import copy
import html
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import chapters
import nbformat
from make_learner import caption, learner_notebook, of_cells
from nbclient import NotebookClient
from nbformat import NotebookNode
from notebook_cells import BADGE_LINE
from plain_markdown import Known, citations, plain

ROOT = chapters.ROOT
TEMPLATES = Path(__file__).parent / "templates"
EXTRA = ("ipywidgets>=8.1", "jupyterlab>=4")
"""What a room needs beside the library: a place to run notebooks, and sliders."""
_MINUTES = re.compile(r"\(\s*(?P<minutes>\d+)\s*min(utes)?\b")


@dataclass(frozen=True)
class Run:
    """A chapter after it was run: the notebook with its outputs, seconds of each cell, and the values it remembered."""

    notebook: NotebookNode
    seconds: list[float]
    values: dict[str, str]


def run(notebook: NotebookNode, folder: Path, timeout: int = 600) -> Run:
    """Run a notebook on the embedded study, in ``folder``, as the book does.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    executed = copy.deepcopy(notebook)
    environment = {**os.environ, "TUTORIAL_EXPLORE": "static", "PYTHONPATH": _with_library()}
    environment.pop("TUTORIAL_STUDY", None)
    client = NotebookClient(
        executed, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment)
    values: dict[str, str] = {}
    prefix = "application/papermill.record/"
    for cell in executed.cells:
        kept = []
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            if name is None:
                kept.append(output)
            elif prefix + "text/plain" in output["data"]:
                values[name] = str(output["data"][prefix + "text/plain"])
        if cell.cell_type == "code":
            cell.outputs = kept
    return Run(executed, [_seconds(cell) for cell in executed.cells], values)


def _with_library() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def _seconds(cell: NotebookNode) -> float:
    times = cell.metadata.get("execution", {})
    if "iopub.status.busy" not in times or "iopub.status.idle" not in times:
        return 0.0
    started, ended = (
        datetime.fromisoformat(times[f"iopub.status.{state}"].replace("Z", "+00:00")) for state in ("busy", "idle")
    )
    return (ended - started).total_seconds()


def student_notebook(notebook: NotebookNode, known: Known) -> NotebookNode:
    """What a learner gets: gaps for solutions, no notes for the teacher, no explanations of wrong answers, no badge."""
    made = learner_notebook(notebook, known)
    made.cells[0].source = _without_badge(made.cells[0].source)
    return made


def instructor_notebook(done: Run, known: Known) -> NotebookNode:
    """What a teacher gets: everything, run, with the notes set apart and a table of times after the title."""
    exercises = {exercise.solution: exercise.number for exercise in chapters.exercises(done.notebook)}
    cells: list[NotebookNode] = []
    for position, cell in enumerate(done.notebook.cells):
        if cell.cell_type == "code":
            source = chapters.answer(cell.source) if position in exercises else cell.source
            ran = {"outputs": cell.outputs, "execution_count": cell.execution_count}
            cells += [nbformat.v4.new_code_cell(source, **ran), *caption(cell, known)]
        elif "instructor" in chapters.tags(cell):
            quoted = "\n".join(f"> {line}".rstrip() for line in plain(cell.source, known).split("\n"))
            cells.append(nbformat.v4.new_markdown_cell(quoted))
        else:
            text = plain(cell.source, known).strip()
            cells.append(nbformat.v4.new_markdown_cell(_without_badge(text) if position == 0 else text))
        if position == 0:
            cells.append(nbformat.v4.new_markdown_cell(times_table(done)))
    return of_cells(cells)


def times_table(done: Run) -> str:
    """Table in Markdown: minutes to teach each part of a chapter, as its notes say; seconds to compute, as measured."""
    parts: list[tuple[str, int, float]] = []
    for cell, seconds in zip(done.notebook.cells, done.seconds, strict=True):
        in_book = cell.cell_type == "markdown" and "instructor" not in chapters.tags(cell)
        headings = re.findall(r"^## +(.+)$", cell.source, re.MULTILINE) if in_book else []
        parts.extend((heading.strip(), 0, 0.0) for heading in headings)
        if not parts:
            parts.append(("Opening", 0, 0.0))
        minutes = 0
        if "instructor" in chapters.tags(cell):
            minutes = sum(int(found["minutes"]) for found in _MINUTES.finditer(cell.source))
        name, so_far, computed = parts[-1]
        parts[-1] = name, so_far + minutes, computed + seconds
    parts.append(("**together**", sum(part[1] for part in parts), sum(part[2] for part in parts)))
    rows = [f"| {name} | {minutes or ''} | {seconds:.0f} |" for name, minutes, seconds in parts]
    return "\n".join(
        [
            f"*Teacher's copy, run on {time.strftime('%Y-%m-%d')} on {os.cpu_count()} CPU cores.*",
            "",
            "| part | minutes to teach | seconds to compute |",
            "| --- | ---: | ---: |",
            *rows,
        ]
    )


def _without_badge(source: str) -> str:
    """The first cell of a chapter without the links that lead to notebooks on the net, one of them with the answers."""
    return BADGE_LINE.sub("", source).strip()


def figures(notebook: NotebookNode) -> dict[str, str]:
    """Number of each figure of a notebook, by its name."""
    names = [cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in notebook.cells]
    return {name: str(number) for number, name in enumerate(filter(None, names), start=1)}


def make_wheel(target: Path) -> Path:
    """Build the library into ``target``, without a network, leaving the repository clean."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "source"
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            if (ROOT / name).exists():
                shutil.copy(ROOT / name, source)
        shutil.copytree(ROOT / "tutorial_lib", source / "tutorial_lib", ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        done = subprocess.run([*command, "--wheel-dir", str(target), str(source)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"the library could not be built into a wheel:\n{done.stdout}{done.stderr}")
    (wheel,) = target.glob("tutorial_lib-*.whl")
    return wheel


def requirements() -> list[str]:
    """What the library needs, and what a room needs beside it."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return sorted([*tomllib.load(file)["project"]["dependencies"], *EXTRA])


def zip_folder(folder: Path, target: Path, inside: str, leave_out: tuple[str, ...] = ()) -> None:
    """Zip a folder under the name ``inside``; the same content gives the same bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            relative = path.relative_to(folder)
            if path.is_file() and relative.parts[0] not in leave_out:
                entry = zipfile.ZipInfo(f"{inside}/{relative.as_posix()}", (1980, 1, 1, 0, 0, 0))
                entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(entry, path.read_bytes())


def make_workshop(paths: list[Path], target: Path, built: Path | None = None) -> list[Path]:
    """Write both kinds of notebooks and both zips.

    Args:
        paths: the chapters.
        target: folder to write into; what was there is replaced.
        built: folder of the built book, whose slides go into the teacher's zip; None or not there: no slides.

    Returns:
        The two zips, the teacher's first.
    """
    shutil.rmtree(target, ignore_errors=True)
    box = target / "workshop"
    for name in ("student", "instructor", "wheels"):
        (box / name).mkdir(parents=True)
    works = citations(ROOT / "book" / "references.bib")
    titles = {path.stem: chapters.title(chapters.read(path)) for path in chapters.chapter_paths()}
    rows = []
    for path in paths:
        print(f"{path.name}: running", flush=True)
        notebook = chapters.read(path)
        done = run(notebook, path.parent)
        known = Known(works, done.values, figures(notebook), titles)
        nbformat.write(student_notebook(notebook, known), box / "student" / path.name)
        nbformat.write(instructor_notebook(done, known), box / "instructor" / path.name)
        rows.append(f"| `{path.name}` | {chapters.title(notebook)} | {sum(done.seconds):.0f} s |")
    wheel = make_wheel(box / "wheels")
    guides = sorted((ROOT / "book").glob("instructor*.md"))
    for guide in guides:
        text = plain(guide.read_text(encoding="utf-8"), Known(works, {}, {}, titles))
        (box / "instructor" / guide.name).write_text(text, encoding="utf-8")
    slides = _copy_slides(paths, built, box / "instructor" / "book") if built else 0
    (box / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    shutil.copy(TEMPLATES / "check_machine.py", box / "check_machine.py")
    readme = (TEMPLATES / "workshop_readme.md").read_text(encoding="utf-8")
    values = {"wheel": wheel.name, "notebooks": "\n".join(rows), "cores": str(os.cpu_count())}
    (box / "README.md").write_text(re.sub(r"\{\{ (\w+) \}\}", lambda match: values[match[1]], readme), encoding="utf-8")
    zips = [target / "workshop.zip", target / "workshop-students.zip"]
    zip_folder(box, zips[0], "uncertainty-workshop")
    zip_folder(box, zips[1], "uncertainty-workshop", leave_out=("instructor",))
    for path in zips:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if not slides:
        print("without slides: build the book first, then its decks go into the teacher's zip")
    return zips


def _copy_slides(paths: list[Path], built: Path, target: Path) -> int:
    """Copy the decks with the pictures, styles and fonts that they ask for; the number of decks."""
    decks = [deck for path in paths if (deck := built / "slides" / f"{path.stem}.html").exists()]
    if not decks:
        return 0
    shutil.copytree(built / "slides" / "reveal", target / "slides" / "reveal")
    wanted: set[Path] = set()
    for deck in decks:
        text = deck.read_text(encoding="utf-8")
        addresses = re.findall(r'(?:src|href)="\.\./(_(?:images|static)/[^"?#]+)', text)
        text = re.sub(r'(<a\b[^>]*?) href="\.\./(?!_)[^"]*"', r"\1", text)  # the pages stay at home
        (target / "slides" / deck.name).write_text(text, encoding="utf-8")
        wanted |= {Path(html.unescape(address)) for address in addresses}
    if any("mathjax" in path.as_posix() for path in wanted):
        fonts = built / "_static" / "mathjax" / "output" / "chtml"
        wanted |= {path.relative_to(built) for path in fonts.rglob("*") if path.is_file()}
    for path in wanted:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(built / path, target / path)
    return len(decks)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the notebooks and zips of a workshop.")
    parser.add_argument("--target", type=Path, default=ROOT / "_build" / "workshop", help="folder to write into")
    parser.add_argument(
        "--book", type=Path, default=ROOT / "_build" / "html", help="folder of the built book, for slides"
    )
    parser.add_argument("chapters", nargs="*", type=Path, help="notebooks; default: all")
    options = parser.parse_args(arguments)
    paths = [path.resolve() for path in options.chapters] or chapters.chapter_paths()
    if not paths:
        print("there is no chapter in notebooks/", file=sys.stderr)
        return 1
    make_workshop(paths, options.target, options.book if options.book.exists() else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
