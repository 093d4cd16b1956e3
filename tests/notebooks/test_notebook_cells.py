"""The tool that brings notebooks into stored form, on notebooks made up here."""

from __future__ import annotations

import os
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
    learner = "https://colab.research.google.com/github/owner/name/blob/main/colab/02_some_chapter"
    assert f"]({learner}.ipynb) [with solutions]({learner}_solved.ipynb)" in title.source
    assert title.source.endswith("Text.")
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
    assert ADDRESS not in nbformat.writes(moved) and nbformat.writes(moved).count("other/place") == 3


def test_ids_follow_from_the_text_and_are_unique():
    twice = notebook()
    twice.cells += [nbformat.v4.new_code_cell("print(1)"), nbformat.v4.new_code_cell("print(1)")]
    ids = [cell.id for cell in cells.stored_form(twice, PATH, ADDRESS).cells]
    assert len(set(ids)) == len(ids)
    assert ids == [cell.id for cell in cells.stored_form(twice, PATH, ADDRESS).cells]


def test_a_notebook_without_a_title_is_refused():
    with pytest.raises(ValueError, match="must be Markdown and start with '# Title'"):
        cells.stored_form(notebook(first="Text."), PATH, ADDRESS)


def test_setup_cell_installs_in_colab_and_is_silent_where_the_library_is(tmp_path):
    """Run with stand-ins for pip, for Colab and for the library; it leaves no name behind."""
    code = cells.setup_source(ADDRESS)
    assert "torch" not in code
    program = tmp_path / "setup.py"
    program.write_text(
        f"before = set(globals())\n{code}\nprint(set(globals()) - before - {{'before'}})", encoding="utf-8"
    )

    def run(*folders: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(str(tmp_path / folder) for folder in folders)
        return subprocess.run(
            [sys.executable, "-S", program], env={"PYTHONPATH": path}, capture_output=True, text=True, cwd=tmp_path
        )

    pip = "import pathlib, sys\npathlib.Path('asked').write_text(' '.join(sys.argv[1:]))\n"
    files = {
        "colab/google/colab/__init__.py": "",
        "library/tutorial_lib.py": "",
        "pip/pip/__init__.py": "",
        "pip/pip/__main__.py": pip,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    at_home = run("library", "pip")
    assert at_home.stdout == "set()\n" and at_home.stderr == "" and not (tmp_path / "asked").exists()
    in_colab = run("colab", "library", "pip")
    assert in_colab.stdout == "set()\n" and in_colab.stderr == ""
    assert (tmp_path / "asked").read_text() == f"install --quiet --no-input --no-deps git+{ADDRESS}"
    for place in (("colab", "pip"), ("pip",)):  # Colab without the address, a kernel without the library
        failed = run(*place)
        assert failed.returncode == 1 and "NotInstalled" in failed.stderr
        assert ADDRESS in failed.stderr and "pip install" in failed.stderr
