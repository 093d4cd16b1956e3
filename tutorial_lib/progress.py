"""Bars and what is said beside them: people at a terminal see a bar move, and a file keeps every drawing of it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

__all__ = ["how_often", "say", "sparing"]

HALF_A_MINUTE = 30.0


def how_often() -> dict[str, float]:
    """Options for `tqdm`: none at a terminal; elsewhere a line every half minute, if it takes as long."""
    if sys.stderr.isatty():
        return {}
    return {"mininterval": HALF_A_MINUTE, "maxinterval": HALF_A_MINUTE, "delay": HALF_A_MINUTE}


@contextmanager
def sparing() -> Iterator[None]:
    """Inside, every bar is drawn as `how_often` says: for calls into a loop that has a bar of its own."""
    if not how_often():
        yield
        return
    changed = {
        "__init__": functools.partialmethod(tqdm.__init__, **how_often()),
        "set_postfix": functools.partialmethod(tqdm.set_postfix, refresh=False),  # what is new waits for its line
    }
    plain = {name: getattr(tqdm, name) for name in changed}
    try:
        for name, method in changed.items():
            setattr(tqdm, name, method)
        yield
    finally:
        for name, method in plain.items():
            setattr(tqdm, name, method)


def say(text: str) -> None:
    """A line on standard error, which a bar at a terminal makes room for."""
    if sys.stderr.isatty():
        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)
