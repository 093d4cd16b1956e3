"""Tables that a notebook shows as tables."""

from __future__ import annotations

from xml.etree import ElementTree

from tutorial_lib.results.tables import TableText, markdown_table


def test_a_notebook_gets_the_numbers_of_the_text():
    body = [["energy & more", "91.0", "–"], ["<odd>", "1", "2"]]
    text = TableText(f"digits: AUROC %\n\n{markdown_table(['who', 'a', 'b'], body)}\n\nand that was it")
    tree = ElementTree.fromstring(f"<page>{text._repr_html_()}</page>")
    rows = [["".join(entry.itertext()) for entry in row] for row in tree.iter("tr")]
    assert rows == [["who", "a", "b"], *body]
    assert [p.text for p in tree.iter("p")] == ["digits: AUROC %", "and that was it"]
    assert str(text).startswith("digits")
