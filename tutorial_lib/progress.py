"""How often a bar is drawn: people at a terminal see it move, and a file keeps every drawing of it."""

from __future__ import annotations

import sys

__all__ = ["how_often"]

HALF_A_MINUTE = 30.0


def how_often() -> dict[str, float]:
    """Options for `tqdm`: none at a terminal or in a notebook; elsewhere a line every half minute, if it takes as long."""
    if sys.stderr.isatty() or "ipykernel" in sys.modules:
        return {}
    return {"mininterval": HALF_A_MINUTE, "maxinterval": HALF_A_MINUTE, "delay": HALF_A_MINUTE}
