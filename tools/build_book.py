"""Build the book: ``python tools/build_book.py``, or ``make book``; one chapter: ``--chapter 08``, or ``make chapter``.

Jupyter Book executes the notebooks and keeps what they printed in a cache. Left alone it would go wrong in two ways,
which this script mends:

* The cache does not see that the library has changed. Here every notebook has a key: a hash of the modules of
  ``tutorial_lib`` that it imports, directly or not, of the library's data files that these read (:mod:`dependencies` finds
  both), of the installed packages and of the environment variables that matter. A notebook whose key has changed is
  forgotten by the cache and executed again.
* A page that is not read again does not complain again, so a second build after a failed one would pass. Here a build
  that failed leaves no page that counts as read, and the written pages are searched for tracebacks.

With ``--chapter`` only that notebook is executed, if it has to be, and only its warnings count. The others are shown as they
were last executed, or without outputs; the next build of the whole book makes up for it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

import dependencies
import yaml
from jupyter_cache import get_cache

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "_build"
HTML = BUILD / "html"
CACHE = BUILD / ".jupyter_cache"
STATE = BUILD / "state.json"

#: Environment variable with the notebooks that are not to be executed; tools/book_extension.py reads it.
LEFT_OUT = "TUTORIAL_NOT_EXECUTED"
#: Environment variables that change what a notebook computes.
VARIABLES = ("TUTORIAL_STUDY", "TUTORIAL_DATA", "TUTORIAL_EXPLORE")


def pages() -> list[str]:
    """Every page of ``_toc.yml``, as a path without suffix relative to the root of the repository."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = [toc["root"]]

    def walk(entry: dict) -> None:
        if "file" in entry:
            found.append(entry["file"])
        for key in ("parts", "chapters", "sections", "entries", "subtrees"):
            for child in entry.get(key) or []:
                walk(child)

    walk({key: value for key, value in toc.items() if key != "root"})
    return found


def notebooks() -> list[str]:
    """The pages of ``_toc.yml`` that are notebooks."""
    return [page for page in pages() if (ROOT / f"{page}.ipynb").is_file()]


def execution_key(page: str) -> str:
    """Hash of everything outside a notebook that its outputs depend on."""
    digest = hashlib.sha256()
    for path in dependencies.of_notebook(ROOT / f"{page}.ipynb", ROOT):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + dependencies.content(path) + b"\0")
    for variable in VARIABLES:
        digest.update(f"{variable}={os.environ.get(variable)}\0".encode())
    digest.update(environment_key().encode())
    return digest.hexdigest()


@cache
def environment_key() -> str:
    """Hash of the version of Python and of every installed package."""
    packages = sorted({f"{found.metadata['Name']}=={found.version}".lower() for found in distributions()})
    return hashlib.sha256("\0".join([sys.version, *packages]).encode()).hexdigest()


def sources_key(keys: dict[str, str]) -> str:
    """Hash of everything that the pages depend on: their sources and settings, and the keys of the notebooks."""
    digest = hashlib.sha256(json.dumps(keys, sort_keys=True).encode())
    # The results page is written from the stored rows, the published numbers, and the modules that compare them.
    results = [f"tutorial_lib/{name}" for name in ("results", "experiments/results", "experiments/published")]
    folders = [ROOT / name for name in ("book", "notebooks", "tools", *results)]
    found = [path for folder in folders for path in folder.rglob("*") if "__pycache__" not in path.parts]
    for path in sorted([ROOT / "_config.yml", ROOT / "_toc.yml", ROOT / "pyproject.toml", *found]):
        if path.is_file():
            digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def frame_key() -> str:
    """Hash of what shapes every page: packages, extensions, templates, settings, the plan of the chapters."""
    digest = hashlib.sha256(environment_key().encode())
    files = [ROOT / name for name in ("_config.yml", "_toc.yml", "pyproject.toml", "book/chapters.yml")]
    files += sorted((ROOT / "tools").glob("*.py")) + sorted((ROOT / "book" / "_templates").glob("*"))
    for path in files:
        if path.is_file():
            digest.update(path.read_bytes() + b"\0")
    digest.update("\0".join(pages()).encode())
    return digest.hexdigest()


def forget(page: str) -> None:
    """Make the next build execute a notebook again: drop it from the cache and its page from what Sphinx has read."""
    if CACHE.is_dir():
        executed = get_cache(CACHE)
        try:
            executed.remove_cache(executed.match_cache_file(str(ROOT / f"{page}.ipynb")).pk)
        except KeyError:
            pass  # not in the cache: it is executed anyway
    (BUILD / ".doctrees" / f"{page}.doctree").unlink(missing_ok=True)


def failures() -> list[str]:
    """Notebooks whose written page shows that a cell failed, and pages that were not written."""
    found = []
    for page in pages():
        html = HTML / f"{page}.html"
        if not html.is_file():
            found.append(f"{page}: no page was written")
        elif page in notebooks() and (report := HTML / "reports" / f"{page}.err.log").is_file():
            found.append(f"{page}: a cell failed\n{report.read_text(encoding='utf-8')}")
        elif 'class="output traceback' in html.read_text(encoding="utf-8"):
            found.append(f"{page}: the page shows a traceback")
    return found


def is_cached(page: str) -> bool:
    """Whether the cache holds outputs of a notebook whose code is what it is now."""
    if not CACHE.is_dir():
        return False
    try:
        get_cache(CACHE).match_cache_file(str(ROOT / f"{page}.ipynb"))
    except KeyError:
        return False
    return True


def page_named(chapter: str) -> str:
    """The page of a chapter, by its number or by the beginning of its name.

    Raises:
        ValueError: there is no such chapter, or more than one.
    """
    found = [page for page in notebooks() if page.rpartition("/")[2].startswith(chapter.zfill(2))]
    if len(found) != 1:
        names = ", ".join(page.rpartition("/")[2] for page in notebooks())
        raise ValueError(f"{chapter!r} is no chapter; say which of {names} by its number")
    return found[0]


def jupyter_book(*options: str, left_out: list[str]) -> tuple[int, str]:
    """Run Jupyter Book, show what it prints, and return its exit status and what it printed."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", *options, "-n", str(ROOT)]
    environment = {**os.environ, LEFT_OUT: os.pathsep.join(left_out)}
    printed = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            printed.append(line)
    return running.returncode, "".join(printed)


def build_chapter(page: str) -> int:
    """Execute one notebook, if need be, and write the pages; the exit status says whether that chapter is as it should be."""
    start = time.monotonic()
    _settle_environment()
    before = json.loads(STATE.read_text(encoding="utf-8")) if STATE.is_file() else {}
    known = {name: key for name, key in before.get("keys", {}).items() if name in notebooks()}
    key = execution_key(page)
    if known.get(page) != key:
        forget(page)
    (BUILD / ".doctrees" / f"{page}.doctree").unlink(missing_ok=True)  # so that it complains again
    (HTML / "reports" / f"{page}.err.log").unlink(missing_ok=True)
    frame = frame_key()
    if before.get("frame") != frame:
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    known.pop(page, None)
    STATE.write_text(json.dumps({"keys": known, "frame": frame, "passed": False}), encoding="utf-8")

    left_out = [other for other in notebooks() if other != page and not is_cached(other)]
    status, printed = jupyter_book("--keep-going", left_out=left_out)
    marks = (f"{page}.ipynb", f"{page}:")
    problems = [
        line
        for line in printed.splitlines()
        if any(mark in line for mark in marks) and ("WARNING" in line or "ERROR" in line) and "IPKernelApp" not in line
    ]
    problems += [problem for problem in failures() if problem.startswith(f"{page}:")]
    for problem in problems:
        print(problem, file=sys.stderr)
    passed = status == 0 and not problems
    if passed:
        known[page] = key
    STATE.write_text(json.dumps({"keys": known, "frame": frame, "passed": False}), encoding="utf-8")
    if left_out:
        print(f"Not executed, so without outputs: {', '.join(left_out)}")
    html = HTML / f"{page}.html"
    print(
        f"{f'The chapter is in {html}' if passed else 'The chapter was NOT built'} ({time.monotonic() - start:.0f} s)"
    )
    return 0 if passed else 1


def _settle_environment() -> None:
    if os.environ.get("TUTORIAL_DATA"):  # notebooks run in their own folder, where a relative path means another place
        os.environ["TUTORIAL_DATA"] = str(Path(os.environ["TUTORIAL_DATA"]).expanduser().resolve())
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")


def build() -> int:
    """Build the book and return the exit status."""
    start = time.monotonic()
    _settle_environment()
    before = json.loads(STATE.read_text(encoding="utf-8")) if STATE.is_file() else {}
    keys = {page: execution_key(page) for page in notebooks()}
    sources = sources_key(keys)
    if before.get("passed") and before.get("sources") == sources and (HTML / "index.html").is_file() and not failures():
        print(f"Nothing has changed; the book is in {HTML / 'index.html'} ({time.monotonic() - start:.0f} s)")
        return 0
    known = {page: key for page, key in keys.items() if before.get("keys", {}).get(page) == key}
    for page in keys.keys() - known.keys():
        forget(page)
    # Sphinx notices a changed page, but neither a changed extension nor that its own version is another.
    frame = frame_key()
    if not before.get("passed") or before.get("frame") != frame:
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
    shutil.rmtree(HTML / "reports", ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    # Until this build has passed, whatever stops it, the next one trusts nothing that this one has read.
    STATE.write_text(json.dumps({"keys": known, "passed": False}), encoding="utf-8")

    status, _ = jupyter_book("-W", "--keep-going", left_out=[])
    problems = failures()
    for problem in problems:
        print(problem, file=sys.stderr)
    passed = status == 0 and not problems
    good = {
        page: key for page, key in keys.items() if passed or not any(text.startswith(f"{page}:") for text in problems)
    }
    STATE.write_text(
        json.dumps({"keys": good, "sources": sources, "frame": frame, "passed": passed}),
        encoding="utf-8",
    )
    verdict = f"The book is in {HTML / 'index.html'}" if passed else "The book was NOT built: see the warnings above"
    print(f"{verdict} ({time.monotonic() - start:.0f} s)")
    return 0 if passed else 1


def study_problem() -> str:
    """Why the study in TUTORIAL_STUDY cannot be read, if so: better known before sixteen notebooks have failed at it."""
    if not os.environ.get("TUTORIAL_STUDY"):
        return ""
    from tutorial_lib.data.errors import DataDamaged, DataUnavailable
    from tutorial_lib.studies import load_study

    try:
        return "" if len(load_study().train) else "the study has no training images"
    except (ValueError, DataDamaged, DataUnavailable) as error:
        return f"the book cannot be built: {error}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build the book, or one chapter of it.")
    parser.add_argument("--chapter", help="number of the one notebook to execute")
    chosen = parser.parse_args(arguments).chapter
    if problem := study_problem():
        print(problem, file=sys.stderr)
        return 2
    if chosen is None:
        return build()
    try:
        page = page_named(chosen)
    except ValueError as error:
        parser.error(str(error))
    return build_chapter(page)


if __name__ == "__main__":
    sys.exit(main())
