"""Where data lie on this machine, and whether they are what was published.

The folder is the environment variable ``TUTORIAL_DATA``; without it, ``data`` inside the cache folder
(``TUTORIAL_CACHE``, see `tutorial_lib.storage.cache_folder`). Inside it, data sets lie as torchvision lays them out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tutorial_lib.data.errors import DataDamaged
from tutorial_lib.storage import cache_folder, expanded, md5

__all__ = ["DataFile", "cache_folder", "data_folder", "data_folder_said", "md5_of"]


def data_folder() -> Path:
    """``TUTORIAL_DATA``, default ``data`` in the cache folder: absolute, not necessarily there."""
    chosen = os.environ.get("TUTORIAL_DATA")
    return expanded(chosen) if chosen else cache_folder() / "data"


def data_folder_said() -> str:
    """The data folder as an error message names it, with the reason why it is this one."""
    chosen = os.environ.get("TUTORIAL_DATA")
    return f"{data_folder()} (TUTORIAL_DATA{'' if chosen else ' is not set'})"


_known_sums: dict[tuple[str, int, int], str] = {}


def md5_of(path: Path) -> str:
    """MD5 of a file's content, remembered in this process while the file's size and time of change stay the same."""
    stat = path.stat()
    key = (str(path.absolute()), stat.st_size, stat.st_mtime_ns)
    if key not in _known_sums:
        _known_sums[key] = md5(path)
    return _known_sums[key]


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Attributes:
        path: relative to the data folder.
        sums: MD5 of every content that is accepted, each with what a reader must know about it (empty for the
            original). No entry at all means that nobody published a sum: the file is only required to be there.
    """

    path: str
    sums: Mapping[str, str] = field(default_factory=dict)

    def exists(self) -> bool:
        return (data_folder() / self.path).exists()

    def verified(self) -> tuple[Path, str]:
        """The file's path and the note on its content.

        Raises:
            DataDamaged: the content is not one of those accepted.
        """
        path = data_folder() / self.path
        if not self.sums:
            return path, ""
        found = md5_of(path)
        if found not in self.sums:
            expected = " or ".join(self.sums)
            raise DataDamaged(
                f"{path} is damaged: its MD5 is {found}, expected {expected} ({path.stat().st_size:,} bytes). "
                "Delete it and download or unpack it again."
            )
        return path, self.sums[found]
