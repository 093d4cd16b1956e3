"""What would change our mind about a published table: said from its numbers, before anybody asks.

Each sentence names something that could be done and that this table would look different after: more seeds, a run, data that
are missing, a control or a held-out column that comes out the other way. They are written from the rows, so that a sentence
goes as soon as what it asks for has been done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tutorial_lib.results.beside import Entry
from tutorial_lib.results.slides import PublishedTable
from tutorial_lib.results.verdict import CANNOT, NOT_REPRODUCED, NOT_RUN, WIDEST, advantage

__all__ = ["commands_for", "what_would_change_our_mind"]


def what_would_change_our_mind(table: PublishedTable, found: Sequence[Entry]) -> list[str]:
    """Sentences, the one that is nearest at hand first; empty for a table about which nothing is open.

    Args:
        table: a published table.
        found: its numbers, as `tutorial_lib.results.beside.entries` gives them.
    """
    made = (_seeds(found), _beside_controls(found), _held_out(found), _runs(table, found), _missing(found))
    return [sentence for sentence in made if sentence]


def commands_for(table: PublishedTable, found: Sequence[Entry]) -> list[str]:
    """Commands that would fill the numbers that have not been run, each once; the quicker study where there are two."""
    waiting = [entry for entry in found if entry.verdict.state == NOT_RUN and entry.match.studies]
    studies = dict.fromkeys(entry.match.studies[-1] for entry in waiting)
    name = table.experiment or table.name
    return [f"python -m tutorial_lib run {name} --study {study} --seeds 3" for study in studies]


def _seeds(found: Sequence[Entry]) -> str:
    judged = [entry for entry in found if entry.verdict.difference is not None]
    single = [entry for entry in judged if len(entry.ours.by_seed) == 1]
    if not single:
        return ""
    near = [
        entry
        for entry in single
        if entry.verdict.state == NOT_REPRODUCED
        and abs(float(entry.verdict.difference or 0)) <= WIDEST * entry.match.point
    ]
    return (
        f"More seeds: {len(single)} of {len(judged)} numbers stand on one, and {len(near) or 'none'} of these "
        f"{'misses' if len(near) < 2 else 'miss'} the published one by no more than {WIDEST:g} points, which the luck of a "
        "seed can be"
    )


def _beside_controls(found: Sequence[Entry]) -> str:
    told = [beats for entry in found if (beats := entry.beats_controls) is not None]
    if not told:
        return ""
    beaten = sum(told)
    if 2 * beaten > len(told):
        return (
            f"A better control: {beaten} of {len(told)} numbers are ahead of the best that we thought of; one that catches up "
            "would take the gain away"
        )
    return (
        f"An advantage over the controls: {_are(beaten, f'of {len(told)} numbers')} ahead of the best control by more than seed "
        "noise; if most were, we would say that the method adds something"
    )


def _held_out(found: Sequence[Entry]) -> str:
    pairs = [(entry.ours.by_seed, entry.held_out.by_seed) for entry in found if entry.ours and entry.held_out]
    told = [over for ours, other in pairs if (over := advantage(ours, other)) and over[1] is not None]
    if not told:
        return ""
    kept = sum(difference <= float(noise or 0) for difference, noise in told)
    return (
        f"Other challenging data: held out, {kept} of {len(told)} numbers are as good as with the tested kind, within seed noise; "
        f"if {'fewer' if 2 * kept > len(told) else 'most'} were, we would say that what is learned is "
        f"{'that kind' if 2 * kept > len(told) else 'not just that kind'}"
    )


def _runs(table: PublishedTable, found: Sequence[Entry]) -> str:
    commands = commands_for(table, found)
    if not commands:
        return ""
    waiting = sum(entry.verdict.state == NOT_RUN for entry in found)
    shown = sum(entry.verdict.state == NOT_RUN and bool(entry.stand_in) for entry in found)
    elsewhere = f"; {shown} of them are shown on another study, where they need not be the same" if shown else ""
    return f"A run: {waiting} numbers wait for {', '.join(commands)}{elsewhere}"


def _missing(found: Sequence[Entry]) -> str:
    reasons = [entry.match.missing for entry in found if entry.verdict.state == CANNOT and entry.match.missing]
    if not reasons:
        return ""
    things = Counter(reasons).most_common()  # equally frequent ones in the order of the table, whatever their hashes
    listed = "; ".join(f"{thing} ({count})" for thing, count in things[:3])
    more = f"; and {len(things) - 3} more, named line by line" if len(things) > 3 else ""
    return f"What is missing: {listed}{more}"


def _are(count: int, of: str) -> str:
    """``none of 5 is``, ``1 of 5 is``, ``3 of 5 are``."""
    return f"{count or 'none'} {of} {'is' if count < 2 else 'are'}"
