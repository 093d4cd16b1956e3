"""Change the address of the repository everywhere: ``make address``, or ``make address REPO=https://github.com/owner/name``.

Without an address it takes that of the clone's origin, ``git remote get-url origin``.

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
_REMOTE = re.compile(
    r"(?:https://(?:[^@/]+@)?github\.com/|(?:ssh://)?git@github\.com[:/])(?P<owner>[\w-]+)/(?P<name>[\w.-]+?)(?:\.git)?/?"
)
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


def of_remote(remote: str) -> str:
    """The address at which a reader finds the repository that git knows by another.

    >>> of_remote("git@github.com:owner/name.git"), of_remote("https://token@github.com/owner/name/")
    ('https://github.com/owner/name', 'https://github.com/owner/name')

    Raises:
        ValueError: it is no repository on GitHub.
    """
    match = _REMOTE.fullmatch(remote.strip())
    if not match:
        raise ValueError(
            f"origin is {remote.strip()!r}, which is not on GitHub; say REPO=https://github.com/owner/name"
        )
    return f"https://github.com/{match['owner']}/{match['name']}"


def origin() -> str:
    """The address of the clone's origin.

    Raises:
        ValueError: there is none, or it is not on GitHub.
    """
    asked = subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, text=True)
    if asked.returncode != 0:
        raise ValueError("this clone has no remote 'origin'; say REPO=https://github.com/owner/name")
    return of_remote(asked.stdout)


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
    parser.add_argument("address", nargs="?", help="https://github.com/owner/name; default: that of origin")
    given = parser.parse_args(arguments).address
    old = repository_address()
    try:
        new = given.rstrip("/") if given else origin()
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
