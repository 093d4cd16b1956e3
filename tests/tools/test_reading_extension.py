"""Words of the glossary are found where a sentence uses them, and nowhere else; figures open by themselves."""

from __future__ import annotations

import pytest
import reading_extension
from docutils import nodes


@pytest.mark.parametrize(
    ("word", "sentence", "found"),
    [
        ("Anomaly", "An anomaly is rare.", "anomaly"),
        ("Anomaly", "Anomalys, misspelt, are found with their s.", "Anomalys"),
        ("Control", "It is uncontrolled.", None),
        ("Control", "The controls win.", "controls"),
        ("AUROC", "An AUROC of 90 %.", "AUROC"),
        ("AUROC", "An auroc of 90 %.", None),
        ("Deep ensemble", "A deep ensemble of five.", "deep ensemble"),
        ("Control", "A control-group is another word.", None),
    ],
)
def test_a_word_is_found_as_sentences_write_it(word, sentence, found):
    match = reading_extension.pattern([word]).search(sentence)
    assert (match[0] if match else None) == found


def test_the_longer_word_wins():
    assert reading_extension.pattern(["Score", "Brier score"]).search("Its Brier score is low.")[0] == "Brier score"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("One thing that is said at some length, and to the end of it. Another thing.", None),
        ("A short word. What it means. More.", "A short word. What it means. More."),
        ("About 80 % of\nthem. Then", "About 80 % of them. Then"),
        ("No full stop", "No full stop"),
    ],
)
def test_what_an_entry_says_first(text, said):
    first = text.partition(" Another")[0]
    assert reading_extension.first_sentences(text) == (said or first)


def test_entries_are_read_from_the_glossary():
    term = nodes.term("", "Anomaly", ids=["term-Anomaly"])
    definition = nodes.definition("", nodes.paragraph("", "Rare. Strange."))
    page = nodes.document(None, None)
    page += nodes.definition_list("", nodes.definition_list_item("", term, definition))
    assert reading_extension.definitions(page) == {"Anomaly": ("term-Anomaly", "Rare. Strange.")}
