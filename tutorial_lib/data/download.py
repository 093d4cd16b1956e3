"""Fetch a published file: resumed after a broken connection, checked before anybody sees it."""

from __future__ import annotations

import http.client
import os
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

from tqdm.auto import tqdm

from tutorial_lib.data.errors import DataDamaged
from tutorial_lib.storage import locked
from tutorial_lib.storage import md5 as md5_of

__all__ = ["fetch", "unzip"]

CHUNK = 1 << 18
TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""


def fetch(url: str, path: Path | str, md5: str, attempts: int = 5, pause: float = 2.0) -> Path:
    """Download ``url`` to ``path`` unless the file is there already.

    Until it is whole and its checksum is right, the file is called ``path.part``. What a broken connection or a killed
    process has left of it is continued (an HTTP range request), by this call or by the next one; a server that cannot
    do that starts again. Two processes take turns.

    Args:
        url: http or https.
        path: where the file goes; folders are made.
        md5: the published checksum, hexadecimal.
        attempts: connections in a row that may bring nothing, once something has come. A server that does not answer at
            all is not asked again.
        pause: seconds before the next attempt, doubled after each that brought nothing.

    Returns:
        ``path``.

    Raises:
        OSError: no answer, an HTTP error, or nothing new in ``attempts`` connections; what has come is kept.
        DataDamaged: another content than published came; it is thrown away.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    with locked(path.with_name(path.name + ".lock")):
        if path.exists() and md5_of(path) == md5:
            return path
        in_vain, at_first = 0, _size(part)
        while True:
            before = _size(part)
            try:
                _continue(url, part)
                break
            except urllib.error.HTTPError:
                raise  # the server has understood and says no
            except (OSError, http.client.HTTPException) as error:
                in_vain = 0 if _size(part) > before else in_vain + 1
                if in_vain >= attempts or _size(part) == at_first:
                    kept = f"; {_size(part):,} bytes are kept in {part}, the same command goes on from there"
                    raise OSError(f"{url}: {error}{kept if _size(part) else ''}") from error
                time.sleep(pause * 2**in_vain)
        found = md5_of(part)
        if found != md5:
            part.unlink()
            raise DataDamaged(
                f"what {url} sent has the MD5 {found}, published is {md5}; it has been deleted. Try again; if it comes "
                "out the same, the address leads somewhere else by now"
            )
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    return path


def _continue(url: str, part: Path) -> None:
    """Append what is missing to ``part``. Raises if the connection breaks; what has come by then is in the file."""
    part.parent.mkdir(parents=True, exist_ok=True)
    there = _size(part)
    headers = {"User-Agent": "tutorial-lib", "Accept-Encoding": "identity"}
    if there:
        headers["Range"] = f"bytes={there}-"
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range") == f"bytes */{there}":
            return  # nothing is missing
        part.unlink()  # longer than the file itself: not a beginning of it
        return _continue(url, part)
    with answer:
        ranged = answer.headers.get("Content-Range", "")
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT and ranged.startswith(f"bytes {there}-")
        start = there if resumed else 0
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length else None
        bar = tqdm(
            total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=not sys.stderr.isatty()
        )
        with part.open("ab" if resumed else "wb", buffering=0) as stream, bar:
            while block := answer.read1(CHUNK):  # whatever has come, so that a kill loses little
                stream.write(block)
                bar.update(len(block))
    if total is not None and _size(part) < total:
        raise ConnectionError(f"the connection broke after {_size(part):,} of {total:,} bytes")


def unzip(archive: Path, folder: Path) -> None:
    """Unpack a checked zip archive; a damaged member is an error."""
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(folder)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
