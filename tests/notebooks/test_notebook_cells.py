"""The tool that brings notebooks into stored form, on notebooks made up here."""

from __future__ import annotations

import subprocess
import sys

import nbformat
import notebook_cells as cells
import pytest

ADDRESS = "https://github.com/owner/name"
PATH = "notebooks/02_some_chapter.ipynb"


def notebook(*, first: str = "# Title\n\nText.") -> nbformat.NotebookNode:
    code = nbformat.v4.new_code_cell(
        "print(1)", execution_count=3, metadata={"tags": ["check"], "execution": {"iopub.status.busy": "then"}}
    )
    code.outputs = [nbformat.v4.new_output("stream", text="1\n")]
    note = nbformat.v4.new_markdown_cell("For the teacher.", metadata={"tags": ["instructor"]})
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(first), code, note], metadata={"jupytext": {"main_language": "python"}}
    )


def test_badge_and_setup_are_put_in_and_the_rest_is_cleaned():
    stored = cells.stored_form(notebook(), PATH, ADDRESS)
    title, setup, code, note = stored.cells
    assert title.source.splitlines()[0] == "# Title"
    assert f"]({cells.colab_link(PATH, ADDRESS)})" in title.source and title.source.endswith("Text.")
    assert f"git+{ADDRESS}" in setup.source and setup.metadata.tags == ["colab-setup", "remove-cell"]
    assert code.outputs == [] and code.execution_count is None and code.metadata == {"tags": ["check"]}
    assert note.metadata.tags == ["instructor", "remove-cell"], "notes for teachers are not in the book"
    assert set(stored.metadata) == {"kernelspec", "language_info"}
    nbformat.validate(stored)


def test_stored_form_is_a_fixed_point_and_follows_a_new_address():
    once = cells.stored_form(notebook(), PATH, ADDRESS)
    assert cells.stored_form(once, PATH, ADDRESS) == once
    moved = cells.stored_form(once, PATH, "https://github.com/other/place")
    assert len(moved.cells) == len(once.cells)
    assert ADDRESS not in nbformat.writes(moved) and nbformat.writes(moved).count("other/place") == 2


def test_ids_follow_from_the_text_and_are_unique():
    twice = notebook()
    twice.cells += [nbformat.v4.new_code_cell("print(1)"), nbformat.v4.new_code_cell("print(1)")]
    ids = [cell.id for cell in cells.stored_form(twice, PATH, ADDRESS).cells]
    assert len(set(ids)) == len(ids)
    assert ids == [cell.id for cell in cells.stored_form(twice, PATH, ADDRESS).cells]


def test_a_notebook_without_a_title_is_refused():
    with pytest.raises(ValueError, match="must be Markdown and start with '# Title'"):
        cells.stored_form(notebook(first="Text."), PATH, ADDRESS)


def test_setup_cell_does_nothing_outside_colab_and_installs_in_it(tmp_path):
    """Run with a stand-in for IPython's %pip, with and without a stand-in for Colab."""
    magic = "%pip "
    code = cells.setup_source(ADDRESS)
    assert code.count(magic) == 1 and "--no-deps" in code
    program = tmp_path / "setup.py"
    line = next(line for line in code.splitlines() if magic in line)
    program.write_text(code.replace(line.strip(), f"print({line.strip()!r})"), encoding="utf-8")

    def run(folder) -> str:
        return subprocess.run(
            [sys.executable, "-S", program], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True, check=True
        ).stdout

    assert run(tmp_path / "nothing") == ""
    (tmp_path / "colab" / "google" / "colab").mkdir(parents=True)
    (tmp_path / "colab" / "google" / "colab" / "__init__.py").touch()
    assert run(tmp_path / "colab").strip() == f"%pip install --quiet --no-deps git+{ADDRESS}"
