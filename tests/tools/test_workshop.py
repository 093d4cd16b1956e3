"""The workshop in a box: what learners get, what teachers get, and a zip that works in an empty folder, offline."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import chapters
import make_workshop
import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

NO_NETWORK = """\
# Imported by Python before anything else: only this machine can be reached.
import socket

connect = socket.socket.connect

def guarded(self, address):
    if self.family == socket.AF_UNIX or str(address[0]) in ("127.0.0.1", "localhost", "::1"):
        return connect(self, address)
    raise OSError(f"no network here, and {address} was asked for")

socket.socket.connect = guarded
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    """The box of the small chapter, made once."""
    from coin import coin_chapter

    folder = tmp_path_factory.mktemp("chapters")
    path = folder / "99_coin.ipynb"
    nbformat.write(coin_chapter(), path)
    zips = make_workshop.make_workshop([path], folder / "made")
    return folder / "made" / "workshop", zips


def sources(path):
    return [cell.source for cell in nbformat.read(path, as_version=4).cells]


def test_learners_get_gaps_and_nothing_that_gives_the_answer_away(box):
    text = "\n".join(sources(box[0] / "student" / "99_coin.ipynb"))
    assert 'raise NotImplementedError("Exercise 1 is not written yet.")' in text
    for absent in ("sum(tosses)", "Teacher's note", "`len` counts tails", "colab-badge", "one in", "SOLUTION"):
        assert absent not in text
    for present in ("Expected:", 'assert heads([1, 1, 1, 0]) == 3, "There are three."', "B. Nothing"):
        assert present in text


def test_teachers_get_everything_with_times(box):
    notebook = nbformat.read(box[0] / "instructor" / "99_coin.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    for present in ("count = sum(tosses)", "> **Teacher's note (5 min).** Toss one.", "`len` counts tails too"):
        assert present in text
    assert "SOLUTION" not in text
    rows = [line for line in notebook.cells[1].source.split("\n") if line.startswith("|")][2:]
    minutes = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in rows}
    assert minutes == {
        "Opening": "5", "Looking": "3", "Exercises": "", "Quiz": "", "**together**": "8",
    }  # fmt: skip
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(output.get("text") == "Right: three.\n" for output in outputs)
    assert not any("papermill" in mime for output in outputs for mime in output.get("data", {}))


def test_text_reads_without_the_book(box):
    text = "\n".join(sources(box[0] / "student" / "99_coin.ipynb"))
    assert "It lands on 0.50, says [Guo et al. (2017)](" in text or "says Guo et al. (2017);" in text
    assert "see Figure 1." in text
    assert "**Figure 1.** A line of heads." in text
    assert "{" not in text.replace("{}", "")


def test_student_notebooks_hold_no_outputs(box):
    notebook = nbformat.read(box[0] / "student" / "99_coin.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)


def test_the_students_zip_is_the_same_without_the_answers(box):
    whole, students = (set(zipfile.ZipFile(path).namelist()) for path in box[1])
    assert students == {name for name in whole if "/instructor/" not in name}
    assert whole != students
    assert {name.split("/")[0] for name in whole} == {"uncertainty-workshop"}


def test_zips_do_not_change_when_nothing_else_does(box, tmp_path):
    again = tmp_path / "again.zip"
    make_workshop.zip_folder(box[0], again, "uncertainty-workshop", leave_out=("instructor",))
    assert again.read_bytes() == box[1][1].read_bytes()


def test_the_readme_names_what_is_in_the_box(box):
    readme = (box[0] / "README.md").read_text(encoding="utf-8")
    (wheel,) = (box[0] / "wheels").glob("*.whl")
    assert f"wheels/{wheel.name}" in readme and "99_coin.ipynb" in readme and "{{" not in readme
    needed = (box[0] / "requirements.txt").read_text(encoding="utf-8").split()
    assert any(line.startswith("torch>=") for line in needed) and any(line.startswith("jupyterlab") for line in needed)


def test_the_wheel_holds_the_whole_library(box):
    """What git has of it, data and all; a suffix that pyproject.toml does not name would be left behind."""
    if not (make_workshop.ROOT / ".git").exists():
        pytest.skip("not a clone, a downloaded folder")
    git = ["git", "-c", "safe.directory=*", "ls-files", "tutorial_lib"]
    listed = subprocess.run(git, cwd=make_workshop.ROOT, capture_output=True, text=True, check=True)
    assert listed.stdout
    (wheel,) = (box[0] / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("tutorial_lib/")}
    assert set(listed.stdout.split()) <= held


def test_a_room_without_a_network(box, tmp_path, monkeypatch):
    """Unzipped in an empty folder, installed from the wheel, run with every way out closed."""
    with zipfile.ZipFile(box[1][0]) as archive:
        archive.extractall(tmp_path)
    room = tmp_path / "uncertainty-workshop"
    library = tmp_path / "library"
    (wheel,) = (room / "wheels").glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", library, wheel]
    subprocess.run(install, check=True, capture_output=True)
    (library / "sitecustomize.py").write_text(NO_NETWORK, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(library)}

    where = subprocess.run(
        [sys.executable, "-c", "import tutorial_lib; print(tutorial_lib.__file__)"],
        cwd=room, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(library))
    closed = subprocess.run(
        [sys.executable, "-c", "import socket; socket.create_connection(('192.0.2.1', 80), 1)"],
        cwd=room, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert "no network here" in closed.stderr

    ready = subprocess.run(
        [sys.executable, "check_machine.py"], cwd=room, env=environment, capture_output=True, text=True
    )
    lines = ready.stdout.splitlines()
    missing = [line.split()[1] for line in lines if line.startswith("MISSING")]
    assert missing in ([], ["jupyterlab"]), ready.stdout + ready.stderr  # the tests run without JupyterLab
    assert lines[-1].startswith("Not ready" if missing else "This machine is ready")

    student = nbformat.read(room / "student" / "99_coin.ipynb", as_version=4)
    client = NotebookClient(student, timeout=300, allow_errors=True, resources={"metadata": {"path": room / "student"}})
    client.execute(env=environment)
    errors = [output for cell in student.cells for output in cell.get("outputs", []) if output.output_type == "error"]
    assert [(error.ename, error.evalue) for error in errors] == [
        ("NotImplementedError", "Exercise 1 is not written yet.")
    ]
    taught = nbformat.read(room / "instructor" / "99_coin.ipynb", as_version=4)
    NotebookClient(taught, timeout=300, resources={"metadata": {"path": room / "instructor"}}).execute(env=environment)


def test_a_failing_chapter_makes_no_box(tmp_path):
    from coin import code, coin_chapter

    chapter = coin_chapter()
    chapter.cells.append(code("1 / 0"))
    nbformat.write(chapter, tmp_path / "99_coin.ipynb")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        make_workshop.make_workshop([tmp_path / "99_coin.ipynb"], tmp_path / "made")


def test_the_script_says_what_it_lacks(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(chapters, "chapter_paths", lambda: [])
    assert make_workshop.main(["--target", str(tmp_path / "made")]) == 1
    assert "no chapter" in capsys.readouterr().err
