"""The command line: ``python -m tutorial_lib COMMAND``. The commands are the modules of `tutorial_lib.commands`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import NoReturn

from tutorial_lib import __version__
from tutorial_lib.commands import benchmark, calibrate, data, experiments, score, suite, train
from tutorial_lib.storage import Damaged

COMMANDS = (data, train, experiments, suite, benchmark, score, calibrate)


class Parser(argparse.ArgumentParser):
    """Refuses in two lines, the last of which says what is wrong; all options of a command would hide it."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and stop with exit status 2."""
        self.exit(2, f"what there is: {self.prog} --help\n{self.prog}: error: {message}\n")


def parser() -> argparse.ArgumentParser:
    """The whole command line, with every command registered."""
    root = Parser(
        prog="python -m tutorial_lib",
        description="Uncertainty at inference in neural networks: the course's tools.",
        epilog="Exit status: 0 if it did what was asked, 1 if something that it needs is missing, damaged or in the way, "
        "2 if there is no such command, option or name.",
    )
    root.add_argument("--version", action="version", version=f"tutorial_lib {__version__}")
    subparsers = root.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.register(subparsers)
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0: it did what was asked; 1: something that it needs is missing, damaged or in the way; 2: no such command, option
    or name; 130: stopped by Ctrl+C; 141: nobody reads what it prints any more.
    """
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no ± gets a ?
    parsed = parser().parse_args(arguments)
    try:
        status = int(parsed.run(parsed))
        if sys.stdout is not None:  # as with `>&-`
            sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader has seen enough: `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it closes it
        return 141
    except (Damaged, OSError) as error:
        print(_in_one_line(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


def _in_one_line(error: BaseException) -> str:
    """What went wrong and with which file; an error of ours says it itself."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
