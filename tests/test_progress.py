"""A bar moves for people and is sparing in files."""

import io
import sys
import time

from tqdm import tqdm
from tqdm.auto import tqdm as tqdm_auto

from tutorial_lib.progress import how_often, say, sparing


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


def test_a_bar_of_a_loop_that_knows_nothing_of_files_is_sparing_where_it_is_asked_to(monkeypatch):
    """As the trainer's: `train` draws into a log what is worth a line."""
    monkeypatch.setattr("tutorial_lib.progress.HALF_A_MINUTE", 0.2)

    def bar_of(seconds: float, stream: io.StringIO) -> str:
        monkeypatch.setattr(sys, "stderr", stream)
        with sparing(), tqdm_auto(total=100, file=stream) as bar:
            for _ in range(100):
                time.sleep(seconds / 100)
                bar.update()
                bar.set_postfix(loss=0.5)
        return stream.getvalue()

    assert bar_of(0.05, io.StringIO()) == ""
    assert 1 <= bar_of(1.0, io.StringIO()).count("\r") <= 12
    assert "100/100" in bar_of(0.05, Terminal())
    stream = io.StringIO()
    for _ in tqdm_auto(range(3), file=stream):
        pass
    assert "3/3" in stream.getvalue(), "afterwards all is as it was"
