"""A bar moves for people and is sparing in files."""

import io
import sys

from tqdm import tqdm

from tutorial_lib.progress import how_often, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(stream: io.StringIO, monkeypatch) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    for _ in tqdm(range(3), file=stream, **how_often()):
        pass
    return stream.getvalue()


def test_a_terminal_sees_the_bar_at_once_and_a_file_nothing_of_what_is_short(monkeypatch):
    assert "3/3" in drawn(Terminal(), monkeypatch)
    assert drawn(io.StringIO(), monkeypatch) == ""


def test_what_is_said_has_a_line_of_its_own_also_beside_a_bar(monkeypatch):
    for stream in (Terminal(), io.StringIO()):
        monkeypatch.setattr(sys, "stderr", stream)
        with tqdm(total=2, file=stream, **how_often()) as bar:
            bar.update(1)
            say("an image is odd")
        assert "an image is odd" in stream.getvalue().replace("\r", "\n").splitlines()
