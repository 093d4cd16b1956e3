"""Rules that every chapter's notebook keeps, read from the files; nbval runs them."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import code_rules
import nbformat
import notebook_cells
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURE = re.compile(r"plt\.show\(|image_grid\(|explore\(|draw_digit\(")

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def python(cell: nbformat.NotebookNode) -> ast.Module:
    """The code of a cell, without magics, which only the set-up cell has."""
    assert not re.search(r"^\s*[%!]", cell.source, re.MULTILINE), f"a magic outside the set-up cell:\n{cell.source}"
    return ast.parse(cell.source)


def test_stored_form(path):
    """Badge with the notebook's own path, the set-up cell, no outputs, no counts, no foreign metadata."""
    assert notebook_cells.problems_of(path) == []


def test_badge_is_in_the_first_cell_and_opens_the_learners_notebook(path):
    first = read(path).cells[0].source
    link = re.search(r"\[!\[(?P<alt>[^\]]+)\]\(\S+\)\]\((?P<link>\S+)\) \[with solutions\]\((?P<solved>\S+)\)", first)
    assert link and link["alt"].strip(), "the badge needs words for those who do not see it"
    assert link["link"].endswith(f"/blob/main/colab/{path.name}")
    assert link["solved"].endswith(f"/blob/main/colab/{path.stem}_solved.ipynb")


def test_setup_cell_comes_before_all_other_code_and_is_the_only_one(path):
    cells = code_cells(path)
    assert [index for index, cell in enumerate(cells) if "colab-setup" in notebook_cells.tags_of(cell)] == [0]
    assert "torch" not in cells[0].source


@pytest.mark.parametrize("rule", code_rules.RULES, ids=lambda rule: rule.__name__)
def test_code_can_be_read(path, rule):
    assert rule(read(path)) == []


@pytest.mark.parametrize("edition", ["", "_solved"])
@pytest.mark.parametrize(
    "rule", [code_rules.lines_fit_the_page, code_rules.cells_fit_a_screen], ids=lambda r: r.__name__
)
def test_code_can_be_read_in_colab(path, edition, rule):
    """In the learner's notebook and the solved one, which show the cells that the page leaves out."""
    assert rule(read(ROOT / "colab" / f"{path.stem}{edition}.ipynb")) == []


def test_first_picture_within_the_first_three_cells_of_code(path):
    """Not counting the imports."""
    after_imports = 1 + len(code_rules.opening_cells(read(path)))
    after_setup = code_cells(path)[after_imports : after_imports + 2]
    assert any(PICTURE.search(cell.source) for cell in after_setup)


def test_every_picture_has_words_and_a_numbered_caption(path):
    for cell in code_cells(path):
        if not PICTURE.search(cell.source) or "remove-output" in notebook_cells.tags_of(cell):
            continue
        settings = cell.metadata.get("mystnb", {})
        figure = settings.get("figure", {})
        assert figure.get("caption", "").strip() and figure.get("name", "").startswith("fig-"), cell.source
        if not re.search(r"explore\(|draw_digit\(", cell.source):  # these write the words of each frame themselves
            alt = settings.get("image", {}).get("alt", "")
            assert len(alt.split()) >= 6, f"say what is to be seen, not only what it is:\n{cell.source}\n{alt!r}"


def test_names_of_figures_are_unique_in_the_book(path):
    names = [
        cell.metadata["mystnb"]["figure"].get("name")
        for other in NOTEBOOKS
        for cell in code_cells(other)
        if "figure" in cell.metadata.get("mystnb", {})
    ]
    own = [
        c.metadata["mystnb"]["figure"].get("name") for c in code_cells(path) if "figure" in c.metadata.get("mystnb", {})
    ]
    assert own, "a chapter without a figure"
    assert [name for name in own if names.count(name) > 1] == []


def test_imports_only_the_library_and_what_colab_has(path):
    allowed = {"tutorial_lib", "numpy", "torch", "matplotlib"} | set(sys.stdlib_module_names)
    for cell in code_cells(path)[1:]:
        for node in ast.walk(python(cell)):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, "a relative import in a notebook"
                names = [node.module or ""]
            else:
                continue
            for name in names:
                assert name.partition(".")[0] in allowed, f"{name} is imported by:\n{cell.source}"


def test_tags_are_known(path):
    used = {tag for cell in read(path).cells for tag in notebook_cells.tags_of(cell)}
    assert used <= set(notebook_cells.TAGS), used - set(notebook_cells.TAGS)


def test_prose_before_code(path):
    """No more than three cells of code in a row, and the chapter ends with text. Cells without a trace do not count."""
    cells = [
        cell
        for cell in read(path).cells[2:]
        if cell.cell_type != "code" or "remove-cell" not in notebook_cells.tags_of(cell)
    ]
    kinds = "".join("c" if cell.cell_type == "code" else "t" for cell in cells)
    assert "cccc" not in kinds, "four cells of code in a row"
    assert kinds.endswith("t")


def test_headings_do_not_skip_a_level(path):
    levels = []
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            text = re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.MULTILINE | re.DOTALL)
            levels += [len(match[1]) for match in re.finditer(r"^(#+) ", text, re.MULTILINE)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in zip(levels, levels[1:], strict=False)), levels


def test_chapter_is_in_the_plan_and_in_the_table_of_contents(path):
    plan = yaml.safe_load((ROOT / "book" / "chapters.yml").read_text(encoding="utf-8"))["chapters"]
    numbers = {chapter["name"]: chapter["number"] for chapter in plan}
    assert path.stem in numbers
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    assert re.search(rf"- file: notebooks/{path.stem}\n\s+title: [\"']?{numbers[path.stem]} · ", toc)
