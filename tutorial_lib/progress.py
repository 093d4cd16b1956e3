"""Bars and what is said beside them: people at a terminal see a bar move, and a file keeps every drawing of it."""

from __future__ import annotations

import sys

from tqdm import tqdm

__all__ = ["how_often", "say"]

HALF_A_MINUTE = 30.0


def how_often() -> dict[str, float]:
    """Options for `tqdm`: none at a terminal; elsewhere a line every half minute, if it takes as long."""
    if sys.stderr.isatty():
        return {}
    return {"mininterval": HALF_A_MINUTE, "maxinterval": HALF_A_MINUTE, "delay": HALF_A_MINUTE}


def say(text: str) -> None:
    """A line on standard error, which a bar at a terminal makes room for."""
    if sys.stderr.isatty():
        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)
