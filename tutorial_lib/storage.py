"""Files that are there whole or not at all, locks between processes, and where what can be made again is kept."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import filelock

__all__ = [
    "Damaged",
    "cache_folder",
    "expanded",
    "locked",
    "md5",
    "replacing",
    "sealed",
    "set_aside",
    "sweep",
    "unsealed",
    "write_atomically",
]

_PART = ".part"
_SEAL = "record_sha256"


class Damaged(RuntimeError):
    """A file is there, but cannot be read or is not what its name says; the message names it and says what to do."""


def cache_folder() -> Path:
    """``TUTORIAL_CACHE``, default ``tutorial_lib`` in ``XDG_CACHE_HOME`` (``~/.cache``): absolute, not necessarily there."""
    chosen = os.environ.get("TUTORIAL_CACHE")
    if chosen:
        return expanded(chosen)
    caches = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not caches.is_absolute():  # the XDG specification has relative paths ignored
        try:
            caches = Path.home() / ".cache"
        except RuntimeError:  # a container's nameless user
            raise FileNotFoundError(
                "there is no home folder to keep anything in; set TUTORIAL_CACHE to a folder"
            ) from None
    return caches / "tutorial_lib"


def expanded(path: Path | str) -> Path:
    """The path, absolute, with ``~`` written out.

    Raises:
        FileNotFoundError: the user whose home folder is meant has none.
    """
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        raise FileNotFoundError(f"{path} names the home folder of a user who has none; give the whole path") from None


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well, and is gone when it does not.

    A reader, a kill or a power cut meets the old file or the new one, never half of either. What a kill leaves of the
    temporary file is removed by `sweep`.

    >>> target = Path(tempfile.mkdtemp()) / "folder" / "file.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PART, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())  # the name must not reach the disk before the content
        temporary.chmod(0o666 & ~_umask())  # mkstemp lets nobody else read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """What a new file is not allowed; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def write_atomically(path: Path | str, content: bytes) -> None:
    """`replacing`, for content that is at hand."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of JSON values with the SHA-256 of itself: text, unlike tensors in an archive, has no checksum of its own.

    >>> unsealed(sealed({"accuracy": 0.5}))
    {'accuracy': 0.5}
    """
    content = {name: value for name, value in record.items() if name != _SEAL}
    return {**content, _SEAL: _digest(content)}


def unsealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record that was `sealed`; one that never was, as it is.

    Raises:
        ValueError: it is another one.
    """
    content = {name: value for name, value in record.items() if name != _SEAL}
    if _SEAL in record and record[_SEAL] != _digest(content):
        raise ValueError("its content is not what its own SHA-256 says")
    return content


def _digest(content: Mapping[str, Any]) -> str:
    as_read = json.loads(json.dumps(content))  # with text for the keys, as after reading
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def sweep(path: Path | str) -> None:
    """Remove what killed processes have left of their work on ``path``. Only for who holds the lock of that work."""
    path = Path(path)
    for part in path.parent.glob(f".{path.name}.*{_PART}"):
        with suppress(FileNotFoundError):
            part.unlink()


def set_aside(path: Path | str) -> Path:
    """Move a damaged file out of the way of a new one; returns its new place, ``NAME.damaged`` with a number if needed."""
    path = Path(path)
    number, aside = 1, path.with_name(path.name + ".damaged")
    while aside.exists():
        number, aside = number + 1, path.with_name(f"{path.name}.damaged{number + 1}")
    path.replace(aside)
    return aside


@contextmanager
def locked(path: Path | str, wait: bool = True) -> Iterator[bool]:
    """Hold the lock named ``path`` during the block; yields whether it is held.

    The lock goes with the process, however that ends.

    Args:
        path: an empty file, made if need be and removed by who has held it; only a kill leaves it behind.
        wait: wait for another holder; otherwise yield False if there is one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except filelock.Timeout:
        yield False
        return
    try:
        yield True
    finally:
        with suppress(OSError):  # Windows removes no open file
            path.unlink()  # while it is held: whoever waits for it sees that it is gone, and makes another
        lock.release()


def md5(path: Path | str) -> str:
    """MD5 of a file's content, hexadecimal: what data sets are published with. Not for secrets."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
