"""What would change our mind: each sentence goes when what it asks for has been done, and each command can be typed."""

from __future__ import annotations

import pytest

from tutorial_lib.experiments import introspective_plugin
from tutorial_lib.results.beside import Entry, Ours, entries
from tutorial_lib.results.doubt import commands_for, what_would_change_our_mind
from tutorial_lib.results.slides import Match, PublishedTable, published_tables
from tutorial_lib.results.verdict import NOT_RUN, judge
from tutorial_lib.runs.registry import EXPERIMENTS
from tutorial_lib.studies import load_study

TABLES = published_tables()
ALL = {table.name: entries(table) for table in TABLES}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_table_with_something_open_says_what(table):
    found = ALL[table.name]
    sentences = what_would_change_our_mind(table, found)
    assert sentences and all(sentence.partition(": ")[2] and not sentence.endswith(".") for sentence in sentences)
    assert any(s.startswith("A run") for s in sentences) == any(e.verdict.state == NOT_RUN for e in found)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_what_waits_can_be_run_and_its_network_is_that_of_the_study(table):
    """A number that no command of ours could fill is not "not yet run"."""
    found = [entry for entry in ALL[table.name] if entry.verdict.state == NOT_RUN]
    name = table.experiment or table.name
    for command in commands_for(table, found):
        *_, experiment, _, study, _, seeds = command.split()
        assert experiment == name and study in EXPERIMENTS[name].studies and seeds == "3"
    for entry in found:
        study, network = entry.match.studies[-1], entry.match.columns.get("network")
        if network and name in ("adversarial", "out_of_distribution", "corruption", "calibration"):
            assert network == load_study(study).network
        if name == "introspective_plugin" and study in introspective_plugin.FIRST:
            assert entry.match.columns["protocol"] in introspective_plugin.FIRST[study]


def entry(ours=(), control=(), held_out=(), published=0.9, missing="", stand_in="", point=0.01) -> Entry:
    match = Match("a", "b", "AUROC", missing=missing, studies=("long", "short"), point=point)
    seeds = [Ours(dict(enumerate(values))) for values in (ours, held_out, control)]
    verdict = judge(published, [] if stand_in else list(ours), point, missing)
    return Entry({"value": published}, match, verdict, *seeds, stand_in)


TABLE = PublishedTable("tried", "tried", lambda row: Match("", "", ""))


def said(*found: Entry) -> list[str]:
    return what_would_change_our_mind(TABLE, found)


def test_seeds():
    [sentence] = said(entry([0.94]), entry([0.96]), entry([0.905]), entry([0.97, 0.98, 0.97]))
    assert sentence.startswith("More seeds: 3 of 4 numbers stand on one, and 1 of these misses")
    [sentence] = said(entry([0.5]))
    assert "none of these misses" in sentence
    assert not said(entry([0.97, 0.98, 0.97]))


def test_controls():
    ahead, behind = [0.9, 0.91, 0.92], [0.8, 0.81, 0.82]
    [sentence] = said(entry(ahead, behind), entry(ahead, behind), entry(behind, ahead))
    assert sentence.startswith("A better control: 2 of 3 numbers are ahead")
    [sentence] = said(entry(ahead, behind), entry(behind, ahead))
    assert sentence.startswith("An advantage over the controls: 1 of 2 numbers is ahead")
    assert not [s for s in said(entry([0.9], [0.1])) if "control" in s], "one seed says nothing"


def test_held_out():
    ours, lost = [0.9, 0.91, 0.92], [0.7, 0.71, 0.72]
    [sentence] = said(entry(ours, held_out=lost), entry(ours, held_out=lost))
    assert "held out, 0 of 2 numbers are as good" in sentence and sentence.endswith("not just that kind")
    [sentence] = said(entry(ours, held_out=ours), entry(ours, held_out=lost), entry(ours, held_out=[0.95, 0.96, 0.97]))
    assert "held out, 2 of 3" in sentence and sentence.endswith("is that kind"), "better is as good"


def test_runs_and_what_is_missing():
    waiting = entry(), entry([0.3, 0.4], stand_in="digits")
    [sentence] = said(*waiting)
    assert sentence.startswith(
        "A run: 2 numbers wait for python -m tutorial_lib run tried --study short --seeds 3; 1 of them"
    )
    [sentence] = said(*[entry(missing=what) for what in ("LSUN", "SUN", "SUN", "DTD", "LSUN", "SUN", "a GPU")])
    assert sentence == "What is missing: SUN (3); LSUN (2); DTD (1); and 1 more, named line by line"
