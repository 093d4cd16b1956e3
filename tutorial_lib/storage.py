"""Files that are there whole or not at all, and locks between processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["locked", "replacing", "write_atomically"]


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well, and is gone when it does not.

    A reader, a kill or a power cut meets the old file or the new one, never half of either.

    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "folder" / "file.txt"
    >>> with replacing(target) as temporary:
    ...     _ = temporary.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())  # the name must not reach the disk before the content
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path | str, content: bytes) -> None:
    """`replacing`, for content that is at hand."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def locked(path: Path | str, wait: bool = True) -> Iterator[bool]:
    """Hold the lock named ``path`` during the block; yields whether it is held.

    The lock goes with the process, however that ends. Where files have no locks (Windows) it yields True at once: then
    two processes may do the same work, and `replacing` keeps its result whole.

    Args:
        path: an empty file, made if need be and left behind.
        wait: wait for another holder; otherwise yield False if there is one.
    """
    try:
        import fcntl
    except ImportError:
        yield True
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
