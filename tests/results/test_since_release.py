"""What has changed since a release: nothing if nothing has, and every kind of change as what it is."""

from __future__ import annotations

import pytest

from tutorial_lib.results.beside import Entry, Ours
from tutorial_lib.results.rows import Row
from tutorial_lib.results.since_release import AT_RELEASE, changes, read_release, write_release
from tutorial_lib.results.slides import Match
from tutorial_lib.results.verdict import CANNOT, NOT_RUN, REPRODUCED, Verdict
from tutorial_lib.storage import Damaged


def entry(what: str, ours: tuple[float, ...] = (), state: str = NOT_RUN, study: str = "cifar10") -> Entry:
    made = {"command": "run", "commit": "a", "versions": "1", "device": "cpu", "seconds": 1.0, "n": 9}
    rows = tuple(
        Row("msp", "svhn", "auroc", value, seed=seed, experiment="tried", study=study, **made)
        for seed, value in enumerate(ours)
    )
    numbers = Ours({row.seed: row.value for row in rows}, rows)
    return Entry({"value": 0.9}, Match(what, "MSP", "AUROC"), Verdict(state), numbers, Ours(), Ours())


def test_a_release_is_kept_and_nothing_has_changed_since(tmp_path):
    found = {"a": [entry("x"), entry("y, “z”", (1 / 3, 2 / 3), REPRODUCED)], "b": [entry("x", state=CANNOT)]}
    path = tmp_path / "at_release.csv"
    assert read_release(path) is None
    write_release("0.2.0", found, path)
    release, before = read_release(path)
    assert release == "0.2.0" and len(before) == 3 and changes(before, found) == []


def test_every_kind_of_change(tmp_path):
    then = {
        "a": [
            entry("run since"),
            entry("moved within noise", (0.80, 0.82), REPRODUCED),
            entry("moved", (0.80, 0.801), REPRODUCED),
            entry("another study", (0.8, 0.8), NOT_RUN, "digits"),
            entry("gone", (0.7,), REPRODUCED),
            entry("same", (0.5,), REPRODUCED),
        ]
    }
    now = {
        "a": [
            entry("run since", (0.9, 0.9), REPRODUCED),
            entry("moved within noise", (0.81, 0.83), REPRODUCED),
            entry("moved", (0.90, 0.901), REPRODUCED),
            entry("another study", (0.8, 0.8), REPRODUCED, "cifar10"),
            entry("same", (0.5,), REPRODUCED),
        ],
        "new table": [entry("printed since")],
    }
    write_release("1", then, tmp_path / "r.csv")
    made = changes(read_release(tmp_path / "r.csv")[1], now)
    by_line = {change.line.partition(" · ")[0]: change for change in made}
    assert [change.state_before != change.state_now for change in made] == [True] * 4 + [False] * 2
    assert "same" not in by_line and len(made) == 6
    assert (by_line["run since"].before, by_line["run since"].now) == (None, pytest.approx(0.9))
    assert by_line["moved within noise"].within_noise and not by_line["moved"].within_noise
    assert not by_line["another study"].within_noise and by_line["another study"].state_before == NOT_RUN
    assert (by_line["gone"].now, by_line["gone"].state_now) == (None, "")
    assert by_line["printed since"].state_before == "" and by_line["printed since"].table == "new table"


@pytest.mark.parametrize("text", ["", "release,table\n1,a\n", "no columns\n"])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(Damaged, match=r"r\.csv"):
        read_release(tmp_path / "r.csv")
    with pytest.raises(ValueError, match="a name"):
        write_release(" ", {}, tmp_path / "s.csv")


def test_the_file_that_comes_with_the_library_can_be_read():
    assert (read_release() is None) == (not AT_RELEASE.is_file())
