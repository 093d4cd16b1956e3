"""MyST text for Jupyter."""

from __future__ import annotations

import pytest
from plain_markdown import Known, citations, plain

KNOWN = Known(
    citations={"a": ("Guo et al.", "2017", "https://x.org"), "b": ("Lee and Kim", "2023", "")},
    values={"ece": "0.1234", "word": "roof"},
    figures={"fig-one": "3"},
    titles={"11_calibration": "Calibration"},
)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("{cite:t}`a` found", "[Guo et al. (2017)](https://x.org) found"),
        ("found {cite:p}`a,b`.", "found ([Guo et al., 2017](https://x.org); Lee and Kim, 2023)."),
        ("ECE {glue:text}`ece:.2f`, a {glue:text}`word`", "ECE 0.12, a roof"),
        (
            "see {numref}`fig-one` and {numref}`the picture (Fig. %s) <fig-one>`",
            "see Figure 3 and the picture (Fig. 3)",
        ),
        ("{doc}`11_calibration`, {doc}`there <../notebooks/11_calibration>`", "Calibration, there"),
        ("a {term}`logit`, two {term}`logits <logit>`", "a logit, two logits"),
        ("`{cite:t}` in a code span", "`{cite:t}` in a code span"),
        (":::{note}\n:class: tip\nMind.\n:::\nafter", "**Note.**\nMind.\n\nafter"),
        ("```{admonition} Look\nhere\n```", "**Look.**\nhere\n"),
        ("```python\nx = {term}`y`\n```", "```python\nx = {term}`y`\n```"),
        ("{math}`x^2`", "$x^2$"),
    ],
)
def test_roles_become_words(source, wanted):
    assert plain(source, KNOWN) == wanted


def test_an_unknown_work_or_value_is_an_error():
    with pytest.raises(KeyError, match="not in the bibliography"):
        plain("{cite:t}`nobody1999`", KNOWN)
    with pytest.raises(KeyError, match="nothing"):
        plain("{glue:text}`nothing:.2f`", KNOWN)


def test_citations_are_read_from_bibtex(tmp_path):
    file = tmp_path / "works.bib"
    file.write_text(
        r"""
@article{one, author={van der G{\'e}ron, A.}, title={T}, year={2001}, journal={J}, doi={10.1/x}}
@article{two, author={Lee, A. and Kim, B.}, title={T}, year={2002}, journal={J}, eprint={1234.5678}}
@article{three, author={Guo, C. and Pleiss, G. and Sun, Y.}, title={T}, year={2003}, journal={J}}
""",
        encoding="utf-8",
    )
    assert citations(file) == {
        "one": ("van der Géron", "2001", "https://doi.org/10.1/x"),
        "two": ("Lee and Kim", "2002", "https://arxiv.org/abs/1234.5678"),
        "three": ("Guo et al.", "2003", ""),
    }
