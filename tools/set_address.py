"""Change the address of the repository everywhere: ``make address REPO=https://github.com/owner/name``.

The address is one setting, ``project.urls.Repository`` in ``pyproject.toml``. Places that cannot read it there (badges
and set-up cells of notebooks, ``_config.yml``, pages, README, CITATION) repeat it. This script finds them all: every
text file of the repository that holds the old address, its link in Colab, or the address at which GitHub publishes
the book.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

from notebook_cells import repository_address, store

ROOT = Path(__file__).resolve().parent.parent
_ADDRESS = re.compile(r"https://github\.com/([A-Za-z0-9][A-Za-z0-9-]*)/([A-Za-z0-9._-]+)")


def spellings(address: str) -> list[str]:
    """The forms in which the address of a repository is written, longest first.

    >>> spellings("https://github.com/owner/name")[0]
    'https://colab.research.google.com/github/owner/name'
    """
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise ValueError(f"not the address of a GitHub repository: {address!r}; wanted: https://github.com/owner/name")
    owner, name = match.groups()
    return [
        f"https://colab.research.google.com/github/{owner}/{name}",
        f"https://{owner.lower()}.github.io/{name}",
        f"https://github.com/{owner}/{name}",
    ]


def files() -> list[Path]:
    """Every text file of the repository, tracked or new, that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file() and b"\0" not in path.read_bytes()[:8192]:
            found.append(path)
    return found


def rewrite(text: str, old: str, new: str) -> str:
    """A text with every spelling of one address replaced by that of another.

    A longer name that begins like the old one is another repository and stays.

    >>> rewrite("see https://github.com/a/b and https://github.com/a/b-two", "https://github.com/a/b", "https://github.com/c/d")
    'see https://github.com/c/d and https://github.com/a/b-two'
    """
    for before, after in zip(spellings(old), spellings(new), strict=True):
        text = re.sub(re.escape(before) + r"(?![A-Za-z0-9_-]|\.(?!git\b)[A-Za-z0-9])", after, text)
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Change the address of the repository everywhere.")
    parser.add_argument("address", help="https://github.com/owner/name")
    new = parser.parse_args(arguments).address.rstrip("/")
    old = repository_address()
    try:
        spellings(new)
    except ValueError as error:
        parser.error(str(error))
    changed = 0
    for path in files():
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
        rewritten = rewrite(text, old, new)
        if rewritten != text:
            path.write_bytes(rewritten.encode("utf-8", errors="surrogateescape"))
            print(path.relative_to(ROOT))
            changed += 1
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        store(path)  # the ids of cells follow from their text
    print(f"{old} -> {new}: {changed} files changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
