"""What can go wrong with a data set on disk."""

from __future__ import annotations

from tutorial_lib.storage import Damaged


class DataUnavailable(FileNotFoundError):
    """A data set is not on this machine; the message says what is missing, where it was sought and how to get it."""


class DataDamaged(Damaged):
    """A file is there but is not what was published; the message names it and says what to do."""
