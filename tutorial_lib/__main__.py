"""The command line: ``python -m tutorial_lib COMMAND``.

A command lives beside what it commands. Each module named in ``COMMANDS`` has a function
``register(subparsers)`` that adds its sub-parsers and sets ``run``, a function of the parsed arguments that
returns the exit status, as their default. It imports what is slow inside ``run``.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from tutorial_lib import __version__
from tutorial_lib.data.errors import DataDamaged, DataUnavailable
from tutorial_lib.training.checkpoints import CheckpointError

COMMANDS: tuple[str, ...] = (
    "tutorial_lib.data.command",
    "tutorial_lib.training.command",
    "tutorial_lib.runs.command",
    "tutorial_lib.benchmarks.command",
)


def parser() -> argparse.ArgumentParser:
    """The whole command line, with every command registered."""
    root = argparse.ArgumentParser(
        prog="python -m tutorial_lib", description="Uncertainty at inference in neural networks: the course's tools."
    )
    root.add_argument("--version", action="version", version=f"tutorial_lib {__version__}")
    subparsers = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(name).register(subparsers)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0: it did what was asked; 1: something that it needs is missing or damaged; 2: no such command or option.
    """
    parsed = parser().parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except (DataUnavailable, DataDamaged, CheckpointError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
